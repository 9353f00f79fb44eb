"""The text-dependent mode: texts by file names, takes, lone takes, noise of pairs, and the whole way."""
import json
import shutil
import unicodedata

import librosa
import numpy as np
import pytest
import soundfile
import voices
from conftest import TRAIN_FLAGS

import audio
import conditions
import configuration
import data_preprocess
import embedding
import features
import model
import protocol
import record
import service
import test as evaluate
import utils
from common import InputError

FLAGS = ["--tdsv", "True", "--tdsv_text", "all"]


@pytest.fixture(scope="session")
def phrases(tmp_path_factory):
    """6 voices in train/, 3 in test/, that say two texts of about a second, 4 times each."""
    folder = tmp_path_factory.mktemp("phrases")
    voices.write_texts(folder / "train", range(6), 4, 2, seconds=1.0)
    voices.write_texts(folder / "test", range(6, 9), 4, 2, seconds=1.0)
    return folder


@pytest.fixture(scope="session")
def takes(phrases, tmp_path_factory):
    """Their features, of all texts, in train/ and test/."""
    folder = tmp_path_factory.mktemp("takes")
    assert preprocess(phrases, folder, *FLAGS) == 0
    return folder


@pytest.fixture(scope="session")
def trained_on_takes(takes, tmp_path_factory):
    """A text-dependent model of 8 iterations."""
    folder = tmp_path_factory.mktemp("text_dependent") / "model"
    assert model.main(["--train", "--train_path", str(takes / "train"), "--model_path", str(folder), *TRAIN_FLAGS,
                       "--iteration", "8"]) == 0
    return folder


def preprocess(corpus, folder, *argv):
    return data_preprocess.main(["--raw_path", str(corpus), "--train_path", str(folder / "train"), "--test_path",
                                 str(folder / "test"), "--jobs", "1", *map(str, argv)])


# ---- verdicts --------------------------------------------------------------------------------------------------

def test_a_verdict_is_on_the_text_that_was_typed(phrases, trained_on_takes, tmp_path, capsys, fails):
    """Of people who say two texts as if there were but the one."""
    flags = ["--model_path", str(trained_on_takes), "--verify", "True", "--min_speech", "0.2", "--json", "True",
             "--threshold", "0.5"]
    for part in ("test/voice06", "test/voice07"):
        for path in (phrases / part).glob("text1*"):
            (tmp_path / part).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / part)
    found = []
    for folder, more in ((phrases, ["--tdsv_text", "text1"]), (tmp_path, [])):
        model.main([*flags, "--enroll_path", str(folder / "test" / "voice06"), "--verify_path",
                    str(folder / "test" / "voice07"), *more])
        found.append(json.loads(capsys.readouterr().out)["verdicts"])
    assert len(found[0]) == 4
    assert found[0] == found[1]
    more = ["--enroll_path", phrases / "test" / "voice06", "--verify_path", phrases / "test" / "voice07", "--tdsv_text"]
    assert "voice06: no recording says --tdsv_text other" in fails(model.main, *flags, *more, "other")
    shutil.copy(next((phrases / "test" / "voice06").glob("text0*")), tmp_path / "test" / "voice07")
    more[3] = tmp_path / "test" / "voice07" / next((phrases / "test" / "voice06").glob("text0*")).name
    assert "no recording there says --tdsv_text text1" in fails(model.main, *flags, *more, "text1")
    assert "--tdsv_text is all: a verdict is on one text" in fails(model.main, *flags, *more, "all")
    take = next((phrases / "test" / "voice06").glob("text1*"))
    own = ["--model_path", str(trained_on_takes), "--input", str(take),
           "--enroll_path", str(tmp_path / "enrolled"), "--verify_path", str(tmp_path / "probes"), "--min_speech",
           "0.2", "--tdsv_text", "text1"]
    assert record.main([*own, "--speaker", "anna"]) == 0         # record.py's names say no text, its features do
    assert record.main([*own, "--threshold", "0.5", "--verify", "True"]) == 0
    assert model.main([*flags, *own[4:8], "--tdsv_text", "text1"]) == 0
    assert capsys.readouterr().out.count("Same person") == 2


# ---- texts ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("file", "said", "not_said", "text"), [
    ("001.wav", "001", "01", "001"), ("p225/p225_001.wav", "001", "p22", "001"), ("001-2.flac", "001", "00", "001"),
    ("one/backward_03.ogg", "backward", "back", "backward"), ("open_door_1.wav", "open_door", "door", "open"),
    ("p225_001_mic1.flac", "001", "mic1", "001"), ("p225_001_mic2.flac", "001", "mic", "001"),
    ("a.b_001.wav", "a.b", "axb", "a.b"), ("o\u0308ffne_0.wav", "\u00f6ffne", "o", "\u00f6ffne")])
def test_a_name_tells_the_text(file, said, not_said, text):
    assert features.says(file, said)
    assert not features.says(file, not_said)
    assert features.text_of(file, "p225") == text


@pytest.mark.parametrize("name", ["anna_b", "anna-b", "jos\u00e9", "a_b_c"])
def test_the_text_stands_behind_any_name(name):
    for file in (f"{name}_001.wav", f"{name}-001.wav", unicodedata.normalize("NFD", f"{name}_001.wav")):
        assert features.text_of(file, name) == "001"


def test_takes_of_one_text_alone_are_kept_and_the_others_counted(phrases, tmp_path, capsys):
    assert preprocess(phrases, tmp_path, "--tdsv", "True", "--tdsv_text", "text1") == 0
    assert len(features.open_features(tmp_path / "train" / "voice00.npy")) == 4
    utterances = features.read_record(tmp_path / "train" / "voice00.npy")[1]
    assert [utterance.file for utterance in utterances] == [f"text1_0{take}.wav" for take in range(4)]
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if "another text" in line]
    assert row[-2:] == ["24", "12"]                          # 6 and 3 speakers say text0 four times


def test_a_take_is_the_last_frames_of_its_speech(phrases, takes):
    rows = features.open_features(takes / "train" / "voice03.npy")
    assert rows.shape == (8, 40, 80)
    _, utterances = features.read_record(takes / "train" / "voice03.npy")
    assert [utterance.text for utterance in utterances] == ["text0"] * 4 + ["text1"] * 4
    wave = audio.load_audio(phrases / "train" / "voice03" / utterances[5].file, 8000)
    speech = audio.voiced(wave - wave.mean(), sr=8000, window=0.025, hop=0.01, top_db=30, floor_db=3)
    speech = speech * 10 ** (-26 / 20) / np.sqrt(np.mean(speech**2))
    mel = librosa.feature.melspectrogram(y=speech, sr=8000, n_fft=512, win_length=200, hop_length=80, n_mels=40,
                                         pad_mode="constant")
    np.testing.assert_allclose(rows[5], np.resize(np.log10(mel + 1e-6).T[-80:], (80, 40)).T, atol=1e-4)


def test_a_take_is_shorter_than_an_utterance(phrases):
    wave = audio.load_audio(phrases / "test" / "voice06" / "text0_00.wav", 8000)
    speech = audio.voiced(wave, sr=8000, window=0.025, hop=0.01, top_db=30, floor_db=3)[:2400]         # 0.3 s
    free, known = (configuration.get_config(argv) for argv in ([], FLAGS))
    assert audio.segments(speech, free).shape == (0, 40, 180)
    assert audio.segments(speech, known).shape == (1, 40, 80)


def test_each_batch_is_of_one_text(takes):
    speakers, _ = features.load_features(takes / "train")
    speakers, notes = features.protocol_speakers(speakers, tdsv=True)
    assert notes == []
    assert len(speakers) == 12
    assert features.people(speakers) == [f"voice{number:02}" for number in range(6)]
    pools = utils.speaker_pools(speakers, 4, 3)
    rng, seen = np.random.default_rng(0), set()
    for _ in range(40):
        texts = {speakers[place].text for place in utils.draw_speakers(pools, 4, rng)}
        assert len(texts) == 1
        seen |= texts
    assert seen == {"text0", "text1"}
    with pytest.raises(InputError, match="--speaker_number is 7: no text"):
        utils.speaker_pools(speakers, 7, 3)


def test_validation_speakers_validate_with_all_their_texts(takes):
    speakers, _ = features.protocol_speakers(features.load_features(takes / "train")[0], tdsv=True)
    training, validation = utils.split_validation(speakers, 3, ratio=0.5, rng=np.random.default_rng(0))
    assert len(validation) == 6
    assert not set(features.people(training)) & set(features.people(validation))


# ---- lone takes -------------------------------------------------------------------------------------------------

def test_noised_copies_of_a_lone_take_are_utterances_and_that_is_said(phrases, trained_on_takes, tmp_path, capsys):
    corpus = tmp_path / "corpus"
    for path in phrases.glob("*/*/text0_00.wav"):
        (corpus / path.parent.relative_to(phrases)).mkdir(parents=True)
        shutil.copy(path, corpus / path.relative_to(phrases))
    assert preprocess(corpus, tmp_path, "--tdsv", "True", "--noise_filenum", 5) == 0
    speakers, number = features.lone_takes(features.load_features(tmp_path / "test")[0])
    assert number == 3
    assert [len(speaker.voiced) for speaker in speakers] == [6, 6, 6]
    assert {utterance.file[:17] for utterance in speakers[0].utterances[1:]} == {
        f"text0_00.wav ({place}: " for place in range(1, 6)}
    capsys.readouterr()
    assert evaluate.main(["--model_path", str(trained_on_takes), "--test_path", str(tmp_path / "test"), "--M", "3",
                          "--report_path", str(tmp_path / "report")]) == 0
    assert "3 speakers have one take each" in capsys.readouterr().out
    figures = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert any("share a take" in note for note in figures["notes"])
    assert model.main(["--train", "--train_path", str(tmp_path / "train"), "--model_path", str(tmp_path / "model"),
                       *TRAIN_FLAGS, "--iteration", "2"]) == 0


def take_over(phrases, raw, speaker, *names):
    """Lay some takes of one speaker, such as test/voice06, into a corpus with a train and a test part."""
    for part in ("train", "test"):
        (raw / part).mkdir(parents=True)
    (raw / speaker).mkdir()
    for name in names:
        shutil.copy(phrases / speaker / name, raw / speaker)


def test_a_lone_take_leaves_the_others_without_copies(phrases, tmp_path):
    take_over(phrases, tmp_path / "raw", "test/voice06", "text0_00.wav", "text0_01.wav", "text1_00.wav")
    for _ in range(2):
        assert preprocess(tmp_path / "raw", tmp_path, *FLAGS, "--noise_filenum", 4) == 0
        (speaker,) = features.load_features(tmp_path / "test")[0]
        assert {utterance.file: len(utterance.copies) for utterance in speaker.utterances} == {
            "text0_00.wav": 0, "text0_01.wav": 0, "text1_00.wav": 4}


def test_copies_of_all_takes_may_follow_those_of_a_lone_one(phrases, tmp_path):
    take_over(phrases, tmp_path / "raw", "train/voice00", "text0_00.wav", "text0_01.wav", "text1_00.wav")
    for copies, expected in ((0, [0, 0, 4]), (4, [4, 4, 4])):
        assert preprocess(tmp_path / "raw", tmp_path, *FLAGS, "--noise_filenum", 4, "--copies", copies) == 0
        (speaker,) = features.load_features(tmp_path / "train")[0]
        assert [len(utterance.copies) for utterance in speaker.utterances] == expected


def test_a_text_that_nobody_says_binds_no_folder(phrases, tmp_path, fails):
    flags = ["--raw_path", phrases, "--train_path", tmp_path / "train", "--test_path", tmp_path / "test", "--tdsv",
             "True", "--tdsv_text"]
    assert "that says --tdsv_text nope" in fails(data_preprocess.main, *flags, "nope")
    assert data_preprocess.main([*map(str, flags), "text1"]) == 0


def test_a_take_that_cannot_be_used_is_none(phrases, tmp_path):
    """Training and test, which count those with speech, find the copies of the other one."""
    take_over(phrases, tmp_path / "raw", "test/voice06", "text0_00.wav")
    soundfile.write(tmp_path / "raw" / "test" / "voice06" / "text0_01.wav", np.zeros(8000), 8000)
    for pieces in (3, 5):                                   # a later run adds what is missing
        assert preprocess(tmp_path / "raw", tmp_path, "--tdsv", "True", "--noise_filenum", pieces) == 0
        (speaker,), number = features.lone_takes(features.load_features(tmp_path / "test")[0])
        assert (number, len(speaker.voiced)) == (1, 1 + pieces)
    before = (tmp_path / "test" / "voice06.npy").read_bytes()
    assert preprocess(tmp_path / "raw", tmp_path) == 0      # or, without a flag, nothing
    assert (tmp_path / "test" / "voice06.npy").read_bytes() == before


# ---- noise ------------------------------------------------------------------------------------------------------

def test_noise_is_the_difference_of_pairs(tmp_path, phrases):
    rng, noises = np.random.default_rng(0), []
    for number in range(3):
        clean, noise = rng.uniform(-0.4, 0.4, 8000), rng.uniform(-0.1, 0.1, 8000)
        for name, wave in (("clean", clean), ("noisy", clean + noise)):
            (tmp_path / name).mkdir(exist_ok=True)
            soundfile.write(tmp_path / name / f"{number}.wav", wave, 8000, "FLOAT")
        noises.append(noise)
    pair = ["--clean_path", tmp_path / "clean", "--noisy_path", tmp_path / "noisy", "--noise_path", tmp_path / "noise"]
    assert preprocess(phrases, tmp_path / "a", *pair, "--noise_filenum", 9, "--tdsv", "True", "--tdsv_text",
                      "text0") == 0
    assert preprocess(phrases, tmp_path / "a", *pair, "--noise_filenum", 4, "--tdsv", "True", "--tdsv_text", "text0",
                      "--copies", 2) == 0
    pieces = [soundfile.read(path)[0] for path in sorted((tmp_path / "noise").glob("*.wav"))]
    assert [len(piece) for piece in pieces] == [6000] * 4
    made = np.concatenate(pieces).reshape(3, 8000)
    for noise in noises:
        assert min(np.abs(made - noise).max(axis=1)) < 1e-6
    heard = [copy.condition for path in (tmp_path / "a" / "train").glob("*.npy")
             for utterance in features.read_record(path)[1] for copy in utterance.copies]
    assert len(heard) == 48
    assert any("recorded noise" in condition for condition in heard)


def test_pairs_that_are_none_are_named(tmp_path):
    for name, length in (("clean", 8000), ("noisy", 8001)):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "a.wav", np.zeros(length), 8000)
    cut = {"target": tmp_path / "noise", "pieces": 2, "sr": 8000}
    with pytest.raises(InputError, match=r"a.wav has 8001 samples and .*a.wav 8000: they are not aligned"):
        conditions.cut_noise(tmp_path / "clean", tmp_path / "noisy", **cut)
    (tmp_path / "noisy" / "a.wav").rename(tmp_path / "noisy" / "b.wav")
    with pytest.raises(InputError, match=r"b.wav has no clean counterpart"):
        conditions.cut_noise(tmp_path / "clean", tmp_path / "noisy", **cut)
    with pytest.raises(InputError, match=r"--clean_path is .*: there is no such folder"):
        conditions.cut_noise(tmp_path / "nowhere", tmp_path / "noisy", **cut)
    with pytest.raises(InputError, match=r"a.wav and .*a.wav do not differ"):
        conditions.cut_noise(tmp_path / "clean", tmp_path / "clean", **cut)
    assert not (tmp_path / "noise").exists()


def test_a_noise_of_the_users_own_stays(tmp_path):
    for name, peak in (("clean", 0.1), ("noisy", 0.2), ("noise", 0.3)):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "noise_003.wav", np.full(8000, peak), 8000)
    before = (tmp_path / "noise" / "noise_003.wav").read_bytes()
    pair = tmp_path / "clean", tmp_path / "noisy"
    with pytest.raises(InputError, match=r"--noise_path is .*noise: .*name a new folder"):
        conditions.cut_noise(*pair, tmp_path / "noise", pieces=2, sr=8000)
    assert [path.read_bytes() for path in (tmp_path / "noise").iterdir()] == [before]
    for pieces in (5, 2):                                   # what was made here is made again
        conditions.cut_noise(*pair, tmp_path / "new", pieces=pieces, sr=8000)
    assert len(list((tmp_path / "new").glob("*.wav"))) == 2


# ---- the whole way ----------------------------------------------------------------------------------------------

def test_training_reads_whole_takes_and_the_model_says_its_mode(trained_on_takes):
    stored = json.loads((trained_on_takes / "config.json").read_text())
    assert {name: stored["flags"][name] for name in ("tdsv", "tdsv_text", "crop_min", "crop_max")} == {
        "tdsv": True, "tdsv_text": "all", "crop_min": 80, "crop_max": 80}
    assert len(stored["validation"]) == 3
    assert (trained_on_takes / "thresholds.json").exists()


def test_a_run_goes_on_in_its_mode(takes, trained_on_takes, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(trained_on_takes, folder)
    assert model.main(["--train", "--restore", "True", "--train_path", str(takes / "train"), "--model_path",
                       str(folder), "--iteration", "12"]) == 0
    assert embedding.checkpoint_numbers(folder)[-1] == 12
    assert model.main(["--model_path", str(folder), "--export", str(tmp_path / "export")]) == 0
    encoder, config = embedding.load_encoder(tmp_path / "export")
    assert (config.tdsv, config.tdsv_frame) == (True, 80)
    crops = [json.loads((model_folder / "config.json").read_text())["flags"]["crop_min"]
             for model_folder in (folder, trained_on_takes)]
    assert crops[0] == crops[1]
    rows = features.open_features(takes / "test" / "voice06.npy")
    assert embedding.embed_rows(encoder, rows).shape == (8, 8)


def test_a_test_compares_takes_of_one_text_and_tells_of_the_others(takes, trained_on_takes, tmp_path, capsys):
    evaluation = model.test(configuration.get_config(["--model_path", str(trained_on_takes), "--test_path",
                                                      str(takes / "test"), "--M", "3"]))
    assert evaluation.people == ["voice06", "voice07", "voice08"]
    scored, others = evaluation.scored(), evaluation.other_texts()
    assert len(scored.scores) == 2 * 3 * 3                  # per text a probe of each speaker against all three
    assert scored.labels.sum() == others.labels.sum() == 6
    assert len(others.scores) == 12                         # each probe against both texts of its speaker
    assert {name.partition("/")[0] for name in others.enrolled} == set(evaluation.people)
    assert evaluate.main(["--model_path", str(trained_on_takes), "--test_path", str(takes / "test"), "--M", "3",
                          "--report_path", str(tmp_path)]) == 0
    assert "right speaker, another text" in capsys.readouterr().out
    row = json.loads((tmp_path / "evaluation.json").read_text())["conditions"][-1]
    np.testing.assert_allclose(row["eer"]["value"], protocol.operating_points(others.scores, others.labels)["eer"][
        "far"] / 2 + protocol.operating_points(others.scores, others.labels)["eer"]["frr"] / 2)


def test_takes_are_compared_under_named_conditions(phrases, trained_on_takes, tmp_path, monkeypatch):
    """Of a list, each recording of which is a speaker with one take; and where one speaker says a text once."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list").write_text("1 voice06/text0_00 voice06/text0_01\n0 voice06/text0_00 voice07/text0_01\n")
    flags = ["--model_path", str(trained_on_takes), "--raw_path", str(phrases / "test"), "--conditions", "True",
             "--jobs", "1"]
    names = {"as recorded", *conditions.Surroundings(("a",)).conditions}
    findings = evaluate.score_trials(configuration.get_config([*flags, "--trials", str(tmp_path / "list")]))
    assert names == {name for name, _ in findings.conditions}               # and no part of a take
    shutil.copytree(phrases / "test", tmp_path / "raw")
    for path in (tmp_path / "raw" / "voice06").glob("text1_0[123].wav"):
        path.unlink()
    flags[3] = str(tmp_path / "raw")
    rows = dict(evaluate.score_speakers(configuration.get_config([*flags, "--M", "2"])).conditions)
    assert names <= rows.keys()
    assert {name: len(rows[name].scores) for name in names - {"as recorded"}} == {
        name: 20 if "babble" in name else 30 for name in names - {"as recorded"}}   # no lone take, no babbler


def test_a_text_independent_model_is_tested_on_the_same_trials(phrases, trained, trained_on_takes, tmp_path,
                                                               monkeypatch):
    monkeypatch.chdir(tmp_path)
    lists = [model.test(configuration.get_config(["--model_path", str(path), "--raw_path", str(phrases / "test"),
                                                  "--tdsv_text", "all", "--M", "3"])).scored()
             for path in (trained, trained_on_takes)]
    assert [scored.enrolled for scored in lists] == [lists[0].enrolled] * 2
    assert [scored.probes for scored in lists] == [lists[0].probes] * 2
    assert not np.allclose(lists[0].scores, lists[1].scores)


def test_modes_do_not_mix_and_the_error_names_both(takes, made_features, trained, trained_on_takes, phrases, tmp_path,
                                                    fails):
    argv = ["--report_path", tmp_path / "report", "--M", "3"]
    line = fails(evaluate.main, "--model_path", trained, "--test_path", takes / "test", *argv)
    assert "holds text-dependent features (--tdsv True), and text-independent ones are wanted" in line
    line = fails(evaluate.main, "--model_path", trained_on_takes, "--test_path", made_features / "test", *argv)
    assert "holds text-independent features (--tdsv False), and text-dependent ones are wanted" in line
    assert "text-dependent" in fails(data_preprocess.main, "--raw_path", phrases, "--train_path",
                                     made_features / "train", "--test_path", tmp_path, "--tdsv", "True")
    assert "--tdsv is True, but" in fails(model.main, "--model_path", trained, "--tdsv", "True")
    shutil.copytree(takes, tmp_path / "one")
    for path in (tmp_path / "one" / "test").glob("manifest.json"):
        content = json.loads(path.read_text())
        content["settings"]["tdsv_text"] = "text0"
        path.write_text(json.dumps(content))
    line = fails(evaluate.main, "--model_path", trained_on_takes, "--test_path", tmp_path / "one" / "test", *argv,
                 "--tdsv_text", "text1")
    assert "was made with --tdsv_text text0, the model with text1" in line


def test_enrol_and_verify_by_phrase(phrases, trained_on_takes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv = ["--model_path", str(trained_on_takes)]
    for take in range(3):
        assert record.main([*argv, "--speaker", "anna", "--input",
                            str(phrases / "test" / "voice06" / f"text0_0{take}.wav")]) == 0
    assert features.open_features("enroll/anna.npy").shape == (3, 40, 80)
    capsys.readouterr()
    code = record.main([*argv, "--verify", "True", "--json", "True", "--input",
                        str(phrases / "test" / "voice06" / "text0_03.wav")])
    (verdict,) = json.loads(capsys.readouterr().out)["verdicts"]
    assert code in (0, 1)
    assert verdict["speaker"] == "anna"
    assert verdict["notes"] == []                           # that a phrase is short is no warning
    code = model.main([*argv, "--verify", "True", "--enroll_path", str(phrases / "test" / "voice06"),
                       "--verify_path", str(phrases / "test" / "voice06" / "text0_03.wav"), "--threshold", "-1"])
    assert code == 0


def test_who_speaks_now_is_told_of_any_words_alone(phrases, trained_on_takes, tmp_path, monkeypatch, fails):
    monkeypatch.chdir(tmp_path)
    argv = ["--model_path", trained_on_takes, "--input", phrases / "test" / "voice06" / "text0_00.wav"]
    assert record.main([*map(str, argv), "--speaker", "anna"]) == 0
    assert "is text-dependent, and people who talk say other words" in fails(record.main, *argv, "--live", "True")
    assert record.main([*map(str, argv), "--live", "True", "--verify", "True", "--threshold", "-1"]) == 0


def test_the_window_works_by_phrase(phrases, trained_on_takes, tmp_path):
    window = service.Service(configuration.get_config(
        ["--model_path", str(trained_on_takes), "--enroll_path", str(tmp_path / "enroll"), "--verify_path",
         str(tmp_path / "verify")]))
    assert window.load().seconds == 3.0                     # a phrase is short
    takes = [str(phrases / "test" / "voice06" / f"text0_0{take}.wav") for take in range(3)]
    assert [window.enroll("anna", take) for take in takes[:2]] == ["anna"] * 2
    heard = window.verify(takes[2])
    assert (heard.problem, [name for name, _ in heard.scores]) == ("", ["anna"])
    assert window.draw("spectrum", 200, 100, 72)[:4] == b"\x89PNG"
