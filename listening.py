"""While somebody speaks: a probe until its verdict is sure; who speaks now; what a terminal shows of it.

    verifier = verification.Verifier(config)
    conversation = listening.Conversation(verifier, voices)
    moments = [moment for block in blocks if (moment := conversation.feed(block))]
    listening.write_moments("who.csv", moments)

Blocks are samples (S,) at the model's rate, of any number, as a microphone delivers them.
"""
import csv
import io
import math
import pathlib
import shutil
from dataclasses import dataclass, replace

import numpy as np

import audio
import features
import verification
from common import SOMEBODY, InputError, printable, write_whole

MICROPHONE = "microphone"    # where a sound comes from that no file holds
WINDOW_SECONDS = 2.0         # of speech that tell who speaks
NEWEST_SECONDS = 1.0         # of them that tell of another speaker first
MEMORY_SECONDS = 30.0        # of sound by which loudness and noise are judged meanwhile
PAUSE_SECONDS = 1.0          # without speech, and nobody speaks
EARLY_SECONDS = 4            # of sound after which silence and clipping are no beginning any more
FULL_SCALE = 0.99            # a sample from here on counts as clipped
CLIPPED_SHARE = 0.001        # a recording with more of them is refused
METER_FLOOR = -60            # dB at the left end of the level meter


# ---- who speaks now ---------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Moment:
    """Who speaks at a time: an enrolled speaker, SOMEBODY else, or "", nobody."""

    seconds: float                      # since it listens
    name: str
    ratio: float | None = None          # of the nearest speaker: log-likelihood ratio, the score where there is none
    nearest: str = ""
    measure: str = "ratio"              # or "score"

    @property
    def measured(self):
        """How near the nearest speaker is, in words."""
        return f"ratio {self.ratio:+.1f}" if self.measure == "ratio" else f"score {self.ratio:.3f}"


class Conversation(verification.Listener):
    """Who speaks now: the last 2 s of speech against all enrolled speakers; `feed` returns Moments.

    The last second overrules them where it is accepted as an enrolled speaker's, or is more likely nobody's than the
    nearest one's: where speakers take turns, the 2 s are of both for a while. InputError if --min_speech asks for more,
    or the model is text-dependent.
    """

    def __init__(self, verifier, voices):
        super().__init__(verifier, voices)
        if verifier.config.tdsv:
            problem = f"{verifier.config.model_path} is text-dependent, and people who talk say other words"
            raise InputError(f"--live is True: {problem}; take a text-independent model, or --verify True", problem)
        if verifier.config.min_speech > WINDOW_SECONDS:
            problem = f"who speaks now is told from the last {WINDOW_SECONDS:g} s of speech"
            raise InputError(f"--min_speech is {verifier.config.min_speech:g}: {problem}",
                             f"{problem}, but {verifier.config.min_speech:g} s are asked for")

    def feed(self, block):
        """Take samples (S,) of any number; return the Moment if 0.4 s have passed since the last one, else None."""
        self.append(block)
        if self.heard < self.due:
            return None
        self.due = self.heard + round(verification.LOOK_SECONDS * self.sr)
        return self.judge()

    def judge(self):
        """Return the Moment that it is now."""
        now = self.heard / self.sr
        wave = self.wave = self.gather()[-round(MEMORY_SECONDS * self.sr):]
        wave = audio.centred(wave, self.verifier.config)
        stretches, noise = audio.voiced_stretches(wave, **audio.detector(self.verifier.config))
        nobody = Moment(now, "", measure="score" if self.verifier.threshold.llr is None else "ratio")
        if not len(stretches) or len(wave) - stretches[-1, 1] > PAUSE_SECONDS * self.sr:
            return nobody
        speech = np.concatenate([wave[start:end] for start, end in stretches])
        verdict, newest = (self.compare(speech[-round(seconds * self.sr):], noise)
                           for seconds in (WINDOW_SECONDS, NEWEST_SECONDS))
        if not newest.problem and nobody.measure == "ratio" and (newest.same or newest.llr < 0):
            verdict = newest
        if verdict.problem:
            return nobody
        return replace(nobody, name=verdict.speaker if verdict.same else SOMEBODY, ratio=verdict.measure[1],
                       nearest=verdict.speaker)

    def compare(self, speech, noise):
        """Return the Verdict on voiced speech (V,) with a noise floor in dB."""
        config = self.verifier.config
        heard = verification.unless_steady(*audio.segments_of_speech(speech, noise, config))
        return self.verifier.compare(self.verifier.embed_voice("now", [("now", *heard)]), self.voices)


def check_moments_path(path, config):
    """Raise InputError where Moments would overwrite an enrolment in config.enroll_path, or config.input."""
    home = pathlib.Path(config.enroll_path).resolve()
    if features.is_one_place(path, config.input):
        raise InputError(f"--timeline is {path}: that is --input, too; name another file")
    if pathlib.Path(path).resolve().is_relative_to(home):
        problem = f"{path}: that lies among the enrolments, in {config.enroll_path}; name another place"
        raise InputError(f"--timeline is {problem}", problem)


def write_moments(path, moments):
    """Write Moments as CSV: seconds, name and ratio or score; whole, and readable by its owner alone."""
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(("time", "name", moments[0].measure if moments else "ratio"))
    writer.writerows((f"{moment.seconds:.2f}", moment.name, "" if moment.ratio is None else f"{moment.ratio:.3f}")
                     for moment in moments)
    write_whole(path, lambda file: file.write(table.getvalue().encode()), private=True)


# ---- what a terminal shows --------------------------------------------------------------------------------------

class LivingLine:
    """A terminal's last line, drawn anew each time; in a file or a pipe, a line per second of sound."""

    def __init__(self, file):
        self.file, self.alive, self.due = file, file.isatty(), 0.0

    def show(self, text, seconds):
        """Show what is so after so many seconds of sound."""
        if self.alive:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{text[:width]:{width}}", end="", file=self.file, flush=True)
        elif seconds >= self.due:
            self.say(text)
            self.due = math.floor(seconds) + 1

    def say(self, text):
        """Print a line that stays."""
        self.clear()
        print(text, file=self.file, flush=True)

    def clear(self):
        """Wipe the line."""
        if self.alive:
            self.show("", 0)
            print("\r", end="", file=self.file, flush=True)


def meter(level, width=20):
    """Return a meter of a level in dB of full scale."""
    filled = round(width * min(1, max(0, 1 - level / METER_FLOOR)))
    return f"[{'#' * filled:{width}}] {max(level, METER_FLOOR):4.0f} dB"


def meter_line(level, seconds_left, width=40):
    """Return the text that draws level meter and time left over a terminal's line, and clears it in the end."""
    if not seconds_left:
        return "\r" + " " * (width + 24) + "\r"
    return f"\r{meter(level, width)}, {seconds_left:5.1f} s left"


def leaning(verdict):
    """Return in words where a Verdict, or None, stands."""
    if verdict is None or verdict.problem:
        return "no verdict yet"
    name, value = verdict.measure
    measure = f"{name} {value:+.1f}" if name == "ratio" else f"{name} {value:.3f}"
    words = ("the " if verdict.same else "a different ") if verdict.sure else (
        "rather the " if verdict.same else "rather a different ")
    return f"{printable(verdict.speaker)}, {measure}: {words}{'same ' * verdict.same}person"


# ---- a probe, a conversation ------------------------------------------------------------------------------------

def up_to(wanted, coming):
    """Yield blocks until so many samples have come."""
    for block in coming:
        yield block[:math.ceil(min(wanted, len(block)))]
        wanted -= len(block)
        if wanted <= 0:
            return


def is_silent(wave):
    """Tell whether samples (S,) are digital silence."""
    return np.abs(wave).max(initial=0) < audio.SILENT_PEAK


def load_sound(path, sr):
    """Return the samples (S,) of a file at sr; InputError where it cannot be read, or is silent."""
    wave = audio.load_audio(path, sr)
    if is_silent(wave):
        check_loudness(wave, path)
    return wave


def check_loudness(wave, file=None):
    """Raise InputError where samples (S,), of a file or the microphone, are silent or clipped; it says what to do."""
    clipped = np.mean(np.abs(wave) >= FULL_SCALE) if len(wave) else 0
    if is_silent(wave):
        if file:
            raise InputError(f"no speech, {file} is silent: choose another recording")
        problem = "no speech, the recording is silent: is it the right microphone, and switched on?"
        raise InputError(f"{problem} --list_devices True names them", problem)
    if clipped > CLIPPED_SHARE:
        remedy = "choose another" if file else "turn the microphone down or move away from it, and record again"
        raise InputError(f"{file or 'the recording'} is clipped, {clipped:.1%} of its samples are at full scale: "
                         f"{remedy}")


def check_recording(wave, config, source=MICROPHONE):
    """Return segments (K, 40, frames) of a recording that will do, and what is known of it (audio.speech_frames).

    Raises
    ------
    InputError
        If it is silent, steady, clipped, or holds less than config.min_speech seconds of speech; it says what to do.
    """
    file = "" if source == MICROPHONE else source
    check_loudness(verification.checked_samples(wave), file)
    segments, known = audio.speech_segments(wave, config)
    seconds, of_it = known["speech_seconds"], f" in {file}" * bool(file)
    if len(segments) and audio.is_steady(segments):
        remedy = "choose another recording" if file else "speak up, and record again"
        raise InputError(f"no speech{of_it}, the level hardly changes, as that of noise or a hum: {remedy}")
    if seconds < config.min_speech:
        problem = f"too little speech{of_it}, {seconds:.2f} s"
        remedy = "choose a longer recording" if file else "speak longer, and record again"
        raise InputError(f"{problem}; --min_speech is {config.min_speech:g} s: {remedy}",
                         f"{problem} of {config.min_speech:g} s: {remedy}")
    return segments, known


class Watch:
    """Looks, once a second of sound, for what spoils a Listener's work: a speaker forgotten, silence, clipping."""

    def __init__(self, listener, enrolments):
        self.listener, self.enrolments, self.due, self.said = listener, enrolments, 1, ""

    def look(self):
        """Return what must be said, InputErrors; raise one where it is of no use to go on.

        That is where nobody is enrolled any more, and where after a few seconds a probe is silent or clipped. Of a
        conversation only silence from the start is an end.
        """
        if self.listener.heard < self.due * self.listener.sr:
            return []
        self.due += 1
        return [*self.forgotten(), *self.loudness()]

    def forgotten(self):
        """Let the listener compare with who is enrolled now; return who was forgotten."""
        before, self.listener.voices = {voice.name for voice in self.listener.voices}, self.enrolments.voices()
        gone = sorted(before - {voice.name for voice in self.listener.voices})
        return [InputError(f"forgotten while it listens: {', '.join(gone)}")] if gone else []

    def loudness(self):
        """Return what is new about the loudness; a file is heard to its end, however silent it is in between."""
        listener, wave, file = self.listener, self.listener.gather(), self.listener.verifier.config.input
        early, lasting = EARLY_SECONDS * listener.sr, isinstance(listener, Conversation)
        stretch = wave[-early:] if lasting else wave
        if listener.heard < early or (file and is_silent(stretch)):
            return []
        try:
            check_loudness(stretch, file)
        except InputError as error:
            silent = is_silent(wave) and listener.heard == len(wave)        # from the start
            if silent or not lasting:
                raise
            before, self.said = self.said, str(error)[:20]
            return [error] if self.said != before else []
        self.said = ""
        return []


def hear_probe(verifier, enrolments, coming, line):
    """Return a probe, samples (S,), that ends where blocks end or the verdict is sure.

    Parameters
    ----------
    verifier : verification.Verifier
    enrolments : verification.Enrolments
    coming : iterator over np.ndarray, shape (S,)
        At the model's rate.
    line : LivingLine
        Shows how the verdict comes about.

    Raises
    ------
    InputError
        If after a few seconds it is silent or clipped, or nobody is enrolled any more.
    """
    listener, verdict = verification.Listener(verifier, enrolments.voices()), None
    watch = Watch(listener, enrolments)
    if not all(map(math.isfinite, verifier.threshold.bounds)):
        line.say("note: the threshold is no calibrated ratio, so it is never sure before the end")
    for block in coming:
        verdict = listener.feed(block) or verdict
        if verdict and verdict.sure:
            line.say(f"sure after {listener.speech_seconds:.1f} s of speech")
            break
        line.show(f"{meter(audio.level_db(block))}, {listener.speech_seconds:4.1f} s of speech, {leaning(verdict)}",
                  listener.heard / listener.sr)
        for note in watch.look():
            line.say(f"note: {note}")
    return listener.gather()


def follow(conversation, enrolments, coming, line):
    """Yield the Moments of a Conversation, of blocks as in `hear_probe`; print a line where another one speaks.

    InputError if there is nothing but silence from the start, or nobody is enrolled any more; later silence and
    clipping are said.
    """
    watch, name = Watch(conversation, enrolments), ""
    for block in coming:
        moment = conversation.feed(block)
        if moment and moment.name != name:
            name = moment.name
            line.clear()
            print(f"{moment.seconds:7.1f} s  {printable(name) or 'nobody'}", flush=True)
        if moment and line.alive:
            line.show(f"{meter(audio.level_db(block))}, {moment.seconds:.1f} s, {now_in_words(moment)}", moment.seconds)
        if moment:
            yield moment
        for note in watch.look():
            line.say(f"note: {note}")


def now_in_words(moment):
    """Return a Moment in words."""
    if not moment.name:
        return "nobody speaks"
    nearest = "" if moment.name == moment.nearest else f", nearest {moment.nearest}"
    return printable(f"{moment.name}{nearest} ({moment.measured})")
