"""What the window draws of its own: level meter, scale of scores, bars of all speakers; and its colours."""
import listening
from service import shortened

try:
    import tkinter as tk
    from tkinter.font import nametofont
except ModuleNotFoundError:         # gui.py says which package it is in
    tk = None

QUIET_DB, LOUD_DB = -45, -8      # speech lies between them, in dB of full scale
PAPER, CARD, INK, MUTED, LINE, ACCENT = "#eef1f4", "#ffffff", "#1b2430", "#566170", "#c3cbd5", "#1a5fb4"
GOOD, BAD, GOOD_TINT, BAD_TINT, TINT = "#18733a", "#b3261e", "#d5efdd", "#fbdedb", "#d6e4f7"


class Board:
    """A canvas on which level meter, score scale and bars are drawn; its unit is the height of a line of text."""

    def __init__(self, parent):
        self.line = nametofont("TkDefaultFont").metrics("linespace")
        self.canvas = tk.Canvas(parent, height=7 * self.line, background=CARD, highlightthickness=0)

    def show(self, scores, threshold_of, chosen, everybody):
        """Draw the bars of everybody, or the chosen speaker's score on the scale; threshold_of(name) may be None."""
        if everybody and scores:
            self.bars(scores, threshold_of, chosen)
        else:
            self.scale(dict(scores).get(chosen), threshold_of(chosen))

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

    def meter(self, level_db, share_left):
        """Draw the level in dB of full scale, and the share of the time that is left."""
        self.canvas.delete("all")
        x, line, floor = self.axis(listening.METER_FLOOR, 0), self.line, listening.METER_FLOOR
        zones = ((floor, QUIET_DB, "too quiet"), (QUIET_DB, LOUD_DB, "good"), (LOUD_DB, 0, "loud"))
        for low, high, word in zones:
            colour = GOOD_TINT if word == "good" else BAD_TINT
            self.box(x(low), line, x(high), 3 * line, colour)
            self.text((x(low) + x(high)) / 2, 3.7 * line, word, MUTED)
        self.box(x(floor), 1.3 * line, x(level_db), 2.7 * line, GOOD if QUIET_DB <= level_db <= LOUD_DB else BAD)
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
            colour = GOOD if threshold is not None and score >= threshold_of(name) else "#8b97a6"
            self.text(left, y, shortened(name), anchor="e", font=font)
            self.box(x(min(0, score)), y - 0.36 * line, x(max(0, score)), y + 0.36 * line, colour)
            self.text(self.canvas.winfo_width() - line, y, f"{score:.2f}", anchor="e", font=font)
        bottom = (len(shown) + 0.2) * line
        if threshold is not None:
            self.threshold(x(threshold), 0, bottom, threshold)
        if len(shown) < len(scores):
            self.text(line, bottom + 0.6 * line, f"and {len(scores) - len(shown)} more", MUTED, anchor="w")
