"""The process that listens for the window."""
import io
import multiprocessing
import os
import pathlib
import re
import shutil
import signal
import threading

import numpy as np
import pytest
import soundfile
from matplotlib.figure import Figure
from matplotlib.text import Text

import audio
import configuration
import embedding
import listening
import record
import service
import verification
from common import InputError


def test_a_process_that_dies_is_an_error_and_no_wait(engine):
    assert engine("list_enrolled") == []
    with pytest.raises(InputError, match="cannot be read: "):
        engine("enroll", "Ana", __file__)
    with pytest.raises(InputError, match="this is a fault of the program, AttributeError"):
        engine("dance")
    engine.process.kill()
    with pytest.raises(InputError, match="the model's process has ended"):
        engine("list_enrolled")


def test_the_window_judges_what_it_heard(trained, corpus, tmp_path, monkeypatch):
    """Another program replaces the probe's file before the verdict; the verdict is on our own recording."""
    monkeypatch.chdir(tmp_path)
    voices = [str(corpus / "test" / name / "00.wav") for name in ("voice08", "voice09")]
    config = configuration.get_config(["--model_path", str(trained)])
    embedding.adopt_model(config)
    listener = service.Service(config)
    listener.load()
    listener.enroll("Ana", voices[0])
    own, save = listener.verify(voices[0]), record.save_probe

    def save_and_be_replaced(config, wave, source):
        heard = save(config, wave, source)
        save(config, listener.sound(voices[1])[0], "another program")
        return heard

    monkeypatch.setattr(record, "save_probe", save_and_be_replaced)
    assert listener.verify(voices[0]).scores == own.scores
    assert own.scores == [("Ana", pytest.approx(1, abs=1e-5))]


@pytest.mark.filterwarnings("error")                # of a picture whose parts have no room
@pytest.mark.parametrize("names", [["_ben", r"$\x$", "anna"], [f"voice{number}" for number in range(40)]])
def test_pictures_of_the_enrolled_name_everybody(monkeypatch, names):
    """Of few in a legend, of many at their dots; a name may begin with _ or look like a formula."""
    rng, listener = np.random.default_rng(0), service.Service(configuration.get_config([]))
    voices = [verification.Voice(name, rng.standard_normal((3, 4)), 3.0, []) for name in names]
    monkeypatch.setattr(listener, "enrolled_vectors",
                        lambda: (voices, np.concatenate([voice.vectors for voice in voices])))
    for draw in (listener.draw_map, listener.draw_likeness):
        figure = Figure(figsize=(3, 5), layout="constrained")
        draw(figure)
        figure.savefig(io.BytesIO(), format="png")
        texts = {text.get_text().replace(r"\$", "$") for text in figure.findobj(Text)}
        assert texts >= set(names)


FLAG = re.compile(r"--[a-z]")


def test_the_window_hears_no_flags(trained, corpus, tmp_path, monkeypatch):
    """What a user of the window may do wrong comes back in words of the window, without the flags of the shell."""
    monkeypatch.chdir(tmp_path)
    nothing = str(tmp_path / "silent.wav")
    soundfile.write(nothing, np.zeros(16000), 8000)
    short = str(tmp_path / "short.wav")
    soundfile.write(short, soundfile.read(corpus / "test" / "voice08" / "00.wav")[0][:9000], 16000)
    answers = []

    def ask(config, name, *arguments):
        ours, theirs = multiprocessing.Pipe()
        thread = threading.Thread(target=service.serve, args=(theirs, config))
        monkeypatch.setattr(service.signal, "signal", lambda *_: None)      # signals are of the main thread alone
        thread.start()
        for request in [("load", ())] * (name != "load") + [(name, arguments)]:
            ours.send(request)
            kind, value = ours.recv()
        ours.close()
        thread.join(10)
        answers.append(value.problem if kind == "done" else value)

    config = configuration.get_config(["--model_path", str(trained)])
    for name, *arguments in (("verify", nothing), ("enroll", "Ana", short), ("verify", "nowhere.wav"),
                             ("draw", "likeness", 300, 200, 96), ("forget", "Ana")):
        ask(config, name, *arguments)
    ask(configuration.get_config(["--model_path", str(tmp_path / "nowhere")]), "load")
    bare = shutil.copytree(trained, tmp_path / "bare", ignore=shutil.ignore_patterns("thresholds.json"))
    ask(configuration.get_config(["--model_path", str(bare)]), "load")
    assert len(answers) == 7
    assert all(len(answer) > 15 for answer in answers)
    assert not [answer for answer in answers if FLAG.search(answer.partition("measure with python test.py")[0])]


@pytest.fixture
def listener(trained, tmp_path, monkeypatch):
    """A Service with a loaded model, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    listener = service.Service(configuration.get_config(["--model_path", str(trained)]))
    assert listener.load().threshold is not None
    return listener


def test_no_probe_passes_for_one_that_cannot_be_read(listener, corpus):
    voice = str(corpus / "test" / "voice08" / "00.wav")
    listener.enroll("Ana", voice)
    assert listener.verify(voice).scores
    with pytest.raises(InputError, match="cannot be read"):
        listener.verify(__file__)
    assert listener.compare() is None
    assert listener.verify(voice).scores
    listener.check_place(None)                          # and the microphone is lost, or somebody cancels
    assert listener.compare() is None


def test_what_cannot_be_kept_is_known_before_anybody_speaks(listener, corpus, tmp_path):
    listener.check_place("Ana")
    listener.check_place(None)
    assert os.listdir() == []
    listener.enroll("Ana", str(corpus / "test" / "voice08" / "00.wav"))
    listener.check_place("Ana")
    path = tmp_path / "enroll" / "Ana.json"
    path.write_text(path.read_text().replace('"top_db": 30.0', '"top_db": 20.0'))
    pathlib.Path("verify").touch()
    for speaker, words in (("Ana", "the model has 30.0: forget this speaker, and enrol again"),
                           (None, "verify cannot be written (File exists).")):
        with pytest.raises(InputError) as caught:
            listener.check_place(speaker)
        assert caught.value.window.endswith(words)


def test_an_enrolment_is_embedded_again_only_where_it_changed(listener, voice, monkeypatch):
    listener.enroll("Ana", str(voice / "00.wav"))
    listener.enroll("Bo", str(voice / "01.wav"))
    embedded, verifier = [], listener.verifier
    embed = verifier.embed_files
    monkeypatch.setattr(verifier, "embed_files", lambda name, files: embedded.append(name) or embed(name, files))
    for _ in range(2):
        assert [heard.name for heard in listener.enrolments.voices()] == ["Ana", "Bo"]
    listener.enroll("Bo", str(voice / "02.wav"))
    assert [len(heard.vectors) for heard in listener.enrolments.voices()] == [1, 2]
    assert embedded == ["Ana", "Bo", "Bo"]


def test_recordings_that_are_enrolled_are_heard_as_they_are_now(listener, voice):
    """A folder of audio for each speaker, as --enroll_path may be: its own time tells nothing of what lies below."""
    ana = pathlib.Path(listener.config.enroll_path, "Ana")
    ana.mkdir(parents=True)
    for name, source in (("1.wav", "00.wav"), ("2.wav", "01.wav"), ("1.wav", "02.wav")):
        shutil.copy(voice / source, ana / name)
        (found,) = listener.enrolments.voices()
        assert len(found.vectors) == len(list(ana.iterdir()))
    expected = listener.verifier.embed_files("Ana", sorted(ana.iterdir()))
    np.testing.assert_array_equal(found.vectors, expected.vectors)


def test_what_must_be_known_of_the_model_stands_beside_the_verdict(listener, voice):
    listener.enroll("Ana", str(voice / "00.wav"))
    listener.verifier.notes += ["its features are unknown"] * 2
    assert listener.verify(str(voice / "01.wav")).notes.count("its features are unknown") == 1


def test_without_anybody_there_is_nothing_to_compare(listener, voice):
    assert listener.compare() is None
    listener.enroll("Ana", str(voice / "00.wav"))
    assert listener.verify(str(voice / "01.wav")).scores[0][0] == "Ana"
    with pytest.raises(InputError, match="at least two recordings must be enrolled"):
        listener.draw("likeness", 300, 200, 96)
    listener.forget("Ana")
    assert listener.compare() is None


def test_a_model_without_thresholds_has_none_in_the_window(trained, tmp_path):
    bare = shutil.copytree(trained, tmp_path / "bare", ignore=shutil.ignore_patterns("thresholds.json"))
    loaded = service.Service(configuration.get_config(["--model_path", str(bare)])).load()
    assert (loaded.threshold, loaded.measured) == (None, (None, None))
    assert "stores no threshold" in loaded.problem


def test_the_error_rates_run_from_a_threshold_of_minus_1_to_1(listener):
    rates = listener.load().rates
    assert len(rates) == 401
    assert rates[0] == (1.0, 0.0)                   # at -1 everybody passes
    assert rates[-1][0] == 0.0


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_a_process_that_hangs_is_ended(trained):
    engine = service.Engine(configuration.get_config(["--model_path", str(trained)]))
    assert isinstance(engine("list_enrolled"), list)
    pid = engine.process.pid
    os.kill(pid, signal.SIGSTOP)
    closing = threading.Thread(target=engine.close, daemon=True)
    closing.start()
    closing.join(20)
    ended = not closing.is_alive()
    if not ended:
        os.kill(pid, signal.SIGKILL)
    assert ended


def test_ctrl_c_is_for_the_window_alone(trained):
    engine = service.Engine(configuration.get_config(["--model_path", str(trained)]))
    assert isinstance(engine("list_enrolled"), list)
    os.kill(engine.process.pid, signal.SIGINT)
    assert isinstance(engine("list_enrolled"), list)
    engine.close()


def test_a_probe_that_will_not_do_leaves_none(listener, voice, tmp_path):
    """Nothing of the probe before may pass for a verdict on this one."""
    listener.enroll("Ana", str(voice / "00.wav"))
    assert listener.verify(str(voice / "01.wav")).scores
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 8000)
    with pytest.raises(InputError, match="no speech"):
        listener.verify(str(tmp_path / "silent.wav"))
    assert listener.compare() is None


def test_a_recording_is_most_like_itself(listener, voice):
    for take in range(3):
        listener.enroll("Ana", str(voice / f"0{take}.wav"))
    figure = Figure()
    listener.draw_likeness(figure)
    cosines = figure.axes[0].images[0].get_array()
    assert cosines.shape == (3, 3)
    np.testing.assert_allclose(np.diag(cosines), 1, atol=1e-5)


# ---- while somebody speaks --------------------------------------------------------------------------------------

def fed(listener, wave, size=400):
    """Feed samples in blocks; return what was found and what was said."""
    answers = [listener.hear(wave[start:start + size]) for start in range(0, len(wave), size)]
    return [found for found, _ in answers if found], [note for _, notes in answers for note in notes]


@pytest.fixture
def three(deciding, corpus, tmp_path, monkeypatch):
    """A Service of a model whose ratios are known, at which three voices are enrolled, and speech of the second."""
    monkeypatch.chdir(tmp_path)
    listener = service.Service(configuration.get_config(["--model_path", str(deciding)]))
    listener.load()
    for number in (8, 9, 10):
        listener.enroll(f"voice{number:02}", str(corpus / "test" / f"voice{number:02}" / "00.wav"))
    wave = [audio.load_audio(corpus / "test" / "voice09" / f"{take:02}.wav", 8000) for take in (1, 2, 3)]
    return listener, np.concatenate(wave)


def test_what_is_heard_so_far_is_a_listeners_verdict(three):
    listener, wave = three
    listener.listen(False)
    found, notes = fed(listener, wave)
    found = [heard for heard in found if heard.scores]
    assert (len(found) > 5, notes) == (True, [])
    plain = verification.Listener(listener.verifier, listener.enrolments.voices())
    verdicts = [plain.feed(wave[start:start + 400]) for start in range(0, len(wave), 400)]
    assert [heard.scores for heard in found] == [verdict.scores for verdict in verdicts if verdict and verdict.scores]
    for heard in found:                                         # by hand: 10 s - 5 - 2 ln(seconds / 4)
        ratios = {name: 10 * score - 5 - 2 * np.log(heard.seconds / 4) for name, score in heard.scores}
        assert {name for name, ratio in ratios.items() if not -1.9824 < ratio < 3.6120} == set(heard.sure) - {None}
        first, second = sorted(ratios.values())[:-3:-1]
        assert (None in heard.sure) == (first <= -1.9824 or (first >= 3.6120 and first - second >= 2))
        assert heard.thresholds.keys() == ratios.keys()
    assert {type(value).__module__ for heard in found for value in vars(heard).values()} == {"builtins"}


def test_who_speaks_now_is_told_as_in_a_terminal_at_the_threshold_set_by_hand(three):
    listener, wave = three
    listener.listen(True)
    conversation = listening.Conversation(listener.verifier, listener.enrolments.voices())
    wanted = [moment for start in range(0, len(wave), 400) if (moment := conversation.feed(wave[start:start + 400]))]
    assert len(wanted) > 10
    assert fed(listener, wave) == (wanted, [])
    for threshold, names in ((-1, {"voice08", "voice09", "voice10"}), (1, {listening.SOMEBODY})):
        listener.listen(True, threshold)
        found = {moment.name for moment in fed(listener, wave)[0]} - {""}
        assert found
        assert found <= names
    assert listener.verifier.threshold.llr == 1.5               # the slider's is not the model's


def test_what_spoils_listening_is_said_or_ends_it(three):
    listener, wave = three
    listener.listen(False)
    assert fed(listener, wave[:12000])[1] == []
    listener.forget("voice08")
    found, notes = fed(listener, wave[12000:24000])
    assert notes == ["forgotten while it listens: voice08"]
    assert {name for name, _ in found[-1].scores} == {"voice09", "voice10"}
    for name in ("voice09", "voice10"):
        listener.forget(name)
    with pytest.raises(InputError) as fault:
        fed(listener, wave[24000:33000])
    assert fault.value.window == "Nobody is enrolled yet."
    with pytest.raises(InputError):
        listener.listen(True)


@pytest.mark.parametrize("lasting", [False, True])
def test_silence_ends_listening_within_five_seconds(three, lasting):
    listener, wave = three
    listener.listen(lasting)
    with pytest.raises(InputError) as fault:
        fed(listener, np.zeros(40000, np.float32))
    assert not FLAG.search(fault.value.window)
    assert listener.listener.heard == 32000
    listener.listen(lasting)
    loud = np.clip(30 * wave, -1, 1)
    if lasting:
        notes = fed(listener, loud)[1]
        assert notes[0].startswith("the recording is clipped")
    else:
        with pytest.raises(InputError, match="the recording is clipped"):
            fed(listener, loud)


def test_the_length_that_suits_the_model_is_told(listener, monkeypatch):
    assert listener.load().seconds == 10.0
    listener.config.seconds = 3.0
    assert listener.load().seconds == 3.0


def test_a_speaker_typed_in_the_shell_is_not_the_only_one_in_the_window(trained, voice, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listener = service.Service(configuration.get_config(["--model_path", str(trained), "--speaker", "Ana"]))
    listener.load()
    for name in ("Ana", "Bo"):
        listener.enroll(name, str(voice / "00.wav"))
    assert len(listener.verify(str(voice / "01.wav")).scores) == 2
