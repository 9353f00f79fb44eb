"""Audio of every kind in, segments out; what is skipped is counted; a rerun does only what changed."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import librosa
import numpy as np
import pytest
import soundfile

import configuration
import data_preprocess
import utils
from configuration import InputError

ROOT = pathlib.Path(data_preprocess.__file__).parent
CONFIG = configuration.get_config([])
VOICE = {"sr": 8000, "window": 0.025, "hop": 0.01, "top_db": 30.0}


def tone(seconds, sr=16000, frequency=440.0):
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * sr)) / sr)).astype(np.float32)


# ---- reading ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "options"), [
    ("a.wav", {"subtype": "PCM_U8"}), ("a.WAV", {"subtype": "PCM_16", "format": "WAV"}),
    ("a.wav", {"subtype": "PCM_24"}), ("a.wav", {"subtype": "PCM_32"}), ("a.wav", {"subtype": "FLOAT"}),
    ("a.wav", {"subtype": "ULAW"}),
    ("a.flac", {}), ("a.ogg", {"subtype": "VORBIS"}), ("a.opus", {"subtype": "OPUS", "format": "OGG"}), ("a.mp3", {}),
    ("a.aiff", {}), ("a.au", {})])
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (48000, 2)])
def test_every_format_becomes_the_same_tone(tmp_path, name, options, rate, channels):
    soundfile.write(tmp_path / name, np.repeat(tone(1.5, rate)[:, None], channels, axis=1), rate, **options)
    assert data_preprocess.audio_files(tmp_path) == ([name], {})
    wave = data_preprocess.load_audio(tmp_path / name, 8000)
    assert wave.dtype == np.float32
    assert abs(len(wave) - 12000) <= 1
    middle = wave[4000:8000]
    strength = np.abs(middle @ np.exp(2j * np.pi * 440 * np.arange(4000) / 8000)) / 2000   # of the 440 Hz in it
    assert strength == pytest.approx(0.5, rel=0.05)
    assert np.std(middle) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)                     # and nothing else


def test_channels_are_averaged(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([np.full(800, 0.5), np.full(800, -0.25)], axis=1), 8000, "FLOAT")
    np.testing.assert_allclose(data_preprocess.load_audio(tmp_path / "a.wav", 8000), 0.125)


@pytest.mark.parametrize("options", [
    {"file": "a.wav", "subtype": "PCM_16"}, {"file": "a.wav", "subtype": "FLOAT"}, {"file": "a.flac"},
    {"file": "a.ogg", "subtype": "VORBIS"}, {"file": "a.ogg", "subtype": "OPUS"}, {"file": "a.mp3"},
    {"file": "a.aiff"}, {"file": "a.au"}, {"file": "a.caf", "subtype": "PCM_16"}])
@pytest.mark.parametrize("kept", [0.6, 0.95])
def test_a_truncated_file_is_refused_and_the_whole_one_is_not(tmp_path, monkeypatch, options, kept):
    monkeypatch.chdir(tmp_path)
    noise = 0.1 * np.random.default_rng(0).standard_normal(48000)
    soundfile.write(**options, data=noise, samplerate=16000)
    assert len(data_preprocess.load_audio(options["file"], 16000)) == 48000
    path = pathlib.Path(options["file"])
    path.write_bytes(path.read_bytes()[:int(kept * path.stat().st_size)])
    with pytest.raises(InputError, match=r"is cut short|cannot be read"):
        data_preprocess.load_audio(path, 16000)


@pytest.mark.parametrize("length", [b"\xff\xff\xff\xff", b"\x00\xf0\xff\x7f"])   # ffmpeg and SoX, to a pipe
def test_a_wav_of_open_length_is_read(tmp_path, length):
    soundfile.write(tmp_path / "a.wav", tone(1), 16000, "PCM_16")
    raw = bytearray((tmp_path / "a.wav").read_bytes())
    raw[4:8] = raw[40:44] = length
    (tmp_path / "a.wav").write_bytes(raw)
    assert len(data_preprocess.load_audio(tmp_path / "a.wav", 16000)) == 16000


def test_a_flac_of_open_length_is_refused_because_libsndfile_cannot_read_it(tmp_path):
    soundfile.write(tmp_path / "a.flac", tone(1), 16000)
    raw = bytearray((tmp_path / "a.flac").read_bytes())
    raw[21] &= 0xF0                                                # the 36 bits of its number of samples: 0, unknown
    raw[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(raw)
    with pytest.raises(InputError, match="cannot be read"):
        data_preprocess.load_audio(tmp_path / "a.flac", 16000)


@pytest.mark.parametrize(("content", "words"), [
    (b"", "cannot be read"), (b"not audio at all", "cannot be read")])
def test_what_is_no_audio_is_refused(tmp_path, content, words):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(InputError, match=words):
        data_preprocess.load_audio(tmp_path / "a.wav", 8000)


@pytest.mark.parametrize(("wave", "words"), [
    (np.zeros(0, np.float32), "is empty"), (np.array([0.1, np.nan], np.float32), "not finite")])
def test_empty_and_not_finite_audio_is_refused(tmp_path, wave, words):
    soundfile.write(tmp_path / "a.wav", wave, 8000, "FLOAT")
    with pytest.raises(InputError, match=words):
        data_preprocess.load_audio(tmp_path / "a.wav", 8000)


# ---- features ---------------------------------------------------------------------------------------------------

def test_voiced_stretches_are_joined():
    gap = np.zeros(8000, np.float32)
    wave = np.concatenate([gap, tone(0.4, 8000), gap, tone(0.3, 8000), gap])
    speech = data_preprocess.voiced(wave, **VOICE)
    assert 0.70 <= len(speech) / 8000 <= 0.80                      # 0.7 s and the edges of a frame
    assert np.abs(speech).max() == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("gain", [1.0, 1e-3])
def test_the_level_of_a_recording_does_not_matter(gain):
    quiet = np.zeros(8000, np.float32)
    wave = gain * np.concatenate([quiet, tone(0.7, 8000), quiet])
    assert 0.70 <= len(data_preprocess.voiced(wave, **VOICE)) / 8000 <= 0.76


@pytest.mark.parametrize("wave", [np.zeros(8000), np.zeros(0), np.full(8000, 3e-5)])
def test_silence_holds_no_speech(wave):
    assert len(data_preprocess.voiced(wave.astype(np.float32), **VOICE)) == 0
    assert data_preprocess.segments(wave.astype(np.float32), CONFIG).shape == (0, 40, 180)


@pytest.mark.parametrize("nfft", [512, 401])
@pytest.mark.parametrize("samples", [512, 8000, 12345])
def test_log_mel_is_librosas(samples, nfft):
    wave = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    found = data_preprocess.log_mel(wave, sr=8000, nfft=nfft, window=0.025, hop=0.01)
    mel = librosa.feature.melspectrogram(y=wave, sr=8000, n_fft=nfft, win_length=200, hop_length=80, n_mels=40,
                                         power=2.0, center=True, pad_mode="constant")
    assert found.dtype == np.float32
    assert found.shape == (1 + samples // 80, 40)
    mel = mel[:, :len(found)]                                      # librosa has one frame less for an odd nfft
    found = found[:mel.shape[1]]
    np.testing.assert_allclose(found, np.log10(mel + 1e-6).T, atol=1e-4)


def test_a_single_sample_is_one_frame():
    found = data_preprocess.log_mel(np.ones(1, np.float32), sr=8000, nfft=512, window=0.025, hop=0.01)
    assert found.shape == (1, 40)
    assert np.isfinite(found).all()


def test_long_audio_is_transformed_in_blocks(monkeypatch):
    wave = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    whole = data_preprocess.log_mel(wave, sr=8000, nfft=512, window=0.025, hop=0.01)
    monkeypatch.setattr(data_preprocess, "STFT_BLOCK", 7)
    in_blocks = data_preprocess.log_mel(wave, sr=8000, nfft=512, window=0.025, hop=0.01)
    np.testing.assert_allclose(in_blocks, whole, atol=1e-5)


@pytest.mark.parametrize(("frames", "starts"), [
    (180, [0]), (181, [0, 1]), (260, [0, 80]), (300, [0, 80, 120]), (341, [0, 80, 160, 161])])
def test_segments_start_every_80_frames_and_end_at_the_end(frames, starts):
    cuts = data_preprocess.cut(np.tile(np.arange(frames)[:, None], (1, 40)), 180)
    assert cuts.shape == (len(starts), 40, 180)
    assert cuts[:, 0, 0].tolist() == starts
    assert cuts[-1, 0, -1] == frames - 1
    assert (np.diff(cuts, axis=2) == 1).all()


def test_a_short_utterance_is_repeated():
    cuts = data_preprocess.cut(np.tile(np.arange(70)[:, None], (1, 40)), 180)
    assert cuts.shape == (1, 40, 180)
    assert cuts[0, 7].tolist() == [*range(70), *range(70), *range(40)]


@pytest.mark.parametrize(("seconds", "segments"), [(0.45, 0), (0.55, 1), (1.7, 1), (3.0, 3)])
def test_half_a_second_of_speech_is_enough(seconds, segments):
    assert data_preprocess.segments(tone(seconds, 8000), CONFIG).shape == (segments, 40, 180)


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
    (tmp_path / "dev").mkdir()
    parts = data_preprocess.find_speakers(tmp_path, 0.0)
    assert list(parts["train"]) == ["dev", "test", "train"]


def test_recordings_are_found_at_any_depth(tmp_path):
    home = tmp_path / "id10001"
    for path in ("video/00001.wav", "1-2/deep/2.FLAC", "0.ogg"):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).touch()
    (home / "words.txt").touch()
    (home / "video.m4a").touch()
    (home / ".hidden.wav").touch()
    (home / ".Trash").mkdir()
    (home / ".Trash" / "old.wav").touch()
    files, others = data_preprocess.audio_files(home)
    assert files == ["0.ogg", "1-2/deep/2.FLAC", "video/00001.wav"]
    assert others == {".txt": 1, ".m4a": 1}


@pytest.mark.parametrize("name", ["../x", ".hidden", "a/b", "a\\b", "a\nb", "", " a", "a:b"])
def test_a_name_that_could_leave_its_folder_is_refused(name):
    with pytest.raises(InputError, match="speaker name"):
        data_preprocess.speaker_name(name)


def test_a_name_is_normalised():
    assert data_preprocess.speaker_name("Ame\u0301lie B. 2") == "Am\u00e9lie B. 2"


def test_at_least_95_percent_of_the_speech_is_kept(features):
    for part in ("train", "test"):
        totals = json.loads((features / part / "manifest.json").read_text())["totals"]
        kept, lost = totals["seconds kept"], totals["seconds in too short utterances"]
        assert kept > 30
        assert kept / (kept + lost) >= 0.95
        assert totals["seconds heard"] == pytest.approx(totals["seconds of pauses"] + kept + lost)


def test_the_json_tells_where_each_row_comes_from(features):
    speakers, settings = utils.load_features(features / "test")
    assert [speaker.name for speaker in speakers] == ["voice08", "voice09", "voice10"]
    assert settings["sr"] == 8000
    for speaker in speakers:
        rows = speaker.load()
        assert rows.dtype == np.float32
        assert [utterance.file for utterance in speaker.utterances] == [f"{i:02}.wav" for i in range(6)]
        assert sum(utterance.count for utterance in speaker.utterances) == len(rows)
        assert all(0.5 < utterance.speech_seconds <= utterance.seconds < 5 for utterance in speaker.utterances)


def test_the_features_on_disk_are_those_of_the_functions(features, corpus):
    speaker = utils.load_features(features / "test")[0][0]
    second = speaker.utterances[1]
    wave = data_preprocess.load_audio(corpus / "test" / speaker.name / second.file, 8000)
    expected = data_preprocess.segments(wave, CONFIG)
    np.testing.assert_array_equal(speaker.load()[second.first:second.first + second.count], expected)


def test_bad_files_are_skipped_counted_and_named(tmp_path, capsys):
    raw = make_speakers(tmp_path / "raw", ["a", "b"], files=2)
    (raw / "a" / "broken.wav").write_bytes(b"junk")
    soundfile.write(raw / "a" / "silent.wav", np.zeros(8000), 8000)
    soundfile.write(raw / "a" / "short.wav", tone(0.2, 8000), 8000)
    (raw / "a" / "notes.txt").touch()
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
    assert table["ignored: .txt"] == ["1"]
    assert sorted(path.name for path in (tmp_path / "train").glob("*.npy")) == ["a.npy", "b.npy"]
    utterances = {u.file: u for u in utils.load_features(tmp_path / "train")[0][0].utterances}
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
    assert [s.name for s in utils.load_features(tmp_path / "train")[0]] == ["a", "b"]


def test_a_killed_run_resumes_to_the_same_files(corpus, features, tmp_path):
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
    assert preprocess(raw, tmp_path) == 0
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]
    for part in ("train", "test"):
        names = sorted(path.name for path in (features / part).glob("*.npy"))
        assert sorted(path.name for path in (tmp_path / part).glob("*.npy")) == names
        for name in names:
            np.testing.assert_array_equal(np.load(tmp_path / part / name, allow_pickle=False),
                                          np.load(features / part / name, allow_pickle=False))


def test_ctrl_c_ends_in_one_line_and_a_rerun_goes_on(corpus, tmp_path):
    command = [sys.executable, ROOT / "data_preprocess.py", *flags(corpus, tmp_path, "--jobs", 2)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("train/voice*.npy")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)                          # a terminal sends it to the workers too
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Traceback" not in err
    assert "stopped by the keyboard; run the same command to go on" in err.splitlines()
    assert preprocess(corpus, tmp_path) == 0


def test_two_processes_write_what_one_writes(corpus, features, tmp_path):
    command = [sys.executable, ROOT / "data_preprocess.py", "--raw_path", corpus, "--jobs", "2",
               "--train_path", tmp_path / "train", "--test_path", tmp_path / "test"]
    subprocess.run(command, check=True, capture_output=True)
    written = [path for part in ("train", "test") for path in (features / part).glob("*.npy")]
    assert len(written) == 11
    for path in written:
        assert path.read_bytes() == (tmp_path / path.parent.name / path.name).read_bytes()


def test_a_typed_setting_must_agree_with_the_folder(features, corpus, fails):
    assert "--sr is 16000, but" in fails(data_preprocess.main, *flags(corpus, features, "--sr", 16000))
    assert "--test_ratio is 0.5, but" in fails(data_preprocess.main, *flags(corpus, features, "--test_ratio", 0.5))


def test_settings_not_typed_are_the_folders(tmp_path):
    raw = make_speakers(tmp_path / "raw", ["a"])
    assert preprocess(raw, tmp_path, "--test_ratio", "0", "--sr", "16000") == 0
    other = make_speakers(tmp_path / "other", ["b"])
    assert preprocess(other, tmp_path) == 0
    speakers, settings = utils.load_features(tmp_path / "train")
    assert settings["sr"] == 16000
    assert configuration.read_json(tmp_path / "train" / "manifest.json")["totals"]["speakers"] == 2
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
    assert "--sr is 16000, but" in fails(data_preprocess.main, *mixed)


def test_a_manifest_of_another_program_is_refused(tmp_path, fails):
    raw = make_speakers(tmp_path / "raw", ["a"])
    configuration.write_json(tmp_path / "train" / "manifest.json", {"name": "web app"})
    assert "is of another program" in fails(data_preprocess.main, *flags(raw, tmp_path))


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    configuration.write_json(tmp_path / "a.json", {"a": 1})

    def fail(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        configuration.write_whole(tmp_path / "a.json", fail)
    assert configuration.read_json(tmp_path / "a.json") == {"a": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_it_loads_without_tensorflow():
    code = "import sys, data_preprocess; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_audio_outside_a_speakers_folder_is_named(tmp_path, capsys):
    raw = make_speakers(tmp_path / "raw", ["a"])
    soundfile.write(raw / "stray.wav", tone(1), 16000)
    assert preprocess(raw, tmp_path, "--test_ratio", "0") == 0
    assert "stray.wav lies in no speaker's folder" in capsys.readouterr().err


def test_noise_is_steady_and_speech_is_not(corpus):
    flags = configuration.get_config([])
    noise = np.random.default_rng(0).standard_normal(24000).astype(np.float32)
    assert data_preprocess.steady(data_preprocess.segments(noise, flags))
    recordings = sorted((corpus / "test").rglob("*.wav"))
    assert len(recordings) == 18
    for path in recordings:
        assert not data_preprocess.steady(data_preprocess.segments(data_preprocess.load_audio(path, 8000), flags))
