"""Audio of every kind in, segments out; what is skipped is counted; a rerun does only what changed."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import voices
from test_audio import tone

import audio
import common
import configuration
import data_preprocess
import features

NONE = data_preprocess.Copies()

ROOT = pathlib.Path(data_preprocess.__file__).parent


# ---- reading ----------------------------------------------------------------------------------------------------


# ---- features ---------------------------------------------------------------------------------------------------


# ---- the corpus -------------------------------------------------------------------------------------------------

def make_speakers(folder, names, files=1, seconds=1.0):
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for file in range(files):
            soundfile.write(folder / name / f"{file}.wav", tone(seconds, 8000, 200 + 50 * number + 9 * file), 8000)
    return folder


def flags(raw, out, *more):
    paths = ["--raw_path", raw, "--train_path", out / "train", "--test_path", out / "test"]
    return [str(argument) for argument in (*paths, "--jobs", 1, *more)]


def preprocess(raw, out, *more):
    return data_preprocess.main(flags(raw, out, *more))


def test_adding_a_speaker_moves_no_other(tmp_path):
    names = [f"p{i}" for i in range(200)]
    for name in names:
        (tmp_path / name).mkdir()
    before = data_preprocess.find_speakers(tmp_path, 0.1)
    (tmp_path / "a-new-one").mkdir()
    after = data_preprocess.find_speakers(tmp_path, 0.1)
    assert 10 <= len(before["test"]) <= 30
    assert sorted([*before["train"], *before["test"]]) == sorted(names)
    for part in ("train", "test"):
        after[part].pop("a-new-one", None)
        assert after[part] == before[part]


def test_folders_train_and_test_are_the_split(tmp_path):
    make_speakers(tmp_path / "train", ["a", "b"])
    make_speakers(tmp_path / "test", ["c"])
    parts = data_preprocess.find_speakers(tmp_path, 0.5)
    assert {part: list(names) for part, names in parts.items()} == {"train": ["a", "b"], "test": ["c"]}
    (tmp_path / "dev").mkdir()                          # else each part would pass for a speaker
    with pytest.raises(common.InputError, match="nothing is beside them, and it has dev, test, train; name one"):
        data_preprocess.find_speakers(tmp_path, 0.0)


def test_what_cannot_be_opened_now_is_tried_again(tmp_path, monkeypatch):
    """Another time the disk or the permissions may do; what is no sound stays named without another look."""
    raw, real = make_speakers(tmp_path / "raw", ["a"], files=2), soundfile.SoundFile
    (raw / "a" / "text.wav").write_text("no sound")

    def refuse(path, *arguments, **options):
        if str(path).endswith("1.wav"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(soundfile, "SoundFile", refuse)
    assert preprocess(raw, tmp_path, "--test_ratio", 0) == 0
    monkeypatch.setattr(soundfile, "SoundFile", real)
    entries = [json.loads((tmp_path / "train" / "a.json").read_text())["utterances"]]
    assert preprocess(raw, tmp_path, "--test_ratio", 0) == 0
    entries.append(json.loads((tmp_path / "train" / "a.json").read_text())["utterances"])
    assert [[entry["dropped"].partition(":")[0] for entry in found] for found in entries] == [
        ["", "cannot be opened", "cannot be read"], ["", "", "cannot be read"]]


def test_a_corpus_that_moved_is_where_it_is_now(tmp_path):
    """Nothing is computed again, and speakers who come to it later are of the same corpus."""
    raw = make_speakers(tmp_path / "raw", ["a", "b"], files=2)
    assert preprocess(raw, tmp_path, "--test_ratio", 0) == 0
    rows = (tmp_path / "train" / "a.npy").read_bytes()
    raw = raw.rename(tmp_path / "moved")
    make_speakers(raw, ["c"], files=2)
    assert preprocess(raw, tmp_path, "--test_ratio", 0) == 0
    speakers, _ = features.load_features(tmp_path / "train")
    assert {speaker.corpus for speaker in speakers} == {str(raw)}
    assert (tmp_path / "train" / "a.npy").read_bytes() == rows


def test_features_among_the_recordings_are_no_speakers(tmp_path):
    raw = make_speakers(tmp_path / "raw", ["a", "b"])
    for _ in range(2):
        assert data_preprocess.main(["--raw_path", str(raw), "--train_path", str(raw / "tr"), "--test_path",
                                     str(raw / "te"), "--jobs", "1"]) == 0
    assert data_preprocess.find_speakers(raw, 0.0)["train"].keys() == {"a", "b"}


def test_a_link_upwards_leads_to_nobody_else(tmp_path):
    raw = make_speakers(tmp_path / "raw", ["a", "b"])
    (raw / "a" / "up").symlink_to("..")
    assert audio.audio_files(raw / "a")[0] == ["0.wav"]


def test_a_full_disk_is_named_with_a_remedy(tmp_path):
    def fill(file):
        raise OSError(28, "No space left on device")

    with pytest.raises(common.InputError, match=r"a\.json cannot be written: No space left on device; make room"):
        common.write_whole(tmp_path / "a.json", fill)
    assert list(tmp_path.iterdir()) == []


def test_a_recording_too_long_for_the_memory_is_named(tmp_path, monkeypatch, capsys):
    raw, real = make_speakers(tmp_path / "raw", ["a"], files=2), audio.librosa.resample
    monkeypatch.setattr(audio.librosa, "resample", lambda wave, **rates: real(wave, **rates) if wave[40] == first else
                        (_ for _ in ()).throw(MemoryError("1 GiB")))
    first = audio.read_with(raw / "a" / "0.wav", audio.read_sndfile, None)[0][40]
    assert preprocess(raw, tmp_path, "--test_ratio", 0) == 0
    assert f"skipped: {raw}/a/1.wav cannot be opened: it is too long for the memory there is" in capsys.readouterr().err


def test_at_least_95_percent_of_the_speech_is_kept(made_features):
    for part in ("train", "test"):
        totals = json.loads((made_features / part / "manifest.json").read_text())["totals"]
        kept, lost = totals["seconds kept"], totals["seconds in too short utterances"]
        assert kept > 30
        assert kept / (kept + lost) >= 0.95
        assert totals["seconds heard"] == pytest.approx(totals["seconds of pauses"] + kept + lost)


def test_the_json_tells_where_each_row_comes_from(made_features):
    speakers, settings = features.load_features(made_features / "test")
    assert [speaker.name for speaker in speakers] == ["voice08", "voice09", "voice10"]
    assert settings["sr"] == 8000
    for speaker in speakers:
        rows = speaker.load()
        assert rows.dtype == np.float32
        assert [utterance.file for utterance in speaker.utterances] == [f"{i:02}.wav" for i in range(6)]
        assert sum(utterance.count for utterance in speaker.utterances) == len(rows)
        assert all(0.5 < utterance.speech_seconds <= utterance.seconds < 5 for utterance in speaker.utterances)


def test_the_features_on_disk_are_those_of_the_functions(made_features, corpus):
    speaker = features.load_features(made_features / "test")[0][0]
    second = speaker.utterances[1]
    wave = audio.load_audio(corpus / "test" / speaker.name / second.file, 8000)
    expected = audio.segments(wave, configuration.get_config([]))
    np.testing.assert_array_equal(speaker.load()[second.first:second.first + second.count], expected)


def test_bad_files_are_skipped_counted_and_named(tmp_path, capsys):
    raw = make_speakers(tmp_path / "raw", ["a", "b"], files=2)
    (raw / "a" / "broken.wav").write_bytes(b"junk")
    soundfile.write(raw / "a" / "silent.wav", np.zeros(8000), 8000)
    soundfile.write(raw / "a" / "short.wav", tone(0.2, 8000), 8000)
    (raw / "a" / "notes.txt").touch()
    shutil.copy2(raw / "a" / "short.wav", os.fsencode(raw / "a") + b"/\xff.wav")
    (raw / "empty").mkdir()
    assert preprocess(raw, tmp_path, "--test_ratio", "0") == 0
    out, err = capsys.readouterr()
    for file, reason in (("broken.wav", "cannot be read"), ("silent.wav", "is silent"), ("short.wav", "under 0.5 s")):
        assert any(file in line and reason in line for line in err.splitlines() if line.startswith("skipped:"))
    table = {line[:40].strip(): line[40:].split() for line in out.splitlines()}
    assert table["speakers"] == ["3"]
    assert table["speakers without speech"] == ["1"]
    assert table["utterances"] == ["7"]
    assert table["dropped: cannot be read"] == table["dropped: is silent"] == ["1"]
    assert table["ignored: .txt"] == table["ignored: a name that is not UTF-8"] == ["1"]
    assert sorted(path.name for path in (tmp_path / "train").glob("*.npy")) == ["a.npy", "b.npy"]
    utterances = {u.file: u for u in features.load_features(tmp_path / "train")[0][0].utterances}
    assert utterances["short.wav"].dropped.startswith("holds under 0.5 s")
    assert utterances["broken.wav"].seconds == 0


def test_a_rerun_does_only_what_changed(tmp_path):
    raw = make_speakers(tmp_path / "raw", ["a", "b", "c"])
    assert preprocess(raw, tmp_path, "--test_ratio", "0") == 0
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "train").glob("[abc].*")}
    assert len(times) == 6
    soundfile.write(raw / "b" / "new.wav", tone(2, 8000), 8000)
    (raw / "c" / "0.wav").unlink()
    soundfile.write(raw / "c" / "1.wav", tone(0.1, 8000), 8000)
    assert preprocess(raw, tmp_path) == 0
    changed = {name for name, stamp in times.items()
               if not (tmp_path / "train" / name).exists() or (tmp_path / "train" / name).stat().st_mtime_ns != stamp}
    assert changed == {"b.npy", "b.json", "c.npy", "c.json"}
    assert not (tmp_path / "train" / "c.npy").exists()             # that speaker's new audio holds too little speech
    assert [s.name for s in features.load_features(tmp_path / "train")[0]] == ["a", "b"]


def test_what_cannot_be_opened_does_no_work_again_until_it_can(tmp_path, capsys):
    """A link into nothing, beside whole recordings; and a speaker who is silent, when the corpus moves."""
    raw = make_speakers(tmp_path / "raw", ["a", "silent"])
    soundfile.write(raw / "silent" / "0.wav", np.zeros(8000), 8000)
    (raw / "a" / "1.wav").symlink_to(tmp_path / "later.wav")
    assert preprocess(raw, tmp_path, "--test_ratio", 0) == 0
    written = (tmp_path / "train" / "a.npy").stat().st_mtime_ns
    assert preprocess(raw, tmp_path) == 0
    assert (tmp_path / "train" / "a.npy").stat().st_mtime_ns == written
    shutil.copy(raw / "a" / "0.wav", tmp_path / "later.wav")
    assert preprocess(raw, tmp_path) == 0
    assert len(features.load_features(tmp_path / "train")[0][0].voiced) == 2
    raw.rename(tmp_path / "moved")
    capsys.readouterr()
    assert preprocess(tmp_path / "moved", tmp_path) == 0
    assert f"skipped: {tmp_path / 'moved'}/silent/0.wav is silent" in capsys.readouterr().err


def test_a_manifest_of_another_program_makes_no_features_of_a_speaker(tmp_path):
    raw = make_speakers(tmp_path / "raw", ["a", "b"])
    common.write_json(raw / "a" / "manifest.json", {"audio_filepath": "0.wav"})
    assert preprocess(raw, tmp_path, "--test_ratio", 0) == 0
    shutil.copytree(tmp_path / "train", raw / "features")
    assert data_preprocess.find_speakers(raw, 0)["train"].keys() == {"a", "b"}


@pytest.mark.parametrize("names", [("train", "test"), ("TRAIN", "TEST")])
def test_train_and_test_are_parts_however_they_are_spelled(tmp_path, names, fails):
    for name, speaker in zip(names, ("a", "b"), strict=True):
        make_speakers(tmp_path / "raw" / name, [speaker])
    found = data_preprocess.find_speakers(tmp_path / "raw", 0.5)
    assert [list(found[part]) for part in ("train", "test")] == [["a"], ["b"]]
    make_speakers(tmp_path / "raw", ["c"])
    assert "or rename a person's" in fails(data_preprocess.main, *flags(tmp_path / "raw", tmp_path))


def test_a_killed_run_resumes_to_the_same_files(corpus, made_features, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(corpus, raw)
    command = [sys.executable, ROOT / "data_preprocess.py", "--raw_path", raw, "--jobs", "1",
               "--train_path", tmp_path / "train", "--test_path", tmp_path / "test"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("train/voice*.npy"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 3 <= len(list(tmp_path.glob("train/voice*.npy"))) < 8
    for path in tmp_path.glob("train/*.npy"):
        np.load(path, allow_pickle=False)                          # whole, if it is there
    written = tmp_path / "train" / ".other.npy.0123.part"          # by a program that still runs
    for path in (written.with_name(".voice00.npy.4567.part"), *tmp_path.rglob(".*.part")):
        path.touch()
        os.utime(path, (0, 0))
    written.touch()
    assert preprocess(raw, tmp_path) == 0
    assert [path for path in tmp_path.rglob("*") if path.name.endswith(".part")] == [written]
    for part in ("train", "test"):
        names = sorted(path.name for path in (made_features / part).glob("*.npy"))
        assert sorted(path.name for path in (tmp_path / part).glob("*.npy")) == names
        for name in names:
            np.testing.assert_array_equal(np.load(tmp_path / part / name, allow_pickle=False),
                                          np.load(made_features / part / name, allow_pickle=False))


def test_ctrl_c_ends_in_one_line_and_a_rerun_goes_on(corpus, tmp_path):
    raw = tmp_path / "raw"
    for number in range(20):        # enough work that the last speaker is far when the first one is done
        shutil.copytree(corpus, raw / f"c{number:02}")
    command = [sys.executable, ROOT / "data_preprocess.py", *flags(raw, tmp_path, "--jobs", 2, "--test_ratio", 0)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("train/c*.npy")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)                          # a terminal sends it to the workers too
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Traceback" not in err
    assert "stopped by the keyboard; run the same command to go on" in err.splitlines()
    assert preprocess(raw, tmp_path) == 0
    assert len(list(tmp_path.glob("train/*.npy"))) == 20


def test_two_processes_write_what_one_writes(corpus, made_features, tmp_path):
    command = [sys.executable, ROOT / "data_preprocess.py", "--raw_path", corpus, "--jobs", "2",
               "--train_path", tmp_path / "train", "--test_path", tmp_path / "test"]
    subprocess.run(command, check=True, capture_output=True)
    written = [path for part in ("train", "test") for path in (made_features / part).glob("*.npy")]
    assert len(written) == 11
    for path in written:
        assert path.read_bytes() == (tmp_path / path.parent.name / path.name).read_bytes()


def test_a_typed_setting_must_agree_with_the_folder(made_features, corpus, fails):
    assert "--sr is 16000, but" in fails(data_preprocess.main, *flags(corpus, made_features, "--sr", 16000))
    assert "--test_ratio is 0.5, but" in fails(data_preprocess.main, *flags(corpus, made_features, "--test_ratio", 0.5))


def test_settings_not_typed_are_the_folders(tmp_path):
    raw = make_speakers(tmp_path / "raw", ["a"])
    assert preprocess(raw, tmp_path, "--test_ratio", "0", "--sr", "16000") == 0
    other = make_speakers(tmp_path / "other", ["b"])
    assert preprocess(other, tmp_path) == 0
    speakers, settings = features.load_features(tmp_path / "train")
    assert settings["sr"] == 16000
    assert common.read_json(tmp_path / "train" / "manifest.json")["totals"]["speakers"] == 2
    assert [speaker.name for speaker in speakers] == ["a", "b"]


@pytest.mark.parametrize(("prepare", "words"), [
    (lambda raw: None, "there is no such folder"),
    (lambda raw: raw.mkdir(), "it has no folders"),
    (lambda raw: (raw / "a").mkdir(parents=True), "no recording of a speaker's folder there can be used"),
    (lambda raw: make_speakers(raw, ["a"], seconds=0.1), "no recording of a speaker's folder there can be used"),
    (lambda raw: make_speakers(raw, ["a:b"]), "speaker name 'a:b'"),
    (lambda raw: (make_speakers(raw / "train", ["a"]), make_speakers(raw / "test", ["a"])), "speaker a is in train"),
])
def test_a_folder_without_use_is_one_clear_error(tmp_path, fails, prepare, words):
    prepare(tmp_path / "raw")
    assert words in fails(data_preprocess.main, *flags(tmp_path / "raw", tmp_path))


def test_nothing_written_is_lost(tmp_path, fails, capsys):
    raw = make_speakers(tmp_path / "raw", ["a"])
    other = make_speakers(tmp_path / "other", ["a"])               # the same names, other files
    assert preprocess(raw, tmp_path, "--test_ratio", "0") == 0
    before = (tmp_path / "train" / "a.npy").read_bytes()
    assert "are speakers of one name" in fails(data_preprocess.main, *flags(other, tmp_path))
    assert (tmp_path / "train" / "a.npy").read_bytes() == before
    (raw / "a" / "0.wav").unlink()
    assert preprocess(raw, tmp_path) == 0                          # an emptied folder, as an unmounted disk leaves it
    assert (tmp_path / "train" / "a.npy").read_bytes() == before
    assert "holds no audio any more" in capsys.readouterr().err
    (tmp_path / "strange").mkdir()
    np.save(tmp_path / "strange" / "speaker0.npy", np.zeros(3), allow_pickle=False)
    assert "features of another program" in fails(
        data_preprocess.main, *flags(raw, tmp_path, "--train_path", tmp_path / "strange"))
    assert "are both" in fails(data_preprocess.main, *flags(raw, tmp_path, "--train_path", tmp_path / "test"))


def test_two_folders_of_different_settings_are_not_mixed(tmp_path, fails):
    raw = make_speakers(tmp_path / "raw", ["a"])
    assert preprocess(raw, tmp_path / "x", "--sr", "16000", "--test_ratio", "0") == 0
    assert preprocess(raw, tmp_path / "y", "--sr", "8000", "--test_ratio", "0") == 0
    mixed = flags(raw, tmp_path, "--train_path", tmp_path / "x" / "train", "--test_path", tmp_path / "y" / "train")
    line = fails(data_preprocess.main, *mixed)
    assert f"{tmp_path}/x/train was made with --sr 16000, {tmp_path}/y/train with 8000: name a new folder" in line


def test_copies_keep_to_their_noise(tmp_path, fails):
    """That of a pair of folders, too; by another name of the same place they go on."""
    raw, rng = make_speakers(tmp_path / "raw", ["a"]), np.random.default_rng(0)
    for folder in ("clean", "noisy", "noisier"):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "1.wav", 0.1 * rng.standard_normal(16000), 16000)
    (tmp_path / "link").symlink_to("noisy")

    def pair(noisy):
        return flags(raw, tmp_path, "--test_ratio", 0, "--copies", 1, "--noise_filenum", 2, "--noise_path",
                     tmp_path / "noise", "--clean_path", tmp_path / "clean", "--noisy_path", tmp_path / noisy)

    assert data_preprocess.main(list(map(str, pair("noisy")))) == 0
    before = (tmp_path / "train" / "a.npy").read_bytes()
    assert "noisier, but" in fails(data_preprocess.main, *pair("noisier"))
    assert data_preprocess.main(list(map(str, pair("link")))) == 0
    assert (tmp_path / "train" / "a.npy").read_bytes() == before


def test_noise_may_move_and_is_no_use_without_copies(tmp_path, capsys, fails):
    raw = make_speakers(tmp_path / "raw", ["a"])
    (tmp_path / "noise").mkdir()
    soundfile.write(tmp_path / "noise" / "1.wav", 0.1 * np.random.default_rng(0).standard_normal(48000), 16000)
    noise = ["--noise_raw_path", tmp_path / "noise", "--test_ratio", "0"]
    assert preprocess(raw, tmp_path / "none", *noise) == 0
    assert "which --copies mix in: there are none" in capsys.readouterr().err
    assert preprocess(raw, tmp_path, *noise, "--copies", "1") == 0
    (tmp_path / "noise").rename(tmp_path / "moved")
    assert "there is no such folder" in fails(data_preprocess.main, *flags(raw, tmp_path))
    assert preprocess(raw, tmp_path, "--noise_raw_path", tmp_path / "moved", "--copies", "2") == 0
    assert len(features.load_features(tmp_path / "train")[0][0].utterances[0].copies) == 2


def test_features_that_cannot_be_written_are_said_first(tmp_path, fails):
    raw = make_speakers(tmp_path / "raw", ["a"])
    (tmp_path / "file").touch()
    assert "--test_path is" in (line := fails(data_preprocess.main, *flags(
        raw, tmp_path, "--test_path", tmp_path / "file" / "test")))
    assert "it cannot be written" in line
    assert not (tmp_path / "train").exists()


def test_damaged_numbers_of_copies_are_named(tmp_path, fails):
    raw = make_speakers(tmp_path / "raw", ["a"])
    assert preprocess(raw, tmp_path, "--test_ratio", "0") == 0
    manifest, record = (common.read_json(tmp_path / "train" / f"{name}.json") for name in ("manifest", "a"))
    common.write_json(tmp_path / "train" / "a.json", record | {"slots": None})
    message = fails(data_preprocess.main, *flags(raw, tmp_path))
    assert "a.json is of another program, or damaged" in message
    assert "delete it and its .npy" in message
    manifest["settings"]["copies"] = "4"
    common.write_json(tmp_path / "train" / "manifest.json", manifest)
    assert "is damaged: --copies is '4'" in fails(data_preprocess.main, *flags(raw, tmp_path, "--copies", 2))


@pytest.mark.parametrize(("name", "flag"), [("encoder.tflite", "train_path"), ("report.html", "test_path")])
def test_no_features_go_into_a_model_or_a_report(tmp_path, fails, name, flag):
    raw = make_speakers(tmp_path / "raw", ["a"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / name).touch()
    assert f"--{flag} is {tmp_path / 'other'}: that holds {name}" in fails(
        data_preprocess.main, *flags(raw, tmp_path, f"--{flag}", tmp_path / "other"))
    assert [path.name for path in (tmp_path / "other").iterdir()] == [name]


def test_a_manifest_of_another_program_is_refused(tmp_path, fails):
    raw = make_speakers(tmp_path / "raw", ["a"])
    common.write_json(tmp_path / "train" / "manifest.json", {"name": "web app"})
    assert "is of another program" in fails(data_preprocess.main, *flags(raw, tmp_path))


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    common.write_json(tmp_path / "a.json", {"a": 1})

    def fail(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        common.write_whole(tmp_path / "a.json", fail)
    assert common.read_json(tmp_path / "a.json") == {"a": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_it_loads_without_tensorflow():
    code = "import sys, data_preprocess; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_audio_outside_a_speakers_folder_is_named(tmp_path, capsys):
    raw = make_speakers(tmp_path / "raw", ["a"])
    soundfile.write(raw / "stray.wav", tone(1), 16000)
    assert preprocess(raw, tmp_path, "--test_ratio", "0") == 0
    assert "stray.wav lies in no speaker's folder" in capsys.readouterr().err


def test_audio_outside_is_that_of_the_folders_used_and_no_folder(tmp_path, capsys):
    raw = make_speakers(tmp_path / "raw" / "train", ["anna.wav", "b"]).parent
    make_speakers(raw / "test", ["c"])
    strays = [raw / "top.wav", raw / "train" / "in.flac", raw / "test" / "in.ogg"]
    for path in (*strays, raw / "train" / ".hidden.wav"):
        path.touch()
    assert preprocess(raw, tmp_path) == 0
    named = [line for line in capsys.readouterr().err.splitlines() if "lies in no speaker's folder" in line]
    assert named == [f"skipped: {path} lies in no speaker's folder" for path in strays]


@pytest.mark.parametrize(("names", "ratio", "part", "remedy"), [
    (["a", "b"], "0.05", "test", "higher"), (["a"], "0.99", "train", "lower")])
def test_a_part_that_got_nobody_is_noted(tmp_path, capsys, names, ratio, part, remedy):
    raw = make_speakers(tmp_path / "raw", names)
    assert preprocess(raw, tmp_path, "--test_ratio", ratio) == 0
    note = (f"note: none of {len(names)} speakers fell into the {part} part (--test_ratio {ratio} goes by their "
            f"names): use new folders with a {remedy} one, or folders train and test")
    assert note in capsys.readouterr().err.splitlines()
    assert preprocess(raw, tmp_path / "all", "--test_ratio", "0") == 0          # as it was asked for
    assert "note:" not in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="names are bytes")
def test_a_place_that_is_not_utf8_is_named_first(tmp_path, fails, monkeypatch):
    strange = tmp_path / os.fsdecode(b"j\374rgen")
    (strange / "raw" / "a").mkdir(parents=True)
    shutil.copy2(make_speakers(tmp_path / "made", ["a"]) / "a" / "0.wav", strange / "raw" / "a")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "b").symlink_to(strange / "raw" / "a")
    monkeypatch.chdir(strange)
    for raw in ("raw", tmp_path / "raw"):
        assert fails(data_preprocess.main, *flags(raw, tmp_path)).endswith(" is not UTF-8; rename it")
    assert not (tmp_path / "train").exists()
    config = configuration.get_config(["--raw_path", str(tmp_path)])
    with pytest.raises(common.InputError, match="is not UTF-8; rename it"):
        data_preprocess.cached_recordings(config, [*strange.rglob("*.wav")])


def test_a_folder_without_a_name_is_no_corpus(fails):
    assert "--raw_path is /: --download" in fails(
        data_preprocess.main, "--raw_path", "/", "--download", "librispeech-dev-clean")


def test_two_folders_of_one_name_are_refused(tmp_path, fails):
    raw = make_speakers(tmp_path / "raw", ["Ame\u0301lie", "Am\u00e9lie"])
    assert "are one speaker's name: rename one of them" in fails(data_preprocess.main, *flags(raw, tmp_path))


def test_a_description_of_another_program_is_left_alone(tmp_path, fails):
    raw = make_speakers(tmp_path / "raw", ["a"])
    common.write_json(tmp_path / "train" / "a.json", {"utterances": []})
    assert "a.json was not made by data_preprocess.py: name a new folder" in fails(
        data_preprocess.main, *flags(raw, tmp_path, "--test_ratio", 0))
    assert common.read_json(tmp_path / "train" / "a.json") == {"utterances": []}


@pytest.mark.parametrize("change", ["time", "size", "settings", "gone"])
def test_features_are_made_again_where_their_origin_changed(tmp_path, change):
    raw = make_speakers(tmp_path / "raw", ["a"], files=2)
    config, path = configuration.get_config([]), raw / "a" / "0.wav"
    os.utime(path, ns=(0, 5_000_000_000))
    first = data_preprocess.process_speaker("a", raw / "a", tmp_path / "out", config, NONE)
    before = np.load(tmp_path / "out" / "a.npy", allow_pickle=False)
    common.write_json(tmp_path / "out" / "a.json", first | {"note": "as it was"})
    assert "note" in data_preprocess.process_speaker("a", raw / "a", tmp_path / "out", config, NONE)
    if change in ("time", "size"):
        soundfile.write(path, tone(1.0 if change == "time" else 1.5, 8000, 900), 8000)
        os.utime(path, ns=(0, 5_000_000_000 + 100 * (change == "time")))
    elif change == "settings":
        config.sr = 16000
    else:
        (tmp_path / "out" / "a.npy").unlink()
    again = data_preprocess.process_speaker("a", raw / "a", tmp_path / "out", config, NONE)
    after = np.load(tmp_path / "out" / "a.npy", allow_pickle=False)
    assert "note" not in again
    assert again["settings"] == features.feature_settings(config)
    assert np.array_equal(before, after) == (change == "gone")


def test_a_speaker_does_not_move_from_train_to_test(tmp_path, fails):
    make_speakers(tmp_path / "raw" / "train", ["a", "b"])
    make_speakers(tmp_path / "raw" / "test", ["c"])
    assert preprocess(tmp_path / "raw", tmp_path) == 0
    make_speakers(tmp_path / "later" / "train", ["d"])
    make_speakers(tmp_path / "later" / "test", ["a"])
    assert "speaker a is in train and test" in fails(data_preprocess.main, *flags(tmp_path / "later", tmp_path))
    make_speakers(tmp_path / "moved" / "train", ["a"])
    make_speakers(tmp_path / "moved" / "test", ["b"])
    assert f"{tmp_path / 'train' / 'b'}.npy and .json are of an earlier run; delete them" in fails(
        data_preprocess.main, *flags(tmp_path / "moved", tmp_path))
    make_speakers(tmp_path / "last" / "train", ["c"])
    make_speakers(tmp_path / "last" / "test", ["e"])
    assert "speaker c is in train and test" in fails(data_preprocess.main, *flags(tmp_path / "last", tmp_path))


def test_one_folder_by_two_names_is_not_train_and_test(tmp_path, fails):
    raw = make_speakers(tmp_path / "raw", ["a"])
    (tmp_path / "link").symlink_to(tmp_path / "train")
    assert "are both" in fails(data_preprocess.main, *flags(raw, tmp_path, "--test_path", tmp_path / "link"))


def test_audio_to_test_is_cached_by_place_and_settings(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    first, second = (make_speakers(tmp_path / name / "raw", ["a", "b"]) for name in ("one", "two"))
    (first / "b" / "broken.wav").write_bytes(b"junk")
    make_speakers(tmp_path / "split" / "train", ["c"])
    make_speakers(tmp_path / "split" / "test", ["d"])

    def cached(raw, *argv):
        return data_preprocess.cached_features(configuration.get_config(["--raw_path", str(raw), "--jobs", "1", *argv]))

    folder, names = cached(first)
    assert names == {"a", "b"}                                          # all, whatever the ratio of a split
    assert "broken.wav cannot be read" in capsys.readouterr().err
    stamp = (folder / "a.npy").stat().st_mtime_ns
    assert cached(first)[0] == folder
    assert (folder / "a.npy").stat().st_mtime_ns == stamp
    assert len({folder, cached(second)[0], cached(first, "--sr", "16000")[0]}) == 3
    assert features.load_features(cached(first, "--sr", "16000")[0])[1]["sr"] == 16000
    assert cached(tmp_path / "split")[1] == {"d"}


def test_a_cache_holds_one_kind_of_speakers_under_the_noises_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw, noise = make_speakers(tmp_path / "raw", ["a", "b", "c"]), tmp_path / "noise"
    noise.mkdir()
    monkeypatch.setattr(common, "run_on_cores", lambda *_, **__: [])
    config, folders = configuration.get_config(["--raw_path", str(raw), "--noise_raw_path", str(noise)]), []
    for samples in (100, 200):                          # other noise of the same number and name
        soundfile.write(noise / "rain.wav", np.ones(samples), 16000)
        for _ in range(2):
            folders += [data_preprocess.cached_features(config, under_conditions=True)[0],
                        data_preprocess.cached_recordings(config, sorted(raw.rglob("*.wav")))[0]]
    assert folders[:2] == folders[2:4]
    assert folders[4:6] == folders[6:]
    make_speakers(raw, ["d"])                           # another voice babbles behind the others
    folders.append(data_preprocess.cached_features(config, under_conditions=True)[0])
    assert len(set(folders)) == 5


def test_the_totals_by_hand():
    """5 s with 4 s of speech in two segments, 1 s with 0.25 s, 2 s of silence, a file that cannot be read."""
    utterances = [{"seconds": seconds, "speech_seconds": speech, "count": count, "dropped": dropped}
                  for seconds, speech, count, dropped in (
                      (5.0, 4.0, 2, ""), (1.0, 0.25, 0, "holds under 0.5 s of speech"), (2.0, 0.0, 0, "is silent"),
                      (0.0, 0.0, 0, "cannot be read: File contains no data"))]
    totals = data_preprocess.record_totals({"segments": 2, "utterances": utterances, "ignored": {".txt": 3}})
    assert totals == {
        "speakers": 1, "speakers without speech": 0, "utterances": 4, "copies": 0, "segments": 2, "seconds heard": 8.0,
        "seconds of pauses": 3.75, "seconds in too short utterances": 0.25, "seconds kept": 4.0,
        "dropped: holds under 0.5 s of speech": 1, "dropped: is silent": 1, "dropped: cannot be read": 1,
        "ignored: .txt": 3}
    assert data_preprocess.record_totals({"segments": 0, "utterances": utterances[1:], "ignored": {}})[
        "speakers without speech"] == 1
    lines = data_preprocess.totals_table({"train": totals, "test": totals + totals}).splitlines()
    assert lines[0].split() == ["train", "test"]
    assert "seconds of pauses" + 23 * " " + f"{'4':>12}{'8':>12}" in lines
    assert lines[-1] == f"{'ignored: .txt':40}{'3':>12}{'6':>12}"


def test_what_a_stop_left_between_two_files_is_made_again(tmp_path, monkeypatch):
    """A disk was full: the features have copies of which their description knows nothing; or rows are missing."""
    voices.write_corpus(tmp_path / "raw", range(2), 2, seconds=(2.0, 2.0))
    flags = ["--raw_path", tmp_path / "raw", "--train_path", tmp_path / "train", "--test_path", tmp_path / "test",
             "--test_ratio", 0, "--jobs", 1]
    assert data_preprocess.main([*map(str, flags)]) == 0

    def full(path, *arguments):
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(features, "write_json", full)
        assert data_preprocess.main([*map(str, flags), "--copies", "1"]) == 2
    assert data_preprocess.main([*map(str, flags), "--copies", "1"]) == 0
    made = {speaker.name: np.array(speaker.load()) for speaker in features.load_features(tmp_path / "train")[0]}
    path = tmp_path / "train" / "voice01.npy"
    np.save(path, made["voice01"][:-1], allow_pickle=False)
    (tmp_path / "train" / "voice00.npy").write_bytes(b"short")
    assert data_preprocess.main([*map(str, flags), "--copies", "1"]) == 0
    for speaker in features.load_features(tmp_path / "train")[0]:
        np.testing.assert_array_equal(speaker.load(), made[speaker.name])


def test_hidden_files_and_bytes_that_are_no_text_do_not_stop_it(tmp_path, fails):
    voices.write_corpus(tmp_path / "raw", range(1), 1, seconds=(2.0, 2.0))
    with open(os.fsencode(tmp_path / "raw" / "voice00") + b"/notes v1.2 fran\xe7ais", "wb"):
        pass
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        for name in ("._voice00.json", "._voice00.npy"):
            (tmp_path / part / name).write_bytes(b"\0\5\x16\7")             # macOS leaves such on other disks
    flags = ["--raw_path", tmp_path / "raw", "--train_path", tmp_path / "train", "--test_path", tmp_path / "test",
             "--test_ratio", 0, "--jobs", 1]
    assert data_preprocess.main([*map(str, flags)]) == 0
    assert [speaker.name for speaker in features.load_features(tmp_path / "train")[0]] == ["voice00"]
    assert "it is not UTF-8; rename it" in fails(data_preprocess.main, "--raw_path", os.fsdecode(b"r\xe9w"))


def test_speakers_that_are_links_are_of_the_corpus_that_they_lie_in(tmp_path):
    make_speakers(tmp_path / "here", ["a"])
    make_speakers(tmp_path / "there", ["b"])
    (tmp_path / "raw").mkdir()
    for name, home in (("a", "here"), ("b", "there")):
        (tmp_path / "raw" / name).symlink_to(tmp_path / home / name)
    for _ in range(2):
        assert preprocess(tmp_path / "raw", tmp_path, "--test_ratio", "0") == 0
        assert [speaker.corpus for speaker in features.load_features(tmp_path / "train")[0]] == [
            str(tmp_path / "raw")] * 2


def test_a_speaker_whose_folder_is_gone_is_told(tmp_path, capsys):
    raw, other = make_speakers(tmp_path / "raw", ["a", "b"]), make_speakers(tmp_path / "other", ["c"])
    for corpus in (raw, other):
        assert preprocess(corpus, tmp_path, "--test_ratio", "0") == 0
    shutil.rmtree(raw / "b")
    shutil.rmtree(other / "c")
    capsys.readouterr()
    assert preprocess(raw, tmp_path) == 0
    told = capsys.readouterr().err
    assert f"{raw / 'b'} is gone; {tmp_path / 'train' / 'b.npy'} is kept, delete it if it is not wanted" in told
    assert "c is gone" not in told                                      # that corpus was not looked at


def test_a_corpus_may_move(tmp_path):
    raw = make_speakers(tmp_path / "raw", ["a"])
    assert preprocess(raw, tmp_path, "--test_ratio", "0") == 0
    raw.rename(tmp_path / "moved")
    assert preprocess(tmp_path / "moved", tmp_path) == 0                # the same files: nothing to do, nothing refused
    assert [speaker.name for speaker in features.load_features(tmp_path / "train")[0]] == ["a"]
    (tmp_path / "moved").rename(tmp_path / "raw")
    os.utime(tmp_path / "raw" / "a" / "0.wav", (0, 0))                  # copied, without the times
    assert preprocess(tmp_path / "raw", tmp_path) == 0
    shutil.rmtree(tmp_path / "raw")
    make_speakers(tmp_path / "other", ["a"], seconds=1.5)
    assert preprocess(tmp_path / "other", tmp_path) == 2                # somebody else's
