"""model.py --verify: what is an enrolment and a probe, the threshold, the verdicts and exit codes, what is refused."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from conftest import evaluate

import audio
import common
import conditions
import configuration
import embedding
import features
import measures
import model
import verification
from common import InputError, tf

ROOT = pathlib.Path(model.__file__).parent


@pytest.fixture
def verify(trained, capsys):
    """Return a function that runs model.py --verify True; it returns exit code and standard output."""

    def run(enrolled, probe, *argv):
        capsys.readouterr()
        code = model.main(["--verify", "True", "--model_path", str(trained), "--enroll_path", str(enrolled),
                           "--verify_path", str(probe), *map(str, argv)])
        return code, capsys.readouterr().out

    return run


@pytest.fixture
def verifier(trained):
    return verification.Verifier(configuration.get_config(["--model_path", str(trained)]))


# ---- verdicts ---------------------------------------------------------------------------------------------------

def test_the_score_is_the_cosine_of_whole_utterances(verify, trained, voice):
    """By hand: d-vectors of all segments of each recording, their mean as centroid."""
    encoder, config = embedding.load_encoder(trained)

    waves = [audio.load_audio(voice / f"0{i}.wav", config.sr) for i in range(6)]
    vectors = np.array([embedding.embed(encoder, audio.segments(wave, config)) for wave in waves])
    centroid = vectors.mean(axis=0) / np.linalg.norm(vectors.mean(axis=0))
    code, printed = verify(voice, voice / "03.wav", "--json", "True", "--threshold", "-1")
    verdict, = json.loads(printed)["verdicts"]
    assert code == 0
    assert verdict["score"] == pytest.approx(float(centroid @ vectors[3]), abs=1e-5)
    assert verdict["scores"] == {"voice08": verdict["score"]}
    detector = {"sr": 8000, "window": 0.025, "hop": 0.01, "top_db": 30, "floor_db": 3}
    speech = [len(audio.voiced(wave - wave.mean(), **detector)) / 8000 for wave in waves]
    assert verdict["enrolled_seconds"] == pytest.approx(sum(speech))
    assert verdict["probe_seconds"] == pytest.approx(speech[3])


def test_the_verdict_turns_at_the_threshold(verify, voice, corpus):
    enrolled = corpus / "test" / "voice09"
    score = json.loads(verify(enrolled, voice / "00.wav", "--json", "--threshold", 0)[1])["verdicts"][0]["score"]
    code, printed = verify(enrolled, voice / "00.wav", "--threshold", score)
    assert (code, printed.splitlines()[0]) == (0, "Same person: 00.wav and voice09")
    code, printed = verify(enrolled, voice / "00.wav", "--threshold", np.nextafter(score, 2))
    assert (code, printed.splitlines()[0]) == (1, "Different person: 00.wav and voice09")
    assert f"score {score:.4f}, " in printed
    assert "given by --threshold" in printed
    assert " s of 00.wav (about " in printed


def test_who_was_not_heard_has_no_centroid_and_is_named(trained, voice, tmp_path):
    soundfile.write(tmp_path / "still.wav", np.zeros(16000), 8000)
    verifier = verification.Verifier(configuration.get_config(["--model_path", str(trained), "--threshold", "0"]))
    still, = verifier.probes(tmp_path / "still.wav")
    with pytest.raises(InputError, match=r"still\.wav: no speech"):
        _ = still.centroid
    probe, = verifier.probes(voice / "00.wav")
    with pytest.raises(InputError, match=r"no enrolled speaker to compare with; still\.wav: no speech"):
        verifier.compare(probe, [still])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are POSIX's")
def test_a_pipe_is_no_enrolment(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "anna.npy").touch()
    assert list(verification.find_enrolments(tmp_path)) == ["anna"]


def test_a_verdict_comes_where_errors_have_no_way_out(trained, voice):
    command = [sys.executable, "-c", "import os, sys; os.close(2); os.execv(sys.executable, sys.argv[1:])",
               sys.executable, str(ROOT / "model.py"), "--verify", "--model_path", str(trained), "--threshold", "0",
               "--enroll_path", str(voice / "00.wav"), "--verify_path", str(voice / "00.wav")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout[:11]) == (0, "Same person")


def test_without_a_name_all_are_compared_best_first(verify, corpus, voice):
    code, printed = verify(corpus / "test", voice / "01.wav", "--threshold", -1, "--json")
    verdict = json.loads(printed)["verdicts"][0]
    assert code == 0
    assert verdict["scores"].keys() == {"voice08", "voice09", "voice10"}
    assert list(verdict["scores"].values()) == sorted(verdict["scores"].values(), reverse=True)
    assert verdict["speaker"] == next(iter(verdict["scores"]))
    printed = verify(corpus / "test", voice / "01.wav", "--threshold", -1)[1]
    assert [line.split()[1] for line in printed.splitlines()[-3:]] == list(verdict["scores"])
    one = json.loads(verify(corpus / "test", voice / "01.wav", "--threshold", -1, "--json", "--speaker", "voice10")[1])
    assert one["verdicts"][0]["scores"] == pytest.approx({"voice10": verdict["scores"]["voice10"]})


def test_a_stranger_has_as_many_chances_as_there_are_speakers():
    """With a FAR of 0.1, one of three passes in 1 - 0.9^3 = 27 % of the cases."""
    threshold = verification.Threshold(0.5, 0.1, 0.2, "by hand")
    scores = [("a", 0.4), ("b", 0.3), ("c", 0.2)]
    verdict = verification.Verdict("probe", "", "a", 0.4, None, threshold, 1.0, 1.0, scores=scores)
    assert "a stranger passes as one of these 3 in up to 27% of the cases" in str(verdict)
    noisy = replace(threshold, llr=1.0, far_all=0.2, frr_all=0.3)               # 1 - 0.8^3
    assert "in up to 49% of the cases" in str(replace(verdict, threshold=noisy))
    assert "a stranger" not in str(replace(verdict, scores=scores[:1]))


def test_several_probes_are_all_the_same_person_or_not(verify, voice):
    code, printed = verify(voice, voice, "--threshold", -1, "--json")
    verdicts = json.loads(printed)["verdicts"]
    assert (code, [verdict["probe"] for verdict in verdicts]) == (0, [f"0{i}.wav" for i in range(6)])
    middle = np.median([verdict["score"] for verdict in verdicts])
    code, printed = verify(voice, voice, "--threshold", middle)
    assert (code, printed.count("Same person"), printed.count("Different person")) == (1, 3, 3)


# ---- the threshold ----------------------------------------------------------------------------------------------

def test_the_threshold_is_the_models_with_its_error_rates(verify, trained, voice):
    number = embedding.choose_checkpoint(trained)
    point = embedding.load_thresholds(trained, number)["points"]["eer"]
    verdict = json.loads(verify(voice, voice / "00.wav", "--json")[1])["verdicts"][0]
    assert {name: verdict[name] for name in ("threshold", "far", "frr")} == {
        "threshold": point["threshold"], "far": point["far"], "frr": point["frr"]}
    assert verdict["source"] == "EER of 4 validation speakers, 3 enrolment utterances each"


def test_a_verdict_tells_its_log_likelihood_ratio(verify, trained, voice):
    calibration = embedding.load_thresholds(trained, embedding.choose_checkpoint(trained))["calibration"]
    verdict = json.loads(verify(voice, voice / "00.wav", "--json")[1])["verdicts"][0]
    llr = calibration["scale"] * verdict["score"] + calibration["offset"]
    assert verdict["llr"] == pytest.approx(llr)
    assert f"log-likelihood ratio {llr:.2f}" in verify(voice, voice / "00.wav")[1]


def test_another_operating_point_or_none(trained, tmp_path, voice, fails):
    copy = tmp_path / "model"
    shutil.copytree(trained, copy)
    stored = json.loads((copy / "thresholds.json").read_text())
    stored["points"]["0.01"] = {"threshold": 0.75, "far": 0.01, "frr": 0.5}
    common.write_json(copy / "thresholds.json", stored)
    config = configuration.get_config(["--model_path", str(copy), "--far", "0.01"])
    assert str(verification.Verifier(config).threshold) == ("0.7500 (FAR 0.01 of 4 validation speakers, "
        "3 enrolment utterances each: FAR 1.00%, FRR 50.00%)")
    flags = ["--verify", "--model_path", copy, "--enroll_path", voice, "--verify_path", voice]
    assert "--far is 0.001: " in fails(model.main, *flags, "--far", "0.001")
    (copy / "thresholds.json").unlink()
    line = fails(model.main, *flags)
    assert "stores no threshold for checkpoint" in line
    assert "python test.py --store_threshold True --model_path" in line


def test_error_rates_are_read_off_the_stored_curve(verifier, made_features):
    """The rates at a threshold are the shares of trials beyond it, counted one by one."""
    names = embedding.load_config(verifier.config.model_path)["validation"]
    speakers = [speaker for speaker in features.load_features(made_features / "train")[0] if speaker.name in names]
    evaluation = evaluate(verifier.encoder, speakers, 3)
    for value in (-0.5, 0.75, 0.905):
        others, targets = evaluation.scores[~evaluation.labels], evaluation.scores[evaluation.labels]
        far = sum(score >= value for score in others) / len(others)
        frr = sum(score < value for score in targets) / len(targets)
        assert verifier.rates(value) == pytest.approx((far, frr))


# ---- what is enrolled, and what is too little -----------------------------------------------------------------

def test_enrolments_are_audio_folders_and_features(verifier, voice, made_features, tmp_path):
    shutil.copytree(voice, tmp_path / "anna" / "day 1")
    shutil.copy(voice / "00.wav", tmp_path / "01.wav")
    for suffix in (".npy", ".json"):
        shutil.copy(made_features / "test" / f"voice08{suffix}", tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    voices = {heard.name: heard for heard in verifier.voices(tmp_path)}
    assert {name: len(heard.vectors) for name, heard in voices.items()} == {
        "anna": 6, "voice08": 6, tmp_path.name: 1}
    np.testing.assert_allclose(voices["anna"].centroid, voices["voice08"].centroid, atol=1e-5)
    assert voices["anna"].seconds == pytest.approx(voices["voice08"].seconds)
    shutil.copytree(voice, tmp_path / "voice08")
    with pytest.raises(InputError, match="are two enrolments of one name"):
        verifier.voices(tmp_path)


def test_each_utterance_of_a_feature_file_is_a_probe(verifier, made_features):
    heard = list(verifier.probes(made_features / "test" / "voice08.npy"))
    assert [probe.name for probe in heard] == [f"voice08.npy/0{i}.wav" for i in range(6)]
    assert all(probe.vectors.shape == (1, 8) for probe in heard)


def bursts(seconds, sr=8000):
    """Return noise in two bursts that have a given length together."""
    noise = 0.3 * np.random.default_rng(0).uniform(-1, 1, round(seconds / 2 * sr))
    return np.concatenate([noise, np.zeros(sr), noise])


@pytest.mark.parametrize(("wave", "problem"), [
    (np.zeros(16000), "no speech"), (0.01 * np.random.default_rng(0).standard_normal(24000), "no speech"),
    (0.1 * np.sin(np.arange(24000)), "no speech"),
    (bursts(0.2), "too little speech, 0."), (bursts(0.8), "too little speech, 0.")])
def test_little_speech_is_exit_code_2_and_no_score(verify, voice, tmp_path, wave, problem):
    soundfile.write(tmp_path / "probe.wav", wave, 8000)
    code, printed = verify(voice, tmp_path / "probe.wav", "--threshold", -1)
    assert (code, printed[:len(f"probe.wav: {problem}")]) == (2, f"probe.wav: {problem}")
    shutil.copy(voice / "00.wav", tmp_path)
    code, printed = verify(voice, tmp_path, "--threshold", -1, "--json")
    verdicts = {verdict["probe"]: verdict for verdict in json.loads(printed)["verdicts"]}
    assert code == 2
    assert verdicts["00.wav"]["decision"] == "Same person"
    assert verdicts["probe.wav"]["score"] is None
    assert verdicts["probe.wav"]["decision"].startswith(problem)


def test_an_enrolment_without_speech_is_named(verify, voice, tmp_path, fails, trained, capsys):
    (tmp_path / "mute").mkdir()
    soundfile.write(tmp_path / "mute" / "a.wav", np.zeros(8000), 8000)
    line = fails(model.main, "--verify", "--model_path", trained, "--enroll_path", tmp_path, "--verify_path", voice)
    assert "mute: no speech" in line
    shutil.copytree(voice, tmp_path / "anna")
    (tmp_path / "anna" / "torn.wav").write_bytes((voice / "00.wav").read_bytes()[:5000])
    assert model.main(["--verify", "--model_path", str(trained), "--enroll_path", str(tmp_path), "--verify_path",
                       str(voice / "00.wav"), "--threshold", "-1"]) == 0
    told = capsys.readouterr().err
    assert "skipped: mute: no speech" in told
    assert "skipped: anna: torn.wav is cut short" in told


def test_one_bad_probe_does_not_end_the_others(verify, voice, tmp_path):
    np.save(tmp_path / "b.npy", np.zeros((3, 20)), allow_pickle=False)
    shutil.copy(voice / "00.wav", tmp_path / "a\nb.wav")
    code, printed = verify(voice, tmp_path, "--threshold", -1)
    assert code == 2
    assert "b.npy: " in printed
    assert "holds float64 of shape (3, 20)" in printed
    assert "Same person: a\\nb.wav and voice08" in printed         # one line, whatever the file is called


def test_a_probe_without_speech_has_all_keys(verify, voice, tmp_path):
    shutil.copy(voice / "00.wav", tmp_path / "a.wav")
    soundfile.write(tmp_path / "mute.wav", np.zeros(8000), 8000)
    good, mute = json.loads(verify(voice, tmp_path, "--json", "True")[1])["verdicts"]
    assert list(good) == list(mute)
    for name in ("threshold", "threshold_llr", "far", "frr", "source", "far_all", "frr_all"):
        assert mute[name] is None


def test_what_cannot_be_read_is_not_said_to_hold_no_speech(verify, voice, tmp_path):
    (tmp_path / "torn.wav").write_bytes((voice / "00.wav").read_bytes()[:5000])
    (tmp_path / "text.wav").write_text("no sound")
    soundfile.write(tmp_path / "mute.wav", np.zeros(8000), 8000)
    verdicts = json.loads(verify(voice, tmp_path, "--json", "True")[1])["verdicts"]
    mute, text, torn = (verdict["problem"] for verdict in verdicts)
    assert mute == "no speech: mute.wav is silent"
    assert text.startswith("cannot be read: ")
    assert torn.startswith("is cut short: ")


def test_a_hidden_file_is_no_probe(verify, voice, made_features, tmp_path):
    shutil.copy(made_features / "test" / "voice08.npy", tmp_path / "probe.npy")
    (tmp_path / "._probe.npy").write_bytes(b"of macOS")
    assert [path.name for path in verification.probe_files(tmp_path)] == ["probe.npy"]


def test_a_narrow_recording_is_noted(trained, voice, tmp_path, capsys):
    wave, _ = soundfile.read(voice / "00.wav")
    soundfile.write(tmp_path / "4k.wav", wave[::2], 4000)
    flags = ["--verify", "--model_path", str(trained), "--enroll_path", str(voice), "--threshold", "-1"]
    assert model.main([*flags, "--verify_path", str(voice / "00.wav")]) == 0
    assert "note:" not in capsys.readouterr().err
    soundfile.write(tmp_path / "8k.wav", wave[::2], 8000)
    assert audio.bandwidth_notes(tmp_path / "8k.wav", 8000) == []         # at the model's own rate
    assert model.main([*flags, "--verify_path", str(tmp_path / "4k.wav")]) == 0
    assert "4k.wav is at 4000 Hz, below the model's 8000 Hz" in capsys.readouterr().err
    assert model.main([*flags, "--verify_path", str(tmp_path / "4k.wav"), "--json"]) == 0
    note, = json.loads(capsys.readouterr().out)["notes"]
    assert "4k.wav is at 4000 Hz" in note


def test_the_least_speech_is_a_flag(verify, voice):
    assert verify(voice, voice / "00.wav", "--threshold", -1, "--min_speech", 60)[0] == 2
    assert verify(voice, voice / "00.wav", "--threshold", -1, "--min_speech", 2)[0] == 0


def test_what_verification_refuses(trained, voice, made_features, tmp_path, fails):
    def refused(enrolled, probe, *argv):
        return fails(model.main, "--verify", "--model_path", trained, "--enroll_path", enrolled, "--verify_path", probe,
                     *argv)

    nowhere = tmp_path / "nowhere"
    assert f"--enroll_path is {nowhere}: there is no such file or folder" in refused(nowhere, voice)
    assert f"--verify_path is {nowhere}: there is no such file or folder" in refused(voice, nowhere)
    nowhere.mkdir()
    assert "it holds neither recordings nor features" in refused(nowhere, voice)
    assert "it holds neither recordings nor features" in refused(voice, nowhere)
    assert "--speaker is ben: " in refused(voice, voice, "--speaker", "ben")
    assert "--far and --threshold contradict" in refused(voice, voice, "--far", "0.01", "--threshold", "0")
    assert "--sr is 16000, but" in refused(voice, voice, "--sr", "16000")

    path, told = tmp_path / "x.npy", json.loads((made_features / "test" / "voice08.json").read_text())
    good = np.load(made_features / "test" / "voice08.npy", allow_pickle=False)
    for values, words in ((np.array([{}], dtype=object), "x.npy is not a feature file"),
                          (good[:, :39], "x.npy holds float32 of shape"),
                          (np.where(np.arange(180) == 7, np.nan, good), "x.npy holds numbers that are not finite"),
                          (good[1:], "x.npy and the .json beside it do not belong together")):
        np.save(path, values, allow_pickle=True)
        common.write_json(path.with_suffix(".json"), told)
        assert words in refused(path, voice)
        assert words in refused(voice, path)
    np.save(path, good)
    common.write_json(path.with_suffix(".json"), told | {"settings": told["settings"] | {"sr": 16000}})
    assert "x.npy was made with --sr 16000, the model with 8000" in refused(voice, path)


def test_features_without_a_description_are_noted(verifier, made_features, tmp_path):
    np.save(tmp_path / "x.npy", np.load(made_features / "test" / "voice08.npy", allow_pickle=False)[:2])
    first, second = verifier.probes(tmp_path / "x.npy")
    assert (first.seconds, second.seconds) == (1.8, 1.8)               # 180 frames of 0.01 s, each row an utterance
    assert "does not say how its features were made" in verifier.notes[0]


# ---- the model --------------------------------------------------------------------------------------------------

def stop(*_):
    raise KeyboardInterrupt


def test_an_exported_model_is_smaller_and_verifies_alike(verify, trained, voice, tmp_path, fails, monkeypatch):
    target = tmp_path / "small"
    assert model.main(["--model_path", str(trained), "--export", str(target)]) == 0
    name = f"Check_Point/model.ckpt-{embedding.choose_checkpoint(trained)}.data-00000-of-00001"
    sizes = [(folder / name).stat().st_size for folder in (trained, target)]
    assert sizes[1] < 0.5 * sizes[0]
    number = embedding.choose_checkpoint(target)
    assert embedding.read_origin(target / "encoder.tflite")["sha256"] == embedding.checkpoint_sha256(target, number)
    flags = ["--verify", "--enroll_path", str(voice), "--verify_path", str(voice / "00.wav"), "--json", "--model_path"]
    printed = [verify(voice, voice / "00.wav", "--json", "--model_path", folder)[1] for folder in (trained, target)]
    assert json.loads(printed[0])["verdicts"] == json.loads(printed[1])["verdicts"]
    other = tmp_path / "other"                                  # not the best: its thresholds were not measured
    last = embedding.checkpoint_numbers(trained)[-1]
    assert model.main(["--model_path", str(trained), "--export", str(other), "--model_num", str(last)]) == 0
    assert embedding.load_encoder(other)[1].model_num == last
    shutil.copytree(trained, tmp_path / "tested")               # thresholds measured for one that is not the best
    told = json.loads((tmp_path / "tested" / "thresholds.json").read_text())
    common.write_json(tmp_path / "tested" / "thresholds.json",
                             told | {"model_num": last, "best": {"model_num": last - 1}})
    third = tmp_path / "third"
    with monkeypatch.context() as patch:
        patch.setattr(tf.train.Checkpoint, "write", stop)
        assert model.main(["--model_path", str(trained), "--export", str(third)]) == 2
    assert not embedding.checkpoint_numbers(third)        # an interrupted export is no model, and can be repeated
    (third / "thresholds.json").write_text("{}")                # of a model that was deleted
    flags_of = ["--model_path", str(tmp_path / "tested"), "--export", str(third), "--model_num"]
    assert model.main([*flags_of, str(last)]) == 0
    assert embedding.load_encoder(third)[1].model_num == last
    assert embedding.load_thresholds(third, last)["points"] == told["points"]
    assert "there is a model already" in fails(model.main, "--model_path", trained, "--export", target)
    assert "--verify and --export contradict" in fails(model.main, *flags, trained, "--export", tmp_path / "x")


# ---- a verdict that knows what it heard -------------------------------------------------------------------------

def test_the_threshold_moves_with_the_trial(verify, knowing, voice):
    """By hand: 10 s - 5 - 2 ln(seconds / 4) >= 1.5."""
    seconds = set()
    for take in range(3):
        code, printed = verify(voice, voice / f"0{take}.wav", "--model_path", knowing, "--json")
        verdict = json.loads(printed)["verdicts"][0]
        terms = -5 - 2 * np.log(verdict["probe_seconds"] / 4)
        assert verdict["llr"] == pytest.approx(10 * verdict["score"] + terms)
        assert verdict["threshold"] == pytest.approx((1.5 - terms) / 10)
        assert verdict["threshold_llr"] == 1.5
        assert verdict["thresholds"] == {"voice08": verdict["threshold"]}
        assert verdict["same"] == (verdict["llr"] >= 1.5) == (code == 0)
        seconds.add(verdict["probe_seconds"])
    assert len(seconds) == 3
    printed = verify(voice, voice / "00.wav", "--model_path", knowing)[1]
    assert re.search(r"ratio -?\d+\.\d\d, threshold -?\d\.\d{4}, ratio 1\.50 \(EER of 4 validation", printed)
    assert re.search(r"s of 00\.wav \(about \d+ dB above the noise, up to 4\.0 kHz\)", printed)


def test_the_best_is_the_furthest_above_its_threshold(knowing):
    """A longer enrolment asks for more, here by 3 in the ratio: 0.8 with it is less than 0.7 without."""
    config = configuration.get_config(["--model_path", str(knowing)])
    verifier = verification.Verifier(config)
    weights = list(verifier.calibration.offset)
    weights[1 + list(measures.TERMS).index("enrolled_seconds")] = -3.0
    verifier.calibration = measures.Calibration(verifier.calibration.scale, tuple(weights))
    first, second = np.array([0.8, 0.6]), np.array([0.7, np.sqrt(0.51)])
    voices = [verification.Voice("long", first[None], 20 * np.e, []),
              verification.Voice("short", second[None], 20.0, [])]
    verdict = verifier.compare(verification.Voice("probe", np.array([[1.0, 0.0]]), 4.0, []), voices)
    assert (verdict.speaker, verdict.score) == ("short", pytest.approx(0.7))
    assert [name for name, _ in verdict.scores] == ["short", "long"]
    assert verdict.thresholds["short"] == pytest.approx(0.65)
    assert verdict.thresholds["long"] == pytest.approx(0.95)
    assert verdict.threshold.value == verdict.thresholds["short"]


def test_a_threshold_by_hand_does_not_move(verify, knowing, voice):
    verdict = json.loads(verify(voice, voice / "00.wav", "--model_path", knowing, "--json", "--threshold", 0.5)[1])
    assert verdict["verdicts"][0]["threshold"] == 0.5
    assert verdict["verdicts"][0]["threshold_llr"] is None
    assert verdict["verdicts"][0]["llr"] is not None


@pytest.mark.parametrize(("heard", "words"), [
    ({"seconds": 0.8}, "under 1 s of speech"), ({"snr": -2.0}, "noise louder than the speech"),
    ({"bandwidth": 2500.0}, "nothing above 3 kHz")])
def test_a_probe_outside_of_what_was_measured_is_said_to_be(verifier, heard, words):
    probe = verification.Voice("probe", np.array([[1.0, 0.0]]), 2.0, [], snr=20.0, bandwidth=4000.0)
    other = verification.Voice("anna", np.array([[1.0, 0.0]]), 9.0, [])
    assert verifier.compare(probe, [other]).notes == []
    verdict = verifier.compare(replace(probe, **heard), [other])
    assert verdict.notes == [f"outside of what was measured: {words}, this verdict is not reliable"]
    assert f"  {verdict.notes[0]}" in str(verdict).splitlines()
    assert verdict.as_dict()["notes"] == verdict.notes


def test_noise_is_heard(verify, corpus, voice, tmp_path):
    """The same recording in white noise: the estimate that the verdict shows falls to about that of the noise."""
    wave = audio.load_audio(voice / "00.wav", 8000)
    noisy = conditions.colour_noise(wave, 8000, np.random.default_rng(0), snr=6)
    soundfile.write(tmp_path / "noisy.wav", noisy / 2, 8000)
    found = [json.loads(verify(voice, path, "--json")[1])["verdicts"][0]["snr"]
             for path in (voice / "00.wav", tmp_path / "noisy.wav")]
    assert found[0] > 12
    assert found[1] == pytest.approx(6, abs=4)
