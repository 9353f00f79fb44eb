"""A verdict while somebody speaks: the listener, when it is sure, record.py --live, who speaks now."""
import contextlib
import csv
import io
import json
import math
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import soundfile

import audio
import common
import configuration
import embedding
import features
import listening
import measures
import record
import verification
from common import InputError

ROOT = pathlib.Path(record.__file__).parent
BLOCK = 400                 # samples, 0.05 s at 8 kHz


@pytest.fixture
def verifier(knowing):
    return verification.Verifier(configuration.get_config(["--model_path", str(knowing)]))


@pytest.fixture
def voices(verifier, corpus):
    """Three enrolled voices."""
    return verifier.voices(corpus / "test")


def speech_of(corpus, name, takes):
    """Return utterances of a voice, joined, float32 (S,) at 8 kHz."""
    return np.concatenate([audio.load_audio(corpus / "test" / name / f"{take:02}.wav", 8000) for take in takes])


def fed(listener, wave, size):
    """Feed a wave in blocks; return the Verdicts that come of it and the samples after which they came."""
    found = []
    for start in range(0, len(wave), size):
        verdict = listener.feed(wave[start:start + size])
        if verdict:
            found.append((start + size, verdict))
    return found


# ---- the listener -----------------------------------------------------------------------------------------------

def test_after_a_whole_recording_the_result_is_that_of_its_file(verifier, voices, corpus, tmp_path):
    wave = speech_of(corpus, "voice09", (0, 1))
    soundfile.write(tmp_path / "probe.wav", wave, 8000, "FLOAT")
    probe, = verifier.probes(tmp_path / "probe.wav")
    wanted = verifier.compare(probe, voices)
    for size in (1, 93, 400, 16000, 10**6):
        listener = verification.Listener(verifier, voices)
        fed(listener, wave, size)
        found = listener.finish()
        assert len(found.scores) == 3
        assert dict(found.scores) == pytest.approx(dict(wanted.scores), abs=1e-4)
        assert (found.llr, found.probe_seconds) == pytest.approx((wanted.llr, wanted.probe_seconds), abs=1e-4)
        assert (found.speaker, found.snr, found.bandwidth) == (wanted.speaker, wanted.snr, wanted.bandwidth)


def test_a_verdict_comes_with_every_0_4_s_of_speech_and_is_that_of_a_recording_of_so_much(verifier, voices, corpus):
    wave = speech_of(corpus, "voice09", (0, 1, 2))
    found = fed(verification.Listener(verifier, voices), wave, BLOCK)
    assert found[0][1].problem.startswith("too little speech, 0.4")
    heard = [(end, verdict) for end, verdict in found if not verdict.problem]
    steps = np.diff([verdict.probe_seconds for _, verdict in heard])
    assert len(steps) > 5
    assert (np.abs(steps) >= 0.4).all()
    assert np.median(steps) < 0.6                       # what a look is late: a quarter of 0.4 s, and a block
    for end, verdict in heard[::4]:
        cuts, entry = audio.speech_segments(wave[:end], verifier.config)
        wanted = verifier.compare(verifier.embed_voice("probe", [("probe", cuts, entry)]), voices)
        assert dict(verdict.scores) == pytest.approx(dict(wanted.scores), abs=1e-6)


class Looks(verification.Listener):
    """A listener that tells when it would judge, and does not."""

    def judge(self, seconds=0.0):
        self.speech_seconds = seconds
        return verification.Verdict("probe")


def test_of_a_long_recording_a_fiftieth_must_be_new(verifier, corpus):
    wave = np.tile(speech_of(corpus, "voice09", range(6)), 6)
    ends = [end / 8000 for end, _ in fed(Looks(verifier, []), wave, BLOCK)]
    assert ends[-1] > 60
    steps = np.diff(ends)
    assert all(step >= 0.0199 * end for step, end in zip(steps, ends[1:], strict=True))


@pytest.mark.parametrize("wave", [np.full(800, np.nan), np.array([0.1, np.inf]), np.zeros((800, 1))])
def test_what_are_no_samples_is_said(verifier, voices, wave):
    """One of them would make the listener deaf for good."""
    listener = verification.Listener(verifier, voices)
    with pytest.raises(InputError, match="not"):
        listener.feed(wave)
    with pytest.raises(InputError, match="not"):
        listening.check_recording(wave, verifier.config)
    assert not listener.heard


def test_an_enrolment_that_is_read_between_its_two_files_is_read_again(verifier, voices, corpus, tmp_path):
    verifier.config.enroll_path = str(tmp_path)
    waves = [audio.load_audio(corpus / "test" / "voice08" / f"0{take}.wav", verifier.config.sr) for take in (0, 1)]
    path = record.enroll(verifier.config, "anna", waves[0])
    enrolments, description = verification.Enrolments(verifier), path.with_suffix(".json")
    before = description.read_bytes()
    record.enroll(verifier.config, "anna", waves[1])
    after = description.read_bytes()
    for content, recordings in ((before, 1), (after, 2)):
        description.write_bytes(content)
        assert [len(voice.vectors) for voice in enrolments.voices()] == [recordings]


def test_silence_and_steady_noise_are_no_speech(verifier, voices):
    noise = 0.01 * np.random.default_rng(0).standard_normal(24000)
    for wave, problem in ((np.zeros(24000), "no speech: probe is silent"),
                          (noise, "no speech: probe is steady noise or a tone")):
        listener = verification.Listener(verifier, voices)
        assert all(verdict.problem and not verdict.sure for _, verdict in fed(listener, wave, BLOCK))
        assert listener.finish().problem == problem


# ---- when it is sure --------------------------------------------------------------------------------------------

def test_the_bounds_are_walds():
    """By hand: ln(0.1 / 0.98) = -2.282, ln(0.5 / 0.01) = 3.912, 0.3 nearer; never on the threshold's other side."""
    threshold = verification.Threshold(0.5, 0.02, 0.1, "by hand", 1.5, far_all=0.01, frr_all=0.5)
    assert threshold.bounds == pytest.approx((-1.98238, 3.61202), abs=1e-5)
    assert replace(threshold, llr=4.5).bounds == pytest.approx((-1.98238, 4.5), abs=1e-5)
    assert replace(threshold, llr=-2.0).bounds == pytest.approx((-2.0, 3.61202), abs=1e-5)
    for unknown in ({"llr": None}, {"far_all": None, "frr_all": None}):
        assert replace(threshold, **unknown).bounds == (-math.inf, math.inf)
    for extreme in ({"far": 1.0}, {"frr": 0.0}, {"far": 1.0, "frr": 0.0}):
        assert replace(threshold, **extreme).bounds == pytest.approx((-math.inf, 3.61202), abs=1e-5)
    for extreme in ({"far_all": 0.0}, {"frr_all": 1.0}, {"far_all": 0.0, "frr_all": 1.0}):
        assert replace(threshold, **extreme).bounds == pytest.approx((-1.98238, math.inf), abs=1e-5)


THRESHOLD = verification.Threshold(0.65, 0.02, 0.1, "by hand", 1.5, far_all=0.01, frr_all=0.5)


@pytest.mark.parametrize(("ratios", "more", "sure"), [
    ({"anna": 3.62}, {}, True), ({"anna": 3.6}, {}, False), ({"anna": -1.98}, {}, False), ({"anna": -1.99}, {}, True),
    ({"anna": 5.0, "ben": 2.9}, {}, True), ({"anna": 5.0, "ben": 3.1}, {}, False),      # the lead is 2.1, 1.9
    ({"anna": -2.0, "ben": -2.1}, {}, True), ({"anna": -1.9, "ben": -9.0}, {}, False),
    ({"anna": 9.0}, {"notes": ["outside of what was measured"]}, False),
    ({"anna": 9.0}, {"threshold": replace(THRESHOLD, llr=None)}, False)])
def test_it_is_sure_beyond_the_bounds_and_well_ahead_of_the_next(ratios, more, sure):
    verdict = verification.Verdict("probe", "", "anna", 0.7, ratios["anna"], THRESHOLD, ratios=ratios)
    assert replace(verdict, **more).sure == sure
    assert not verification.Verdict("probe", "no speech").sure


def test_every_ratio_is_that_of_its_score(verifier, voices, corpus):
    """By hand: 10 s - 5 - 2 ln(seconds / 4)."""
    cuts, entry = audio.speech_segments(speech_of(corpus, "voice10", (3,)), verifier.config)
    verdict = verifier.compare(verifier.embed_voice("probe", [("probe", cuts, entry)]), voices)
    assert len(verdict.ratios) == 3
    assert verdict.ratios == pytest.approx({
        name: 10 * score - 5 - 2 * math.log(verdict.probe_seconds / 4) for name, score in verdict.scores})
    assert list(verdict.ratios) == [name for name, _ in verdict.scores]
    assert verdict.llr == verdict.ratios[verdict.speaker]


# ---- record.py --verify True --live True ------------------------------------------------------------------------

@pytest.fixture
def here(tmp_path, monkeypatch, deciding, corpus):
    """A current folder in which three voices are enrolled, and the model knows when it is sure."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for number in (8, 9, 10):
        for take in (0, 1):
            assert record.main(["--model_path", str(deciding), "--speaker", f"voice{number:02}", "--input",
                                str(corpus / "test" / f"voice{number:02}" / f"{take:02}.wav")]) == 0
    return folder


@pytest.fixture
def probe(here, corpus):
    """A recording of a voice, 13 to 16 s."""
    wave = speech_of(corpus, "voice09", range(6))
    soundfile.write(here / "probe.wav", wave, 8000, "FLOAT")
    return here / "probe.wav"


@pytest.fixture
def as_from_a_microphone(monkeypatch):
    """The blocks of --input, but whoever hears them knows of no file."""
    blocks = record.live_blocks

    @contextlib.contextmanager
    def heard(config, *arguments):
        with blocks(config, *arguments) as coming:
            config.input = None
            yield coming

    monkeypatch.setattr(record, "live_blocks", heard)
    monkeypatch.setattr(listening, "load_sound", audio.load_audio)      # which a silent one may come through


def sure_of(monkeypatch, scale, offset):
    """Let every verifier have this calibration, which takes nothing into account."""
    monkeypatch.setattr(embedding, "calibration_of", lambda stored: measures.Calibration((scale,), (offset,)))


def test_it_ends_when_it_is_sure(here, knowing, probe, capfd, monkeypatch):
    """A ratio of 5 and no rival: the first look with a second of speech is the last; of -2 likewise."""
    for offset, speaker, words, code in ((5.0, ["--speaker", "voice09"], "Same person", 0),
                                         (-2.0, [], "Different person", 1)):
        sure_of(monkeypatch, 1e-6, offset)
        capfd.readouterr()
        assert record.main(["--verify", "--live", "--model_path", str(knowing), "--input", str(probe), *speaker,
                            "--json"]) == code
        printed, shown = capfd.readouterr()
        verdict, = json.loads(printed)["verdicts"]
        assert verdict["decision"] == words
        assert 1 <= verdict["probe_seconds"] < 1.6
        assert f"sure after {verdict['probe_seconds']:.1f} s of speech" in shown
        assert features.read_record(here / "verify" / "probe.npy")[0]["utterances"][0]["speech_seconds"] == (
            verdict["probe_seconds"])


def test_without_certainty_it_is_the_verdict_on_the_whole(here, knowing, probe, capfd, monkeypatch):
    sure_of(monkeypatch, 1e-6, 2.0)                             # above the threshold, between the bounds
    flags = ["--verify", "--model_path", str(knowing), "--input", str(probe), "--json"]
    found = []
    for more in ([], ["--live"]):
        capfd.readouterr()
        code = record.main([*flags, *more])
        printed, shown = capfd.readouterr()
        found.append((code, json.loads(printed)))
    assert found[0] == found[1]
    lines = [line for line in shown.splitlines() if line.startswith("[")]
    seconds = len(audio.load_audio(probe, 8000)) / 8000
    assert len(lines) == math.ceil(seconds)                     # a line per second: after 0, 1, 2, ... s
    assert lines[0].endswith(" 0.0 s of speech, no verdict yet")
    assert re.fullmatch(r"\[[# ]{20}\] +-\d+ dB, +\d+\.\d s of speech, voice\d\d, ratio \+2\.0: "
                        "rather the same person", lines[-1])
    assert "sure" not in shown


def test_a_threshold_by_hand_is_never_sure_before_the_end(here, knowing, probe, capfd):
    assert record.main(["--verify", "--live", "--model_path", str(knowing), "--input", str(probe), "--threshold",
                        "-1"]) == 0
    printed, shown = capfd.readouterr()
    assert "note: the threshold is no calibrated ratio, so it is never sure before the end" in shown
    assert "sure after" not in shown
    wave = audio.load_audio(probe, 8000)
    heard = len(audio.voiced(wave - wave.mean(), sr=8000, window=0.025, hop=0.01, top_db=30, floor_db=3))
    assert f"speech: {heard / 8000:.1f} s of probe" in printed


@pytest.mark.parametrize(("change", "words"), [
    (np.zeros_like, "no speech, the recording is silent: is it the right microphone"),
    (lambda wave: np.clip(20 * wave, -1, 1), "the recording is clipped, ")])
def test_silence_and_clipping_end_it_after_four_seconds(here, knowing, probe, fails, change, words, monkeypatch,
                                                        as_from_a_microphone):
    sure_of(monkeypatch, 1e-6, 2.0)
    seen = []
    check = listening.check_loudness
    monkeypatch.setattr(listening, "check_loudness", lambda wave, file: seen.append(len(wave)) or check(wave, file))
    wave = audio.load_audio(probe, 8000)
    soundfile.write(probe, change(wave), 8000, "FLOAT")
    assert words in fails(record.main, "--verify", "--live", "--model_path", knowing, "--input", probe)
    assert seen == [32000]
    assert not (here / "verify").exists()


def test_a_file_is_heard_to_its_end_however_silent_it_begins(here, knowing, probe, capsys, fails, monkeypatch):
    sure_of(monkeypatch, 1e-6, 2.0)
    wave = audio.load_audio(probe, 8000)
    soundfile.write(probe, np.concatenate([np.zeros(5 * 8000), wave]), 8000, "FLOAT")
    flags = ["--live", "--model_path", str(knowing), "--input", str(probe)]
    assert record.main(["--verify", *flags]) == 0
    assert record.main([*flags, "--timeline", "who.csv"]) == 0
    with open("who.csv", newline="") as file:
        assert any(row["name"] for row in csv.DictReader(file))
    capsys.readouterr()
    soundfile.write(probe, np.zeros_like(wave), 8000, "FLOAT")
    for more in (["--verify"], ["--timeline", "silence.csv"], []):
        assert f"no speech, {probe} is silent: choose another recording" in fails(record.main, *more, *flags)
    assert not (here / "silence.csv").exists()


def test_who_is_forgotten_while_it_listens_is_compared_no_more(here, knowing, probe, capsys, fails, monkeypatch):
    sure_of(monkeypatch, 1e-6, 2.0)
    shown, said = [], []

    class Line(listening.LivingLine):
        def show(self, text, seconds):
            shown.append(seconds)
            if len(shown) == 30:                                # after 1.5 s
                record.main(["--forget", "--speaker", forgotten])

        def say(self, text):
            said.append(text)

    monkeypatch.setattr(listening, "LivingLine", Line)
    flags = ["--verify", "--live", "--model_path", knowing, "--input", probe]
    forgotten = "voice08"
    capsys.readouterr()
    assert record.main([*map(str, flags), "--json"]) == 0
    assert said == ["note: forgotten while it listens: voice08"]
    verdict, = json.loads(capsys.readouterr().out.splitlines()[-1])["verdicts"]
    assert verdict["scores"].keys() == {"voice09", "voice10"}

    shown.clear()
    forgotten = "voice09"
    line = fails(record.main, *flags, "--speaker", "voice09")
    assert "--speaker is voice09: enroll has voice10" in line
    assert shown[-1] < 3                                        # it did not wait for the end


@pytest.mark.parametrize(("argv", "words"), [
    (["--live", "--replace"], "--live and --replace contradict each other"),
    (["--timeline", "a.csv"], "--timeline is a.csv: only --live True makes one"),
    (["--live", "--verify", "--timeline", "a.csv"], "--timeline and --verify contradict each other")])
def test_flags_that_do_not_go_together(fails, argv, words):
    assert words in fails(record.main, *argv)


def test_the_living_line_is_drawn_over_itself_in_a_terminal_alone():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    line = listening.LivingLine(Terminal())
    line.show("one", 0.0)
    line.show("two", 0.05)
    line.say("done")
    width = shutil.get_terminal_size().columns - 1
    assert line.file.getvalue() == (f"\r{'one':{width}}\r{'two':{width}}\r{'':{width}}\rdone\n")
    line = listening.LivingLine(io.StringIO())
    for number in range(61):
        line.show(f"{number}", number / 20)
    assert line.file.getvalue() == "0\n20\n40\n60\n"


# ---- who speaks now ---------------------------------------------------------------------------------------------

def test_who_speaks_is_named_and_kept(here, knowing, corpus, capsys):
    """Two voices, silence between them: what is printed are the changes of what is kept."""
    wave = np.concatenate([speech_of(corpus, "voice08", (2, 3)), np.zeros(16000, np.float32),
                           speech_of(corpus, "voice10", (2, 3))])
    soundfile.write(here / "talk.wav", wave, 8000, "FLOAT")
    capsys.readouterr()
    flags = ["--live", "--model_path", str(knowing), "--input", "talk.wav", "--timeline", "who.csv"]
    assert record.main([*flags, "--threshold", "-1"]) == 0
    rows = list(csv.DictReader((here / "who.csv").read_text().splitlines()))
    times = np.array([float(row["time"]) for row in rows])
    assert times == pytest.approx(0.4 * np.arange(1, len(times) + 1))
    assert times[-1] == pytest.approx(len(wave) / 8000, abs=0.4)
    assert all((row["name"] == "") == (row["score"] == "") for row in rows)
    pause = len(speech_of(corpus, "voice08", (2, 3))) / 8000
    assert {row["name"] for row, time in zip(rows, times, strict=True) if pause + 1 < time < pause + 2} == {""}
    assert {"voice08", "voice10"} <= {row["name"] for row in rows} <= {"", "voice08", "voice09", "voice10"}
    names = [row["name"] for row in rows]
    changes = [(f"{time:.1f}", name or "nobody") for time, name, before in zip(times, names, ["", *names], strict=False)
               if name != before]
    *printed, last = capsys.readouterr().out.splitlines()
    assert [(line.split(" s  ")[0].strip(), line.split(" s  ")[1]) for line in printed] == changes
    assert last == f"who.csv: {len(rows)} lines"
    assert stat.S_IMODE((here / "who.csv").stat().st_mode) == 0o600
    assert not (here / "verify").exists()

    stored = json.loads((knowing / "thresholds.json").read_text())
    common.write_json(knowing / "thresholds.json", {name: value | {"eer": {"threshold": 0.5, "far": 0.1, "frr": 0.1}}
                      if name == "points" else value for name, value in stored.items() if name != "calibration"})
    assert record.main([*flags, "--threshold", "1"]) == 0       # nobody passes: everybody is somebody else
    assert (here / "who.csv").read_text().startswith("time,name,score")         # without a calibration
    assert {line.split(",")[1] for line in (here / "who.csv").read_text().splitlines()[1:]} == {"", "somebody else"}


def test_the_last_two_seconds_of_speech_tell_who_speaks(here, knowing, corpus):
    """By hand: the d-vector of the end of the voiced speech, at one level; what was before does not count."""
    verifier = verification.Verifier(configuration.get_config(["--model_path", str(knowing), "--threshold", "-1"]))
    verifier.calibration, config = None, verifier.config
    voices = verifier.voices("enroll")
    conversation = listening.Conversation(verifier, voices)
    wave = np.concatenate([speech_of(corpus, "voice08", (2,)), speech_of(corpus, "voice09", (2, 3))])
    moments = [moment for start in range(0, len(wave), BLOCK)
               if (moment := conversation.feed(wave[start:start + BLOCK]))]
    checked = 0
    for moment in moments[5::5]:
        if not moment.name:
            continue
        so_far = wave[:round(moment.seconds * 8000)]
        heard = audio.voiced(so_far - so_far.mean(), **audio.detector(config))
        frames = audio.log_mel(audio.at_level(heard[-16000:], config.level), sr=8000, nfft=config.nfft,
                               window=config.window, hop=config.hop)
        vector = embedding.embed(verifier.encoder, audio.cut_segments(frames, config.tisv_frame))
        assert moment.ratio == pytest.approx(max(float(vector @ voice.centroid) for voice in voices), abs=1e-5)
        checked += 1
    assert checked >= 2


def test_who_speaks_is_told_with_bounded_memory(here, knowing, corpus):
    verifier = verification.Verifier(configuration.get_config(["--model_path", str(knowing)]))
    conversation = listening.Conversation(verifier, verifier.voices("enroll"))
    wave = np.tile(speech_of(corpus, "voice08", range(3)), 8)
    for start in range(0, len(wave), 8000):
        conversation.feed(wave[start:start + 8000])
    assert len(wave) > 50 * 8000
    assert len(conversation.gather()) <= 31 * 8000
    with pytest.raises(InputError, match="--min_speech is 3: who speaks now is told from the last 2 s of speech"):
        listening.Conversation(verification.Verifier(configuration.get_config(
            ["--model_path", str(knowing), "--min_speech", "3"])), [])


def test_silence_from_the_start_is_a_fault_and_later_a_note(here, knowing, corpus, fails, monkeypatch,
                                                            as_from_a_microphone):
    notes = []
    monkeypatch.setattr(listening.LivingLine, "say", lambda line, text: notes.append(text))
    speech = speech_of(corpus, "voice08", (2, 3))
    flags = ["--live", "--model_path", knowing, "--input", "talk.wav", "--timeline", "who.csv"]
    soundfile.write(here / "talk.wav", np.concatenate([np.zeros(40000), speech]), 8000, "FLOAT")
    assert "no speech, the recording is silent" in fails(record.main, *flags)
    assert (here / "who.csv").read_text().splitlines()[-1].startswith("4.00,")
    loud = np.clip(20 * speech, -1, 1)
    soundfile.write(here / "talk.wav", np.concatenate([speech, np.zeros(48000), loud, speech]), 8000, "FLOAT")
    assert record.main([str(flag) for flag in flags]) == 0
    assert [note.split(", ")[:2] for note in notes] == [
        ["note: no speech", "the recording is silent: is it the right microphone"],
        ["note: the recording is clipped", notes[1].split(", ")[1]]]


def test_a_time_line_is_there_before_the_end(here, knowing, corpus, monkeypatch):
    """A closed terminal leaves no time to write it."""
    soundfile.write(here / "talk.wav", np.tile(speech_of(corpus, "voice08", (2, 3)), 3), 8000)
    written, write = [], listening.write_moments
    monkeypatch.setattr(listening, "write_moments", lambda path, moments: (written.append(len(moments)),
                                                                           write(path, moments)))
    assert record.main(["--live", "--model_path", str(knowing), "--input", "talk.wav", "--timeline", "who.csv"]) == 0
    rows = len((here / "who.csv").read_text().splitlines()) - 1
    assert written[-1] == rows
    assert written[0] == 25                                         # of 0.4 s each
    assert len(written) == 1 + rows // 25


def test_a_time_line_that_cannot_be_written_is_said_before_anybody_speaks(here, knowing, fails):
    (here / "file").touch()
    line = fails(record.main, "--live", "--model_path", knowing, "--timeline", "enroll/anna.json", "--input", "no.wav")
    assert "--timeline is enroll/anna.json: that lies among the enrolments, in ./enroll; name another place" in line
    line = fails(record.main, "--live", "--model_path", knowing, "--timeline", "file/who.csv", "--input", "no.wav")
    assert "no.wav" not in line
    assert "--timeline is file/who.csv: it cannot be written" in line


def test_blocks_end_after_so_many_samples():
    """Of blocks of 400, 1000 samples are two and a half."""
    found = list(listening.up_to(1000.0, iter([np.zeros(400)] * 9)))
    assert [len(block) for block in found] == [400, 400, 200]
    assert len(list(listening.up_to(math.inf, iter([np.zeros(400)] * 9)))) == 9


# ---- through the microphone -------------------------------------------------------------------------------------

def command(model, *argv):
    return [sys.executable, str(ROOT / "record.py"), "--live", "--model_path", str(model), "--device", "pulse", *argv]


def listen_to(microphone, knowing, corpus, *argv):
    """Return a process of record.py --live that hears voices in turns; it has said "speak now"."""
    wave = np.concatenate([speech_of(corpus, name, (2, 3)) for name in ("voice08", "voice09", "voice10")])
    microphone.start(8000)
    microphone.play(np.int16(wave / np.abs(wave).max() * 20000), 8000)
    process = subprocess.Popen(command(knowing, *argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "speak now" not in (line := process.stderr.readline()):
        assert line
    return process


def test_turns_are_told_through_the_microphone_until_ctrl_c(microphone, tmp_path, monkeypatch, corpus):
    """Three enrolled voices and a stranger take turns of 3 s; the pretrained model tells who speaks."""
    monkeypatch.chdir(tmp_path)
    turns = [("test", "voice08"), ("test", "voice10"), ("train", "voice01"), ("train", "voice02")]
    parts = []
    for part, name in turns:
        files = [corpus / part / name / f"{take:02}.wav" for take in range(5)]
        for file in files[:3] if name != "voice01" else []:
            assert record.main(["--model_path", str(ROOT / "pretrained"), "--speaker", name, "--input", str(file)]) == 0
        waves = [audio.load_audio(file, 16000) for file in files[3:]]
        parts.append(np.concatenate([20000 * wave / np.abs(wave).max() for wave in waves])[:48000])
    microphone.start(16000)
    flags = ["--far", "0.01", "--timeline", "who.csv"]              # synthetic voices are alike: the EER's lets them in
    process = subprocess.Popen(command(ROOT / "pretrained", *flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    microphone.wait_for_listener()
    microphone.play(np.int16(np.concatenate([*parts, np.zeros(48000)])), 16000)
    time.sleep(12.5)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=20)
    assert (process.returncode, errors.split()[-1]) == (0, "it)")         # "Ctrl-C ends it": no error
    rows = [(float(row["time"]), row["name"])
            for row in csv.DictReader((tmp_path / "who.csv").read_text().splitlines())]
    assert printed.splitlines()[-1] == f"who.csv: {len(rows)} lines"
    right = []
    for number, (_, name) in enumerate(turns):
        own = [heard for time, heard in rows if 3 * number < time <= 3 * number + 3 and heard]
        right.append([heard == ("somebody else" if name == "voice01" else name) for heard in own])
    assert all(any(own) for own in right)
    assert np.mean(np.concatenate(right)) >= 0.5


@pytest.mark.parametrize(("blow", "message"), [
    (signal.SIGKILL, "error: microphone 0 pulse was lost: it hears no more"),
    (signal.SIGSTOP, "error: the microphone delivered nothing for 3 s")])
def test_a_microphone_lost_midway_is_one_line_and_what_was_heard_is_kept(microphone, here, knowing, corpus, blow,
                                                                         message):
    process = listen_to(microphone, knowing, corpus, "--timeline", "who.csv")
    time.sleep(1)
    microphone.daemon.send_signal(blow)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert next(line for line in errors.splitlines() if line.startswith("error")).startswith(message)
    assert len((here / "who.csv").read_text().splitlines()) > 1
    assert not list(here.glob(".*.part"))


def test_a_verdict_through_the_microphone_ends_early(microphone, here, knowing, corpus):
    """The bounds lie where every ratio is beyond one of them."""
    stored = json.loads((knowing / "thresholds.json").read_text())
    for point in stored["points"].values():
        point |= {"llr": 0.0, "far": 0.5, "frr": 0.5, "far_all": 0.5, "frr_all": 0.5}
    (knowing / "thresholds.json").write_text(json.dumps(stored))
    process = listen_to(microphone, knowing, corpus, "--verify", "--speaker", "voice08", "--seconds", "60")
    printed, errors = process.communicate(timeout=30)
    assert process.returncode in (0, 1)
    assert "sure after " in errors
    assert printed.startswith(("Same person: probe and voice08", "Different person: probe and voice08"))
    assert features.read_record(here / "verify" / "probe.npy")[0]["utterances"][0]["seconds"] < 10


def test_ctrl_c_cancels_a_live_probe(microphone, here, knowing, corpus):
    process = listen_to(microphone, knowing, corpus, "--verify", "--threshold", "0.5")
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=20)
    assert (process.returncode, printed) == (2, "")
    assert errors.splitlines()[-1] == "stopped by the keyboard: nothing was saved"
    assert not (here / "verify").exists()
