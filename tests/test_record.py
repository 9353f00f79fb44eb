"""Enrolments and probes from files and from a virtual microphone; what is refused, and that it leaves nothing."""
import json
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
import soundfile

import audio
import common
import configuration
import embedding
import features
import listening
import record
from common import InputError

ROOT = pathlib.Path(record.__file__).parent


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def files(folder):
    """Return the relative paths of all files below a folder but for locks."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")
                  if path.is_file() and path.name != ".lock")


def description(folder, name):
    return json.loads((folder / "enroll" / f"{name}.json").read_text())


@pytest.fixture
def enrol(trained, here):
    """Return a function that enrols a recording as the command does; it returns the exit code."""

    def run(path, *argv, speaker="anna"):
        return record.main(["--model_path", str(trained), "--input", str(path), "--speaker", speaker, *argv])

    return run


# ---- enrolments -------------------------------------------------------------------------------------------------

def test_enrolments_add_up_start_over_and_are_forgotten(enrol, here, corpus, trained, capsys):
    voice = corpus / "test" / "voice08"
    assert enrol(voice / "00.wav", "--keep_recording") == 0
    first = np.load(here / "enroll" / "anna.npy", allow_pickle=False)
    assert enrol(voice / "01.wav", "--keep_recording", "True") == 0
    assert "anna.npy: 2 recordings, " in capsys.readouterr().out
    both, told = np.load(here / "enroll" / "anna.npy", allow_pickle=False), description(here, "anna")
    np.testing.assert_array_equal(both[:len(first)], first)
    config = configuration.get_config(["--model_path", str(trained)])
    embedding.adopt_model(config)
    np.testing.assert_array_equal(both[len(first):], audio.segments(
        audio.load_audio(voice / "01.wav", config.sr), config))
    assert [(entry["first"], entry["count"]) for entry in told["utterances"]] == [
        (0, len(first)), (len(first), len(both) - len(first))]
    assert [entry["source"] for entry in told["utterances"]] == [str(voice / "00.wav"), str(voice / "01.wav")]
    assert len(files(here / "raw_data" / "anna")) == 2

    assert enrol(voice / "02.wav", "--replace") == 0
    assert len(description(here, "anna")["utterances"]) == 1
    assert enrol(voice / "02.wav", speaker="ben") == 0
    (here / "raw_data" / "anna" / "her own.wav").touch()
    assert record.main(["--forget", "--speaker", "anna"]) == 0
    assert files(here) == ["enroll/ben.json", "enroll/ben.npy", "raw_data/anna/her own.wav"]


def test_a_recording_counts_once(enrol, here, corpus, fails, trained):
    path = corpus / "test" / "voice08" / "00.wav"
    assert enrol(path) == 0
    assert "this recording of anna is enrolled already" in fails(
        record.main, "--model_path", trained, "--input", path, "--speaker", "anna")
    assert enrol(path, speaker="ben") == enrol(path, "--replace") == 0
    assert [person.recordings for person in record.list_enrolled(configuration.get_config([]))] == [1, 1]


def test_ctrl_c_waits_until_both_files_are_there(enrol, here, corpus, monkeypatch):
    """It comes when the features are written, and their description is not."""
    voice, write_json = corpus / "test" / "voice08", common.write_json
    assert enrol(voice / "00.wav") == 0

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        write_json(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(features, "write_json", interrupted)
        assert enrol(voice / "01.wav") == 2
    assert len(description(here, "anna")["utterances"]) == 2
    assert enrol(voice / "02.wav") == 0


def test_audio_that_is_enrolled_as_it_is_has_its_name_to_itself(enrol, here, corpus, fails, trained):
    shutil.copytree(corpus / "test" / "voice08", here / "enroll" / "anna")
    (here / "enroll" / "._ben.npy").touch()
    path = corpus / "test" / "voice09" / "00.wav"
    assert "anna holds recordings of anna" in fails(record.main, "--model_path", trained, "--input", path, "--speaker",
                                                    "anna")
    assert "delete them yourself" in fails(record.main, "--forget", "--speaker", "anna")
    assert enrol(path, speaker="cora") == 0
    assert [(person.name, person.recordings) for person in record.list_enrolled(configuration.get_config([]))] == [
        ("anna", 6), ("cora", 1)]


def test_what_leaves_no_verdict_is_said_before_anybody_speaks(enrol, here, corpus, trained, fails, monkeypatch):
    assert enrol(corpus / "test" / "voice08" / "00.wav") == 0
    path = here / "enroll" / "anna.json"
    path.write_text(path.read_text().replace('"top_db": 30.0', '"top_db": 20.0'))
    monkeypatch.setattr(record, "record", None)
    line = fails(record.main, "--verify", "--model_path", trained)
    assert "was made with top_db 20.0" in line
    assert line.endswith("enrol from the audio again with python record.py --speaker anna --replace True")


def test_a_claim_needs_no_other_enrolment(enrol, here, corpus, trained):
    voice = corpus / "test" / "voice08"
    assert enrol(voice / "00.wav") == 0
    (here / "enroll" / "ben.npy").write_bytes(b"damaged")
    flags = ["--verify", "--model_path", str(trained), "--input", str(voice / "01.wav"), "--threshold", "-1"]
    assert record.main([*flags, "--speaker", "anna"]) == 0
    assert record.main(flags) == 2


def test_an_enrolment_tells_its_own_totals(enrol, here, corpus, capsys, monkeypatch):
    """Beside another that is there twice, and where it is forgotten meanwhile."""
    voice = corpus / "test" / "voice08"
    shutil.copytree(voice, here / "enroll" / "carl")
    (here / "enroll" / "carl.npy").touch()
    assert enrol(voice / "00.wav", speaker="dora") == 0
    assert "dora.npy: 1 recording, " in capsys.readouterr().out
    monkeypatch.setattr(record, "enroll", lambda config, name, *_: here / "enroll" / f"{name}.npy")
    assert enrol(voice / "00.wav", speaker="eve") == 0
    assert "eve.npy: 0 recordings, 0.0 s of speech" in capsys.readouterr().out


def test_a_model_that_has_lost_its_config_is_not_recorded_for(here, trained, corpus, fails):
    shutil.copytree(trained, here / "model")
    (here / "model" / "config.json").unlink()
    assert "has no config.json beside it" in fails(record.main, "--input", corpus / "test" / "voice08" / "00.wav")


def test_json_tells_what_the_probe_lacks(enrol, here, corpus, trained, capsys):
    voice = corpus / "test" / "voice08"
    assert enrol(voice / "00.wav") == 0
    wave, sr = soundfile.read(voice / "01.wav")
    soundfile.write(here / "narrow.wav", wave[::sr // 4000], 4000)
    capsys.readouterr()
    record.main(["--verify", "--json", "--model_path", str(trained), "--input", "narrow.wav", "--threshold", "0"])
    assert "narrow.wav is at 4000 Hz" in json.loads(capsys.readouterr().out)["notes"][0]


def test_what_cannot_be_written_is_said_before_anybody_speaks(enrol, here, corpus, trained, fails, monkeypatch):
    path = corpus / "test" / "voice08" / "00.wav"
    assert enrol(path) == 0
    monkeypatch.setattr(record, "get_recording", lambda *arguments: pytest.fail("it records"))
    (here / "file").touch()
    for flags, flag in ((["--speaker", "anna", "--enroll_path", "file/a"], "--enroll_path is file/a"),
                        (["--verify", "--verify_path", "file/b", "--threshold", "0.5"], "--verify_path is file/b")):
        assert f"{flag}: it cannot be written" in fails(record.main, "--model_path", str(trained), *flags)


@pytest.mark.parametrize("flags", [("--verify", "True", "--verify_path", "enroll"), ("--verify_path", "./enroll"),
                                   ("--keep_recording", "True", "--raw_path", "enroll"),
                                   ("--keep_recording", "True", "--raw_path", "enroll/audio")])
def test_the_folder_of_the_enrolments_is_theirs_alone(enrol, here, corpus, trained, fails, flags):
    """Whoever is in there is enrolled: a probe would be, and a speaker of its name be replaced."""
    voice = corpus / "test" / "voice08"
    assert enrol(voice / "00.wav") == 0
    line = fails(record.main, "--model_path", trained, "--input", voice / "01.wav", "--speaker", "anna", *flags)
    assert f"{flags[-2]} is {flags[-1]}: that is --enroll_path, or in it; name another folder" in line
    assert files(here) == ["enroll/anna.json", "enroll/anna.npy"]


def test_where_recordings_cannot_be_kept_is_said_before_anybody_speaks(here, trained, fails):
    (here / "file").touch()
    line = fails(record.main, "--model_path", trained, "--speaker", "anna", "--keep_recording", "--raw_path", "file",
                 "--input", "none.wav")
    assert "--raw_path is file: it cannot be written" in line


def test_recordings_that_were_kept_behind_a_link_are_forgotten(enrol, here, corpus):
    (here / "disk").mkdir()
    (here / "raw_data").mkdir()
    (here / "raw_data" / "anna").symlink_to(here / "disk")
    assert enrol(corpus / "test" / "voice08" / "00.wav", "--keep_recording") == 0
    assert len(files(here / "disk")) == 1
    assert record.main(["--forget", "--speaker", "anna"]) == 0
    assert not files(here / "disk")


def test_recordings_of_a_moved_or_renamed_enrolment_are_forgotten(enrol, here, corpus, monkeypatch):
    assert enrol(corpus / "test" / "voice08" / "00.wav", "--keep_recording") == 0
    (here / "moved").mkdir()
    for name in ("enroll", "raw_data"):
        (here / name).rename(here / "moved" / name)
    monkeypatch.chdir(here / "moved")
    assert enrol(corpus / "test" / "voice08" / "01.wav", "--keep_recording") == 0
    for suffix in (".npy", ".json"):
        pathlib.Path(f"enroll/anna{suffix}").rename(f"enroll/zoe{suffix}")
    assert len(files(pathlib.Path("raw_data"))) == 2
    assert record.main(["--forget", "--speaker", "zoe"]) == 0
    assert not files(here)


def test_only_what_was_recorded_is_forgotten(enrol, here, corpus):
    """Whatever a stranger's description names: a corpus is left alone."""
    assert enrol(corpus / "test" / "voice08" / "00.wav", "--keep_recording") == 0
    (here / "raw_data" / "voice08").mkdir()
    own = here / "raw_data" / "voice08" / "00.wav"
    shutil.copy(corpus / "test" / "voice08" / "00.wav", own)
    path = here / "enroll" / "anna.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"speaker": "voice08", "recordings": [*told["recordings"], str(own)]}))
    assert record.main(["--forget", "--speaker", "anna"]) == 0
    assert own.exists()


def test_of_an_enrolment_that_cannot_be_written_no_recording_is_left(enrol, here, corpus, monkeypatch, fails, trained):
    voice = corpus / "test" / "voice08"
    assert enrol(voice / "00.wav", "--keep_recording") == 0
    before = files(here)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(features, "write_features", full)
    assert "No space left" in fails(record.main, "--model_path", trained, "--input", voice / "01.wav", "--speaker",
                                    "anna", "--keep_recording")
    assert files(here) == before


def test_what_is_listened_to_is_no_time_line(enrol, here, corpus, trained, fails):
    assert enrol(corpus / "test" / "voice08" / "00.wav") == 0
    (here / "talk.wav").write_bytes((corpus / "test" / "voice08" / "01.wav").read_bytes())
    soundfile.write(here / "short.wav", np.full(3000, 0.1), 8000)
    flags = ("--model_path", trained, "--live", "--input")
    assert "that is --input, too" in fails(record.main, *flags, "talk.wav", "--timeline", here / "talk.wav")
    assert "--input is short.wav: it is too short to tell" in fails(record.main, *flags, "short.wav", "--timeline", "t")
    assert (here / "talk.wav").read_bytes() == (corpus / "test" / "voice08" / "01.wav").read_bytes()


def test_a_time_line_is_replaced_when_somebody_is_heard(enrol, here, corpus, trained, fails, monkeypatch):
    path = corpus / "test" / "voice08" / "00.wav"
    assert enrol(path) == 0
    (here / "who.csv").write_text("kept")
    follow = ["--live", "--timeline", "who.csv", "--model_path", str(trained), "--threshold", "0.5"]
    assert "cannot be opened" in fails(record.main, *follow, "--input", "gone.wav")
    assert (here / "who.csv").read_text() == "kept"
    assert "told from the last 2 s" in fails(record.main, *follow, "--input", path, "--min_speech", "2.1")
    assert (here / "who.csv").read_text() == "kept"
    assert "Is a directory" in fails(record.main, *follow[:2], "enroll", *follow[3:], "--input", path)
    assert record.main([*follow, "--input", str(path)]) == 0
    assert (here / "who.csv").read_text().startswith("time,name,score")


def test_recordings_are_kept_as_they_were_heard(enrol, here, corpus):
    rng = np.random.default_rng(0)
    samples = np.int16(rng.uniform(-2**15, 2**15, 16000) * (np.arange(16000) % 4000 < 2000) * 0.9)
    soundfile.write(here / "in.wav", samples, 8000)
    assert enrol(here / "in.wav", "--keep_recording") == 0
    kept, rate = soundfile.read(next((here / "raw_data" / "anna").iterdir()), dtype="int16")
    assert rate == 8000
    np.testing.assert_array_equal(kept, samples)


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_recordings_are_private(enrol, here, corpus, trained):
    voice = corpus / "test" / "voice08" / "00.wav"
    assert enrol(voice, "--keep_recording") == 0
    record.main(["--verify", "--model_path", str(trained), "--input", str(voice), "--threshold", "0"])
    for folder in ("enroll", "verify", "raw_data/anna"):
        assert stat.S_IMODE((here / folder).stat().st_mode) == 0o700
    paths = [here / path for path in files(here)]
    assert len(paths) == 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}


def test_an_open_folder_is_said(enrol, here, corpus, capsys):
    (here / "enroll").mkdir()
    (here / "enroll").chmod(0o755)
    assert enrol(corpus / "test" / "voice08" / "00.wav") == 0
    assert "note: enroll is open to other users" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../anna", "a/b", "a\\b", "..", ".anna", "a\nb", "a\x07", "", "manifest",
                                  "somebody else", " a"])
def test_a_name_that_is_no_file_name_is_refused(enrol, here, corpus, fails, name):
    line = fails(record.main, "--speaker", name, "--input", corpus / "test" / "voice08" / "00.wav")
    assert "speaker name" in line
    assert files(here.parent) == []


def test_accents_are_one_name_however_they_are_written(enrol, here, corpus):
    for take, name in enumerate(("Ame\u0301lie", "Am\u00e9lie")):
        assert enrol(corpus / "test" / "voice08" / f"0{take}.wav", speaker=name) == 0
    assert [(entry.name, entry.recordings) for entry in record.list_enrolled(configuration.get_config([]))] == [
        ("Am\u00e9lie", 2)]


def test_several_programs_enrol_at_once_and_lose_nothing(here, trained, corpus):
    command = [sys.executable, ROOT / "record.py", "--model_path", trained, "--speaker", "anna", "--input"]
    programs = [subprocess.Popen([*command, corpus / "test" / "voice08" / f"0{i}.wav"], stdout=subprocess.DEVNULL)
                for i in range(6)]
    assert [program.wait(60) for program in programs] == [0] * 6
    told = description(here, "anna")
    assert {pathlib.Path(entry["source"]).name for entry in told["utterances"]} == {f"0{i}.wav" for i in range(6)}
    assert told["segments"] == len(np.load(here / "enroll" / "anna.npy", allow_pickle=False))


def test_an_enrolment_that_does_not_fit_is_refused_by_name(enrol, here, corpus, trained, fails):
    voice = corpus / "test" / "voice08" / "00.wav"
    assert enrol(voice) == 0
    path, again = here / "enroll" / "anna.npy", ["--model_path", trained, "--input", voice, "--speaker", "anna"]
    good, told = path.read_bytes(), description(here, "anna")

    def refusal():
        before = files(here), path.read_bytes(), path.with_suffix(".json").read_text()
        line = fails(record.main, *again)
        assert before == (files(here), path.read_bytes(), path.with_suffix(".json").read_text())
        return line

    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "anna.npy is not a feature file" in refusal()
    np.save(path, np.zeros((2, 39, 180), np.float32))
    assert "anna.npy holds float32 of shape (2, 39, 180)" in refusal()
    np.save(path, np.zeros((1, 40, 180), np.float32))
    assert "anna.npy and the .json beside it do not belong together" in refusal()
    path.write_bytes(good)
    common.write_json(path.with_suffix(".json"), told | {"settings": told["settings"] | {"sr": 4000}})
    assert "anna.npy was made with --sr 4000, the model has 8000: --replace True starts it over" in refusal()
    common.write_json(path.with_suffix(".json"), told | {"speaker": "Anna"})
    assert "is Anna's here" in refusal()
    path.with_suffix(".json").unlink()
    assert "was not made by record.py: --replace True" in fails(record.main, *again)
    assert enrol(voice, "--replace") == 0
    assert description(here, "anna")["segments"] == told["segments"]


def test_a_kill_between_the_two_files_of_an_enrolment_loses_none_before(enrol, here, corpus, trained, monkeypatch):
    voice = corpus / "test" / "voice08"
    assert enrol(voice / "00.wav") == enrol(voice / "01.wav") == 0
    path = here / "enroll" / "anna.npy"
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(features, "write_json", lambda *_: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            enrol(voice / "02.wav")
    assert path.read_bytes() != before
    flags = ["--verify", "--model_path", str(trained), "--input", str(voice / "03.wav"), "--threshold", "-1"]
    assert record.main(flags) == 0
    assert enrol(voice / "02.wav") == 0
    assert [entry["first"] + entry["count"] for entry in description(here, "anna")["utterances"]][-1] == len(
        np.load(path, allow_pickle=False))


def test_who_is_enrolled_as_audio_may_have_any_name(here, corpus, trained, capsys):
    voice = corpus / "test" / "voice08"
    shutil.copytree(voice, here / "enroll" / "O'Brien (work)")
    flags = ["--verify", "--model_path", str(trained), "--input", str(voice / "01.wav"), "--threshold", "-1"]
    assert record.main([*flags, "--speaker", "O'Brien (work)"]) == 0
    assert "probe and O'Brien (work)" in capsys.readouterr().out


def test_a_damaged_enrolment_is_enrolled_again(enrol, here, corpus, trained, fails):
    assert enrol(corpus / "test" / "voice08" / "00.wav") == 0
    path = here / "enroll" / "anna.npy"
    path.write_bytes(path.read_bytes()[:500])
    line = fails(record.main, "--verify", "--model_path", trained)
    assert "anna.npy is not a feature file: " in line
    assert line.endswith(": enrol this speaker again with python record.py --speaker anna --replace True")


# ---- what a recording must be -----------------------------------------------------------------------------------

def speech(seconds, sr=8000):
    """Return a noise that comes in bursts of 0.2 s, half of the time, of a given length in all."""
    noise = 0.3 * np.random.default_rng(0).uniform(-1, 1, round(seconds * sr))
    return np.where(np.arange(len(noise)) // (0.2 * sr) % 2 < 1, noise, 0).astype(np.float32)


@pytest.mark.parametrize(("wave", "words", "of_a_file"), [
    (np.zeros(16000), "no speech, the recording is silent: is it the right microphone",
     "no speech, in.wav is silent: choose another recording"),
    (0.01 * np.random.default_rng(0).standard_normal(24000), "noise or a hum: speak up, and record again",
     "no speech in in.wav, the level hardly changes, as that of noise or a hum: choose another recording"),
    (np.clip(9 * speech(4), -1, 1), "the recording is clipped, ", "in.wav is clipped, "),
    (np.concatenate([speech(0.2), np.zeros(8000)]), "too little speech, 0.22 s; --min_speech is 1 s: speak longer",
     "too little speech in in.wav, 0.22 s; --min_speech is 1 s: choose a longer recording"),
    (speech(1.2), "too little speech, 0.", "too little speech in in.wav, 0."),
])
def test_a_recording_that_will_not_do_is_refused_in_words(enrol, here, trained, fails, wave, words, of_a_file):
    soundfile.write("in.wav", wave, 8000)
    said = fails(record.main, "--model_path", trained, "--input", "in.wav")
    assert of_a_file in said
    assert "microphone" not in said
    with pytest.raises(InputError, match=re.escape(words)):
        listening.check_recording(wave, configuration.get_config(["--sr", "8000"]))
    assert enrol(ROOT / "README.md") == 2
    assert files(here) == ["in.wav"]


def test_a_recording_that_will_do():
    segments, known = listening.check_recording(speech(4), configuration.get_config([]))
    seconds = known["speech_seconds"]
    assert len(segments) == 2                          # 2 s in bursts with their edges: 180 frames, and 80 further on
    assert 2 <= seconds < 2.6
    with pytest.raises(InputError, match="too little speech"):
        listening.check_recording(speech(4), configuration.get_config(["--min_speech", "3"]))


def test_the_meter_shows_level_and_time():
    assert listening.meter_line(-30, 2.5, width=8) == "\r[####    ]  -30 dB,   2.5 s left"
    assert listening.meter_line(-200, 2.5, width=8) == "\r[        ]  -60 dB,   2.5 s left"
    assert listening.meter_line(0, 0, width=8).strip() == ""
    assert audio.level_db(np.full(10, 0.1)) == pytest.approx(-20, abs=1e-6)


# ---- verification -----------------------------------------------------------------------------------------------

def test_a_probe_is_saved_and_verified(enrol, here, corpus, trained, capsys):
    voices = [corpus / "test" / name / "00.wav" for name in ("voice08", "voice09")]
    flags = ["--verify", "--model_path", str(trained), "--input", str(voices[0])]
    assert record.main(flags) == 2
    assert "enrol with python record.py" in capsys.readouterr().err
    assert enrol(voices[0]) == enrol(voices[1], speaker="ben") == 0
    assert record.main([*flags, "--threshold", "0.9999"]) == 0           # the same recording scores 1
    assert capsys.readouterr().out.splitlines()[-6].startswith("Same person: probe and anna")
    assert record.main([*flags, "--threshold", "0.9999", "--speaker", "ben"]) == 1
    assert "Different person: probe and ben" in capsys.readouterr().out
    assert files(here / "verify") == ["probe.json", "probe.npy"]


def test_each_program_judges_what_it_heard(enrol, here, corpus, trained, capsys, monkeypatch):
    """Another program replaces the probe's file while the model loads; the verdict is on our own recording."""
    voices = [corpus / "test" / name / "00.wav" for name in ("voice08", "voice09")]
    assert enrol(voices[0]) == 0
    save = record.save_probe

    def save_and_be_replaced(config, wave, source):
        heard = save(config, wave, source)
        save(config, audio.load_audio(voices[1], config.sr), "another program")
        return heard

    monkeypatch.setattr(record, "save_probe", save_and_be_replaced)
    flags = ["--verify", "--model_path", str(trained), "--input", str(voices[0])]
    assert record.main([*flags, "--threshold", "0.9999"]) == 0
    assert "Same person: probe and anna" in capsys.readouterr().out


def test_a_claim_of_nobody_enrolled_is_refused_before_the_recording(enrol, here, corpus, trained, fails):
    assert enrol(corpus / "test" / "voice08" / "00.wav") == 0
    line = fails(record.main, "--verify", "--model_path", trained, "--speaker", "ben", "--input", "nowhere.wav")
    assert "--speaker is ben: ./enroll has anna" in line


def test_a_threshold_that_is_not_stored_is_said_before_the_recording(enrol, here, corpus, trained, fails):
    assert enrol(corpus / "test" / "voice08" / "00.wav") == 0
    line = fails(record.main, "--verify", "--model_path", trained, "--far", "0.02", "--input", "nowhere.wav")
    assert f"--far is 0.02: {trained} stores eer for checkpoint" in line


def test_a_recording_with_too_many_samples_at_full_scale_is_clipped():
    """A share of 0.001 is allowed: 32 of 32,000 samples pass, 33 do not."""
    wave, config = 0.9 * speech(4), configuration.get_config([])
    wave[:32] = 0.995
    listening.check_recording(wave, config)
    wave[32] = -0.995
    with pytest.raises(InputError, match=r"clipped, 0\.1% of its samples"):
        listening.check_recording(wave, config)


def test_errors_speak_of_flags_in_the_shell_and_of_files_in_the_window(monkeypatch, here):
    monkeypatch.setattr(record, "portaudio", lambda: types.SimpleNamespace(
        default=types.SimpleNamespace(device=(0, 0)), query_devices=list, _terminate=int, _initialize=int,
        PortAudioError=OSError))
    with pytest.raises(InputError, match="or take --input FILE") as caught:
        record.devices()
    assert caught.value.window.endswith("or open a file")
    with pytest.raises(InputError, match="--list_devices") as caught:
        listening.check_recording(np.zeros(16000), configuration.get_config([]))
    assert "--" not in caught.value.window


def test_a_damaged_description_can_be_replaced_and_forgotten(enrol, here, corpus):
    voice = corpus / "test" / "voice08" / "00.wav"
    (here / "precious.txt").touch()
    for flags in (["--replace"], ["--forget"]):
        assert enrol(voice, "--replace") == 0
        (here / "enroll" / "anna.json").write_text("{")
        assert enrol(voice) == 2
        assert (record.main(["--forget", "--speaker", "anna"]) if flags == ["--forget"] else enrol(voice, *flags)) == 0
    assert files(here) == ["precious.txt"]
    for flags in ([], ["--replace"]):               # recordings that a damaged description named are forgotten, too
        assert enrol(voice, "--keep_recording") == 0
        (here / "raw_data" / "anna" / "her own.wav").touch()
        (here / "enroll" / "anna.json").write_text("{")
        assert not flags or enrol(voice, *flags) == 0
        assert record.main(["--forget", "--speaker", "anna"]) == 0
        assert files(here) == ["precious.txt", "raw_data/anna/her own.wav"]
    shutil.rmtree(here / "raw_data")
    assert enrol(voice) == 0
    common.write_json(here / "enroll" / "anna.json", description(here, "anna") | {
        "recordings": [str(here / "precious.txt")]})
    assert record.main(["--forget", "--speaker", "anna"]) == 0
    assert files(here) == ["precious.txt"]                           # a recording of anna lies in anna's folder
    assert enrol(voice) == 0
    (here / "precious.wav").touch()
    common.write_json(here / "enroll" / "anna.json", description(here, "anna") | {
        "recordings": [str(here / "precious.wav")]})
    assert record.main(["--forget", "--speaker", "anna"]) == 0
    assert files(here) == ["precious.txt", "precious.wav"]


# ---- the microphone ---------------------------------------------------------------------------------------------

def command(trained, *argv, device="pulse"):
    return [sys.executable, str(ROOT / "record.py"), "--model_path", str(trained), "--seconds", "2", "--device",
            device, *argv]


def run(*argv, **options):
    """Run record.py; return its exit code and its lines on standard error."""
    done = subprocess.run(command(*argv, **options), capture_output=True, text=True, timeout=40, check=False)
    return done.returncode, done.stderr.splitlines()


@pytest.fixture(scope="module")
def words(corpus):
    """Three seconds of a voice, int16 at 8 kHz."""
    wave = audio.load_audio(corpus / "test" / "voice08" / "00.wav", 8000)[:24000]
    return np.int16(wave / np.abs(wave).max() * 20000)


def test_the_microphone_is_recorded_sample_by_sample(microphone, here, trained, words):
    microphone.start(8000)
    microphone.play(words, 8000)
    code, lines = run(trained, "--keep_recording", "True")
    assert (code, lines) == (0, ["recording 2 s, an enrolment of speaker0: speak now (Ctrl-C cancels)"])
    kept, rate = soundfile.read(next((here / "raw_data" / "speaker0").iterdir()), dtype="int16")
    assert (rate, kept.shape) == (8000, (16000,))
    loops = np.lib.stride_tricks.sliding_window_view(np.tile(words, 2), 16000)
    assert (loops == kept).all(axis=1).any()
    assert files(here / "enroll") == ["speaker0.json", "speaker0.npy"]


def test_microphones_are_listed_and_chosen(microphone, here, trained):
    microphone.start(8000)
    done = subprocess.run([*command(trained), "--list_devices"], capture_output=True, text=True, check=True)
    assert re.search(r"^ +\d+ pulse \(\d+ Hz\)", done.stdout, re.MULTILINE)
    code, lines = run(trained, device="studio")
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith("error: --device is studio: the microphones are ")


def test_a_stalled_microphone_times_out(microphone, here, trained):
    microphone.start(8000)
    code, lines = run(trained)
    assert (code, len(lines)) == (2, 1)
    assert "the microphone delivered nothing for 3 s" in lines[0]
    assert files(here) == []


def interrupted_by(trained, act):
    """Start a recording, act(process) at its first sound; return exit code and further lines on standard error."""
    process = subprocess.Popen(command(trained, "--seconds", "5"), stderr=subprocess.PIPE, text=True)
    assert "speak now" in process.stderr.readline()
    act(process)
    _, errors = process.communicate(timeout=40)
    return process.returncode, [line for line in errors.splitlines() if line]


@pytest.mark.parametrize(("blow", "message"), [
    (signal.SIGKILL, "error: microphone 0 pulse was lost: nothing was saved"),
    (signal.SIGSTOP, "error: the microphone delivered nothing for 3 s")])         # the driver hangs, even when closed
def test_a_microphone_lost_midway_is_one_line(microphone, here, trained, words, blow, message):
    microphone.start(8000)
    microphone.play(words, 8000)
    code, lines = interrupted_by(trained, lambda process: microphone.daemon.send_signal(blow))
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith(message)
    assert files(here) == []


def test_ctrl_c_cancels_a_recording(microphone, here, trained, words):
    microphone.start(8000)
    microphone.play(words, 8000)
    code, lines = interrupted_by(trained, lambda process: process.send_signal(signal.SIGINT))
    assert (code, lines) == (2, ["stopped by the keyboard: nothing was saved"])
    assert files(here) == []


def test_without_a_microphone_it_is_one_line(microphone, here, trained):
    code, lines = run(trained)                                     # the daemon is not started
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith("error: there is no microphone: plug one in")


def test_a_microphone_that_is_plugged_in_meanwhile_is_found(monkeypatch):
    """PortAudio looks once, and again where it found none; but not beside a recording, whose thread hears no end."""
    sounddevice = pytest.importorskip("sounddevice")
    plugged = []
    monkeypatch.setattr(sounddevice, "_terminate", lambda: None)
    monkeypatch.setattr(sounddevice, "_initialize", lambda: plugged.append(1))
    monkeypatch.setattr(sounddevice.default, "device", [0, 0])
    monkeypatch.setattr(sounddevice, "query_devices", lambda: [
        {"index": 0, "name": "new", "default_samplerate": 8000.0, "max_input_channels": 1}][:len(plugged)])
    ended = threading.Event()
    beside = threading.Thread(target=ended.wait, name="microphone")
    beside.start()
    with pytest.raises(InputError, match="there is no microphone"):
        record.devices()
    ended.set()
    beside.join()
    assert [device.name for device in record.devices()] == ["new"]


def test_without_portaudio_it_is_one_line(here, trained, monkeypatch):
    (here / "sounddevice.py").write_text('raise OSError("PortAudio library not found")\n')
    monkeypatch.setenv("PYTHONPATH", str(here))
    code, lines = run(trained)
    assert (code, len(lines)) == (2, 1)
    assert "recording needs PortAudio (PortAudio library not found): apt install libportaudio2" in lines[0]


def test_a_rate_that_a_microphone_does_not_take_is_one_line(monkeypatch):
    sounddevice = pytest.importorskip("sounddevice")

    def refuse(*arguments, **options):
        raise sounddevice.PortAudioError("Error opening InputStream: Invalid sample rate", -9997)

    monkeypatch.setattr(record, "devices", lambda: [record.Device(3, "desk", 48000.0, True)])
    monkeypatch.setattr(sounddevice, "InputStream", refuse)
    with pytest.raises(InputError, match=r"microphone 3 desk cannot record at 8000 Hz \(.*Invalid sample rate"):
        record.record(1, 8000)


def test_a_microphone_is_found_by_number_or_name(monkeypatch):
    found = [record.Device(0, "desk USB", 48000.0, False), record.Device(10, "head USB 0", 48000.0, True)]
    monkeypatch.setattr(record, "devices", lambda: found)
    assert record.find_device().number == 10
    assert [record.find_device(device).number for device in ("0", 10, "desk", "HEAD")] == [0, 10, 0, 10]
    with pytest.raises(InputError, match="--device is usb: it could be 0 desk USB, 10 head USB 0"):
        record.find_device("usb")


def test_what_a_killed_enrolment_left_is_forgotten_too(enrol, here, corpus):
    assert enrol(corpus / "test" / "voice08" / "00.wav") == 0
    left, busy = (here / "enroll" / name for name in (".anna.npy.k3j2.part", ".ben.npy.x9.part"))
    for part in (left, busy):
        part.write_bytes(b"a voice")
    os.utime(left, (0, 0))
    assert record.main(["--forget", "--speaker", "anna"]) == 0
    assert not left.exists()
    assert busy.exists()                                        # another recorder writes that one now


def test_forget_asks_for_a_name(enrol, here, corpus, fails):
    assert enrol(corpus / "test" / "voice08" / "00.wav", speaker="speaker0") == 0
    assert "--forget is True: give --speaker" in fails(record.main, "--forget")
    assert (here / "enroll" / "speaker0.npy").exists()


def test_forgetting_nobody_names_who_there_is(enrol, here, corpus, fails):
    assert enrol(corpus / "test" / "voice08" / "00.wav") == 0
    assert "--speaker is ben: ./enroll has anna" in fails(record.main, "--forget", "--speaker", "ben")
    shutil.rmtree(here / "enroll")
    assert "has nobody" in fails(record.main, "--forget", "--speaker", "ben")
    assert not (here / "enroll").exists()


def test_recording_needs_a_model(here, fails, monkeypatch):
    monkeypatch.setattr(embedding, "PRETRAINED", here / "nowhere")
    assert "--model_path is ./model: there is no model, and its rate is needed" in fails(record.main)
