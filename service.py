"""The process that listens for the window: it holds the model, answers requests and draws the pictures.

    engine = service.Engine(config)
    scores = engine("verify", "other.wav").scores

The window's own process stays awake, and small: what it gets are plain values and PNG.
"""
import contextlib
import copy
import io
import multiprocessing
import queue
import signal
import threading
import traceback
from dataclasses import dataclass

import numpy as np

import audio
import embedding
import listening
import measures
import record
import verification
from common import InputError, interrupts_ignored

LEGEND = 10                  # speakers at most whose names stand below a picture
PATIENCE_SECONDS = 2.0       # the process may finish a file for this long when the window closes


@dataclass(frozen=True)
class Loaded:
    """What the window must know of the model, in plain values."""

    sr: int                             # Hz
    seconds: float                      # length of a recording that suits it
    threshold: float | None
    measured: tuple                     # FAR and FRR at the threshold, None where nothing was measured
    problem: str                        # why there is no threshold
    rates: list                         # (FAR, FRR) on measures.CURVE


@dataclass(frozen=True)
class Heard:
    """What became of a probe, so far or in the end: (speaker, score), best first; or the problem with it."""

    scores: list
    seconds: float          # of speech
    problem: str
    thresholds: dict        # {speaker: the threshold of that trial}
    notes: list             # what must be known of the verdict
    sure: list              # speakers of whose claims it is sure; None among them: it is sure who of all it is


def serve(connection, config):
    """Answer requests, a Service method's name and its arguments, until the window closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)        # Ctrl-C is for the window, which then closes the connection
    service = Service(config)
    with contextlib.suppress(EOFError, OSError):
        while True:
            name, arguments = connection.recv()
            try:
                reply = "done", getattr(service, name)(*arguments)
            except Exception as error:
                reply = "error", describe_error(error)
            connection.send(reply)


def describe_error(error):
    """Return an error in the words of the window; one that no user can make prints its traceback, too."""
    if isinstance(error, (InputError, OSError)):
        return getattr(error, "window", str(error))
    traceback.print_exception(error)
    return f"this is a fault of the program, {type(error).__name__}: {error} (the terminal shows where)"


class Service:
    """The requests that the window makes; a sound is the path of a recording or samples (S,) at the model's rate."""

    def __init__(self, config):
        self.config, self.verifier, self.enrolments, self.probe, self.wave = config, None, None, None, None
        self.listener, self.watch = None, None

    def list_enrolled(self):
        """Return the enrolled speakers, a list of record.Enrolled."""
        return record.list_enrolled(self.config)

    def load(self):
        """Load the model and all that the first verdict needs; return Loaded."""
        problem = ""
        try:
            self.verifier = verification.Verifier(self.config)
        except InputError as error:         # no model, or a model without a threshold: that one can still give scores
            self.config.threshold, problem = 0.0, error.window
            self.verifier = verification.Verifier(self.config)
        self.enrolments = verification.Enrolments(self.verifier)
        self.enrolments.speaker = None          # the window compares with everybody, whatever --speaker is
        silence = np.zeros((1, audio.N_MELS, embedding.EMBED_FRAMES), np.float32)
        embedding.embed(self.verifier.encoder, silence)
        with contextlib.suppress(InputError):
            self.enrolments.voices()
        point = self.verifier.threshold
        return Loaded(self.config.sr, self.config.seconds, None if problem else point.value, (point.far, point.frr),
                      problem, [self.verifier.rates(value) for value in measures.CURVE])

    def sound(self, sound):
        """Return samples (S,) and where they come from."""
        if isinstance(sound, str):
            return audio.load_audio(sound, self.config.sr), sound
        return sound, listening.MICROPHONE

    def check_place(self, speaker):
        """Raise InputError where an enrolment of a speaker, or of None a probe, could not be kept."""
        if speaker is None:
            self.probe = None           # nor may that before pass for one that comes to nothing
            record.check_probe(self.config)
        else:
            record.check_enrolment(self.config, speaker)

    def enroll(self, speaker, sound):
        """Add a sound to a speaker's enrolment; return the speaker's name as it is stored."""
        return record.enroll(self.config, speaker, *self.sound(sound)).stem

    def forget(self, speaker):
        """Delete a speaker's enrolment."""
        record.forget(self.config, speaker)

    def verify(self, sound):
        """Make a sound the probe, which `draw_spectrum` goes back to; return Heard."""
        self.probe = None               # nor may that before pass for this one where it cannot be read
        self.wave, source = self.sound(sound)
        self.probe = self.verifier.embed_voice("probe", [record.save_probe(self.config, self.wave, source)])
        return self.compare()

    def compare(self):
        """Return Heard of the probe and the speakers as they are enrolled now, None where there is none."""
        if not self.probe or not self.list_enrolled():
            return None
        return self.heard(self.verifier.compare(self.probe, self.enrolments.voices()))

    def heard(self, verdict):
        """Return the Heard of a verification.Verdict."""
        sure = [*filter(verdict.sure_of, verdict.ratios), *[None] * verdict.sure]
        notes = list(dict.fromkeys([*verdict.notes, *self.verifier.notes]))
        return Heard(verdict.scores, verdict.probe_seconds, verdict.problem, verdict.thresholds, notes, sure)

    def listen(self, lasting, threshold=None):
        """Begin to listen: to a probe, or, lasting, to who speaks now; to a threshold set by hand, if there is one."""
        verifier = copy.copy(self.verifier)
        if threshold is not None:
            verifier.threshold = verification.Threshold(threshold, *verifier.rates(threshold), "set by hand")
        listener = listening.Conversation if lasting else verification.Listener
        self.listener = listener(verifier, self.enrolments.voices())
        self.watch = listening.Watch(self.listener, self.enrolments)

    def hear(self, block):
        """Take samples (S,); return the Heard or listening.Moment that came of them, else None, and what must be said.

        Raises InputError where it is of no use to listen on.
        """
        found = self.listener.feed(block)
        if isinstance(found, verification.Verdict):
            found = self.heard(found)
        return found, [note.window for note in self.watch.look()]

    def prepare_pictures(self):
        """Load what pictures need, before the first one is wanted."""
        import matplotlib.backends.backend_agg
        import matplotlib.figure  # noqa: F401
        import sklearn.decomposition  # noqa: F401

    def draw(self, name, width, height, dpi):
        """Return a picture as PNG: "spectrum" of the probe, "likeness" or "map" of the enrolled recordings."""
        from matplotlib.figure import Figure

        figure = Figure((width / dpi, height / dpi), dpi, layout="compressed")
        getattr(self, f"draw_{name}")(figure)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=dpi)
        return picture.getvalue()

    def draw_spectrum(self, figure):
        """Draw the log-mel spectrogram of the probe's speech."""
        frames, _ = audio.speech_frames(self.wave, self.config)
        axes, seconds = figure.add_subplot(), len(frames) * self.config.hop
        axes.imshow(frames.T, origin="lower", aspect="auto", cmap="magma",
                    extent=(0, seconds, 0, audio.N_MELS))
        axes.set(xlabel="speech heard (s)", ylabel="mel channel")

    def enrolled_vectors(self):
        """Return the Voices that can be compared and the d-vectors (U, D) of all their recordings."""
        voices = [voice for voice in self.enrolments.voices() if not voice.problem]
        vectors = np.concatenate([voice.vectors for voice in voices]) if voices else ()
        if len(vectors) < 2:
            raise InputError("at least two recordings must be enrolled to be compared")
        return voices, vectors

    def draw_likeness(self, figure):
        """Draw the cosine of every two enrolled recordings as a heat map, the recordings of a speaker together."""
        voices, vectors = self.enrolled_vectors()
        ends = np.cumsum([len(voice.vectors) for voice in voices])
        axes = figure.add_subplot(title="Likeness of recordings")
        image = axes.imshow(vectors @ vectors.T, vmin=-1, vmax=1, cmap="RdBu_r")
        middles = [end - (len(voice.vectors) + 1) / 2 for voice, end in zip(voices, ends, strict=True)]
        axes.set_yticks(middles, [plain(voice.name) for voice in voices], fontsize=min(10, 240 / len(voices)))
        axes.set_xticks([])
        for end in ends[:-1]:
            axes.axhline(end - 0.5, color="black", linewidth=min(0.8, 8 / len(voices)))
            axes.axvline(end - 0.5, color="black", linewidth=min(0.8, 8 / len(voices)))
        figure.colorbar(image, ax=axes, location="bottom", shrink=0.9, label="cosine: 1 sounds alike")

    def draw_map(self, figure):
        """Draw the first two principal components of the d-vectors, a colour per speaker."""
        import matplotlib
        from sklearn.decomposition import PCA

        voices, vectors = self.enrolled_vectors()
        pca = PCA(2)
        points = np.split(pca.fit_transform(vectors), np.cumsum([len(voice.vectors) for voice in voices])[:-1])
        axes = figure.add_subplot(title="Near means alike")
        colours = matplotlib.colormaps["tab10" if len(voices) <= LEGEND else "hsv"]
        for number, (voice, own) in enumerate(zip(voices, points, strict=True)):                # own: (U, 2)
            colour = colours(number if len(voices) <= LEGEND else number / len(voices))
            axes.scatter(*own.T, s=36, color=colour)
            if len(voices) > LEGEND:                        # as many names have no room below
                axes.annotate(plain(voice.name), own.mean(axis=0), fontsize="xx-small", ha="center", color="0.3")
        if len(voices) <= LEGEND:           # with its labels, as it leaves out those that begin with _
            figure.legend(axes.collections, [plain(voice.name) for voice in voices], loc="outside lower center",
                          ncols=2, frameon=False)
        x, y = np.nan_to_num(pca.explained_variance_ratio_)         # of recordings that are all the same
        axes.set(xlabel=f"first component ({x:.0%})", ylabel=f"second component ({y:.0%})")
        axes.margins(0.1)


def plain(name):
    """Return a name, shortened, as a picture writes it: $ begins no formula."""
    return shortened(name, 12).replace("$", r"\$")


def shortened(name, length=18):
    """Return a name cut to a length in characters."""
    return name if len(name) <= length else f"{name[:length - 1]}…"


class Engine:
    """The window's end of the model's process: engine(name, *arguments) waits for the answer of that request."""

    def __init__(self, config):
        context = multiprocessing.get_context("spawn")      # a fork would inherit the window's connection to its screen
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, config), daemon=True)
        with interrupts_ignored():      # which its imports would not survive; `serve` ignores them, too
            self.process.start()
        theirs.close()

    def __call__(self, name, *arguments):
        """Return the answer; InputError where the request fails or the process has ended. One thread at a time."""
        try:
            self.connection.send((name, arguments))
            kind, value = self.connection.recv()
        except (EOFError, OSError, TypeError) as error:         # TypeError: `close` came meanwhile
            raise InputError("the model's process has ended, most likely for lack of memory: close this window and "
                             "open it again") from error
        if kind == "error":
            raise InputError(value)
        return value

    def close(self):
        """End the process; it may finish the file that it is writing."""
        self.connection.close()
        self.process.join(PATIENCE_SECONDS)
        self.process.kill()
        self.process.join()


class Worker:
    """A thread that does jobs in turn, so that answers come in the order of the questions.

    What follows from a job is done in the window's thread, which calls `poll`.
    """

    def __init__(self):
        self.jobs, self.results = queue.SimpleQueue(), queue.SimpleQueue()
        self.thread = threading.Thread(target=self.run_jobs, daemon=True)
        self.thread.start()

    def run(self, work, then, failed):
        """Do work() in the thread; then(value) or failed(text) follows in the window's."""
        self.jobs.put((work, then, failed))

    def post(self, function, *arguments):
        """Let the window's thread call a function."""
        self.results.put((function, arguments))

    def run_jobs(self):
        """Do the jobs until `stop`."""
        while job := self.jobs.get():
            work, then, failed = job
            try:
                self.post(then, work())
            except Exception as error:
                self.post(failed, describe_error(error))

    def poll(self):
        """Do what follows from the jobs that are done; the window's thread calls this."""
        while not self.results.empty():
            function, arguments = self.results.get()
            function(*arguments)

    def stop(self):
        """End the thread when its job is done."""
        self.jobs.put(None)
