"""The protocol of a test: who enrols with what, what is compared with whom, under which conditions.

    evaluation = protocol.evaluate(embed_speaker, speakers, 5)         5 utterances enrol, all others are probes
    evaluation.eer, evaluation.scored()

P probes, S enrolled speakers, m enrolment utterances each, D dimensions of the d-vector.
"""
import collections
import functools
import re
import time
from dataclasses import dataclass, field, replace

import numpy as np
import scipy  # loads its parts when they are used

import data_preprocess
import features
from audio import SEGMENT_HOP, cut_segments
from common import InputError
from measures import KnownTrials, Scored, Trials, corpus_weights, min_cllr, operating_points, unit_mean

SHORT_SECONDS = (1, 2)      # of speech of the probes that a calibration hears, beside whole ones
SHORT_ENROLMENTS = (1, 2)   # utterances of its enrolments, beside all
SEEN = ("names of speakers that the model was trained or validated on: if they are the same people, the error rates "
        "are too low")
LOSS_SCALES = (1, 200)      # between which the scale of cosines is looked for that makes a loss least


def enrol_and_probe(speaker, m):
    """Choose a speaker's m enrolment utterances and its probes, all others; no source file is in both.

    Where a speaker has several sessions (sub-folders), enrolment takes the smallest one that holds m utterances, or as
    few as it can, and the probes are those of the others, if any of them holds speech. Probes without speech stay in:
    they are trials too. Unreadable files do not.

    Returns
    -------
    enrolment : list of Utterance
    probes : list of Utterance
    """
    sizes = collections.Counter(utterance.session for utterance in speaker.voiced)
    # Those that hold m come first, the smallest of them first; then the others, the largest first.
    order = sorted(sizes, key=lambda name: (sizes[name] < m, abs(sizes[name] - m), name))
    enrolment = sorted(speaker.voiced, key=lambda utterance: order.index(utterance.session))[:m]
    used = {utterance.session for utterance in enrolment}
    others = [utterance for utterance in speaker.utterances
            if utterance not in enrolment and (utterance.count or utterance.seconds)]
    other_sessions = [utterance for utterance in others if utterance.session not in used]
    return enrolment, other_sessions if any(utterance.count for utterance in other_sessions) else others


def enrolment_scores(enrolments, probes):
    """Return the cosines (P, S) of probes (P, D) and the centroids of enrolments (S, m, D); -inf for a probe of NaN."""
    centroids = np.stack([unit_mean(own) for own in enrolments])
    return np.nan_to_num(probes @ centroids.T, nan=-np.inf)


@dataclass(frozen=True)
class Probes:
    """P probes under one condition."""

    condition: str
    utterances: list            # P features.Utterances; None where there is no such copy
    vectors: np.ndarray         # (P, D) NaN for a probe without speech


@dataclass(frozen=True)
class Evaluation:
    """What the enrolment protocol gave: P probes scored against S enrolled speakers."""

    speakers: list                          # S names
    probes: list                            # P pairs (speaker name, file)
    scores: np.ndarray                      # (P, S) cosine; -inf for a probe without speech
    labels: np.ndarray                      # (P, S) True where the probe is the speaker's
    enrolment_utterances: int
    embedded_seconds: float                 # speech that was embedded
    elapsed_seconds: float                  # time that took
    notes: list = field(default_factory=list)
    enrolment_vectors: np.ndarray = None    # (S, m, D) d-vectors of the enrolment utterances
    probe_vectors: np.ndarray = None        # (P, D) NaN for a probe without speech
    enrolments: list = None                 # S lists of m features.Utterances
    probe_utterances: list = None           # P features.Utterances
    copies: tuple = ()                      # Probes under other conditions
    corpora: np.ndarray = None              # (S,) numbers of the groups within which speakers are compared; None: one

    @functools.cached_property
    def compared(self):
        """The trials that count, (P, S) bool: within a group, and not of somebody else who babbles behind the probe."""
        group = dict(zip(self.speakers, self.groups, strict=True))
        counts = np.array([group[owner] for owner, _ in self.probes])[:, np.newaxis] == self.groups
        people = [features.person_of(name) for name in self.speakers]
        for row, utterance in enumerate(self.probe_utterances or ()):
            if utterance and utterance.babblers:
                counts[row] &= ~np.isin(people, utterance.babblers)
        return counts

    @functools.cached_property
    def groups(self):
        """The numbers (S,) of the groups, texts and corpora, within which speakers are compared."""
        return np.zeros(len(self.speakers), int) if self.corpora is None else self.corpora

    def under(self, probes, m=None):
        """Return the Evaluation of the same probes under another condition, Probes, and of m enrolment utterances."""
        enrolments = self.enrolment_vectors[:, :m or self.enrolment_utterances]
        return replace(self, scores=enrolment_scores(enrolments, probes.vectors), probe_vectors=probes.vectors,
                       probe_utterances=probes.utterances, enrolment_vectors=enrolments,
                       enrolment_utterances=enrolments.shape[1], copies=())

    @property
    def originals(self):
        """The Probes as they are."""
        return Probes("", self.probe_utterances, self.probe_vectors)

    @functools.cached_property
    def known(self):
        """What is known of each trial, {name: (P, S)} as in measures.TERMS; NaN where it is not known."""
        probes = {name: [getattr(utterance, name, None) for utterance in self.probe_utterances]
                  for name in ("speech_seconds", "snr", "bandwidth")}
        probes["speech_seconds"] = [seconds or None for seconds in probes["speech_seconds"]]    # ancestors tell none
        columns = {name: np.array([np.nan if value is None else value for value in values], float)[:, np.newaxis]
                   for name, values in probes.items()}
        m = self.enrolment_utterances
        enrolled = [sum(utterance.speech_seconds for utterance in own[:m]) or np.nan for own in self.enrolments]
        known = {"probe_seconds": columns["speech_seconds"], "snr": columns["snr"], "bandwidth": columns["bandwidth"],
                 "enrolled_seconds": np.array(enrolled, float), "enrolments": float(m)}
        return {name: np.broadcast_to(values, self.scores.shape) for name, values in known.items()}

    def known_trials(self, as_recorded):
        """Return the trials that count and whose probes hold speech, as KnownTrials."""
        kept = self.compared & np.isfinite(self.scores)
        return KnownTrials(self.scores[kept], self.labels[kept],
                           {name: values[kept] for name, values in self.known.items()},
                           np.broadcast_to(self.groups, kept.shape)[kept], np.full(kept.sum(), as_recorded))

    def scored(self, trials=None):
        """Return trials, a mask (P, S), as Scored: without it all that count."""
        n_probes, n_speakers = self.scores.shape
        people = {name: number for number, name in enumerate(self.people)}
        numbers = {name: people[features.person_of(name)] for name in self.speakers}
        names = np.repeat([f"{owner}/{file}" for owner, file in self.probes], n_speakers)
        owners = np.repeat([numbers[owner] for owner, _ in self.probes], n_speakers)
        vectors = {}
        if self.probe_vectors is not None:
            vectors = {name: unit_mean(own) for name, own in zip(self.speakers, self.enrolment_vectors, strict=True)}
            vectors.update(zip(names[::n_speakers].tolist(), self.probe_vectors, strict=True))
        kept = self.compared.ravel() if trials is None else trials.ravel()
        places = np.tile(np.arange(n_speakers), n_probes)[kept]
        enrolled = np.array([numbers[name] for name in self.speakers])[places]
        known = {name: values.ravel()[kept] for name, values in self.known.items()} if self.enrolments else {}
        return Scored([self.speakers[place] for place in places], names[kept].tolist(), self.scores.ravel()[kept],
                      self.labels.ravel()[kept], enrolled, owners[kept], vectors, known)

    @property
    def people(self):
        """The names of the persons among the speakers, who may say several texts."""
        return list(dict.fromkeys(features.person_of(name) for name in self.speakers))

    def other_texts(self):
        """Return as Scored the trials of the right speaker, who says the right text or another; None of one text."""
        enrolled = np.array([features.person_of(name) for name in self.speakers])
        owners = np.array([features.person_of(owner) for owner, _ in self.probes])
        own = owners[:, np.newaxis] == enrolled
        return self.scored(own) if (own & ~self.labels).any() else None

    @property
    def without_speech(self):
        """The number of probes that hold no speech."""
        return int(np.isneginf(self.scores).all(axis=1).sum())

    @property
    def eer(self):
        """The equal error rate."""
        return (self.points["eer"]["far"] + self.points["eer"]["frr"]) / 2

    def eer_of_copies(self):
        """Return the equal error rate of the probes that there are under this condition."""
        there = np.array([utterance is not None for utterance in self.probe_utterances])
        kept = self.compared & there[:, np.newaxis]
        point = operating_points(self.scores[kept], self.labels[kept])["eer"]
        return (point["far"] + point["frr"]) / 2

    @functools.cached_property
    def points(self):
        """The operating points of the scores (operating_points)."""
        return operating_points(self.scores[self.compared], self.labels[self.compared])

    def matrix(self, n=4):
        """Return the similarities (n, m, n) of the first n speakers' first probes, as the ancestors printed them."""
        owners = [name for name, _ in self.probes]
        n = min(n, len(self.speakers))
        rows = [[i for i, owner in enumerate(owners) if owner == name] for name in self.speakers[:n]]
        m = min(self.enrolment_utterances, *map(len, rows))
        return np.stack([self.scores[indices[:m], :n] for indices in rows])

    @property
    def targets(self):
        """The number of target trials."""
        return int(self.labels.sum())

    def loss_of(self, kind):
        """Return what a run with --loss `kind` validates by: the loss of eq. 6, or what one threshold can reach."""
        return self.min_cllr() if kind == "trials" else self.least_loss()

    def min_cllr(self):
        """Return the min Cllr of the trials whose probes hold speech: what one threshold for all can reach.

        Every corpus weighs the same.
        """
        trials = self.known_trials(as_recorded=True)
        return float(min_cllr(Trials(trials.scores, trials.labels), corpus_weights(trials)))

    def least_loss(self):
        """Return `loss` at the scale w that makes it least: verification has no use for w."""
        return float(scipy.optimize.minimize_scalar(self.loss, bounds=LOSS_SCALES, method="bounded").fun)

    def loss(self, w):
        """Return the mean softmax loss (GE2E, eq. 6) of the probes that hold speech, against the enrolled centroids.

        Smoother than the EER, it tells checkpoints apart on few speakers; b cancels in it. It is the mean over corpora.
        """
        heard = np.isfinite(self.scores).all(axis=1)
        logits = np.where(self.compared[heard], abs(w) * self.scores[heard], -np.inf)
        costs = -scipy.special.log_softmax(logits, axis=1)[self.labels[heard]]
        own = self.groups[self.labels[heard].argmax(axis=1)]
        return float(np.mean([costs[own == group].mean() for group in np.unique(own)]))

    def describe(self):
        """Return the similarities and what was done, as a test prints it."""
        with np.printoptions(precision=2, suppress=True):
            lines = [str(self.matrix())]
        each = "each" if len(self.people) == len(self.speakers) else "each of their texts"
        lines += [f"{len(self.people)} speakers, {each} enrolled with {self.enrolment_utterances} utterances",
                  f"{self.without_speech} of {len(self.probes)} probes without speech, scored below all others"]
        if self.embedded_seconds:
            lines.append(f"embedding: {self.embedded_seconds / self.elapsed_seconds:.0f} x real time")
        return "\n".join(lines)


def evaluate(embed_speaker, speakers, m, within_corpora=False):
    """Score every probe of every speaker against every speaker, each enrolled with m utterances.

    Parameters
    ----------
    embed_speaker : callable
        Returns {utterance: d-vector (D,)} of a Speaker's utterances that hold speech, and of their copies.
    speakers : list of features.Speaker
    m : int
    within_corpora : bool
        Only speakers of one corpus are compared; of one text they are in any case.

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError
        If there are fewer than two speakers, or one has fewer than m + 1 utterances.
    """
    if len(speakers) < 2:
        raise InputError(f"{len(speakers)} speaker: error rates need at least 2")
    parted, started = [check_protocol(speaker, m) for speaker in speakers], time.perf_counter()
    d_vectors = {(speaker.name, part): vector for speaker in speakers
                 for part, vector in embed_speaker(speaker).items()}
    elapsed, names = time.perf_counter() - started, [speaker.name for speaker in speakers]
    probes = [(name, probe) for name, (_, own) in zip(names, parted, strict=True) for probe in own]
    enrolled = np.array([[d_vectors[name, part] for part in own] for name, (own, _) in zip(names, parted, strict=True)])
    silence = np.full_like(enrolled[0, 0], np.nan)
    seconds = sum(part.speech_seconds for _, part in d_vectors)
    mixed = sum(mixes_sessions(speaker, *parts) for speaker, parts in zip(speakers, parted, strict=True))
    notes = [f"{mixed} speakers have too few utterances in separate sessions: theirs are mixed"] if mixed else []
    corpora = compared_groups(speakers, within_corpora)
    labels = np.array([owner for owner, _ in probes])[:, np.newaxis] == np.array(names)
    vectors = np.array([d_vectors.get(probe, silence) for probe in probes])
    return Evaluation(
        names, [(owner, probe.file) for owner, probe in probes], enrolment_scores(enrolled, vectors), labels, m,
        seconds, elapsed, notes, enrolled, vectors, [own for own, _ in parted], [probe for _, probe in probes],
        copies_of(probes, d_vectors, silence), corpora)


def compared_groups(speakers, within_corpora):
    """Return the numbers (S,) of the groups, texts and perhaps corpora, within which speakers are compared."""
    groups = [f"{speaker.text}/{speaker.corpus if within_corpora else ''}" for speaker in speakers]
    return np.unique(groups, return_inverse=True)[1]


def check_protocol(speaker, m):
    """Return enrol_and_probe of a speaker; InputError where there are too few utterances."""
    enrolment, probes = enrol_and_probe(speaker, m)
    if len(enrolment) < m or not probes:
        remedy = "lower it, or " * (m > 1) + "move that speaker away"
        raise InputError(f"{speaker.path} has {len(speaker.voiced)} utterances with speech: enrolment with "
                         f"--utterance_number {m} and one probe need {m + 1}; {remedy}")
    return enrolment, probes


def mixes_sessions(speaker, enrolment, probes):
    """Tell whether a speaker with several sessions has probes of one that enrolled."""
    sessions = {utterance.session for utterance in enrolment}
    return len({utterance.session for utterance in speaker.voiced}) > 1 and any(
        probe.session in sessions for probe in probes)


def copies_of(probes, d_vectors, silence):
    """Return Probes for each of the copies that probes, pairs (speaker name, Utterance), have under other conditions.

    `d_vectors` are those of all pairs, `silence` stands for those without speech, which are silent under any condition.
    """
    found = []
    for number in range(max(len(probe.copies) for _, probe in probes)):
        copies = [probe.copies[number] if number < len(probe.copies) else None if probe.count else probe
                  for _, probe in probes]
        names = {copy.condition for copy in copies if copy and copy.condition}
        found.append(Probes(names.pop() if len(names) == 1 else f"copy {number + 1}", copies, np.array(
            [d_vectors.get((owner, copy), silence) for (owner, _), copy in zip(probes, copies, strict=True)])))
    return tuple(found)


def frames_of(segments, total):
    """Return the `total` frames (T, F) that `audio.cut_segments` made segments (K, F, length) of."""
    length = segments.shape[2]
    frames = np.empty((max(total, length), segments.shape[1]), segments.dtype)
    for number, segment in enumerate(segments):
        start = min(number * SEGMENT_HOP, len(frames) - length)
        frames[start:start + length] = segment.T
    return frames[:total]


def shorten(embed_rows, owners, probes, seconds, config):
    """Return Probes of the first `seconds` of speech of P probes; those with less are None.

    Parameters
    ----------
    embed_rows : callable
        Returns the unit vectors (K, D) of segments (K, 40, frames).
    owners : list of features.Speaker
        The P speakers in whose features the probes are.
    probes : Probes
    config : argparse.Namespace
        The feature flags.
    """
    parts, places, utterances = [], [], [None] * len(probes.utterances)
    for place, (owner, utterance) in enumerate(zip(owners, probes.utterances, strict=True)):
        if utterance is None or not utterance.count or utterance.speech_seconds < seconds:
            continue
        rows = owner.load()[utterance.first:utterance.first + utterance.count]      # not kept: each holds a file open
        total = 1 + round(utterance.speech_seconds * config.sr) // round(config.hop * config.sr)
        parts.append(cut_segments(frames_of(rows, total)[:round(seconds / config.hop)], rows.shape[2]))
        places.append(place)
        utterances[place] = utterance._replace(speech_seconds=float(seconds))
    vectors = np.full_like(probes.vectors, np.nan)
    if parts:
        ends = np.cumsum([len(part) for part in parts])
        for place, rows in zip(places, np.split(embed_rows(np.concatenate(parts)), ends[:-1]), strict=True):
            vectors[place] = unit_mean(rows)
    return Probes(f"first {seconds} s of speech", utterances, vectors)


def calibration_trials(evaluation, embed_rows, speakers, config):
    """Return the trials that a calibration is made of: all probes under all conditions, whole and shortened.

    Enrolments have 1, 2 and all of the utterances.

    Parameters
    ----------
    evaluation : Evaluation
        Of these speakers.
    embed_rows : callable
        Returns the unit vectors (K, D) of segments (K, 40, frames).
    speakers : list of features.Speaker
    config : argparse.Namespace
        The feature flags.

    Returns
    -------
    measures.KnownTrials
    """
    by_name = {speaker.name: speaker for speaker in speakers}
    owners = [by_name[owner] for owner, _ in evaluation.probes]
    whole = [evaluation.originals, *evaluation.copies]
    short = [shorten(embed_rows, owners, probes, seconds, config) for probes in whole for seconds in SHORT_SECONDS
             if not config.tdsv]            # a part of a take is another text
    full = evaluation.enrolment_utterances
    return KnownTrials.joined([
        evaluation.under(probes, m).known_trials(as_recorded=probes is whole[0] and m == full)
        for probes in whole + short for m in sorted({*SHORT_ENROLMENTS, full})])


def speakers_to_test(config, stored):
    """Return the speakers of config.test_path, or of the audio of --raw_path, and notes on what their figures need.

    Parameters
    ----------
    config : argparse.Namespace
        Takes the folder's feature flags where the model stores none.
    stored : dict
        What the model's config.json holds.
    """
    folder, names = config.test_path, None
    if "raw_path" in config.given:
        folder, names = data_preprocess.cached_features(config, config.conditions)
    speakers, settings = features.load_features(folder)
    features.adopt_settings(config, stored["flags"], settings, folder)
    notes = features.check_features(speakers, settings, features.feature_settings(config), folder)
    silent = features.speakers_without_speech(folder)
    if names is not None:
        speakers, silent = [speaker for speaker in speakers if speaker.name in names], sorted({*silent} & names)
    notes += provenance_notes(stored, speakers, silent, config.tdsv_text)
    if "speaker_number" in config.given:
        if len(speakers) < config.speaker_number:
            raise InputError(f"--speaker_number is {config.speaker_number}: {folder} has {len(speakers)} speakers")
        chosen = np.random.default_rng(config.seed).choice(len(speakers), config.speaker_number, replace=False)
        speakers = [speakers[i] for i in sorted(chosen)]
    speakers, more = features.protocol_speakers(speakers, config.tdsv)
    few = {speaker.name for speaker in speakers if speaker.text and len(speaker.voiced) <= config.utterance_number}
    if few:
        more.append(f"{len(few)} of {len(speakers)} pairs of speaker and text are left out, with at most "
                    f"{config.utterance_number} takes: {', '.join(sorted(few)[:5])}")
    kept = [speaker for speaker in speakers if speaker.name not in few]
    if few and len(kept) < 2:
        raise InputError(f"--utterance_number is {config.utterance_number}: {more[-1]}; lower it")
    return kept, notes + more


def seen_among(stored, names):
    """Return those of a set of names that a model, by its config.json, was trained or validated on."""
    return names & {*stored.get("training", ()), *stored.get("validation", ())}


def provenance_notes(stored, speakers, silent, text=None):
    """Return notes on what a reader of the figures must know about the model, the speakers, and the silent ones."""
    notes = []
    seen = seen_among(stored, {speaker.name for speaker in speakers})
    if seen:
        notes.append(f"{len(seen)} of {len(speakers)} speakers carry {SEEN}")
    if silent:
        what = f"who do not say {text}, or without any speech," if text not in (None, "all") else "without any speech"
        notes.append(f"{len(silent)} speakers {what} are left out: {', '.join(silent[:5])}")
    return notes


# ---- lists of trials --------------------------------------------------------------------------------------------

def beginnings(name, sign="[/_-]"):
    """Return what the name of a listed recording begins with, up to its first sign, its second and so on; itself."""
    return [name[:match.start()] for match in re.finditer(sign, name)] + [name]


def people_in(file):
    """Return all that may be a person's name in that of a file: what it and its parts behind a / begin with."""
    parts = [file.split("/", place)[-1] for place in range(file.count("/") + 1)]
    return {name for part in parts for name in beginnings(part)}


def number_speakers(trials):
    """Return the speakers (n, 2) of both sides of listed trials, numbered from 0, and a note where they are guessed.

    The name of a file, below --raw_path, begins with its speaker: the first folders, or up to a /, - or _, as few of
    them as the labels allow. Where they allow none, files that target trials link are one speaker.

    Parameters
    ----------
    trials : list of (str, str, bool)
        The files of both sides, and whether they are the same person.
    """
    names = sorted({name for enrolled, probe, _ in trials for name in (enrolled, probe)})
    place = {name: number for number, name in enumerate(names)}
    pairs = np.array([(place[enrolled], place[probe]) for enrolled, probe, _ in trials])
    labels = np.array([same for *_, same in trials])
    for sign in ("/", "[/-]", "[/_-]"):
        parts = [beginnings(name, sign) for name in names]
        for depth in range(max(map(len, parts))):
            _, owners = np.unique([part[min(depth, len(part) - 1)] for part in parts], return_inverse=True)
            if ((owners[pairs[:, 0]] == owners[pairs[:, 1]]) == labels).all():
                return owners[pairs], []
    links = scipy.sparse.coo_array((np.ones(labels.sum()), pairs[labels].T), (len(names), len(names)))
    number, owners = scipy.sparse.csgraph.connected_components(links, directed=False)
    return owners[pairs], [f"the files' names do not tell who speaks: {number} groups of recordings that target trials "
                           "link count as speakers, so intervals are too narrow where these are fewer"]
