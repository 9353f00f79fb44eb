"""The window: enrol speakers, ask whether it is one of them, who it is, who speaks now; see how recordings compare.

    python gui.py
    python gui.py --model_path ./model --device 3 --seconds 5

The window shows at once and stays awake: the model lives in a process of its own (service.py), which also draws the
pictures, and whatever takes time is asked of it, or of the microphone, by one worker thread.
"""
import contextlib
import math
import sys
import threading

import numpy as np

import audio
import board
import configuration
import embedding
import features
import listening
import record
import service
from board import ACCENT, BAD, BAD_TINT, CARD, GOOD, INK, MUTED, PAPER, Board, ConversationTab, Words, gap_of
from common import InputError
from service import shortened

try:
    import tkinter as tk
    from tkinter import filedialog, messagebox, ttk
    from tkinter.font import nametofont
except ModuleNotFoundError:         # some systems package it apart from Python; `work` says which package
    tk = None

POLL_MS = 30                 # the window looks this often for what its worker has done
DEFAULT_DEVICE = "System default"
TABLES = [("Tables", "*.csv"), ("All files", "*")]
SOUNDS = [("Recordings", " ".join(f"*{suffix} *{suffix.upper()}" for suffix in sorted(audio.SUFFIXES))),
          ("All files", "*")]


# ---- the parts of the window ------------------------------------------------------------------------------------

def lay_side_by_side(row, left, right):
    """Lay two buttons of the same width into a row of their parent's grid."""
    half = gap_of(left) // 2
    left.grid(row=row, column=0, sticky="ew", padx=(0, half))
    right.grid(row=row, column=1, sticky="ew", padx=(half, 0))


class Settings:
    """The microphone, the length of a recording, and the progress of loading."""

    def __init__(self, parent, config, on_open):
        self.frame, gap = ttk.Frame(parent), gap_of(parent)
        self.numbers, self.typed, self.given = [None], config.device, config.given
        self.device = ttk.Combobox(self.frame, state="readonly", width=34, postcommand=on_open)
        self.device.set(config.device or DEFAULT_DEVICE)
        self.seconds = ttk.Spinbox(self.frame, from_=1, to=60, width=5)
        self.initial = f"{config.seconds:g}"
        self.seconds.set(self.initial)
        microphone, length, unit = (ttk.Label(self.frame, text=text) for text in (
            "Microphone", "   Recording length", "seconds"))
        for part in (microphone, self.device, length, self.seconds, unit):
            part.pack(side="left", padx=(0, gap))
        self.progress = ttk.Progressbar(self.frame, mode="indeterminate", length=17 * gap)
        self.progress.pack(side="right")
        self.progress.start(30)

    def show_devices(self, devices):
        """List the microphones, none if there is none; the one that was chosen stays so if it is still there."""
        names = [f"{device.number}: {device.name}" for device in devices]
        if not devices:
            self.device.set("No microphone")
        elif self.device.get() not in (self.typed, *names):
            self.device.set(DEFAULT_DEVICE)
        self.numbers = [None, *(device.number for device in devices)]
        values = (DEFAULT_DEVICE, *names)
        if values != self.device["values"]:
            self.device.configure(values=values)
            popdown = self.device.tk.call("ttk::combobox::PopdownWindow", self.device)
            if self.device.tk.call("winfo", "ismapped", popdown):              # it shows the old list
                self.device.tk.call("ttk::combobox::Unpost", self.device)
                self.device.tk.call("ttk::combobox::Post", self.device)

    def chosen_device(self):
        """Return the number of the microphone, or what was typed, None for the system's default."""
        place = self.device.current()
        return self.numbers[place] if place >= 0 else self.typed

    def adopt(self, seconds):
        """Take the length that suits the model, unless another one was typed."""
        if "seconds" not in self.given and self.seconds.get() == self.initial:
            self.seconds.set(f"{seconds:g}")

    def length(self):
        """Return the length of a recording in seconds; InputError where it is not one."""
        flag = configuration.flags()["seconds"]
        with contextlib.suppress(ValueError):
            if not flag.problem(float(self.seconds.get())):
                return float(self.seconds.get())
        raise InputError(f"recording length is {self.seconds.get()!r}: it must be {flag.bounds()}")


class Speakers:
    """The list of enrolled speakers, its buttons, and the form that enrols."""

    def __init__(self, parent, app):
        self.frame, gap, self.people = ttk.Frame(parent), gap_of(parent), {}
        pane = self.frame
        pane.columnconfigure((0, 1), weight=1, uniform="half")
        pane.rowconfigure(1, weight=1)
        ttk.Label(pane, text="Enrolled speakers", style="Heading.TLabel").grid(columnspan=2, sticky="w", pady=gap)
        self.list = self.build_list(pane)
        self.list.bind("<<TreeviewSelect>>", lambda event: (self.name.set(self.chosen() or self.name.get()),
                                                            app.update()))
        self.list.bind("<Return>", lambda event: app.probe.record_button.invoke())
        self.new_button = ttk.Button(pane, text="New speaker", command=self.new_speaker)
        self.forget_button = ttk.Button(pane, text="Forget …", command=app.forget)
        lay_side_by_side(2, self.new_button, self.forget_button)
        self.title, row, self.name = ttk.Label(pane, style="Heading.TLabel"), ttk.Frame(pane), tk.StringVar()
        self.title.grid(row=3, columnspan=2, sticky="w", pady=(2 * gap, 0))
        row.grid(row=4, columnspan=2, sticky="ew", pady=gap)
        self.name.trace_add("write", lambda *_: app.update())
        self.entry = ttk.Entry(row, textvariable=self.name)
        self.entry.bind("<Return>", lambda event: self.enroll_button.invoke())
        ttk.Label(row, text="Name").pack(side="left")
        self.entry.pack(side="right", fill="x", expand=True, padx=(gap, 0))
        self.enroll_button = ttk.Button(pane, command=app.enroll, style="Main.TButton")
        self.enroll_file_button = ttk.Button(pane, text="From a file …", command=lambda: app.open_file(app.enroll))
        lay_side_by_side(5, self.enroll_button, self.enroll_file_button)

    def build_list(self, pane):
        """Return the list, a row per speaker; beside it lies its scroll bar."""
        row, scroll = ttk.Frame(pane), ttk.Scrollbar(pane)
        table = ttk.Treeview(row, columns=("recordings", "seconds"), selectmode="browse", height=4)
        row.grid(row=1, columnspan=2, sticky="nsew", pady=(0, gap_of(pane)))
        table.configure(yscrollcommand=scroll.set)
        scroll.configure(command=table.yview)
        scroll.pack(in_=row, side="right", fill="y")
        table.pack(side="left", fill="both", expand=True)
        measure = nametofont("TkHeadingFont").measure
        for column, heading, anchor, room in (("#0", "Name", "w", "A rather long name"),
                                              ("recordings", "Recordings", "e", "Recordings"),
                                              ("seconds", "Speech", "e", "Speech 00")):
            table.heading(column, text=heading, anchor=anchor)
            table.column(column, width=measure(room) + 2 * gap_of(pane), anchor=anchor, stretch=column == "#0")
        return table

    def chosen(self):
        """Return the speaker chosen in the list, "" where none is."""
        return next(iter(self.list.selection()), "")

    def new_speaker(self):
        """Make room for a new name."""
        self.name.set("")
        self.entry.focus_set()

    def show(self, people, name=""):
        """List the enrolled speakers, and choose the one named, else the one before."""
        if people == list(self.people.values()) and name in ("", self.chosen()):
            return                              # nothing is new, and a name that is being typed stays
        typed, name = features.normal_form(self.name.get()).strip(), name or self.chosen()
        self.people = {person.name: person for person in people}
        self.list.delete(*self.list.get_children())
        for person in people:
            self.list.insert("", "end", person.name, text=shortened(person.name, 18),
                             values=(person.recordings, "" if person.seconds is None else f"{person.seconds:.0f} s"))
        if name in self.people:
            self.list.selection_set(name)
            self.list.focus(name)
            self.list.see(name)
            if typed not in ("", name):
                self.list.after_idle(self.name.set, typed)      # after <<TreeviewSelect>>, which sets the chosen name

    def update(self):
        """Word title and button for the name in the form."""
        name = features.normal_form(self.name.get()).strip()
        known = name in self.people
        self.title.configure(text=f"Add a recording of {shortened(name, 14)}" if known else "Enrol a new speaker")
        self.enroll_button.configure(text="Add recording" if known else "Enrol")


class Probe:
    """The two questions, the buttons of the probe, and the card with its verdict."""

    def __init__(self, parent, app):
        gap = gap_of(parent)
        questions, bar, self.result = ttk.Frame(parent), ttk.Frame(parent), ttk.Frame(parent, style="Card.TFrame")
        questions.grid(sticky="ew")         # a row of its own: a name may be wide
        bar.grid(sticky="ew", pady=gap)
        self.result.grid(sticky="nsew", pady=(0, gap))
        self.question = tk.StringVar(value="claim")
        self.claim_button, who_button = (ttk.Radiobutton(
            questions, text="Who is it?", style="Toolbutton", variable=self.question, value=value, command=app.update)
            for value in ("claim", "who"))
        self.claim_button.pack(side="left")
        who_button.pack(side="left")
        self.ends_when_sure = tk.BooleanVar(value=True)
        self.sure_button = ttk.Checkbutton(bar, text="End when sure", variable=self.ends_when_sure)
        self.sure_button.pack(side="left")
        self.record_button = ttk.Button(bar, text="Record", command=app.verify, style="Main.TButton")
        self.open_button = ttk.Button(bar, text="Open a file …", command=lambda: app.open_file(app.verify))
        self.cancel_button = ttk.Button(bar, text="Cancel", command=app.cancelled.set)
        for button in (self.cancel_button, self.open_button, self.record_button):
            button.pack(side="right", padx=(gap, 0))
        self.words = Words(self.result)
        self.headline, self.detail, self.show_words = self.words.headline, self.words.detail, self.words.show
        self.board = Board(self.result, 7)
        self.board.canvas.pack(fill="x", padx=gap, pady=gap)
        self.board.canvas.bind("<Configure>", lambda event: app.update())

    def asks_who(self):
        """Tell whether the question is who it is, not whether it is the one chosen."""
        return self.question.get() == "who"


class Pictures:
    """The canvases with the pictures that the model's process draws, each anew when its size changes."""

    def __init__(self, app):
        self.app, self.canvases, self.images, self.drawing = app, {}, {}, set()

    def add(self, name, parent, side):
        """Make the canvas of a picture."""
        canvas = tk.Canvas(parent, width=1, height=1, background=CARD, highlightthickness=0)
        canvas.pack(side=side, fill="both", expand=True, padx=gap_of(parent) if side == "top" else gap_of(parent) // 2)
        canvas.bind("<Configure>", lambda event: self.draw_visible())
        self.canvases[name] = canvas

    def draw_visible(self):
        """Ask for the pictures that can be seen."""
        for name in (("spectrum",), ("likeness", "map"), ())[self.app.tabs.index("current")]:
            self.draw(name)

    def draw(self, name):
        """Ask for a picture of the size of its canvas, if it is not asked for yet."""
        app, canvas = self.app, self.canvases[name]
        size, dpi = (canvas.winfo_width(), canvas.winfo_height()), canvas.winfo_fpixels("1i")
        if name in self.drawing or not app.loaded or app.busy or min(size) < 50:
            return
        if name == "spectrum" and not app.heard:
            canvas.delete("all")
            return
        self.drawing.add(name)
        app.run(lambda: app.verifier("draw", name, *size, dpi), lambda png: self.show(name, size, png),
                lambda text: self.show(name, size, None, text))

    def show(self, name, size, png, text=""):
        """Show a picture, or why there is none; ask again if its canvas has another size by now."""
        canvas = self.canvases[name]
        canvas.delete("all")
        self.drawing.discard(name)
        if png:
            self.images[name] = tk.PhotoImage(data=png, master=canvas)
            canvas.create_image(0, 0, image=self.images[name], anchor="nw")
        else:
            canvas.create_text(size[0] / 2, size[1] / 2, text=text, fill=MUTED, width=size[0] - 4 * gap_of(canvas))
        if size != (canvas.winfo_width(), canvas.winfo_height()):
            self.draw(name)


# ---- the window -------------------------------------------------------------------------------------------------

class App:
    """The window: its parts, and what they ask of the worker.

    Parameters
    ----------
    root : tkinter.Tk
    config : argparse.Namespace
        sr (until the model gives its own), seconds and device at the start.
    microphone : callable
        As record.blocks.
    verifier : callable
        As service.Engine: answers a Service method's name and arguments, and raises InputError.
    devices : callable
        As record.devices.
    """

    def __init__(self, root, config, microphone, verifier, devices):
        self.root, self.config, self.sr = root, config, config.sr
        self.microphone, self.verifier, self.devices = microphone, verifier, devices
        self.enough = threading.Event()     # a probe may end: the verdict on it is sure
        self.cancelled, self.busy, self.loaded, self.problem = threading.Event(), "loading", None, ""
        self.heard, self.notes, self.focus, self.worker, self.closed = None, [], None, service.Worker(), False
        self.build()
        root.report_callback_exception = self.show_error
        root.protocol("WM_DELETE_WINDOW", self.close)
        root.bind("<Escape>", lambda event: self.cancelled.set())         # the next recording clears it
        root.bind_class("TButton", "<Return>", lambda event: event.widget.invoke())
        self.probe.show_words("Loading the model …", MUTED, "This takes a few seconds.")
        root.bind("<FocusIn>", lambda event: event.widget is root and not self.busy and self.list_people())
        self.list_people()
        self.run(lambda: verifier("load"), self.show_loaded, self.show_loaded)
        self.run(devices, self.settings.show_devices, self.show_no_devices)
        self.run(lambda: verifier("prepare_pictures"), lambda _: None)
        self.poll()

    def build(self):
        """Lay the window out: settings above, speakers on the left, the tabs on the right, messages below."""
        root, gap = self.root, gap_of(self.root)
        board.set_style(root)
        root.title("Speaker verification")
        root.configure(background=PAPER)
        root.geometry(f"{min(128 * gap, root.winfo_screenwidth())}x{min(80 * gap, root.winfo_screenheight())}")
        root.columnconfigure(1, weight=1)
        root.rowconfigure(1, weight=1)
        self.settings, self.speakers = Settings(root, self.config, self.list_devices), Speakers(root, self)
        self.tabs = ttk.Notebook(root)
        probe, comparison, now = (ttk.Frame(self.tabs, padding=gap) for _ in range(3))
        self.message = board.wrapping_label(root, anchor="w", padding=gap)
        self.settings.frame.grid(row=0, columnspan=2, sticky="ew", padx=gap, pady=gap)
        self.speakers.frame.grid(row=1, column=0, sticky="ns", padx=gap)
        self.tabs.grid(row=1, column=1, sticky="nsew", padx=(0, gap))
        self.message.grid(row=2, columnspan=2, sticky="ew")
        self.tabs.add(probe, text="Verify")
        self.tabs.add(comparison, text="Compare recordings")
        self.tabs.add(now, text="Who speaks now")
        probe.columnconfigure(0, weight=1)
        probe.rowconfigure(2, weight=1)
        self.conversation, self.pictures = ConversationTab(now, self), Pictures(self)
        self.probe, self.threshold = Probe(probe, self), board.ThresholdBar(probe, self.update)
        self.tabs.bind("<<NotebookTabChanged>>", lambda event: self.pictures.draw_visible())
        self.pictures.add("spectrum", self.probe.result, "top")
        self.pictures.add("likeness", comparison, "left")
        self.pictures.add("map", comparison, "left")
        self.meter = Board(canvas=self.pictures.canvases["spectrum"])      # while a probe is heard, there is no other

    def run(self, work, then, failed=None):
        """Let the worker do work(); then(value) follows in the window's thread, or failed(text), which shows it."""
        self.worker.run(work, then, failed or self.show_failure)

    def poll(self):
        """Take what the worker has done."""
        self.timer = self.root.after(POLL_MS, self.poll)
        self.worker.poll()

    def show_error(self, kind, error, trace):
        """Show an error that a callback raised; Tk calls this."""
        if kind is KeyboardInterrupt:
            self.close()
        elif not self.closed:                   # with a dialogue open, that goes on
            self.show_message(service.describe_error(error), BAD)

    def close(self):
        """Stop recording and close the window."""
        self.closed = True
        self.cancelled.set()
        self.worker.stop()
        self.settings.progress.stop()
        self.root.after_cancel(self.timer)
        self.root.destroy()

    def show_message(self, text, colour=GOOD):
        """Show a message below; red on a red ground is an error."""
        self.message.configure(text=text, foreground=colour, background=BAD_TINT if colour == BAD else PAPER)

    def show_failure(self, text):
        """Show why something came to nothing."""
        self.become_idle()
        self.show_message(text, MUTED if text.startswith("cancelled") else BAD)

    def update(self):
        """Show all that follows from the speakers, the one chosen, the verdict and the threshold."""
        speakers, probe, chosen, idle = self.speakers, self.probe, self.speakers.chosen(), not self.busy
        speakers.update()
        probe.claim_button.configure(text=f"Is it {shortened(chosen)}?" if chosen else "Is it …?")
        for button, possible in ((speakers.new_button, idle), (speakers.forget_button, idle and chosen),
                                 (speakers.enroll_button, idle and self.loaded),
                                 (speakers.enroll_file_button, idle and self.loaded),
                                 (probe.record_button, idle and self.loaded and speakers.people),
                                 (probe.open_button, idle and self.loaded and speakers.people),
                                 (probe.cancel_button, self.busy == "recording"),
                                 (self.threshold.slider, self.loaded and self.busy != "listening"),
                                 (self.threshold.reset_button, self.loaded and self.busy != "listening"
                                  and self.loaded.threshold is not None)):
            button.state(["!disabled" if possible else "disabled"])
        self.conversation.update(idle, self.problem_to_listen())
        if idle:
            probe.show_words(*self.state_words())
            self.show_scores()

    def show_scores(self):
        """Draw the scores, as far as there are any."""
        self.probe.board.canvas.delete("all")
        if self.loaded and self.speakers.people:
            scores = self.heard.scores if self.heard else []
            if self.threshold.is_moved():
                scores = sorted(scores, key=lambda pair: -pair[1])
            self.probe.board.show(scores, self.threshold_of, self.speakers.chosen(), everybody=self.probe.asks_who())

    def problem_to_listen(self):
        """Return why nobody can tell who speaks now, "" where that can be told."""
        if not self.loaded:
            return self.problem or "The model is loading."
        if not self.speakers.people:
            return "Nobody is enrolled yet: type a name on the left, press Enrol, and speak."
        return "" if self.threshold.value is not None else f"It takes a threshold: {self.problem}"

    def state_words(self):
        """Return the headline, its colour and the detail that fit the state."""
        chosen, who = self.speakers.chosen(), self.probe.asks_who()
        states = (
            (self.problem and not self.loaded, "No model", self.problem),
            (not self.speakers.people, "Nobody is enrolled yet", "Type a name on the left, press Enrol, and speak."),
            (not who and not chosen, "Is it …?", "Choose a speaker on the left, or ask who it is."),
            (not self.heard, "Who is it?" if who else f"Is it {shortened(chosen)}?",
             "Press Record and speak, or open a file."),
            (self.heard and self.heard.problem, "No verdict", self.heard and self.heard.problem))
        for holds, headline, detail in states:
            if holds:
                return headline, MUTED, detail
        return self.verdict_words(self.nearest()[0] if who else chosen, who)

    def nearest(self):
        """Return who is most like the probe, and the score."""
        return max(self.heard.scores, key=lambda pair: pair[1]) if self.threshold.is_moved() else self.heard.scores[0]

    def threshold_of(self, name):
        """Return the threshold of the comparison with a speaker: that trial's own, until the slider is moved."""
        value = self.threshold.value
        if value is None or not self.heard or self.threshold.is_moved():
            return value
        return self.heard.thresholds.get(name, value)

    def verdict_words(self, name, who):
        """Return headline, colour and detail of the verdict on a speaker."""
        score, value = dict(self.heard.scores).get(name), self.threshold_of(name)
        if score is None:
            return "No verdict", MUTED, f"What is enrolled of {name} cannot be compared: add a recording."
        if value is None:
            return f"Score {score:.2f}", MUTED, f"There is no verdict without a threshold: {self.problem}"
        yes, no = (f"It is {shortened(name)}", "None of them") if who else ("Same person", "Different person")
        detail = f"Score {score:.2f} with {name}, threshold {value:.2f}; {self.heard.seconds:.1f} s of speech heard"
        detail = "; ".join([detail, *self.heard.notes]) + "."
        return (yes, GOOD, detail) if score >= value else (no, BAD, detail)

    def forget(self):
        """Delete the chosen speaker's recordings, if that is meant."""
        name = self.speakers.chosen()
        if messagebox.askokcancel("Forget a speaker", f"Delete everything enrolled of {name}? This cannot be undone.",
                                  icon="warning", default="cancel", parent=self.root):
            self.speakers.name.set("")
            self.become_busy("work", "One moment …")
            self.run(lambda: self.verifier("forget", name), lambda _: self.show_change(f"{name} is forgotten."))

    def open_file(self, work):
        """Ask for a recording and call work(path)."""
        path = filedialog.askopenfilename(parent=self.root, title="Open a recording", filetypes=SOUNDS)
        if path:
            work(path)

    def enroll(self, path=None):
        """Add a recording to the speaker named, from a file or the microphone."""
        name = features.speaker_name(self.speakers.name.get().strip())
        self.hear_sound(f"Recording an enrolment of {shortened(name)}.", path,
                        lambda sound: self.verifier("enroll", name, sound), lambda name: self.show_change(
                            " ".join([f"A recording of {name} is enrolled.", *self.notes]), name), name)

    def verify(self, path=None):
        """Hear a probe, from a file or the microphone."""
        self.hear_sound("Recording a probe.", path, lambda sound: self.verifier("verify", sound), self.show_heard)
        self.heard = None           # nothing of the probe before may pass for a verdict on this one
        self.pictures.canvases["spectrum"].delete("all")

    def hear_sound(self, words, path, work, then, speaker=None):
        """Let the worker do work(sound) with the file at `path`, or without it with what the microphone hears.

        The sound is an enrolment of a speaker, or a probe: what the microphone hears of that is judged meanwhile.
        """
        seconds, sr, device = self.settings.length(), self.sr, self.settings.chosen_device()
        live = not (path or speaker)
        claim = "" if self.probe.asks_who() else self.speakers.chosen()

        def blocks():
            heard = 0
            self.verifier("check_place", speaker)       # what cannot be kept is said before anybody speaks
            if live:
                self.check_people(claim)
                self.verifier("listen", False)
            with contextlib.closing(self.microphone(sr, device, self.cancelled.is_set)) as coming:
                for block in listening.up_to(seconds * sr, coming):
                    yield block
                    heard += len(block)
                    self.worker.post(self.show_level, words, audio.level_db(block), seconds, heard / sr, live)
                    if live and (found := self.judge(block, claim)):
                        self.worker.post(self.show_so_far, found)
                    if self.enough.is_set():
                        return

        def job():
            sound = path or np.concatenate(list(blocks()))
            self.worker.post(self.become_busy, "work", "One moment …")
            return work(sound)

        self.cancelled.clear()
        self.enough.clear()
        self.notes = audio.bandwidth_notes(path, self.sr) if path else []      # what must be known of its scores
        self.show_message(" ".join(self.notes), INK)
        self.tabs.select(0)
        self.focus = self.root.focus_get()
        self.become_busy("work" if path else "recording", "One moment …" if path else "Opening the microphone …")
        if not path:
            self.probe.cancel_button.focus_set()
        self.run(job, then, self.show_no_verdict if live else None)

    def judge(self, block, claim=""):
        """Return what the model's process makes of a block, and show what must be said; the worker calls this."""
        found, notes = self.verifier("hear", block)
        if notes:
            self.check_people(claim)
            self.worker.post(self.show_message, " ".join(notes), INK)
        return found

    def check_people(self, claim):
        """List who is enrolled by now; InputError where the one whom a probe is to be compared with is not."""
        people = self.verifier("list_enrolled")
        self.worker.post(self.show_people, people)
        if claim and claim not in {person.name for person in people}:
            raise InputError(f"{claim} is not enrolled any more: nothing was saved")

    def listen(self):
        """Tell who speaks until it is stopped."""
        sr, device, value = self.sr, self.settings.chosen_device(), self.threshold.value
        by_hand = None if value == self.loaded.threshold else value

        def job():
            heard = 0
            self.verifier("listen", True, by_hand)
            with contextlib.closing(self.microphone(sr, device, self.cancelled.is_set, "it hears no more")) as coming:
                for block in coming:
                    if not heard:               # the microphone works: what was heard before may go
                        self.worker.post(self.conversation.begin)
                    heard += len(block)
                    self.worker.post(self.conversation.show, audio.level_db(block), heard / sr, self.judge(block))

        self.cancelled.clear()
        self.show_message("")
        self.focus = self.root.focus_get()
        self.become_busy("listening", "It listens to who speaks now")
        self.conversation.words.show("Opening the microphone …", MUTED)
        self.conversation.stop_button.focus_set()
        self.run(job, lambda _: self.show_end(), self.show_end)

    def save_moments(self):
        """Save who spoke when."""
        path = filedialog.asksaveasfilename(parent=self.root, title="Save who spoke when", initialfile="who.csv",
                                            defaultextension=".csv", filetypes=TABLES)
        if path:
            listening.check_moments_path(path, self.config)
            moments = self.conversation.timeline.moments
            self.become_busy("work", "One moment …")
            self.run(lambda: listening.write_moments(path, moments), lambda _: (
                self.become_idle(), self.show_message(f"{path}: {len(moments)} lines.")))

    def become_busy(self, busy, headline):
        """Show what goes on: busy "recording", "listening", or with "work" that cannot be cancelled."""
        self.busy = busy
        self.update()
        self.probe.board.canvas.delete("all")
        self.probe.show_words(headline, MUTED)

    def become_idle(self):
        """Be ready for the next."""
        self.busy = ""
        self.update()
        if self.focus and self.root.focus_get() in (None, self.probe.cancel_button, self.conversation.stop_button):
            self.focus.focus_set()
        self.focus = None
        self.list_people()

    def list_people(self):
        """Look who is enrolled by now: other programs enrol and forget people, too."""
        self.run(lambda: self.verifier("list_enrolled"), self.show_people, lambda text: self.show_message(text, BAD))

    def list_devices(self):
        """Look for microphones anew: the list of them was opened."""
        if not self.busy:
            self.run(lambda: self.devices(rescan=True), self.settings.show_devices, self.show_no_devices)

    def show_change(self, text, name=""):
        """Show the speakers, and the last probe compared with them, after a change."""
        self.run(lambda: (self.verifier("list_enrolled"), self.loaded and self.verifier("compare")),
                 lambda answer: (self.show_people(answer[0], name), self.show_heard(answer[1]),
                                 self.show_message(text)),
                 lambda problem: self.show_no_verdict(f"{text} {problem}"))

    def show_people(self, people, name=""):
        """List the enrolled speakers, and choose the one named, else the one before."""
        if self.heard and not self.busy and people != list(self.speakers.people.values()):
            self.run(lambda: self.verifier("compare"), self.show_heard, self.show_no_verdict)
        self.speakers.show(people, name)
        self.pictures.draw_visible()
        self.update()

    def show_no_devices(self, text):
        """Say why there is no microphone; files can still be opened."""
        self.settings.show_devices([])
        self.show_message(text, BAD)

    def show_loaded(self, loaded):
        """Take what must be known of the model; or of why there is none, a text."""
        if isinstance(loaded, str):
            self.problem = loaded
        else:
            self.loaded, self.problem, self.sr = loaded, loaded.problem, loaded.sr
            self.settings.adopt(loaded.seconds)
            self.threshold.adopt(loaded)
        self.settings.progress.stop()
        self.settings.progress.pack_forget()
        self.become_idle()
        (self.speakers.list if self.speakers.people else self.speakers.entry).focus_set()

    def show_level(self, words, level_db, seconds, heard, live):
        """Show what the microphone hears after so many of the seconds, and, live, what is known so far."""
        if self.busy != "recording":
            return
        left = max(0.0, seconds - heard)
        headline, colour, detail = f"Speak now: {math.ceil(left)} s", ACCENT, f"{words} Escape cancels."
        if live and self.heard and self.heard.scores:
            (name, score), who = self.nearest(), self.probe.asks_who()
            detail = f"Nearest is {name}, score {score:.2f}; {self.heard.seconds:.1f} s of speech. Escape cancels."
            if self.is_sure():
                headline, colour, _ = self.verdict_words(name if who else self.speakers.chosen(), who)
        self.probe.show_words(headline, colour, detail)
        if live:
            self.show_scores()
        (self.meter if live else self.probe.board).meter(level_db, left / seconds)

    def is_sure(self):
        """Tell whether the verdict is sure, at the threshold that certainty was measured for."""
        question = None if self.probe.asks_who() else self.speakers.chosen()
        return question in self.heard.sure and not self.threshold.is_moved()

    def show_so_far(self, heard):
        """Take what is known of a probe that is still heard, service.Heard; it may end once that is sure."""
        if self.busy == "recording":
            self.heard = heard
            if self.is_sure() and self.probe.ends_when_sure.get():
                self.enough.set()
                self.show_message(f"Sure after {heard.seconds:.1f} s of speech.", INK)

    def show_heard(self, heard):
        """Show a verdict, or that there is none."""
        self.heard = heard
        self.become_idle()

    def show_no_verdict(self, text):
        """Show why a probe that was judged while it was heard came to nothing."""
        self.heard = None
        self.show_end(text)

    def show_end(self, text="cancelled"):
        """Show why it listens no more, and who is enrolled now."""
        stopped = self.busy == "listening" and text.startswith("cancelled")
        self.show_failure(text)
        if stopped:                 # it has no other end
            self.show_message("")


# ---- the command ------------------------------------------------------------------------------------------------

def work(config):
    """Open the window; return when it is closed."""
    if tk is None:
        raise InputError("the window needs Tkinter, which is not installed: apt install python3-tk")
    try:
        root = tk.Tk()
    except tk.TclError as error:
        raise InputError(f"no display: {error}") from error
    embedding.choose_model(config)
    engine = service.Engine(config)
    try:
        app = App(root, config, record.blocks, engine, record.devices)
        root.mainloop()
    finally:
        engine.close()
    app.worker.thread.join(service.PATIENCE_SECONDS)


def main(argv=None):
    """Run the command line; return the exit code."""
    return configuration.run(work, argv, "gui", __doc__)


if __name__ == "__main__":
    sys.exit(main())
