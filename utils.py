"""What training and test share: batches, the GE2E equations, the protocol of enrolments and probes.

The equations are numbered as in Wan, Wang, Papir, Lopez Moreno: Generalized End-to-End Loss for Speaker Verification
(ICASSP 2018, arXiv 1710.10467), eq. 6 as the authors' page corrects it. N speakers, M utterances per speaker,
T frames, F = 40 mel channels, D dimensions of the d-vector.
"""
import collections
import csv
import functools
import io
import math
import time
from dataclasses import dataclass, field

import numpy as np
import scipy  # loads its parts when they are used

import data_preprocess
import features
from audio import N_MELS
from common import InputError, tf, write_whole
from measures import Scored, operating_points, unit_mean

# ---- batches ----------------------------------------------------------------------------------------------------

def channel_statistics(speakers, rng):
    """Return mean and standard deviation (F,) of each mel channel over up to 20 segments of every speaker."""
    count, total, squares = 0, np.zeros(N_MELS), np.zeros(N_MELS)
    for speaker in speakers:
        segments = speaker.load()
        sample = segments[np.sort(rng.permutation(len(segments))[:20])]
        if not features.is_usable(sample):
            raise InputError(f"{speaker.path} holds numbers that are not finite: preprocess this speaker again")
        sample = np.asarray(sample, np.float64)
        count += sample.shape[0] * sample.shape[2]
        total += sample.sum(axis=(0, 2))
        squares += np.square(sample).sum(axis=(0, 2))
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 1e-6))


def random_batch(speakers, n, m, *, crop, rng, weigh=False, speed=0.0, centres=None):
    """Draw a training batch: n different speakers, m crops of each, all of one random length.

    Parameters
    ----------
    speakers : sequence of Speaker
    n, m : int
        N and M.
    crop : (int, int)
        Shortest and longest crop, in frames.
    rng : np.random.Generator
    weigh : bool
        Draw a speaker as often as it has utterances, up to m: one with a single recording, whose crops share room,
        microphone and mood, is drawn 1 / m as often as one with m.
    speed : float
        Half of the speakers are played up to this share faster or slower (`play_at_speed`): other voices; 0 for none.
    centres : np.ndarray, shape (F,)
        Centre frequencies of the mel channels in Hz, which speed needs.

    Returns
    -------
    np.ndarray, float32, shape (N * M, T, F), grouped by speaker
    """
    length = int(rng.integers(crop[0], crop[1] + 1))
    batch = np.empty((n, m, length, N_MELS), np.float32)
    shares = None
    if weigh:
        counts = np.minimum([len(speaker.voiced) for speaker in speakers], m)
        shares = counts / counts.sum()
    for i, speaker in enumerate(rng.choice(len(speakers), n, replace=False, p=shares)):
        factor = 1 + speed * rng.uniform(-1, 1) if speed and rng.random() < 0.5 else 1.0
        features, frames = speakers[speaker].load(), math.ceil(length * factor)
        for j, row in enumerate(draw_rows(speakers[speaker].voiced, m, rng)):
            start = int(rng.integers(features.shape[2] - frames + 1))
            part = features[row, :, start:start + frames].T
            batch[i, j] = part if factor == 1 else play_at_speed(part, factor, length, centres)
    return batch.reshape(n * m, length, N_MELS)


def play_at_speed(frames, speed, length, centres):
    """Return log-mel frames (L, F) played at `speed`, as (length, F): formants and pitch move with it, as on a tape.

    L is at least length * speed; linear interpolation between frames and between channels, whose centres are in Hz.
    """
    times = np.arange(length) * speed
    channels = np.interp(centres / speed, centres, np.arange(len(centres)))
    return interpolate_rows(interpolate_rows(frames, times).T, channels).T


def interpolate_rows(rows, positions):
    """Return an array's rows at fractional positions, by linear interpolation."""
    first = positions.astype(int)
    share = (positions - first)[:, np.newaxis].astype(rows.dtype)
    return (1 - share) * rows[first] + share * rows[np.minimum(first + 1, len(rows) - 1)]


def draw_rows(utterances, m, rng):
    """Draw m rows of a speaker's features: of different utterances, and of different rows, as far as there are."""
    order = np.resize(rng.permutation(len(utterances)), m)
    rows = []
    for index, picks in zip(*np.unique(order, return_counts=True), strict=True):
        utterance = utterances[index]
        rows.extend(utterance.first + rng.choice(utterance.count, picks, replace=picks > utterance.count))
    return rows


def equalize(batch, decibels, rng):
    """Pass each crop of log-mel frames (B, T, F) through a random gain and smooth equalizer, in place.

    Its curve over the channels is the sum of four cosines, of 0 to 3 half periods, with normal amplitudes of this
    standard deviation: each crop seems to come from another room and microphone, so that these tell no speaker.
    """
    waves = np.cos(np.pi * np.arange(4)[:, np.newaxis] * (np.arange(N_MELS) + 0.5) / N_MELS)          # (4, F)
    curves = rng.normal(0, decibels / 10, (len(batch), 4)) @ waves                                  # log10 of power
    batch += curves[:, np.newaxis].astype(batch.dtype)


def mask_bands(batch, widest, value, rng):
    """Set a band of 1 to `widest` mel channels of half of the crops (B, T, F) to `value` (F,), in place."""
    for index in np.flatnonzero(rng.random(len(batch)) < 0.5):
        width = int(rng.integers(1, widest + 1))
        low = int(rng.integers(N_MELS - width + 1))
        batch[index, :, low:low + width] = value[low:low + width]


# ---- the equations ----------------------------------------------------------------------------------------------

def similarity(embedded, w, b, centroids=None):
    """Return the scaled similarity of every utterance to every speaker (GE2E, eq. 5, 8 and 9).

    Parameters
    ----------
    embedded : tensor, shape (N, M, D)
        Unit vectors, M utterances of each of N speakers.
    w, b : scalar
        Scale, which enters as |w| (the paper wants it positive), and offset.
    centroids : tensor, shape (N, D), optional
        Enrolled speakers. Without them each speaker's centroid is the mean of its utterances, and an utterance is left
        out of the centroid of its own speaker.

    Returns
    -------
    tensor, shape (N, M, N)
        |w| cos(e_ji, c_k) + b
    """
    embedded = tf.convert_to_tensor(embedded)
    w, b = tf.abs(tf.cast(w, embedded.dtype)), tf.cast(b, embedded.dtype)
    if centroids is not None:
        cosine = tf.einsum("jid,kd->jik", embedded, tf.math.l2_normalize(centroids, axis=-1))
        return w * cosine + b
    total = tf.reduce_sum(embedded, axis=1)                                                      # (N, D)
    cosine = tf.einsum("jid,kd->jik", embedded, tf.math.l2_normalize(total, axis=-1))            # (N, M, N)
    others = tf.math.l2_normalize(total[:, tf.newaxis] - embedded, axis=-1)                      # eq. 8, (N, M, D)
    own = tf.reduce_sum(embedded * others, axis=-1, keepdims=True)                               # (N, M, 1)
    return w * tf.where(same_speaker(cosine), own, cosine) + b                                   # eq. 9


def same_speaker(matrix):
    """Return the mask (N, 1, N) of the entries of a similarity matrix (N, M, N) where j = k."""
    return tf.eye(tf.shape(matrix)[0], dtype=tf.bool)[:, tf.newaxis]


def ge2e_loss(similarity, kind):
    """Return the GE2E loss of a batch, summed over its utterances.

    Parameters
    ----------
    similarity : tensor, shape (N, M, N)
    kind : str
        "softmax" (eq. 6) or "contrast" (eq. 7).

    Returns
    -------
    scalar tensor
    """
    similarity = tf.convert_to_tensor(similarity)
    own, zero = same_speaker(similarity), tf.zeros((), similarity.dtype)
    if kind == "softmax":
        correct = tf.reduce_sum(tf.where(own, similarity, zero), axis=-1)
        return tf.reduce_sum(tf.reduce_logsumexp(similarity, axis=-1) - correct)
    if kind == "contrast":
        probability = tf.sigmoid(similarity)
        correct = tf.reduce_sum(tf.where(own, probability, zero), axis=-1)
        closest = tf.reduce_max(tf.where(own, zero, probability), axis=-1)
        return tf.reduce_sum(1 - correct + closest)
    raise InputError(f"loss is {kind!r}: choose softmax or contrast")


# ---- the protocol -----------------------------------------------------------------------------------------------

def split_validation(speakers, m, *, ratio, rng, names=None, seen=()):
    """Part training from validation speakers.

    Parameters
    ----------
    speakers : list of Speaker
    m : int
        Validation speakers are drawn from those with more than m utterances.
    ratio : float
        The share of them that is drawn, as far as they are not `seen`; fewer than 2 would measure nothing, and none is
        drawn.
    rng : np.random.Generator
    names : list of str, optional
        The validation speakers, where an earlier run has drawn them.
    seen : collection of str
        Speakers that the weights were trained on before: none of them can validate.

    Returns
    -------
    training, validation : lists of Speaker
    """
    if names is None:
        able = [speaker.name for speaker in speakers if len(speaker.voiced) > m]
        unseen = [name for name in able if name not in seen]
        number = min(round(ratio * len(able)), len(unseen))
        names = rng.choice(unseen, number, replace=False).tolist() if number >= 2 else []
    missing = set(names) - {speaker.name for speaker in speakers}
    if missing:
        raise InputError(f"{speakers[0].path.parent} lacks the validation speaker {min(missing)} of this run")
    return ([speaker for speaker in speakers if speaker.name not in names],
            [speaker for speaker in speakers if speaker.name in names])


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

    def scored(self):
        """Return all P x S trials as Scored."""
        n_probes, n_speakers = self.scores.shape
        numbers = {name: number for number, name in enumerate(self.speakers)}
        names = np.repeat([f"{owner}/{file}" for owner, file in self.probes], n_speakers)
        owners = np.repeat([numbers[owner] for owner, _ in self.probes], n_speakers)
        vectors = {}
        if self.probe_vectors is not None:
            vectors = {name: unit_mean(own) for name, own in zip(self.speakers, self.enrolment_vectors, strict=True)}
            vectors.update(zip(names[::n_speakers].tolist(), self.probe_vectors, strict=True))
        return Scored(self.speakers * n_probes, names.tolist(), self.scores.ravel(), self.labels.ravel(),
                      np.tile(np.arange(n_speakers), n_probes), owners, vectors)

    @property
    def without_speech(self):
        """The number of probes that hold no speech."""
        return int(np.isneginf(self.scores).all(axis=1).sum())

    @property
    def eer(self):
        """The equal error rate."""
        return (self.points["eer"]["far"] + self.points["eer"]["frr"]) / 2

    @functools.cached_property
    def points(self):
        """The operating points of the scores (operating_points)."""
        return operating_points(self.scores, self.labels)

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

    def loss(self, w):
        """Return the mean softmax loss (GE2E, eq. 6) of the probes that hold speech, against the enrolled centroids.

        Smoother than the EER, it tells checkpoints apart on few speakers; b cancels in it.
        """
        heard = np.isfinite(self.scores).all(axis=1)
        log_posterior = scipy.special.log_softmax(abs(w) * self.scores[heard], axis=1)
        return float(-log_posterior[self.labels[heard]].mean())

    def describe(self):
        """Return the similarities and what was done, as a test prints it."""
        with np.printoptions(precision=2, suppress=True):
            lines = [str(self.matrix())]
        lines += [f"{len(self.speakers)} speakers, each enrolled with {self.enrolment_utterances} utterances",
                  f"{self.without_speech} of {len(self.probes)} probes without speech, scored below all others"]
        if self.embedded_seconds:
            lines.append(f"embedding: {self.embedded_seconds / self.elapsed_seconds:.0f} x real time")
        return "\n".join(lines)


def evaluate(embed_speaker, speakers, m):
    """Score every probe of every speaker against every speaker, each enrolled with m utterances.

    Parameters
    ----------
    embed_speaker : callable
        Returns {utterance: d-vector (D,)} of a Speaker's utterances that hold speech.
    speakers : list of features.Speaker
    m : int

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
    started, enrolments, vectors, probes, mixed = time.perf_counter(), [], [], [], 0
    for speaker in speakers:
        enrolment, own_probes = enrol_and_probe(speaker, m)
        if len(enrolment) < m or not own_probes:
            raise InputError(f"{speaker.path} has {len(speaker.voiced)} utterances with speech: enrolment with "
                             f"--utterance_number {m} and one probe need {m + 1}; lower it, or move that speaker away")
        sessions = {utterance.session for utterance in enrolment}
        mixed += len({u.session for u in speaker.voiced}) > 1 and any(probe.session in sessions for probe in own_probes)
        d_vectors = embed_speaker(speaker)
        enrolments.append([d_vectors[utterance] for utterance in enrolment])
        silence = np.full_like(enrolments[-1][0], np.nan)
        vectors += [d_vectors.get(probe, silence) for probe in own_probes]
        probes += [(speaker.name, probe.file) for probe in own_probes]
    names, elapsed = [speaker.name for speaker in speakers], time.perf_counter() - started
    labels = np.array([owner for owner, _ in probes])[:, None] == np.array(names)
    seconds = sum(utterance.speech_seconds for speaker in speakers for utterance in speaker.voiced)
    notes = [f"{mixed} speakers have too few utterances in separate sessions: theirs are mixed"] if mixed else []
    return Evaluation(names, probes, enrolment_scores(np.array(enrolments), np.array(vectors)), labels, m,
                            seconds, elapsed, notes, np.array(enrolments), np.array(vectors))


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
        folder, names = data_preprocess.cached_features(config)
    speakers, settings = features.load_features(folder)
    features.adopt_settings(config, stored["flags"], settings, folder)
    notes = features.check_features(speakers, settings, features.feature_settings(config), folder)
    speakers = [speaker for speaker in speakers if names is None or speaker.name in names]
    notes += provenance_notes(stored, speakers, folder)
    if "speaker_number" in config.given:
        if len(speakers) < config.speaker_number:
            raise InputError(f"--speaker_number is {config.speaker_number}: {folder} has {len(speakers)} speakers")
        chosen = np.random.default_rng(config.seed).choice(len(speakers), config.speaker_number, replace=False)
        speakers = [speakers[i] for i in sorted(chosen)]
    return speakers, notes


def provenance_notes(stored, speakers, folder):
    """Return notes on what a reader of the figures must know about the model and the speakers."""
    notes = []
    seen = {*stored.get("training", ()), *stored.get("validation", ())} & {speaker.name for speaker in speakers}
    if seen:
        notes.append(f"{len(seen)} of {len(speakers)} speakers carry names of speakers that the model was trained or "
                     "validated on: if they are the same people, the error rates are too low")
    silent = features.speakers_without_speech(folder)
    if silent:
        notes.append(f"{len(silent)} speakers without any speech are left out: {', '.join(silent[:5])}")
    return notes


# ---- the course of training -------------------------------------------------------------------------------------

class History:
    """history.csv: a row per stretch of training, rewritten whole; rows after `iteration` are forgotten."""

    FIELDS = ("iteration", "loss", "learning_rate", "utterances_per_second", "seconds", "valid_eer", "valid_loss")

    def __init__(self, path, iteration):
        self.path, self.rows = path, []
        if iteration and path.exists():
            self.rows = [row for row in self.read(path) if int(row["iteration"]) <= iteration]

    def read(self, path):
        """Return the rows of a history.csv; InputError where it is damaged."""
        try:
            with open(path, newline="", encoding="utf-8") as file:
                rows = [{name: row[name] for name in self.FIELDS} for row in csv.DictReader(file)]
            for row in rows:
                numbers = [float(row[name]) for name in self.FIELDS if row[name] or not name.startswith("valid")]
                if int(row["iteration"]) < 0 or not all(map(math.isfinite, numbers)):
                    raise ValueError("a number is out of its range")
        except (ValueError, TypeError, LookupError, csv.Error) as error:
            raise InputError(f"{path} is damaged ({error}): delete it, it only shows the course of training") from error
        return rows

    @property
    def last(self):
        """The last row, before the first one a row of zeros."""
        return self.rows[-1] if self.rows else dict.fromkeys(self.FIELDS, 0)

    def add(self, row):
        """Append a row, a dict of FIELDS."""
        self.rows.append(row)
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, self.FIELDS, lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        write_whole(self.path, lambda file: file.write(text.getvalue().encode()))
