"""The window while somebody speaks: the verdict that grows, who speaks now, and what goes wrong meanwhile."""
# ruff: noqa: F401, F811 (fixtures of test_gui)
import csv
import dataclasses
import queue
import signal
import threading
import time

import pytest
import soundfile
from test_gui import (
    WAVE,
    FakeModel,
    board,
    card,
    choose,
    message,
    open_window,
    press,
    rows,
    screen,
    settled,
    wait,
)

import gui
import listening
import record
import service
from common import InputError

tk = pytest.importorskip("tkinter")


class Script(FakeModel):
    """A model whose answers to the blocks are those that the test gives, one at a time."""

    def __init__(self, *names, **options):
        super().__init__(*names, **options)
        self.answers, self.listens = queue.Queue(), []

    def microphone(self, sr, device=None, cancelled=None, lost="nothing was saved"):
        """Yield half a second for each answer; an error that the test gives is the microphone's."""
        while True:
            while self.answers.empty():
                if cancelled():
                    raise InputError(f"cancelled: {lost}")
                time.sleep(0.002)
            if isinstance(self.answers.queue[0], InputError):
                raise self.answers.get()
            yield WAVE[:4000]

    def listen(self, lasting, threshold=None):
        self.listens.append((lasting, threshold))

    def hear(self, block):
        return self.answers.get()


def heard(ana, bo, seconds=2.0, sure=()):
    """Return what is heard of a probe so far."""
    scores = sorted([("Ana", ana), ("Bo", bo)], key=lambda pair: -pair[1])
    return service.Heard(scores, seconds, "", {"Ana": 0.7, "Bo": 0.7}, [], list(sure))


def give(app, *answers, notes=()):
    """Let the model answer the next blocks, and the window show it."""
    for answer in answers:
        app.verifier.answers.put((answer, list(notes)))
    wait(app, lambda: app.verifier.answers.empty() and app.worker.results.empty())
    time.sleep(0.02)                    # the last block's answer is on its way
    wait(app, app.worker.results.empty)


@pytest.fixture
def live(open_window):
    """A window that hears a probe of Ana's claim."""
    model = Script("Ana", "Bo")
    app = open_window(model, model.microphone)
    choose(app, "Ana")
    app.probe.record_button.invoke()
    return app


# ---- the verdict that grows -------------------------------------------------------------------------------------

def test_the_score_moves_and_the_headline_turns_to_the_verdict_once_it_is_sure(live):
    app = live
    app.probe.ends_when_sure.set(False)
    give(app, None)
    assert card(app) == ("Speak now: 10 s", gui.ACCENT)             # 9.5 of 10 s are left
    assert "threshold 0.70" in board(app)
    assert {"too quiet", "good", "loud", "time left"} <= set(board(app, app.meter))
    give(app, heard(0.3, 0.4), None)
    assert card(app) == ("Speak now: 9 s", gui.ACCENT)
    assert app.probe.detail["text"] == "Nearest is Bo, score 0.40; 2.0 s of speech. Escape cancels."
    assert "score 0.30" in board(app)
    give(app, heard(0.9, 0.4, 2.5, ["Bo"]), None)
    assert app.probe.detail["text"] == "Nearest is Ana, score 0.90; 2.5 s of speech. Escape cancels."
    assert "score 0.90" in board(app)
    assert card(app)[0].startswith("Speak now")                     # it is sure of Bo's claim alone
    give(app, heard(0.9, 0.4, 3.0, ["Ana", "Bo"]), None)
    assert card(app) == ("Same person", gui.GOOD)
    give(app, heard(0.1, 0.4, 3.5, ["Ana"]), None)
    assert card(app) == ("Different person", gui.BAD)
    assert app.busy == "recording"
    assert app.verifier.listens == [(False, None)]
    give(app, *[None] * 11)
    wait(app, settled(app))
    assert card(app) == ("Same person", gui.GOOD)                   # of the whole recording, 0.9
    assert app.verifier.calls.count("hear") == 20                   # 10 s
    assert app.verifier.calls.count("verify") == 1


def test_the_question_may_change_while_it_listens(live):
    app = live
    app.probe.ends_when_sure.set(False)
    give(app, heard(0.9, 0.4, 3.0, ["Bo", None]), None)
    assert card(app)[0].startswith("Speak now")
    app.probe.question.set("who")
    give(app, None)
    assert card(app) == ("It is Ana", gui.GOOD)
    assert board(app) == ["Ana", "0.90", "Bo", "0.40", "threshold 0.70"]
    app.probe.question.set("claim")
    choose(app, "Bo")
    give(app, None)
    assert card(app) == ("Different person", gui.BAD)


def test_a_recording_ends_when_it_is_sure(live):
    sounds, judge = [], live.verifier.verify
    live.verifier.verify = lambda sound: sounds.append(len(sound)) or judge(sound)
    live.verifier.answers.put((None, []))
    live.verifier.answers.put((heard(0.9, 0.4, 1.2, ["Ana"]), []))
    wait(live, live.enough.is_set)
    live.verifier.answers.put((None, []))           # it may have asked for one more before it ended
    wait(live, settled(live))
    assert card(live) == ("Same person", gui.GOOD)
    assert message(live) == "Sure after 1.2 s of speech."
    assert len(sounds) == 1
    assert sounds[0] in (8000, 12000)


def test_by_hand_and_with_nobody_chosen_it_is_never_sure(live):
    live.threshold.move(0.5)
    give(live, heard(0.9, 0.4, 3.0, ["Ana", "Bo", None]), None)
    assert card(live)[0].startswith("Speak now")
    live.threshold.set(0.7)
    live.speakers.list.selection_set(())
    live.root.update()
    give(live, None)
    assert card(live)[0].startswith("Speak now")
    assert not live.enough.is_set()


def test_cancelled_it_leaves_no_verdict(live):
    give(live, heard(0.9, 0.4, 3.0), None)
    press(live, live.probe.cancel_button)
    assert message(live) == "cancelled: nothing was saved"
    assert card(live)[0] == "Is it Ana?"
    assert live.heard is None
    assert "verify" not in live.verifier.calls
    assert not live.pictures.canvases["spectrum"].find_all()        # the meter is gone


def test_who_is_forgotten_while_it_listens_is_asked_for_no_more(live):
    give(live, heard(0.9, 0.4))
    live.verifier.forget("Bo")
    give(live, None, notes=["forgotten while it listens: Bo"])
    assert message(live) == "forgotten while it listens: Bo"
    assert [row[0] for row in rows(live)] == ["Ana"]
    assert live.busy == "recording"
    live.verifier.forget("Ana")
    give(live, None, notes=["forgotten while it listens: Ana"])
    wait(live, settled(live))
    assert message(live) == "Ana is not enrolled any more: nothing was saved"
    assert card(live)[0] == "Nobody is enrolled yet"
    assert rows(live) == []


def test_an_enrolment_is_not_judged(open_window):
    model = FakeModel("Ana")
    app = open_window(model)
    app.speakers.name.set("Bo")
    press(app, app.speakers.enroll_button)
    assert message(app) == "A recording of Bo is enrolled."
    assert not {"listen", "hear"} & set(model.calls)


@pytest.mark.parametrize(("argv", "length"), [([], "3"), (["--seconds", "7"], "7")])
def test_the_length_of_a_recording_is_the_models_unless_it_was_typed(open_window, argv, length):
    model = FakeModel("Ana")
    load = model.load
    model.load = lambda: dataclasses.replace(load(), seconds=3.0)
    assert open_window(model, argv=argv).settings.seconds.get() == length


def test_a_length_that_was_chosen_while_the_model_loads_stays(open_window):
    loading, model = threading.Event(), FakeModel("Ana")
    load = model.load
    model.load = lambda: loading.wait(10) and dataclasses.replace(load(), seconds=3.0)
    app = open_window(model, ready=False)
    app.settings.seconds.set("4")
    loading.set()
    wait(app, settled(app))
    assert app.settings.seconds.get() == "4"


# ---- who speaks now ---------------------------------------------------------------------------------------------

def moments_of(*names, start=0.4):
    """Return a Moment per name, 0.4 s apart."""
    return [listening.Moment(start + 0.4 * number, name, 2.5 if name else None, "Ana" if name else "")
            for number, name in enumerate(names)]


@pytest.fixture
def talk(open_window):
    """A window that tells who speaks now."""
    model = Script("Ana", "Bo")
    app = open_window(model, model.microphone)
    app.tabs.select(2)
    app.root.update()
    assert app.conversation.stop_button.instate(["disabled"])
    assert app.conversation.save_button.instate(["disabled"])
    app.conversation.listen_button.invoke()
    return app


def said(app):
    return app.conversation.words.headline["text"]


def blocks_of(app, colour):
    """Return the (left, right) of what is drawn in a colour on the time line, in whole seconds of 10 ms."""
    timeline = app.conversation.timeline
    canvas, font = timeline.canvas, gui.nametofont("TkDefaultFont")
    left = max(font.measure(name) for name in timeline.lanes()) + 3 * timeline.line
    scale = (canvas.winfo_width() - timeline.line - left) / 30
    begin = max(0.0, app.conversation.seconds - 30)
    found = [canvas.coords(item) for item in canvas.find_all() if canvas.type(item) == "rectangle"
             and canvas.itemcget(item, "fill") == colour]
    return sorted((round(begin + (box[0] - left) / scale, 2), round(begin + (box[2] - left) / scale, 2))
                  for box in found if box[0] >= left - 1)


def test_it_names_who_speaks_until_it_is_stopped_and_saves_it(talk, tmp_path, monkeypatch):
    moments = moments_of("Ana", "Ana", listening.SOMEBODY, "", "Bo")
    shown = []
    for moment in moments:
        give(talk, moment)
        shown.append(said(talk))
    assert shown == ["Ana", "Ana", "Somebody else", "Nobody speaks", "Bo"]
    assert talk.conversation.words.detail["text"] == "Nearest is Ana, ratio +2.5. 0:02 heard."
    talk.conversation.show(-20.0, 2.0, listening.Moment(2.0, "Bo", 0.61, "Bo", "score"))       # without a calibration
    assert talk.conversation.words.detail["text"] == "Nearest is Bo, score 0.610. 0:02 heard."
    talk.conversation.timeline.moments.pop()
    assert talk.conversation.timeline.lanes() == ["Ana", "Bo", listening.SOMEBODY]
    assert "good" in board(talk, talk.conversation.level)
    assert blocks_of(talk, gui.board.VOICES[0]) == [(0, 0.8)]
    assert blocks_of(talk, gui.board.STRANGER) == [(0.8, 1.2)]
    assert blocks_of(talk, gui.board.VOICES[1]) == [(1.6, 2.0)]
    assert talk.verifier.listens == [(True, None)]
    assert card(talk)[0] == "It listens to who speaks now"
    assert talk.probe.record_button.instate(["disabled"])
    press(talk, talk.conversation.stop_button)
    assert (message(talk), said(talk)) == ("", "Who speaks now?")
    monkeypatch.setattr(gui.filedialog, "asksaveasfilename", lambda **_: str(tmp_path / "who.csv"))
    press(talk, talk.conversation.save_button)
    assert message(talk) == f"{tmp_path / 'who.csv'}: 5 lines."
    table = list(csv.DictReader((tmp_path / "who.csv").read_text().splitlines()))
    assert [(row["time"], row["name"], row["ratio"]) for row in table] == [
        ("0.40", "Ana", "2.500"), ("0.80", "Ana", "2.500"), ("1.20", "somebody else", "2.500"), ("1.60", "", ""),
        ("2.00", "Bo", "2.500")]
    talk.conversation.listen_button.invoke()                # the next begins anew
    give(talk, moments[-1])
    assert talk.conversation.timeline.moments == [moments[-1]]


def test_the_line_scrolls(open_window):
    app = open_window(FakeModel("Ana"))
    app.tabs.select(2)
    app.root.update()
    for moment in moments_of(*["Ana"] * 5, *[""] * 75, *["Bo"] * 5):            # until 2 s, 32 s, 34 s
        app.conversation.show(-20.0, moment.seconds, moment)
    assert blocks_of(app, gui.board.VOICES[0]) == []
    assert blocks_of(app, gui.board.VOICES[1]) == [(32.0, 34.0)]
    assert board(app, app.conversation.timeline) == ["Ana", "Bo", "somebody else", "0:05", "0:10", "0:15", "0:20",
                                                     "0:25", "0:30"]
    app.conversation.begin()
    assert not app.conversation.timeline.canvas.find_all()


def test_of_many_speakers_those_heard_last_have_lanes(open_window):
    app = open_window(FakeModel("Ana"))
    app.tabs.select(2)
    app.root.update()
    timeline = app.conversation.timeline
    room = int((timeline.canvas.winfo_height() / timeline.line - 2.5) / 1.7)
    names = [f"speaker {number}" for number in range(room + 3)]
    for moment in moments_of(*names, names[0]):
        timeline.add(moment)
    assert timeline.lanes() == [names[0], *names[-(room - 2):], listening.SOMEBODY]
    timeline.draw(5.0)
    bottom = max(timeline.canvas.bbox(item)[3] for item in timeline.canvas.find_all())
    assert bottom <= timeline.canvas.winfo_height()
    assert len(set(gui.board.VOICES)) == 6


def test_without_model_speakers_or_threshold_it_says_what_to_do(open_window):
    for model, words in ((FakeModel("Ana", model=False), "there is no model; train one"),
                         (FakeModel(), "Nobody is enrolled yet"),
                         (FakeModel("Ana", threshold=False), "It takes a threshold: measure one")):
        app = open_window(model)
        assert app.conversation.listen_button.instate(["disabled"])
        assert words in app.conversation.words.detail["text"]
    app.threshold.move(0.5)
    assert app.conversation.listen_button.instate(["!disabled"])


def test_a_threshold_by_hand_holds_for_who_speaks_now(open_window):
    model = Script("Ana")
    app = open_window(model, model.microphone)
    app.threshold.move(0.5)
    app.conversation.listen_button.invoke()
    give(app, *moments_of("Ana"))
    assert model.listens == [(True, 0.5)]


def test_what_goes_wrong_is_said_and_what_was_heard_is_kept(talk):
    give(talk, *moments_of("Ana"))
    give(talk, None, notes=["no speech, the recording is silent"])
    assert message(talk) == "no speech, the recording is silent"
    assert talk.busy == "listening"
    talk.verifier.answers.put(InputError("microphone 3 was lost: it hears no more"))
    wait(talk, settled(talk))
    assert message(talk) == "microphone 3 was lost: it hears no more"
    assert str(talk.message["background"]) == gui.BAD_TINT
    assert talk.conversation.save_button.instate(["!disabled"])
    assert talk.conversation.listen_button.instate(["!disabled"])


def test_pictures_wait_until_it_listens_no_more(talk):
    give(talk, *moments_of("Ana"))
    talk.tabs.select(1)
    talk.root.update()
    assert not talk.pictures.drawing
    assert not talk.pictures.images
    talk.conversation.stop_button.invoke()
    wait(talk, lambda: set(talk.pictures.images) == {"likeness", "map"})


# ---- the real thing ---------------------------------------------------------------------------------------------

@pytest.fixture
def hearing(open_window, engine, microphone, corpus):
    """A window with a model's process in which Ana and Bo are enrolled, and a microphone at which Ana speaks."""
    engine("load")
    for name, folder in (("Ana", "voice08"), ("Bo", "voice09")):
        engine("enroll", name, str(corpus / "test" / folder / "00.wav"))
    microphone.speak(corpus / "test" / "voice08" / "03.wav")
    app = open_window(engine, record.blocks, record.devices, argv=["--seconds", "4"])
    choose(app, "Ana")
    return app


def listens(app):
    app.tabs.select(2)
    app.conversation.listen_button.invoke()
    wait(app, lambda: any(moment.name for moment in app.conversation.timeline.moments))


def test_a_verdict_grows_and_who_speaks_is_named_through_the_microphone(hearing):
    app, seen = hearing, []
    show = app.show_so_far
    app.show_so_far = lambda heard: seen.append(heard) or show(heard)
    app.probe.record_button.invoke()
    wait(app, lambda: seen)
    assert app.busy == "recording"
    wait(app, settled(app))
    seen = [heard.seconds for heard in seen if heard.scores]
    assert len(seen) >= 2
    assert seen == sorted(seen)
    assert 0 <= app.heard.seconds - seen[-1] < 1                    # the verdict is that on the whole recording
    listens(app)
    assert {moment.name for moment in app.conversation.timeline.moments} <= {"", "Ana", "Bo", "somebody else"}
    press(app, app.conversation.stop_button)
    assert message(app) == ""
    assert "microphone" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(("blow", "words"), [(signal.SIGKILL, "was lost: it hears no more"),
                                             (signal.SIGSTOP, "the microphone delivered nothing for 3 s")])
def test_a_microphone_lost_midway_is_said(hearing, microphone, blow, words):
    listens(hearing)
    microphone.daemon.send_signal(blow)
    wait(hearing, settled(hearing))
    assert words in message(hearing)
    assert hearing.conversation.save_button.instate(["!disabled"])


def test_a_window_closed_while_it_listens_leaves_nothing(hearing, engine):
    listens(hearing)
    hearing.close()
    hearing.worker.thread.join(5)
    assert not hearing.worker.thread.is_alive()
    assert "microphone" not in {thread.name for thread in threading.enumerate()}
    engine.close()
    assert not engine.process.is_alive()
