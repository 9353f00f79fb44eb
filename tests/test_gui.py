"""The window on a screen of its own: what it says in each state, what its buttons and keys do, what it never does."""
import contextlib
import dataclasses
import gc
import io
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest
import soundfile
from matplotlib.figure import Figure
from matplotlib.image import imsave

import configuration
import gui
import listening
import record
import service
from common import InputError

tk = pytest.importorskip("tkinter")
ROOT = pathlib.Path(gui.__file__).parent
USUAL = 96 / 72              # pixels per point of a usual screen; "twice the scaling" is twice that
WAVE = np.full(8000, 0.1, np.float32)      # -20 dB


# ---- a screen, a model and a microphone -------------------------------------------------------------------------

def start_screen(folder):
    """Start an X server that keeps its picture in a file of `folder`; return its process and its display's name."""
    reader, writer = os.pipe()
    server = subprocess.Popen(["Xvfb", "-displayfd", str(writer), "-screen", "0", "2048x1280x24", "-fbdir", str(folder),
                               "-nolisten", "tcp"], pass_fds=[writer], stderr=subprocess.DEVNULL)
    os.close(writer)
    with open(reader, encoding="ascii") as answer:      # the server writes its number when it is ready
        return server, f":{answer.readline().strip()}"


@pytest.fixture(scope="session")
def screen(tmp_path_factory):
    """A display of 2048 x 1280 pixels: its name, and the folder of its picture."""
    if not shutil.which("Xvfb"):
        pytest.skip("needs Xvfb")
    folder = tmp_path_factory.mktemp("screen")
    server, name = start_screen(folder)
    yield types.SimpleNamespace(name=name, folder=folder)
    server.terminate()
    server.wait()


def photograph(screen, width, height):
    """Return the top left (height, width, 3) of a screen's picture, which is an XWD file."""
    data = (screen.folder / "Xvfb_screen0").read_bytes()
    header = struct.unpack(">25I", data[:100])
    size, rows, line, colours = header[0], header[5], header[12], header[19]
    pixels = np.frombuffer(data, np.uint8, rows * line, size + 12 * colours).reshape(rows, line // 4, 4)
    return pixels[:height, :width, 2::-1]                                               # blue, green, red, nothing


class FakeModel:
    """Answers as Engine does: voices of the names given, scores by hand, a threshold of 0.7."""

    def __init__(self, *names, threshold=True, model=True):
        self.people = {name: record.Enrolled(name, 1, 4.0) for name in names}
        self.scores, self.calls, self.model, self.forgotten = {"Ana": 0.9, "Bo": 0.3}, [], model, []
        self.measured = 0.7 if threshold else None

    def __call__(self, name, *arguments):
        self.calls.append(name)
        return getattr(self, name)(*arguments)

    def list_enrolled(self):
        return sorted(self.people.values(), key=lambda person: person.name)

    def load(self):
        if not self.model:
            raise InputError("--model_path is ./model: there is no model; train one")
        rates = [(1 - i / 400, i / 400) for i in range(401)]
        problem = "" if self.measured else "measure one with python test.py"
        return service.Loaded(8000, 10.0, self.measured, (0.0123, 0.0456), problem, rates)

    def check_place(self, name):
        pass

    def enroll(self, name, sound):
        if isinstance(sound, str):
            raise InputError(f"{sound} cannot be read: Format not recognised.")
        old = self.people.get(name, record.Enrolled(name, 0, 0.0))
        self.people[name] = record.Enrolled(name, old.recordings + 1, old.seconds + 4)
        return name

    def forget(self, name):
        del self.people[name]

    def prepare_pictures(self):
        pass

    def verify(self, sound):
        scores = sorted(((name, self.scores[name]) for name in self.people), key=lambda pair: -pair[1])
        return service.Heard(scores, 3.2, "", {}, [], [])

    def listen(self, lasting, threshold=None):
        pass

    def hear(self, block):
        return None, []

    def compare(self):
        return None

    def draw(self, name, width, height, dpi):
        picture = io.BytesIO()
        Figure((width / dpi, height / dpi), dpi, facecolor="lightgrey").savefig(picture, format="png", dpi=dpi)
        return picture.getvalue()


def quick(sr, device=None, cancelled=None, lost=""):
    """Yield a second at a time, in no time."""
    while True:
        yield np.resize(WAVE, sr)


def endless(sr, device=None, cancelled=None, lost="nothing was saved"):
    """Yield 5.5 s, then a sample at a time until it is cancelled."""
    yield np.resize(WAVE, round(5.5 * sr))
    while not cancelled():
        yield WAVE[:1]
        time.sleep(0.01)
    raise InputError(f"cancelled: {lost}")


def two_devices(rescan=False):
    return [record.Device(0, "Built-in Audio", 44100.0, True), record.Device(3, "USB microphone", 48000.0, False)]


def wait(app, until, seconds=20):
    """Let the window live until something holds."""
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, f"{app.probe.headline['text']} {app.message['text']}"
        app.root.update()
        time.sleep(0.002)


def settled(app):
    return lambda: not app.busy and not app.pictures.drawing and app.worker.jobs.empty() and app.worker.results.empty()


@pytest.fixture
def open_window(screen):
    """Return a function that opens a window and waits until it is ready; it is closed in the end."""
    apps = []

    def run(verifier, microphone=quick, devices=two_devices, scaling=USUAL, argv=(), ready=True):
        root = tk.Tk(screenName=screen.name)
        root.tk.call("tk", "scaling", scaling)
        apps.append(gui.App(root, configuration.get_config(list(argv)), microphone, verifier, devices))
        if ready:
            wait(apps[-1], settled(apps[-1]))
        root.update()
        root.focus_lastfor().focus_force()          # what a window manager does
        root.update()
        return apps[-1]

    yield run
    for app in apps:
        with contextlib.suppress(tk.TclError):      # the test has closed it
            app.close()
        app.worker.thread.join(10)
        assert not app.worker.thread.is_alive()
    apps.clear()
    gc.collect()            # Tk's objects must go in the thread that made them


@pytest.fixture
def ana_and_bo(open_window):
    return open_window(FakeModel("Ana", "Bo"))


def press(app, button):
    """Press a button and wait for all that follows."""
    assert button.instate(["!disabled"])
    button.invoke()
    wait(app, settled(app))


def choose(app, name):
    app.speakers.list.selection_set(name)
    app.root.update()


def card(app):
    """Return the large words, and their colour."""
    return app.probe.headline["text"], str(app.probe.headline["foreground"])


def message(app):
    return app.message["text"]


def board(app, drawing=None):
    """Return the texts on the board, or another drawing, in the order in which they were drawn."""
    canvas = (drawing or app.probe.board).canvas
    return [canvas.itemcget(item, "text") for item in canvas.find_all() if canvas.type(item) == "text"]


def rows(app):
    table = app.speakers.list
    return [(table.item(name, "text"), *table.item(name, "values")) for name in table.get_children()]


# ---- enrolment --------------------------------------------------------------------------------------------------

def test_a_new_user_enrols_with_name_and_enter(open_window):
    app = open_window(FakeModel())
    assert card(app)[0] == "Nobody is enrolled yet"
    assert app.probe.record_button.instate(["disabled"])
    app.speakers.entry.focus_force()
    app.speakers.name.set("Ana")
    app.root.update()
    app.speakers.entry.event_generate("<Return>")
    wait(app, lambda: app.speakers.people)
    wait(app, settled(app))
    assert rows(app) == [("Ana", "1", "4 s")]
    assert message(app) == "A recording of Ana is enrolled."
    assert app.speakers.chosen() == "Ana"
    assert card(app)[0] == "Is it Ana?"
    assert app.speakers.enroll_button["text"] == "Add recording"
    press(app, app.speakers.enroll_button)
    assert rows(app) == [("Ana", "2", "8 s")]


@pytest.mark.parametrize("name", ["", "../Ana", "a/b", ".ana", "a\nb", "a\x00b", "manifest"])
def test_names_that_could_be_paths_are_refused_before_anybody_speaks(open_window, name):
    model = FakeModel()
    app = open_window(model)
    app.speakers.name.set(name)
    press(app, app.speakers.enroll_button)
    assert message(app).startswith("speaker name ")
    assert "use letters, digits, spaces" in message(app)
    assert str(app.message["background"]) == gui.BAD_TINT
    assert "enroll" not in model.calls


@pytest.mark.parametrize(("button", "speaker"), [("enroll_button", "Ana"), ("record_button", None)])
def test_a_place_that_cannot_be_written_is_said_before_anybody_speaks(open_window, button, speaker):
    asked, heard = [], []

    class Full(FakeModel):
        def check_place(self, name):
            asked.append(name)
            raise InputError("--enroll_path is enroll", "enroll cannot be written.")

    app = open_window(Full("Ana"), lambda *_: heard.append(True) or quick(*_))
    choose(app, "Ana")
    press(app, getattr(app.speakers if speaker else app.probe, button))
    assert message(app) == "enroll cannot be written."
    assert (asked, heard, app.busy) == ([speaker], [], "")


@pytest.mark.parametrize(("answer", "left"), [(False, ["Ana", "Bo"]), (True, ["Bo"])])
def test_forget_asks_first(ana_and_bo, monkeypatch, answer, left):
    asked = []
    monkeypatch.setattr(gui.messagebox, "askokcancel", lambda *words, **_: asked.append(words[1]) or answer)
    assert ana_and_bo.speakers.forget_button.instate(["disabled"])
    choose(ana_and_bo, "Ana")
    press(ana_and_bo, ana_and_bo.speakers.forget_button)
    wait(ana_and_bo, lambda: [row[0] for row in rows(ana_and_bo)] == left)
    assert asked == ["Delete everything enrolled of Ana? This cannot be undone."]


# ---- the verdict ------------------------------------------------------------------------------------------------

def test_verdict_in_words_and_colour_follows_speaker_and_threshold(ana_and_bo):
    app = ana_and_bo
    assert card(app)[0] == "Is it …?"
    assert app.root.focus_get() is app.speakers.list
    choose(app, "Ana")
    press(app, app.probe.record_button)
    assert app.root.focus_get() is app.speakers.list                 # it was on Cancel meanwhile
    assert card(app) == ("Same person", gui.GOOD)
    assert app.probe.detail["text"] == "Score 0.90 with Ana, threshold 0.70; 3.2 s of speech heard."
    assert {"score 0.90", "threshold 0.70"} <= set(board(app))
    assert app.pictures.canvases["spectrum"].find_all()
    choose(app, "Bo")
    assert card(app) == ("Different person", gui.BAD)
    app.threshold.move(0.3)
    assert card(app) == ("Same person", gui.GOOD)           # a score at the threshold is accepted
    app.threshold.move(0.305)
    assert card(app) == ("Different person", gui.BAD)


def test_the_line_moves_with_the_trial_until_the_slider_is_moved(ana_and_bo):
    """Ana's trial asks for 0.95, Bo's for 0.2; by hand, 0.7 and the like hold for all."""
    app, heard = ana_and_bo, service.Heard([("Ana", 0.9), ("Bo", 0.3)], 3.2, "", {"Ana": 0.95, "Bo": 0.2},
                                           ["outside of what was measured: noise"], [])
    app.verifier.verify = lambda sound: heard
    choose(app, "Ana")
    press(app, app.probe.record_button)
    assert card(app) == ("Different person", gui.BAD)
    assert "threshold 0.95" in board(app)
    assert app.probe.detail["text"] == ("Score 0.90 with Ana, threshold 0.95; 3.2 s of speech heard; outside of what "
                                        "was measured: noise.")
    choose(app, "Bo")
    assert card(app) == ("Same person", gui.GOOD)
    assert "threshold 0.20" in board(app)
    app.threshold.move(0.5)
    assert card(app) == ("Different person", gui.BAD)
    assert "threshold 0.50" in board(app)
    press(app, app.threshold.reset_button)
    assert card(app) == ("Same person", gui.GOOD)


def test_the_error_rates_follow_the_threshold(ana_and_bo):
    app = ana_and_bo
    assert "FAR 1.2%" in app.threshold.rates["text"]                  # the stored ones, at the stored threshold
    assert "FRR 4.6%" in app.threshold.rates["text"]
    app.threshold.move(0.5)                                           # three quarters of the way from -1 to 1
    assert "FAR 25.0%" in app.threshold.rates["text"]
    assert "FRR 75.0%" in app.threshold.rates["text"]
    app.threshold.slider.focus_force()
    app.threshold.slider.event_generate("<Right>")
    assert app.threshold.value == pytest.approx(0.505)
    assert app.threshold.readout["text"] == "Threshold 0.505"
    press(app, app.threshold.reset_button)
    assert app.threshold.value == 0.7


def test_enter_on_a_speaker_records(ana_and_bo):
    choose(ana_and_bo, "Ana")
    ana_and_bo.speakers.list.focus_force()
    ana_and_bo.speakers.list.event_generate("<Return>")
    wait(ana_and_bo, lambda: ana_and_bo.heard)
    assert card(ana_and_bo)[0] == "Same person"


def test_who_is_it_shows_everybody_best_first(ana_and_bo):
    app = ana_and_bo
    app.probe.question.set("who")
    press(app, app.probe.record_button)
    assert card(app) == ("It is Ana", gui.GOOD)
    assert board(app) == ["Ana", "0.90", "Bo", "0.30", "threshold 0.70"]
    app.threshold.move(0.95)
    assert card(app) == ("None of them", gui.BAD)


def test_by_hand_the_highest_score_is_who_it_is(ana_and_bo):
    """By ratios Bo is the best, who has enrolled more; a threshold by hand is one of scores."""
    app = ana_and_bo
    app.verifier.verify = lambda sound: service.Heard([("Bo", 0.6), ("Ana", 0.65)], 3.2, "", {"Bo": 0.5, "Ana": 0.62},
                                                      [], [])
    app.probe.question.set("who")
    press(app, app.probe.record_button)
    assert card(app) == ("It is Bo", gui.GOOD)
    assert board(app)[:4] == ["Bo", "0.60", "Ana", "0.65"]
    app.threshold.move(0.63)
    assert card(app) == ("It is Ana", gui.GOOD)
    assert board(app)[:4] == ["Ana", "0.65", "Bo", "0.60"]


def test_a_threshold_beyond_all_scores_has_the_rates_of_the_highest(open_window):
    model = FakeModel("Ana")
    model.measured = 1.02
    app = open_window(model)
    assert not app.busy
    app.threshold.set(1.02)
    assert app.threshold.readout["text"] == "Threshold 1.020"


def test_who_is_enrolled_or_forgotten_elsewhere_is_seen(ana_and_bo):
    """After whatever the window does, and when it gets the focus; a name that is being typed stays."""
    app = ana_and_bo
    choose(app, "Ana")
    app.verifier.forget("Ana")
    press(app, app.probe.record_button)                 # its claim is of nobody
    assert message(app) == "Ana is not enrolled any more: nothing was saved"
    assert "verify" not in app.verifier.calls
    assert list(app.speakers.people) == ["Bo"]
    app.speakers.name.set("Cora")
    app.verifier.people["Dan"] = record.Enrolled("Dan", 1, 4.0)
    app.root.event_generate("<FocusIn>")
    wait(app, lambda: list(app.speakers.people) == ["Bo", "Dan"])
    assert app.speakers.name.get() == "Cora"
    app.root.event_generate("<FocusIn>")
    wait(app, settled(app))
    assert app.speakers.name.get() == "Cora"


def test_a_verdict_follows_who_is_enrolled_or_forgotten_elsewhere(ana_and_bo, monkeypatch):
    app = ana_and_bo
    choose(app, "Ana")
    press(app, app.probe.record_button)
    assert card(app)[0] == "Same person"
    app.verifier.people["Dan"] = record.Enrolled("Dan", 1, 4.0)
    app.verifier.scores["Dan"] = 0.8
    monkeypatch.setattr(app.verifier, "compare", lambda: app.verifier.verify(""), raising=False)
    app.root.event_generate("<FocusIn>")
    wait(app, lambda: app.heard and len(app.heard.scores) == 3)
    choose(app, "Dan")
    assert card(app)[0] == "Same person"


def test_a_change_is_told_although_nobody_can_be_compared_any_more(ana_and_bo, monkeypatch):
    app = ana_and_bo
    choose(app, "Ana")
    press(app, app.probe.record_button)

    def damaged():
        raise InputError("enroll/bad.npy is not a feature file: enrol this speaker again")

    monkeypatch.setattr(app.verifier, "compare", damaged, raising=False)
    monkeypatch.setattr(gui.messagebox, "askokcancel", lambda *arguments, **options: True)
    press(app, app.speakers.forget_button)
    wait(app, lambda: list(app.speakers.people) == ["Bo"])
    assert message(app).startswith("Ana is forgotten. enroll/bad.npy is not a feature file")
    assert app.heard is None


def test_the_next_name_may_be_typed_while_somebody_speaks(ana_and_bo):
    """Who is enrolled by then is in the list, and chosen; the name in the form is still the next one's."""
    app = ana_and_bo
    for name, following in (("Cora", "Dan"), ("Dan", "Ana")):
        choose(app, "Ana")
        app.speakers.name.set(name)
        app.speakers.enroll_button.invoke()
        app.speakers.name.set(following)
        wait(app, lambda name=name: name in app.speakers.people)
        wait(app, settled(app))
        assert app.speakers.name.get() == following
    choose(app, "Ana")
    app.speakers.name.set("Eve")
    app.verifier.people["Fay"] = record.Enrolled("Fay", 1, 4.0)
    app.root.event_generate("<FocusIn>")
    wait(app, lambda: "Fay" in app.speakers.people)
    wait(app, settled(app))
    assert (app.speakers.name.get(), app.speakers.chosen()) == ("Eve", "Ana")


def test_recordings_are_shown_however_their_suffix_is_written():
    patterns = gui.SOUNDS[0][1].split()
    assert {"*.wav", "*.WAV", "*.ogg", "*.OGG", "*.m4a", "*.M4A"} <= set(patterns)


def test_without_model_or_threshold_it_says_what_to_do(open_window):
    app = open_window(FakeModel("Ana", model=False))
    assert card(app)[0] == "No model"
    assert "there is no model; train one" in app.probe.detail["text"]
    assert board(app) == []
    assert app.probe.record_button.instate(["disabled"])
    for button in (app.speakers.enroll_button, app.speakers.enroll_file_button):        # at which rate?
        assert button.instate(["disabled"])
    model = FakeModel("Ana", threshold=False)
    model.verify = lambda sound: service.Heard([("Ana", 0.9)], 3.2, "", {"Ana": 0.0}, [], [])
    app = open_window(model)
    choose(app, "Ana")
    press(app, app.probe.record_button)
    assert card(app) == ("Score 0.90", gui.MUTED)
    assert "measure one with python test.py" in app.probe.detail["text"]
    assert app.threshold.readout["text"] == "No threshold"
    assert app.threshold.rates["text"] == "The slider sets one by hand."
    app.threshold.move(0.5)
    assert card(app) == ("Same person", gui.GOOD)


def test_the_comparison_is_drawn_when_it_is_looked_at(open_window):
    model = FakeModel("Ana", "Bo")
    app = open_window(model)
    assert "draw" not in model.calls
    app.tabs.select(1)
    app.root.update()
    wait(app, settled(app))
    for canvas in (app.pictures.canvases[name] for name in ("likeness", "map")):
        assert canvas.type(canvas.find_all()[0]) == "image"


def test_a_picture_is_asked_for_once_and_again_when_its_size_changed(open_window):
    model = FakeModel("Ana", "Bo")
    app = open_window(model)
    app.tabs.select(1)
    app.root.update()
    for _ in range(3):
        app.pictures.draw_visible()
    assert app.pictures.drawing == {"likeness", "map"}
    wait(app, settled(app))
    asked = model.calls.count("draw")
    assert asked == 2
    app.pictures.show("map", (7, 7), None, "of a window that was smaller")
    wait(app, settled(app))
    assert model.calls.count("draw") == asked + 1


@pytest.mark.parametrize(("level_db", "colour"), [(-50, "BAD"), (-40, "GOOD"), (-10, "GOOD"), (-5, "BAD")])
def test_the_meter_is_green_where_speech_lies(ana_and_bo, level_db, colour):
    board = ana_and_bo.probe.board
    board.meter(level_db, 0.5)
    bars = [board.canvas.itemcget(item, "fill") for item in board.canvas.find_all()
            if board.canvas.type(item) == "rectangle"]
    assert bars.count(getattr(gui, colour)) == 1


def test_only_a_recording_can_be_cancelled(ana_and_bo):
    for busy, possible in (("work", False), ("recording", True)):
        ana_and_bo.become_busy(busy, "One moment …")
        assert ana_and_bo.probe.cancel_button.instate(["!disabled"]) is possible
    ana_and_bo.become_idle()


# ---- recording --------------------------------------------------------------------------------------------------

def test_level_countdown_and_escape(open_window):
    model = FakeModel("Ana")
    app = open_window(model, endless)
    choose(app, "Ana")
    app.probe.record_button.focus_force()
    app.probe.record_button.event_generate("<Return>")            # Enter presses the button that has the focus
    wait(app, lambda: card(app)[0].startswith("Speak now"))
    assert card(app)[0] == "Speak now: 5 s"                 # 4.5 s of 10 are left
    assert "good" in board(app, app.meter)
    assert app.probe.record_button.instate(["disabled"])
    assert app.root.focus_get() is app.probe.cancel_button
    app.probe.cancel_button.event_generate("<Escape>")
    wait(app, settled(app))
    assert message(app) == "cancelled: nothing was saved"
    assert "verify" not in model.calls
    assert app.root.focus_get() is app.probe.record_button
    app.probe.record_button.invoke()                              # the next recording is not cancelled
    wait(app, lambda: card(app)[0].startswith("Speak now"))
    press(app, app.probe.cancel_button)


def test_closing_while_recording_saves_nothing(open_window):
    model = FakeModel("Ana")
    app = open_window(model, endless)
    app.speakers.name.set("Eve")
    app.speakers.enroll_button.invoke()
    wait(app, lambda: card(app)[0].startswith("Speak now"))
    app.close()
    app.worker.thread.join(5)
    assert not app.worker.thread.is_alive()
    assert "enroll" not in model.calls


def test_without_a_microphone_files_still_do(open_window, monkeypatch):
    def fail(*_, **__):
        raise InputError("there is no microphone: plug one in")

    def no_blocks(*_, **__):
        yield from fail()

    app = open_window(FakeModel("Ana"), no_blocks, fail)
    assert app.settings.device.get() == "No microphone"
    assert message(app) == "there is no microphone: plug one in"
    choose(app, "Ana")
    monkeypatch.setattr(gui.filedialog, "askopenfilename", lambda **_: "probe.wav")
    press(app, app.probe.open_button)
    assert card(app)[0] == "Same person"
    assert message(app) == ""
    press(app, app.probe.record_button)
    assert message(app) == "there is no microphone: plug one in"
    assert card(app)[0] == "Is it Ana?"                     # the verdict on the file is gone
    press(app, app.speakers.enroll_file_button)
    assert message(app) == "probe.wav cannot be read: Format not recognised."


def test_device_and_length_reach_the_recorder(open_window):
    heard, model = [], FakeModel("Ana")

    def microphone(sr, device, cancelled):
        heard.append((sr, device))
        return quick(sr)

    judge = model.verify
    model.verify = lambda sound: heard.append(len(sound) / 8000) or judge(sound)
    app = open_window(model, microphone, argv=["--seconds", "7", "--device", "usb"])
    assert app.settings.device["values"] == ("System default", "0: Built-in Audio", "3: USB microphone")
    choose(app, "Ana")
    app.tabs.select(1)
    press(app, app.probe.record_button)
    assert app.tabs.index("current") == 0                   # where the meter is
    app.settings.device.current(2)
    app.settings.seconds.set("2.5")
    press(app, app.probe.record_button)
    app.settings.device.current(0)
    press(app, app.probe.record_button)
    assert heard == [(8000, "usb"), 7.0, (8000, 3), 2.5, (8000, None), 2.5]
    app.settings.seconds.set("-1")
    press(app, app.probe.record_button)
    assert message(app) == "recording length is '-1': it must be from 1 to 3600 s"


def test_it_records_at_the_rate_of_the_model(open_window):
    rates, model = [], FakeModel("Ana")
    load = model.load
    model.load = lambda: dataclasses.replace(load(), sr=16000)
    app = open_window(model, lambda sr, *_: rates.append(sr) or quick(sr))
    choose(app, "Ana")
    press(app, app.probe.record_button)
    assert rates == [16000]


def test_a_microphone_plugged_in_later_is_found_when_the_list_is_opened(open_window):
    found, asked = [two_devices()[:1]], []

    def devices(rescan=False):
        asked.append(rescan)
        if not found[0]:
            raise InputError("there is no microphone: ..., or take --input FILE", "there is no microphone")
        return found[0]

    def open_list():
        app.root.tk.call("ttk::combobox::Post", app.settings.device)       # what a click on its arrow does
        wait(app, settled(app))
        app.root.update()
        listed = app.root.tk.call("ttk::combobox::PopdownWindow", app.settings.device) + ".f.l"
        values = app.root.tk.call(listed, "get", 0, "end")
        app.root.tk.call("ttk::combobox::Unpost", app.settings.device)
        return values

    app = open_window(FakeModel("Ana"), devices=devices)
    assert open_list() == ("System default", "0: Built-in Audio")
    found[0] = two_devices()
    assert open_list() == ("System default", "0: Built-in Audio", "3: USB microphone")
    app.settings.device.set("3: USB microphone")
    assert app.settings.chosen_device() == 3
    found[0] = two_devices()[:1]
    open_list()
    assert app.settings.device.get() == "System default"                   # the one chosen was unplugged
    found[0] = []
    app.root.tk.call("ttk::combobox::Post", app.settings.device)
    wait(app, settled(app))
    assert (app.settings.device.get(), message(app)) == ("No microphone", "there is no microphone")
    assert len(asked) >= 5
    assert asked == [False] + [True] * (len(asked) - 1)


# ---- the window -------------------------------------------------------------------------------------------------

def test_it_shows_while_the_model_loads(open_window):
    loading, model = threading.Event(), FakeModel("Ana")
    load = model.load
    model.load = lambda: loading.wait(10) and load()
    app = open_window(model, ready=False)
    wait(app, lambda: rows(app))
    assert app.settings.progress.winfo_ismapped()
    assert card(app)[0] == "Loading the model …"
    assert app.probe.record_button.instate(["disabled"])
    loading.set()
    wait(app, settled(app))
    assert not app.settings.progress.winfo_ismapped()
    assert card(app)[0] == "Is it …?"


def test_while_it_listens_the_threshold_stays_and_is_told(open_window):
    """By the slider; what was heard before stays until the microphone gives something."""
    app = open_window(FakeModel("Ana", "Bo"), endless)
    app.conversation.show(-20.0, 8.0, listening.Moment(8.0, "Ana", 1.5, "Ana"))
    app.verifier.hear = lambda block: (listening.Moment(1.0, "Ana", 0.61, "Ana", "score"), [])
    app.threshold.set(0.66)
    app.listen()
    assert len(app.conversation.timeline.moments) == 1
    wait(app, lambda: "Nearest is" in app.conversation.words.detail["text"])
    assert "Threshold 0.66, set by hand." in app.conversation.words.detail["text"]
    assert app.conversation.timeline.moments[0].seconds < 8
    assert app.threshold.slider.instate(["disabled"])
    app.cancelled.set()
    wait(app, settled(app))
    assert not app.threshold.slider.instate(["disabled"])


def test_closing_under_a_dialogue_is_quiet(ana_and_bo, capsys):
    """The dialogue goes on until its window is gone, and then finds none."""
    app = ana_and_bo
    app.close()
    app.show_error(tk.TclError, tk.TclError("bad window path name"), None)
    assert capsys.readouterr().err == ""


def test_a_fault_of_the_program_shows_in_the_window(ana_and_bo, capsys):
    ana_and_bo.root.after(0, lambda: 1 / 0)
    wait(ana_and_bo, lambda: message(ana_and_bo))
    assert message(ana_and_bo).startswith("this is a fault of the program, ZeroDivisionError: division by zero")
    assert "Traceback" in capsys.readouterr().err


def test_tab_visits_everything_in_reading_order(ana_and_bo):
    app = ana_and_bo
    choose(app, "Ana")
    visited, widget = [], app.settings.device
    while widget not in visited:
        visited.append(widget)
        widget = widget.tk_focusNext()
    speakers, probe = app.speakers, app.probe
    assert visited == [app.settings.device, app.settings.seconds, speakers.list, speakers.new_button,
                       speakers.forget_button, speakers.entry, speakers.enroll_button, speakers.enroll_file_button,
                       app.tabs, probe.claim_button, probe.claim_button.tk_focusNext(), probe.sure_button,
                       probe.record_button, probe.open_button, app.threshold.slider, app.threshold.reset_button]


def leaves(widget):
    children = [child for child in widget.winfo_children() if child.winfo_ismapped()]
    return [leaf for child in children for leaf in leaves(child)] or [widget]


@pytest.mark.parametrize("factor", [1, 2])
def test_nothing_is_clipped(open_window, screen, tmp_path, factor):
    """The screenshots stay in pytest's temporary folder, for the eye."""
    app = open_window(FakeModel("Ana", "Bo", "Wilhelmina Hohenwang", *map(str, range(20))), scaling=factor * USUAL)
    root = app.root
    choose(app, "Wilhelmina Hohenwang")
    for number, name in enumerate(("Ana", "somebody else", "", "a name of very many letters")):
        app.conversation.show(-20.0, 8.0 * (number + 1), listening.Moment(8.0 * (number + 1), name, 1.5, "Ana"))
    for name in ("asked", "verdict", "who", "error", "comparison", "now"):
        if name == "verdict":
            press(app, app.probe.record_button)
        app.probe.question.set("who" if name == "who" else "claim")
        app.update()
        app.show_message("a fault that takes many words to tell, " * 5 if name == "error" else "", gui.BAD)
        app.tabs.select({"comparison": 1, "now": 2}.get(name, 0))
        root.update()
        wait(app, settled(app))
        width, height = root.winfo_width(), root.winfo_height()
        assert abs(width - 1024 * factor) <= 2 * factor
        assert abs(height - 640 * factor) <= 2 * factor
        assert len(leaves(root)) > 15
        assert app.tabs.index("current") or app.probe.record_button.winfo_ismapped()
        for leaf in leaves(root):
            if leaf.winfo_class() in ("TLabel", "TButton", "TRadiobutton", "TCheckbutton"):
                assert leaf.winfo_width() >= leaf.winfo_reqwidth(), leaf["text"]
                assert leaf.winfo_height() >= leaf.winfo_reqheight(), leaf["text"]
            assert leaf.winfo_rootx() + leaf.winfo_width() <= root.winfo_rootx() + width
            assert leaf.winfo_rooty() + leaf.winfo_height() <= root.winfo_rooty() + height
        picture = photograph(screen, width, height)
        imsave(tmp_path / f"{name}.png", np.ascontiguousarray(picture))
        paper = np.frombuffer(bytes.fromhex(gui.PAPER[1:]), np.uint8)
        assert 0.1 < (picture == paper).all(axis=2).mean() < 0.8        # it is the window that was photographed


def run_gui(*argv, **environment):
    return subprocess.run([sys.executable, ROOT / "gui.py", *argv], capture_output=True, text=True, timeout=60,
                          env=os.environ | environment, check=False)


def test_without_display_or_tkinter_it_is_one_line(fails, monkeypatch):
    done = run_gui(DISPLAY=":9999")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no display: ")
    assert len(done.stderr.splitlines()) == 1
    monkeypatch.setattr(gui, "tk", None)
    assert "apt install python3-tk" in fails(gui.main)


def test_it_starts_without_tensorflow_and_matplotlib():
    script = "import sys, gui; print(sorted({'tensorflow', 'matplotlib', 'keras'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60,
                          check=True)
    assert done.stdout == "[]\n"


# ---- the model's process ----------------------------------------------------------------------------------------


def test_a_narrow_file_is_noted(ana_and_bo, tmp_path, monkeypatch):
    soundfile.write(tmp_path / "4k.wav", WAVE, 4000)
    monkeypatch.setattr(gui.filedialog, "askopenfilename", lambda **_: str(tmp_path / "4k.wav"))
    choose(ana_and_bo, "Ana")
    press(ana_and_bo, ana_and_bo.probe.open_button)
    assert "4k.wav is at 4000 Hz, below the model's 8000 Hz" in message(ana_and_bo)
    press(ana_and_bo, ana_and_bo.probe.record_button)
    assert message(ana_and_bo) == ""
    monkeypatch.setattr(FakeModel, "enroll", lambda self, name, sound: name)
    press(ana_and_bo, ana_and_bo.speakers.enroll_file_button)
    wait(ana_and_bo, settled(ana_and_bo))
    assert message(ana_and_bo).startswith("A recording of Ana is enrolled. ")
    assert "4k.wav is at 4000 Hz" in message(ana_and_bo)


def test_the_real_thing(open_window, engine, microphone, corpus, tmp_path, monkeypatch):
    """A trained model, PortAudio and a microphone that plays a synthetic voice: enrol, verify, a file, close."""
    microphone.speak(corpus / "test" / "voice08" / "00.wav")
    app = open_window(engine, record.blocks, record.devices, argv=["--seconds", "3"])
    app.speakers.name.set("Ana")
    press(app, app.speakers.enroll_button)
    assert message(app) == "A recording of Ana is enrolled."
    assert [path.name for path in sorted((tmp_path / "enroll").glob("*.*"))] == [".lock", "Ana.json", "Ana.npy"]
    press(app, app.probe.record_button)
    score = dict(app.heard.scores)["Ana"]
    sent = {**vars(app.loaded), **vars(app.heard)}.values()
    assert {type(value).__module__ for value in sent} == {"builtins"}       # of model.py, they would load TensorFlow
    app.threshold.set(score)
    assert card(app) == ("Same person", gui.GOOD)
    monkeypatch.setattr(gui.filedialog, "askopenfilename", lambda **_: str(corpus / "test" / "voice09" / "01.wav"))
    press(app, app.probe.open_button)
    other = dict(app.heard.scores)["Ana"]               # a model of 8 iterations may find the other voice nearer
    assert other != score
    app.threshold.set(other + 0.01)
    assert card(app) == ("Different person", gui.BAD)
    assert app.pictures.canvases["spectrum"].type(app.pictures.canvases["spectrum"].find_all()[0]) == "image"
    press(app, app.speakers.enroll_file_button)
    assert rows(app)[0][:2] == ("Ana", "2")
    app.tabs.select(1)
    app.root.update()
    wait(app, settled(app))
    assert app.pictures.canvases["map"].type(app.pictures.canvases["map"].find_all()[0]) == "image"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    app.speakers.enroll_button.invoke()
    wait(app, lambda: card(app)[0].startswith("Speak now"))
    app.close()
    app.worker.thread.join(5)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
