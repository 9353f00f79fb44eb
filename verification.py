"""Enrolments, probes, verdicts: is it the same person, or who of several is it?

    verifier = verification.Verifier(config)
    voices = verification.Enrolments(verifier).voices()
    verdicts = list(verification.verify(verifier, voices))

A score is a cosine; the threshold and its error rates are the model's, measured on its validation speakers.
"""
import functools
import json
import math
import pathlib
import sys
import time
from dataclasses import asdict, dataclass, field, replace

import numpy as np

import audio
import common
import embedding
import features
import measures
from common import InputError, printable
from features import normal_form

# Beyond these a probe is outside of what models are measured on: what it is, its bound, and how a verdict says it.
BEYOND = (("probe_seconds", 1.0, "under 1 s of speech"), ("snr", 0.0, "noise louder than the speech"),
          ("bandwidth", 3000.0, "nothing above 3 kHz"))
LEAD = 2.0                   # of the best speaker's ratio over the next one's that, in validation, nobody made up for
LOOK_SECONDS = 0.4           # of further speech after which a Listener judges again
GROWTH = 0.02                # or this share of the recording, if that is more: the longer, the more a judgement costs
OVERSHOOT = 0.3              # by which looks let a ratio overstep a bound: 0.583 standard deviations of its growth
                             # between two of them (Siegmund 1979), 0.52 each on the model's validation speakers
MOMENT_SECONDS = 0.2         # in which a program that replaces an enrolment is done with it


# ---- what is enrolled, what is a probe --------------------------------------------------------------------------

def enrolment_sources(path, speaker=None):
    """Return {speaker: files} of an enrolment, or of one of its speakers; each file is a recording or a .npy.

    A file is one speaker. In a folder, the audio directly in it is one, named after it; each sub-folder with audio and
    each .npy is one.
    """
    if speaker is not None:
        sources, name = enrolment_sources(path), normal_form(speaker)
        if name not in sources:
            raise InputError(f"--speaker is {speaker}: {path} has {', '.join(sources)}",
                             f"{speaker} is not enrolled any more.")
        return {name: sources[name]}
    path = pathlib.Path(path)
    if not path.exists():
        raise InputError(f"--enroll_path is {path}: there is no such file or folder; enrol with python record.py",
                         "Nobody is enrolled yet.")
    if not (sources := find_enrolments(path)):
        raise InputError(f"--enroll_path is {path}: it holds neither recordings nor features; enrol with "
                         "python record.py", "Nobody is enrolled yet.")
    return sources


def find_enrolments(path):
    """Return the same of a file or folder that is there, {} where it holds none."""
    path = pathlib.Path(path)
    if path.is_file():
        return {normal_form(path.stem): [path]}
    sources = {}
    for item in features.visible_paths(path):
        if item.is_dir() and (files := audio.audio_files(item)[0]):
            add_source(sources, item.name, [item / file for file in files])
        elif item.suffix == ".npy" and not item.is_fifo():
            add_source(sources, item.stem, [item])
    direct = [item for item in features.visible_paths(path) if item.is_file() and item.suffix.lower() in audio.SUFFIXES]
    if direct:
        add_source(sources, path.resolve().name, direct)
    return sources


def add_source(sources, name, files):
    """Add a speaker's files; InputError where the name is taken."""
    if normal_form(name) in sources:
        raise InputError(f"{files[0]} and {sources[normal_form(name)][0]} are two enrolments of one name: rename one")
    sources[normal_form(name)] = files


def probe_files(path):
    """Return the probes of a file or folder: recordings at any depth, and .npy files of features."""
    path = pathlib.Path(path)
    if not path.exists():
        raise InputError(f"--verify_path is {path}: there is no such file or folder; record a probe with "
                         "python record.py --verify True")
    if path.is_file():
        return [path]
    files = [path / file for file in audio.audio_files(path)[0]] + features.files_of(path, ".npy")
    if not files:
        raise InputError(f"--verify_path is {path}: it holds neither recordings nor features")
    return files


# ---- verdicts ---------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Voice:
    """What was heard of a speaker, or of a probe: U recordings with speech."""

    name: str
    vectors: np.ndarray         # (U, D) their d-vectors
    seconds: float              # of speech
    lost: list                  # recordings that gave nothing, and why
    problem: str = ""           # why it cannot be compared
    snr: float | None = None            # dB, estimated, of its first recording
    bandwidth: float | None = None      # Hz, likewise

    @functools.cached_property
    def centroid(self):
        """The normalised mean (D,) of the d-vectors; InputError where there are none."""
        if not len(self.vectors):
            raise InputError(f"{self.name}: {self.problem or 'nothing was heard of it'}")
        return measures.unit_mean(self.vectors)


def known_of(probe, voices):
    """Return what is known of the trials of a probe and n enrolled Voices; measures.TERMS lists the names."""
    return {"probe_seconds": probe.seconds, "enrolled_seconds": np.array([voice.seconds for voice in voices]),
            "enrolments": np.array([len(voice.vectors) for voice in voices]),
            "snr": np.nan if probe.snr is None else probe.snr,
            "bandwidth": np.nan if probe.bandwidth is None else probe.bandwidth}


def beyond_measure(probe, tdsv=False):
    """Return in words how a probe is outside of what models are measured on; the words of a text may be short."""
    known = {"probe_seconds": None if tdsv else probe.seconds, "snr": probe.snr, "bandwidth": probe.bandwidth}
    return [f"outside of what was measured: {words}, this verdict is not reliable" for name, bound, words in BEYOND
            if known[name] is not None and known[name] < bound]


@dataclass(frozen=True)
class Threshold:
    """A score from which on a probe is accepted, and the error rates measured there; None where nothing was.

    Where there is a log-likelihood ratio, that is the threshold, and the value is the score that has it in a trial.
    """

    value: float
    far: float | None
    frr: float | None
    source: str
    llr: float | None = None
    far_all: float | None = None        # likewise, under all conditions
    frr_all: float | None = None

    @property
    def bounds(self):
        """The log-likelihood ratios up to which, and from which on, a sequential test ends (Wald 1945).

        It accepts by the error rates under all conditions, whose FAR --far bounds. It rejects by those as recorded:
        under all conditions so many of the right people are rejected that the first doubt would end the test. Both
        bounds are nearer by OVERSHOOT. It never accepts where that FAR is 0 or that FRR 1, never rejects where its own
        FRR is 0 or its FAR 1, and is never sure where the threshold is no ratio: of scores alone nobody knows how they
        grow with the seconds of speech.
        """
        if self.llr is None or self.far_all is None:
            return -math.inf, math.inf
        reject = math.log(self.frr / (1 - self.far)) + OVERSHOOT if self.frr and self.far < 1 else -math.inf
        accept = math.inf
        if self.far_all and self.frr_all < 1:
            accept = math.log((1 - self.frr_all) / self.far_all) - OVERSHOOT
        return min(reject, self.llr), max(accept, self.llr)

    def __str__(self):
        """Return it as a verdict prints it."""
        rates = f": FAR {self.far:.2%}, FRR {self.frr:.2%}" if self.far is not None else ", error rates not measured"
        if self.far_all is not None:
            rates += f" as recorded, {self.far_all:.2%} and {self.frr_all:.2%} under all conditions"
        ratio = "" if self.llr is None else f", ratio {self.llr:.2f}"
        return f"{self.value:.4f}{ratio} ({self.source}{rates})"


@dataclass(frozen=True)
class Verdict:
    """A probe against the best of the enrolled speakers, or why there is no verdict."""

    probe: str
    problem: str = ""
    speaker: str = ""
    score: float | None = None
    llr: float | None = None            # log-likelihood ratio of the same to different persons, natural logarithm
    threshold: Threshold | None = None
    enrolled_seconds: float = 0.0
    probe_seconds: float = 0.0
    snr: float | None = None            # dB, estimated
    bandwidth: float | None = None      # Hz, estimated
    notes: list = field(default_factory=list)
    scores: list = field(default_factory=list)          # (speaker, score), best first
    thresholds: dict = field(default_factory=dict)      # {speaker: the threshold of that trial}
    ratios: dict = field(default_factory=dict)          # {speaker: log-likelihood ratio}, best first

    @property
    def same(self):
        """Whether the score reaches the threshold."""
        return self.score is not None and self.score >= self.threshold.value

    @property
    def sure(self):
        """Whether a sequential test ends here: no further speech is likely to turn the verdict.

        It goes on, too, where somebody else may yet turn out to be the best.
        """
        second = max((ratio for name, ratio in self.ratios.items() if name != self.speaker), default=-math.inf)
        return self.sure_of(self.speaker) and (self.llr <= self.threshold.bounds[0] or self.llr - second >= LEAD)

    def sure_of(self, name):
        """Tell whether the test of one speaker's claim ends here, whoever else is near.

        It goes on where the ratio is between the bounds, and where the probe is outside of what was measured.
        """
        if self.notes or name not in self.ratios:
            return False
        reject, accept = self.threshold.bounds
        return not reject < self.ratios[name] < accept

    @property
    def measure(self):
        """What decides, and its value: the ratio, or the score where a threshold set by hand is compared with it."""
        return ("score", self.score) if not self.threshold or self.threshold.llr is None else ("ratio", self.llr)

    @property
    def decision(self):
        """The verdict in words."""
        return self.problem or ("Same person" if self.same else "Different person")

    def as_dict(self):
        """Return it as plain values, for JSON."""
        threshold = asdict(self.threshold or Threshold(None, None, None, None))
        return {**asdict(self), "decision": self.decision, "same": self.same, "threshold": threshold.pop("value"),
                "threshold_llr": threshold.pop("llr"), **threshold, "scores": dict(self.scores)}

    def heard(self):
        """Return in words what was heard of the probe."""
        quality = [] if self.snr is None else [f"about {self.snr:.0f} dB above the noise"]
        quality += [] if self.bandwidth is None else [f"up to {self.bandwidth / 1000:.1f} kHz"]
        return f" ({', '.join(quality)})" if quality else ""

    def __str__(self):
        """Return what the shell and the window print."""
        if self.problem:
            return printable(f"{self.probe}: {self.problem}")
        probe, speaker = self.probe_seconds, self.enrolled_seconds
        llr = "" if self.llr is None else f", log-likelihood ratio {self.llr:.2f}"
        lines = [f"{self.decision}: {self.probe} and {self.speaker}",
                 f"  score {self.score:.4f}{llr}, threshold {self.threshold}",
                 f"  speech: {probe:.1f} s of {self.probe}{self.heard()}, {speaker:.1f} s of {self.speaker}"]
        lines += [f"  {note}" for note in self.notes]
        if len(self.scores) > 1:
            if self.threshold.far is not None:
                far = max(self.threshold.far, self.threshold.far_all or 0)
                n, chance = len(self.scores), 1 - (1 - far) ** len(self.scores)
                lines.append(f"  FAR is that of one comparison: a stranger passes as one of these {n} in up to "
                             f"{chance:.0%} of the cases")
            lines += [f"  {score:7.4f}  {speaker}" for speaker, score in self.scores]
        return "\n".join(map(printable, lines))


class Verifier:
    """A loaded model that compares voices. `config` takes the model's feature flags; `notes` says what must be known.

    Raises InputError if there is no model in config.model_path, or config.threshold, config.far and the model leave
    the threshold open.
    """

    def __init__(self, config):
        self.encoder, stored = embedding.open_model(config)
        self.config, self.settings = config, features.feature_settings(config)
        self.measured = embedding.load_thresholds(config.model_path, config.model_num)
        self.calibration = embedding.calibration_of(self.measured)
        self.threshold = self.choose_threshold()
        self.notes = embedding.model_notes(config, stored)
        self.text = config.tdsv_text if "tdsv_text" in config.given else None           # the only one that is heard

    def choose_threshold(self):
        """Return the Threshold that --threshold, --far or, without them, the model's EER gives."""
        config, measured = self.config, self.measured
        if config.threshold is not None:
            return Threshold(config.threshold, *self.rates(config.threshold), "given by --threshold")
        point, label = embedding.choose_point(measured, config, by_hand=True)
        return Threshold(point["threshold"], point["far"], point["frr"], label,
                         *(point.get(name) for name in ("llr", "far_all", "frr_all")))

    def rates(self, value):
        """Return FAR and FRR measured at a threshold, read off the stored curve; None, None where there is none."""
        if not self.measured or "curve" not in self.measured:
            return None, None
        return tuple(float(np.interp(value, measures.CURVE, self.measured["curve"][name])) for name in ("far", "frr"))

    def voices(self, path, speaker=None):
        """Return the Voices of enrolment_sources, or the one of that name; each may have a problem."""
        return [self.embed_files(name, files) for name, files in enrolment_sources(path, speaker).items()]

    def embed_files(self, name, files):
        """Return the Voice of all recordings in some files."""
        return self.embed_voice(name, [part for file in files for part in self.read(file)])

    def probes(self, path):
        """Yield a Voice per recording of a file or folder; each may have a problem."""
        path = pathlib.Path(path)
        others = audio.audio_files(path)[1] if path.is_dir() else {}
        self.notes += [f"{path}: {number} {suffix} left out" for suffix, number in others.items()
                       if suffix not in (".npy", ".json")]
        for file in probe_files(path):
            name = file.relative_to(path).as_posix() if file != path else file.name
            try:
                parts = list(self.read(file))
            except InputError as error:
                if file == path:
                    raise
                yield Voice(name, np.empty((0, 0)), 0.0, [], str(error))
                continue
            for part in parts:
                yield self.embed_voice(name if len(parts) == 1 else f"{name}/{part[0]}", [part])

    def read(self, path):
        """Yield (file, segments (K, 40, frames), entry) of audio or of a feature file.

        Only what says --tdsv_text, where that was typed. The entry tells the recording's "speech_seconds", "snr",
        "bandwidth", and why it gave none as "dropped".
        """
        if path.suffix != ".npy":
            if features.says(path.name, self.text):
                self.notes += audio.bandwidth_notes(path, self.config.sr)
                yield path.name, *unless_steady(*audio.read_utterance(path, self.config))
            return
        speaker, settings = self.open_features(path)
        segments = speaker.load()
        if not features.is_usable(segments):
            raise InputError(f"{path} holds numbers that are not finite: make it again")
        row_seconds = 0.0 if settings else segments.shape[2] * self.config.hop      # an ancestor's row is all speech
        text = None if (settings or {}).get("tdsv_text") == self.text else self.text        # these all say it
        for utterance in [part for part in speaker.utterances if features.says(part.file, text)]:
            entry = {"speech_seconds": utterance.speech_seconds or row_seconds, "dropped": utterance.dropped,
                     "snr": utterance.snr, "bandwidth": utterance.bandwidth}
            yield utterance.file, segments[utterance.first:utterance.first + utterance.count], entry

    def open_features(self, path):
        """Return the features.Speaker of a feature file and its settings; InputError where they are not the model's."""
        speaker, settings, notes = features.open_speaker(path, self.settings)
        self.notes += notes
        return speaker, settings

    def embed_voice(self, name, recordings):
        """Return the Voice of some recordings, each as `read` yields it."""
        heard = [(file, segments, entry) for file, segments, entry in recordings if not entry["dropped"]]
        lost = [f"{file} {entry['dropped']}" for file, _, entry in recordings if entry["dropped"]]
        vectors = np.array([embedding.embed(self.encoder, segments) for _, segments, _ in heard])
        seconds = sum(entry["speech_seconds"] for *_, entry in heard)
        quality = {key: heard[0][2].get(key) for key in ("snr", "bandwidth")} if heard else {}
        voice = Voice(name, vectors, seconds, lost, **quality)
        faint = sum(entry["speech_seconds"] for *_, entry in recordings if entry["dropped"])
        if voice.seconds >= self.config.min_speech:
            return voice
        problem = f"too little speech, {voice.seconds + faint:.2f} s; --min_speech is {self.config.min_speech:g} s"
        if not voice.seconds + faint:
            unread = lost and not any(entry.get("seconds", 1.0) for *_, entry in recordings)
            problem = lost[0].removeprefix(f"{name} ") if unread else "no speech" + (f": {lost[0]}" if lost else "")
        problem = problem if recordings else f"no recording says --tdsv_text {self.text}"
        return replace(voice, problem=problem)

    def compare(self, probe, voices):
        """Return the Verdict on a probe, a Voice, against enrolled Voices; those with a problem are left out.

        The best is the one whose score is the furthest above its threshold, in log-likelihood ratios where they count.
        """
        lost = [f"{voice.name}: {voice.problem}" for voice in voices if voice.problem]
        voices = [voice for voice in voices if not voice.problem]
        if not voices:
            raise InputError("; ".join(["there is no enrolled speaker to compare with", *lost]))
        if probe.problem:
            return Verdict(probe.name, probe.problem)
        scores = np.array([voice.centroid for voice in voices]) @ probe.centroid                        # (n,)
        known, limits, knowing = known_of(probe, voices), np.full(len(voices), self.threshold.value), self.calibration
        ratios = knowing.ratio(scores, known) if knowing else None
        if self.threshold.llr is not None:
            limits = knowing.score(self.threshold.llr, known)
        order = np.argsort(-(scores if self.threshold.llr is None else ratios), kind="stable")
        scores, limits, ratios = ({voices[place].name: float(values[place]) for place in order if values is not None}
                                  for values in (scores, limits, ratios))
        best = voices[order[0]]
        return Verdict(
            probe.name, "", best.name, scores[best.name], ratios.get(best.name),
            replace(self.threshold, value=limits[best.name]), best.seconds, probe.seconds, probe.snr, probe.bandwidth,
            beyond_measure(probe, self.config.tdsv), list(scores.items()), limits, ratios)


def unless_steady(cuts, entry):
    """Return segments and entry of audio, as of audio.read_utterance, without those of steady noise or a tone."""
    if len(cuts) and audio.is_steady(cuts):
        return (), entry | {"speech_seconds": 0.0, "dropped": "is steady noise or a tone"}
    return cuts, entry


class Enrolments:
    """The enrolled Voices as they are now, asked for again and again while other programs enrol and forget.

    Only those whose files have changed are embedded anew.
    """

    def __init__(self, verifier):
        self.verifier, self.found = verifier, {}
        self.speaker = verifier.config.speaker if "speaker" in verifier.config.given else None

    def voices(self):
        """Return the Voices in config.enroll_path, or that of --speaker if typed; InputError if all fail."""
        path = pathlib.Path(self.verifier.config.enroll_path)
        try:
            self.found = self.read(path)
        except InputError:
            time.sleep(MOMENT_SECONDS)
            self.found = self.read(path)
        return list(self.found.values())

    def read(self, path):
        """Return {what tells that it has changed: Voice}."""
        found = {}
        for name, files in enrolment_sources(path, self.speaker).items():
            parts = [part for file in files for part in (file, file.with_suffix(".json"))]     # features have both
            key = name, *(tuple(common.size_and_time(part)) for part in parts)
            found[key] = self.found.get(key) or self.verifier.embed_files(name, files)
        if all(voice.problem for voice in found.values()):
            problems = "; ".join(f"{voice.name}: {voice.problem}" for voice in found.values())
            raise InputError(f"--enroll_path is {path}: {problems}", f"nobody can be compared: {problems}")
        return found


def verify(verifier, voices, recording=None):
    """Compare the probes in config.verify_path with enrolled Voices; yield Verdicts as they are made.

    With a recording, as Verifier.read yields it, that is the probe.
    """
    for probe in [verifier.embed_voice(recording[0], [recording])] if recording else verifier.probes(
            verifier.config.verify_path):
        yield verifier.compare(probe, voices)


def print_losses(voices):
    """Name the enrolments that gave no speech on standard error."""
    common.print_skipped([f"{voice.name}: {voice.problem}" for voice in voices if voice.problem] + [
        f"{voice.name}: {line}" for voice in voices for line in voice.lost if not voice.problem])


def print_notes(verifier):
    """Print what must be known of a Verifier's scores on standard error."""
    for note in dict.fromkeys(verifier.notes):
        print("note:", note, file=sys.stderr)


def print_verdicts(verifier, voices, recording=None):
    """Verify and print the verdicts; return the exit code: 0 if all are the same person, 2 if one has no verdict.

    Enrolments that gave no speech are named on standard error.
    """
    config, verdicts = verifier.config, []
    print_losses(voices)
    for verdict in verify(verifier, voices, recording):
        verdicts.append(verdict)
        if not config.json:
            print(verdict, flush=True)
    if not verdicts:
        raise InputError(f"--verify_path is {config.verify_path}: no recording there says --tdsv_text {verifier.text}")
    if config.json:
        print(json.dumps({"model": str(config.model_path), "model_num": config.model_num,
                          "notes": list(dict.fromkeys(verifier.notes)),
                          "verdicts": [verdict.as_dict() for verdict in verdicts]}))
    print_notes(verifier)
    if any(verdict.problem for verdict in verdicts):
        return 2
    return 0 if all(verdict.same for verdict in verdicts) else 1


# ---- while somebody speaks --------------------------------------------------------------------------------------

def checked_samples(wave):
    """Return samples (S,) as float32; InputError where they have another shape, or are not finite."""
    wave = np.array(wave, np.float32)
    if wave.ndim != 1 or not np.isfinite(wave).all():
        raise InputError(f"samples {wave.shape} are not (S,), one channel, or not finite numbers")
    return wave


class Listener:
    """A probe that is judged while it is spoken.

        listener = verification.Listener(verifier, voices)
        for block in blocks:
            verdict = listener.feed(block) or verdict
        verdict = listener.finish()

    Each Verdict is that of a recording that ends there. Detector, level and noise are of all that was heard, and any
    block may change them; so the same functions as for a file see it again after every 0.4 s of further speech.

    Parameters
    ----------
    verifier : Verifier
    voices : list of Voice
        Who is enrolled; they may be replaced while it listens.

    Attributes
    ----------
    wave : np.ndarray, float32, shape (S,)
        What was heard up to the last look.
    """

    def __init__(self, verifier, voices):
        self.verifier, self.voices, self.sr = verifier, voices, verifier.config.sr
        self.wave, self.blocks = np.empty(0, np.float32), []
        self.heard = 0                              # samples fed
        self.due = round(LOOK_SECONDS * self.sr)    # that must be heard for a look
        self.speech_seconds = 0.0                   # at the last verdict

    def feed(self, block):
        """Take samples (S,) of any number, at the model's rate; return a Verdict if it is time for one, else None."""
        self.append(block)
        if self.heard < self.due:
            return None
        wave = self.gather()
        seconds = audio.speech_seconds(wave, self.verifier.config)
        wanted, found = max(LOOK_SECONDS, GROWTH * len(wave) / self.sr), abs(seconds - self.speech_seconds)
        ready = found >= wanted
        self.due = self.heard + round(self.sr * (wanted if ready else max(wanted - found, wanted / 4)))
        return self.judge(seconds) if ready else None

    def finish(self):
        """Return the Verdict on the whole recording, which ends here."""
        wave = self.gather()
        return self.judge(audio.speech_seconds(wave, self.verifier.config))

    def append(self, block):
        """Keep samples; InputError where they are not (S,), or not finite."""
        self.blocks.append(checked_samples(block))
        self.heard += len(block)

    def gather(self):
        """Return all samples so far, which `wave` is then."""
        self.wave, self.blocks = np.concatenate([self.wave, *self.blocks]), []
        return self.wave

    def judge(self, seconds):
        """Return the Verdict on what was heard so far, with so many seconds of speech."""
        self.speech_seconds = seconds
        heard = unless_steady(*audio.speech_segments(self.wave, self.verifier.config))
        return self.verifier.compare(self.verifier.embed_voice("probe", [("probe", *heard)]), self.voices)
