"""How the window looks, and what it draws of its own: level meter, scale of scores, threshold, bars, who speaks."""
import math

import listening
from service import shortened

try:
    import tkinter as tk
    from tkinter import ttk
    from tkinter.font import nametofont
except ModuleNotFoundError:         # gui.py says which package it is in
    tk = None

QUIET_DB, LOUD_DB = -45, -8      # speech lies between them, in dB of full scale
PAPER, CARD, INK, MUTED, LINE, ACCENT = "#eef1f4", "#ffffff", "#1b2430", "#566170", "#c3cbd5", "#1a5fb4"
GOOD, BAD, GOOD_TINT, BAD_TINT, TINT = "#18733a", "#b3261e", "#d5efdd", "#fbdedb", "#d6e4f7"
STRANGER = "#8b97a6"             # the colour of somebody else, and of what is not accepted
VOICES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")      # Okabe and Ito's, for all eyes
SPAN_SECONDS = 30                # of a conversation are seen at a time
TICK_SECONDS = 5
LANE_LINES = 1.7                 # height of a speaker's lane


# ---- look -------------------------------------------------------------------------------------------------------

def set_style(root):
    """Set colours, fonts and visible focus of all widgets."""
    style, base = ttk.Style(root), nametofont("TkDefaultFont")
    line = base.metrics("linespace")
    style.theme_use("clam")
    style.configure(".", background=PAPER, foreground=INK, bordercolor=LINE, lightcolor=PAPER, darkcolor=PAPER,
                    troughcolor="#dde2e8", focuscolor=ACCENT, selectbackground=ACCENT)
    style.map(".", foreground=[("disabled", "#98a2ae")], bordercolor=[("focus", ACCENT)])
    style.configure("TButton", padding=(0.7 * line, 0.3 * line), background=CARD, width=0)
    style.map("TButton", background=[("disabled", PAPER), ("active", TINT)])
    style.configure("Main.TButton", background=ACCENT, foreground="white", focuscolor="white")
    style.map("Main.TButton", foreground=[("disabled", "white")], bordercolor=[("focus", INK)],
              **{part: [("disabled", "#b9c6d6"), ("active", "#134a8e"), ("!disabled", ACCENT)]
                 for part in ("background", "lightcolor", "darkcolor")})
    style.configure("Toolbutton", padding=(0.7 * line, 0.3 * line))
    style.map("Toolbutton", background=[("selected", TINT), ("active", TINT), ("!selected", CARD)],
              foreground=[("selected", ACCENT)], relief=[("!selected", "raised")])
    style.configure("TCheckbutton", indicatorsize=round(0.7 * line), indicatormargin=round(0.2 * line))
    style.configure("Treeview", rowheight=round(1.6 * line), background=CARD)
    style.map("Treeview", background=[("selected", TINT)], foreground=[("selected", INK)])
    style.configure("TNotebook.Tab", padding=(line, 0.35 * line))
    style.map("TNotebook.Tab", background=[("selected", CARD)], padding=[("selected", (line, 0.35 * line))])
    for kind in ("TEntry", "TCombobox", "TSpinbox", "Treeview"):
        style.configure(kind, padding=0 if kind == "Treeview" else 0.25 * line, fieldbackground=CARD)
        style.map(kind, lightcolor=[("focus", ACCENT)], darkcolor=[("focus", ACCENT)],
                  fieldbackground=[("disabled", PAPER), ("readonly", CARD)])
    for kind in ("TCombobox", "TSpinbox", "TScale"):
        style.configure(kind, arrowsize=round(0.7 * line))
    style.configure("TScale", arrowsize=line, sliderlength=0.8 * line, gripcount=0)
    style.map("TScale", **{part: [("disabled", LINE), ("focus", ACCENT), ("!disabled", "#7ba3d6")]
                           for part in ("background", "lightcolor", "darkcolor")})
    style.configure("Treeview.Heading", relief="flat")
    style.configure("Card.TFrame", background=CARD)
    style.configure("Card.TLabel", background=CARD)
    style.configure("Heading.TLabel", font="TkHeadingFont")


def gap_of(widget):
    """Return the usual distance between two parts, in pixels of this screen."""
    return round(8 * widget.winfo_fpixels("1i") / 96)


def wrapping_label(parent, **options):
    """Return a new label that wraps its text to its own width."""
    label = ttk.Label(parent, **options)
    label.bind("<Configure>", lambda event: label.configure(wraplength=event.width - 2 * gap_of(parent)))
    return label


class Words:
    """A headline in large letters, and a smaller text below."""

    def __init__(self, parent):
        gap, base = gap_of(parent), nametofont("TkDefaultFont")
        self.large = base.copy()            # Tk forgets a font that nobody holds
        self.large.configure(size=round(2.4 * base.cget("size")), weight="bold")
        self.headline = ttk.Label(parent, style="Card.TLabel", font=self.large)
        self.detail = wrapping_label(parent, style="Card.TLabel", foreground=MUTED)
        self.headline.pack(fill="x", padx=2 * gap, pady=(gap, 0))
        self.detail.pack(fill="x", padx=2 * gap)

    def show(self, headline, colour=INK, detail=""):
        """Show both."""
        self.headline.configure(text=headline, foreground=colour)
        self.detail.configure(text=detail)


# ---- drawings ---------------------------------------------------------------------------------------------------


class Drawing:
    """A canvas to draw on; its unit is the height of a line of text."""

    def __init__(self, parent=None, lines=1, canvas=None):
        self.line = nametofont("TkDefaultFont").metrics("linespace")
        self.canvas = canvas or tk.Canvas(parent, height=lines * self.line, background=CARD, highlightthickness=0)

    def text(self, x, y, text, colour=INK, **options):
        """Write at (x, y) in pixels, but not over the edges."""
        item = self.canvas.create_text(x, y, text=text, fill=colour, **options)
        left, _, right, _ = self.canvas.bbox(item)
        self.canvas.move(item, max(0, -left) - max(0, right - self.canvas.winfo_width()), 0)

    def box(self, left, top, right, bottom, colour):
        """Fill a rectangle, given in pixels."""
        self.canvas.create_rectangle(left, top, right, bottom, fill=colour, outline="")

    def axis(self, low, high, left=0, right=0):
        """Return the function from a value to its x in pixels, which leaves these margins and a line on both sides."""
        left, right = left + self.line, self.canvas.winfo_width() - right - self.line
        return lambda value: left + (min(max(value, low), high) - low) / (high - low) * (right - left)


class Board(Drawing):
    """Level meter, score scale and bars."""

    def show(self, scores, threshold_of, chosen, everybody):
        """Draw the bars of everybody, or the chosen speaker's score on the scale; threshold_of(name) may be None."""
        if everybody and scores:
            self.bars(scores, threshold_of, chosen)
        else:
            self.scale(dict(scores).get(chosen), threshold_of(chosen))

    def meter(self, level_db, share_left=None):
        """Draw the level in dB of full scale, and the share of the time that is left, if there is an end."""
        self.canvas.delete("all")
        x, line, floor = self.axis(listening.METER_FLOOR, 0), self.line, listening.METER_FLOOR
        zones = ((floor, QUIET_DB, "too quiet"), (QUIET_DB, LOUD_DB, "good"), (LOUD_DB, 0, "loud"))
        for low, high, word in zones:
            colour = GOOD_TINT if word == "good" else BAD_TINT
            self.box(x(low), line, x(high), 3 * line, colour)
            self.text((x(low) + x(high)) / 2, 3.7 * line, word, MUTED)
        self.box(x(floor), 1.3 * line, x(level_db), 2.7 * line, GOOD if QUIET_DB <= level_db <= LOUD_DB else BAD)
        if share_left is None:
            return
        self.box(x(floor), 5 * line, x(0), 5.4 * line, LINE)
        self.box(x(floor), 5 * line, x(floor) + share_left * (x(0) - x(floor)), 5.4 * line, ACCENT)
        self.text(x(floor), 6.1 * line, "time left", MUTED, anchor="w")

    def scale(self, score, threshold):
        """Draw a score on the scale of cosines, with the threshold, both of which may be None."""
        x, line = self.axis(-1, 1), self.line
        top, bottom = 2.2 * line, 3.8 * line
        self.box(x(-1), top, x(1), bottom, LINE)
        for tick in (-1, -0.5, 0, 0.5, 1):
            if threshold is None or abs(x(tick) - x(threshold)) > line:         # its line runs through there
                self.text(x(tick), bottom + 0.7 * line, f"{tick:g}", MUTED)
        if threshold is not None:
            self.box(x(-1), top, x(threshold), bottom, BAD_TINT)
            self.box(x(threshold), top, x(1), bottom, GOOD_TINT)
            for word, low, high, colour in (("different", -1, threshold, BAD), ("same", threshold, 1, GOOD)):
                if x(high) - x(low) > nametofont("TkDefaultFont").measure(word) + line:
                    self.text((x(low) + x(high)) / 2, (top + bottom) / 2, word, colour)
            self.threshold(x(threshold), top - 0.2 * line, bottom + 1.4 * line, threshold)
        if score is not None:
            colour = MUTED if threshold is None else GOOD if score >= threshold else BAD
            self.text(x(score), 0.7 * line, f"score {score:.2f}", colour, font="TkHeadingFont")
            self.canvas.create_polygon(x(score), top + 0.3 * line, x(score) - 0.5 * line, top - 0.7 * line,
                                       x(score) + 0.5 * line, top - 0.7 * line, fill=colour)

    def threshold(self, x, top, bottom, value):
        """Draw the threshold's line, its value below."""
        self.canvas.create_line(x, top, x, bottom, fill=INK, width=max(2, self.line / 9))
        self.text(x, bottom + 0.6 * self.line, f"threshold {value:.2f}")

    def bars(self, scores, threshold_of, chosen):
        """Draw (name, score) as bars, as many as there is room for, with the threshold of the first across."""
        threshold = threshold_of(scores[0][0])
        line, shown = self.line, scores[:max(1, int(self.canvas.winfo_height() / self.line - 1.6))]
        left = max(nametofont("TkHeadingFont").measure(shortened(name)) for name, _ in shown) + 0.5 * line
        x = self.axis(min(0, *(score for _, score in shown), threshold or 0) - 0.02, 1, left, 2.5 * line)
        for row, (name, score) in enumerate(shown):
            y, font = (row + 0.6) * line, "TkHeadingFont" if name == chosen else "TkDefaultFont"
            colour = GOOD if threshold is not None and score >= threshold_of(name) else STRANGER
            self.text(left, y, shortened(name), anchor="e", font=font)
            self.box(x(min(0, score)), y - 0.36 * line, x(max(0, score)), y + 0.36 * line, colour)
            self.text(self.canvas.winfo_width() - line, y, f"{score:.2f}", anchor="e", font=font)
        bottom = (len(shown) + 0.2) * line
        if threshold is not None:
            self.threshold(x(threshold), 0, bottom, threshold)
        if len(shown) < len(scores):
            self.text(line, bottom + 0.6 * line, f"and {len(scores) - len(shown)} more", MUTED, anchor="w")


class Timeline(Drawing):
    """Who spoke when, a lane per speaker: at first it grows to the right, then it scrolls."""

    def __init__(self, parent):
        super().__init__(parent)
        self.clear()

    def clear(self):
        """Forget all."""
        self.moments, self.turns, self.colours, self.recent = [], [], {listening.SOMEBODY: STRANGER}, {}
        self.canvas.delete("all")

    def add(self, moment):
        """Take the next listening.Moment; who speaks for the first time gets the next colour."""
        start = self.moments[-1].seconds if self.moments else 0.0
        self.moments.append(moment)
        if moment.name and moment.name not in self.colours:
            self.colours[moment.name] = VOICES[(len(self.colours) - 1) % len(VOICES)]
        if moment.name not in ("", listening.SOMEBODY):
            self.recent.pop(moment.name, None)
            self.recent[moment.name] = None             # now it is the last of them
        if self.turns and self.turns[-1][2] == moment.name:
            start = self.turns.pop()[0]
        self.turns.append((start, moment.seconds, moment.name))

    def lanes(self):
        """Return whose lanes there is room for: those heard last, in the order in which they were heard first."""
        room = max(1, int((self.canvas.winfo_height() / self.line - 2.5) / LANE_LINES))
        last = list(reversed(self.recent))[:room - 1]
        return [name for name in self.colours if name in last] + [listening.SOMEBODY]

    def draw(self, now):
        """Draw what was until now, in seconds since it listens."""
        self.canvas.delete("all")
        if not self.moments:
            return
        line, names, begin = self.line, self.lanes(), max(0.0, now - SPAN_SECONDS)
        font = nametofont("TkDefaultFont")
        left = max(font.measure(shortened(name)) for name in names) + 2 * line
        x, top = self.axis(begin, begin + SPAN_SECONDS, left, 0), 0.6 * line
        bottom = top + LANE_LINES * len(names) * line
        for row, name in enumerate(names):
            y = top + (row + 0.5) * LANE_LINES * line
            self.box(0.7 * line, y - 0.4 * line, 1.5 * line, y + 0.4 * line, self.colours[name])
            self.text(2 * line, y, shortened(name), anchor="w")
            self.box(x(begin), y - 0.6 * line, x(begin + SPAN_SECONDS), y + 0.6 * line, PAPER)
            for start, end, speaker in reversed(self.turns):
                if end <= begin:
                    break
                if speaker == name:
                    self.box(x(start), y - 0.6 * line, x(end), y + 0.6 * line, self.colours[name])
        first = TICK_SECONDS * math.ceil(begin / TICK_SECONDS)
        for second in range(first, int(begin) + SPAN_SECONDS + 1, TICK_SECONDS):
            self.box(x(second), bottom, x(second) + 1, bottom + 0.4 * line, MUTED)
            self.text(x(second), bottom + 0.9 * line, clock(second), MUTED)
        self.box(x(now), top, x(now) + max(2, line / 9), bottom, INK)


def clock(seconds):
    """Return seconds as minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


# ---- the tab ----------------------------------------------------------------------------------------------------

class ThresholdBar:
    """The threshold's slider and its error rates; `value` is None where the model stores none."""

    def __init__(self, parent, on_change):
        bar, self.on_change = ttk.Frame(parent), on_change
        self.value, self.loaded, self.place = None, None, tk.DoubleVar()
        bar.grid(sticky="ew", pady=(0, gap_of(parent)))
        self.readout, self.rates = ttk.Label(bar, text="Threshold"), ttk.Label(bar, foreground=MUTED)
        self.slider = ttk.Scale(bar, from_=-1, to=1, variable=self.place, command=self.move)
        for key, step in (("<Left>", -0.005), ("<Right>", 0.005), ("<Down>", -0.05), ("<Up>", 0.05)):
            self.slider.bind(key, lambda event, step=step: self.move(self.place.get() + step) or "break")
        self.reset_button = ttk.Button(bar, text="Reset", command=lambda: self.set(self.loaded.threshold))
        self.rates.pack(side="bottom", anchor="w")
        self.readout.pack(side="left")
        self.reset_button.pack(side="right")
        self.slider.pack(side="left", fill="x", expand=True, padx=gap_of(parent))

    def adopt(self, loaded):
        """Take the threshold and the error rates of the model, service.Loaded."""
        self.loaded = loaded
        self.set(loaded.threshold)

    def move(self, value):
        """Set the threshold by hand, in half hundredths."""
        self.set(round(200 * min(max(float(value), -1), 1)) / 200)

    def set(self, value):
        """Set the threshold, None for none: the error rates follow, the stored ones where they are."""
        self.value = value
        self.place.set(value or 0)
        far, frr = (None, None) if value is None else self.loaded.rates[round(200 * (min(max(value, -1), 1) + 1))]
        if value is not None and value == self.loaded.threshold:
            far, frr = self.loaded.measured
        self.readout.configure(text="No threshold" if value is None else f"Threshold {value:.3f}")
        self.rates.configure(text="The slider sets one by hand." if value is None else
                             "Its error rates are not measured." if far is None else
                             f"FAR {far:.1%} of others pass a comparison, FRR {frr:.1%} of the right ones fail it.")
        self.on_change()

    def is_moved(self):
        """Tell whether it is set by hand: then bare scores decide, and no ratios."""
        return not self.loaded or self.value != self.loaded.threshold


class ConversationTab:
    """Who speaks now: its buttons, the name, the level, and the line of who spoke when."""

    def __init__(self, parent, app):
        gap, bar, card = gap_of(parent), ttk.Frame(parent), ttk.Frame(parent, style="Card.TFrame")
        self.app = app
        bar.pack(fill="x", pady=(0, gap))
        card.pack(fill="both", expand=True)
        self.listen_button = ttk.Button(bar, text="Listen", command=app.listen, style="Main.TButton")
        self.stop_button = ttk.Button(bar, text="Stop", command=app.cancelled.set)
        self.save_button = ttk.Button(bar, text="Save …", command=app.save_moments)
        for button in (self.listen_button, self.stop_button):
            button.pack(side="left", padx=(0, gap))
        self.save_button.pack(side="right")
        self.words, self.level, self.timeline = Words(card), Board(card, 4.5), Timeline(card)
        self.level.canvas.pack(side="bottom", fill="x", padx=gap)
        self.timeline.canvas.pack(fill="both", expand=True, padx=gap, pady=gap)
        self.timeline.canvas.bind("<Configure>", lambda event: self.timeline.draw(self.seconds))
        self.begin()

    def begin(self):
        """Forget what was heard before."""
        self.seconds = 0.0
        self.timeline.clear()

    def show(self, level_db, seconds, moment):
        """Show what is heard after so many seconds, and who speaks now, a listening.Moment, if that has come."""
        self.seconds = seconds
        if moment:
            self.timeline.add(moment)
            name = {"": "Nobody speaks", listening.SOMEBODY: "Somebody else"}.get(moment.name, moment.name)
            nearest = f"Nearest is {moment.nearest}, {moment.measured}. " if moment.name else ""
            nearest += f"Threshold {self.app.threshold.value:.2f}, set by hand. " * self.app.threshold.is_moved()
            self.words.show(shortened(name, 24), INK if moment.name else MUTED, f"{nearest}{clock(seconds)} heard.")
        self.level.meter(level_db)
        self.timeline.draw(seconds)

    def update(self, idle, problem):
        """Show what is possible; idle, with a problem or none."""
        app, heard = self.app, bool(self.timeline.moments)
        for button, possible in ((self.listen_button, idle and not problem), (self.save_button, idle and heard),
                                 (self.stop_button, app.busy == "listening")):
            button.state(["!disabled" if possible else "disabled"])
        if idle:
            self.level.canvas.delete("all")
            self.timeline.draw(self.seconds)
            self.words.show("Who speaks now?", MUTED, problem or (
                f"It listened for {clock(self.seconds)}. Save keeps who spoke when." if heard else
                "Press Listen: it names whoever speaks, until you stop it. Nothing is recorded."))
