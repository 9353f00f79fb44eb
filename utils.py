"""What training and test share: feature folders, batches, the GE2E equations, error rates.

The equations are numbered as in Wan, Wang, Papir, Lopez Moreno: Generalized End-to-End Loss for Speaker Verification
(ICASSP 2018, arXiv 1710.10467), eq. 6 as the authors' page corrects it. N speakers, M utterances per speaker,
T frames, F = 40 mel channels, D dimensions of the d-vector.
"""
import collections
import csv
import functools
import io
import math
import os
import pathlib
from dataclasses import dataclass, field

import numpy as np
import scipy  # loads its parts when they are used

from configuration import InputError, quiet_libraries, read_json, write_whole
from data_preprocess import N_MELS, open_features, read_settings

FALSE_ALARMS = (0.01, 0.001)     # bounds on the FAR at which thresholds are stored beside that of the EER
P_TARGETS = (0.01, 0.05)         # prior probabilities of a target trial in the detection costs
CURVE = np.linspace(-1, 1, 401)  # thresholds at which a model stores its FAR and FRR


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with quiet_libraries():
    import tensorflow as tf


# ---- feature folders --------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Utterance:
    """One source file of a speaker: rows [first, first + count) of the features; a reason where it gave none."""

    file: str
    first: int
    count: int
    seconds: float = 0.0
    speech_seconds: float = 0.0
    dropped: str = ""

    @property
    def session(self):
        """The sub-folder of the speaker that the file lies in."""
        return os.path.dirname(self.file)


@dataclass(frozen=True)
class Speaker:
    """One speaker's feature file (K, 40, frames) and the utterances that its rows come from."""

    name: str
    path: pathlib.Path
    utterances: tuple

    @property
    def voiced(self):
        """The utterances that gave segments."""
        return [utterance for utterance in self.utterances if utterance.count]

    def load(self):
        """Open the features, float32 (K, 40, frames), memory-mapped."""
        return open_features(self.path)


def load_features(folder):
    """List the speakers of a feature folder.

    Returns
    -------
    speakers : list of Speaker
        In the order of their names.
    settings : dict or None
        The flags they were made with; None for an ancestor's folder, where each row counts as an utterance.

    Raises
    ------
    InputError
        If there are none, or a file does not fit its description.
    """
    folder, settings = pathlib.Path(folder), read_settings(folder)
    paths = sorted(folder.glob("*.npy"))
    if not paths:
        raise InputError(f"{folder} holds no features: make them with python data_preprocess.py --raw_path DIR")
    return [read_speaker(path, described=bool(settings)) for path in paths], settings


def speechless(folder):
    """Return the names of the speakers of a feature folder none of whose files holds speech."""
    paths = [path for path in sorted(pathlib.Path(folder).glob("*.json")) if path.name != "manifest.json"]
    return [path.stem for path in paths if not path.with_suffix(".npy").exists()]


def read_speaker(path, described):
    """Return the Speaker of a .npy file and, where `described`, of the .json beside it."""
    rows = len(open_features(path))
    if not described:
        return Speaker(path.stem, path, tuple(Utterance(f"{path.name}[{row}]", row, 1) for row in range(rows)))
    record = read_json(path.with_suffix(".json")) or {}
    if sum(entry["count"] for entry in record.get("utterances", [])) != rows:
        raise InputError(f"{path} and the .json beside it do not belong together: run data_preprocess.py again")
    fields = Utterance.__dataclass_fields__
    return Speaker(path.stem, path, tuple(Utterance(**{field: entry[field] for field in fields})
                                          for entry in record["utterances"]))


def check_features(speakers, settings, wanted, folder):
    """Refuse features made with other settings than the dict `wanted`; return notes on those that do not say how."""
    for speaker in speakers:
        frames = speaker.load().shape[2]
        if frames != wanted["tisv_frame"] and (settings is None or frames != settings["tisv_frame"]):
            raise InputError(f"{speaker.path} holds segments of {frames} frames: "
                             f"--tisv_frame is {wanted['tisv_frame']}")
    if settings is None:
        return [f"{folder} does not say how its features were made: each row counts as an utterance"]
    for name, value in wanted.items():
        if settings.get(name) != value:
            raise InputError(f"{folder} was made with --{name} {settings.get(name)}, the model with {value}: "
                             f"preprocess the audio again with --{name} {value}")
    return []


def channel_statistics(speakers, rng):
    """Return mean and standard deviation (F,) of each mel channel over up to 20 segments of every speaker."""
    count, total, squares = 0, np.zeros(N_MELS), np.zeros(N_MELS)
    for speaker in speakers:
        features = speaker.load()
        sample = np.asarray(features[np.sort(rng.permutation(len(features))[:20])], np.float64)
        if not np.isfinite(sample).all():
            raise InputError(f"{speaker.path} holds numbers that are not finite: preprocess this speaker again")
        count += sample.shape[0] * sample.shape[2]
        total += sample.sum(axis=(0, 2))
        squares += np.square(sample).sum(axis=(0, 2))
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 1e-6))


# ---- batches ----------------------------------------------------------------------------------------------------

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
        Half of the speakers are played up to this share faster or slower (`play`): other voices; 0 for none.
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
            batch[i, j] = part if factor == 1 else play(part, factor, length, centres)
    return batch.reshape(n * m, length, N_MELS)


def play(frames, speed, length, centres):
    """Return log-mel frames (L, F) played at `speed`, as (length, F): formants and pitch move with it, as on a tape.

    L is at least length * speed; linear interpolation between frames and between channels, whose centres are in Hz.
    """
    times = np.arange(length) * speed
    channels = np.interp(centres / speed, centres, np.arange(len(centres)))
    return between(between(frames, times).T, channels).T


def between(rows, positions):
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


# ---- the protocol and its error rates ---------------------------------------------------------------------------

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
    rest = [utterance for utterance in speaker.utterances
            if utterance not in enrolment and (utterance.count or utterance.seconds)]
    other_sessions = [utterance for utterance in rest if utterance.session not in used]
    return enrolment, other_sessions if any(utterance.count for utterance in other_sessions) else rest


def unit_mean(vectors):
    """Return the mean (D,) of vectors (K, D), scaled to length 1."""
    mean = np.mean(vectors, axis=0)
    return mean / np.linalg.norm(mean)


def enrolment_scores(enrolments, probes):
    """Return the cosines (P, S) of probes (P, D) and the centroids of enrolments (S, m, D); -inf for a probe of NaN."""
    centroids = np.stack([unit_mean(own) for own in enrolments])
    return np.nan_to_num(probes @ centroids.T, nan=-np.inf)


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


class Trials:
    """Scored trials, sorted once, whose error rates are asked for under several weights.

    Parameters
    ----------
    scores : array-like, shape (n,)
        -inf for a probe without speech.
    labels : array-like of bool, shape (n,)
        True for a target trial.

    Attributes
    ----------
    thresholds : np.ndarray, shape (k,)
        The distinct scores, ascending, and +inf. A trial is accepted where score >= threshold.

    Raises
    ------
    InputError
        If a score is NaN, or target or non-target trials are missing.
    """

    def __init__(self, scores, labels):
        scores, labels = np.asarray(scores, float).ravel(), np.asarray(labels, bool).ravel()
        if np.isnan(scores).any():
            raise InputError(f"{np.isnan(scores).sum()} of {len(scores)} scores are NaN: there is no error rate")
        if not labels.any() or labels.all():
            raise InputError(f"{labels.sum()} target and {(~labels).sum()} non-target trials: error rates need both "
                             "kinds")
        self.labels, self.order = labels, np.argsort(scores, kind="stable")
        distinct, self.starts = np.unique(scores[self.order], return_index=True)
        self.thresholds = np.append(distinct, np.inf)
        targets, others = self.counts()
        kind = np.sign(targets) - np.sign(others)                    # of a distinct score: 1, -1, 0 if it has both
        self.runs = self.starts[np.append(True, (np.diff(kind) != 0) | (kind[1:] == 0))]

    def counts(self, weights=None, starts=None):
        """Return the weights of the target and of the non-target trials at each distinct score, (k - 1,) both.

        With `starts` = runs, at each stretch of scores that only targets have, or only non-targets.
        """
        starts = self.starts if starts is None else starts
        weights = np.ones(len(self.order)) if weights is None else weights[self.order]
        targets = np.add.reduceat(weights * self.labels[self.order], starts)
        return targets, np.add.reduceat(weights, starts) - targets

    def rates(self, weights=None):
        """Return FAR and FRR (k,) at the thresholds; `weights` (n,) of the trials are 1 by default."""
        below = [np.concatenate(([0.0], np.cumsum(part))) for part in self.counts(weights)]
        return (below[1][-1] - below[1]) / below[1][-1], below[0] / below[0][-1]


def error_rates(scores, labels, at=None):
    """Return thresholds, false-acceptance and false-rejection rates; a trial is accepted where score >= threshold.

    The thresholds are `at` (k,), or those of Trials, which also tells the parameters and what is raised.
    """
    trials = Trials(scores, labels)
    far, frr = trials.rates()
    if at is None:
        return trials.thresholds, far, frr
    index = np.searchsorted(trials.thresholds, at, side="left")
    return at, far[index], frr[index]


def equal_error_rate(scores, labels):
    """Return the equal error rate, (FAR + FRR) / 2 where |FAR - FRR| is least, and the lowest such threshold."""
    thresholds, far, frr = error_rates(scores, labels)
    best = equal(far, frr)
    return float(far[best] + frr[best]) / 2, float(thresholds[best])


def equal(far, frr):
    """Return the first index at which two rates differ least; rounded, so that equal differences tie."""
    return int(np.argmin(np.round(np.abs(far - frr), 12)))


def min_dcf(far, frr, p_target):
    """Return the least detection cost over the thresholds of `Trials.rates`, C_miss = C_fa = 1, normalised.

    Cost and norm as in NIST's speaker recognition evaluations: 1 is what rejecting or accepting all would cost.
    """
    return float(np.min(p_target * frr + (1 - p_target) * far)) / min(p_target, 1 - p_target)


def area_under_curve(far, frr):
    """Return the area under the ROC curve of `Trials.rates`: how often a target scores above a non-target."""
    return float(-np.trapezoid(1 - frr, far))


def miss_rate(far, frr, bound):
    """Return the FRR at the lowest threshold of `Trials.rates` that keeps FAR within `bound`."""
    return float(frr[np.argmax(far <= bound)])


def llr_costs(llrs, labels):
    """Return what each trial's log-likelihood ratio (n,), natural logarithm, costs: {measure: costs (n,)}.

    The mean over the target trials plus that over the non-target trials is the measure: "cllr" in bits (Brummer, du
    Preez 2006, eq. 8; 0 is perfect, 1 is what ratios of 1 cost, an infinitely wrong ratio costs infinity), and the
    normalised detection cost at the Bayes threshold, log(1 / p - 1), for each prior.
    """
    costs = {}
    for p in P_TARGETS:
        wrong = (llrs >= np.log(1 / p - 1)) != labels
        costs[f"act_dcf_{p}"] = wrong * np.where(labels, p, 1 - p) / min(p, 1 - p)
    return costs | {"cllr": np.logaddexp(0, np.where(labels, -llrs, llrs)) / np.log(4)}


def class_means(costs, labels, weights=None):
    """Return the weighted mean of costs (n,) over target trials plus that over non-target trials."""
    weights = np.ones(len(costs)) if weights is None else weights
    parts = weights * labels, weights * ~labels
    return float(sum(np.sum(part * np.where(part > 0, costs, 0)) / part.sum() for part in parts))  # 0 x infinity is 0


def cllr(llrs, labels):
    """Return the cost of log-likelihood ratios (n,) of trials, in bits; see llr_costs."""
    llrs, labels = np.asarray(llrs, float), np.asarray(labels, bool)
    return class_means(llr_costs(llrs, labels)["cllr"], labels)


def min_cllr(trials, weights=None):
    """Return the Cllr of `Trials` after the best monotonic calibration, by pool adjacent violators."""
    targets, others = trials.counts(weights, trials.runs)
    kept = targets + others > 0
    targets, others = targets[kept], others[kept]
    posterior = scipy.optimize.isotonic_regression(targets / (targets + others), weights=targets + others).x
    with np.errstate(divide="ignore"):
        llrs = np.log(posterior) - np.log1p(-posterior) - np.log(targets.sum() / others.sum())
    labels = np.arange(2 * len(llrs)) < len(llrs)
    costs = np.logaddexp(0, np.where(labels, -np.tile(llrs, 2), np.tile(llrs, 2))) / np.log(4)
    return class_means(costs, labels, np.concatenate((targets, others)))


def measures(trials, weights=None, costs=None):
    """Return all measures of scored trials.

    Parameters
    ----------
    trials : Trials
    weights : np.ndarray, shape (n,), optional
        How often each trial counts.
    costs : dict, optional
        llr_costs of their calibrated ratios; without them the measures of calibration are left out.

    Returns
    -------
    dict
        Name: figure. A rate at a bound f on the FAR needs 1 / f non-target trials, else it is None.
    """
    far, frr = trials.rates(weights)
    best, others = equal(far, frr), np.count_nonzero(~trials.labels)
    found = {"eer": float(far[best] + frr[best]) / 2}
    found.update({f"min_dcf_{p}": min_dcf(far, frr, p) for p in P_TARGETS})
    found["auc"] = area_under_curve(far, frr)
    found.update({f"frr_at_far_{bound}": miss_rate(far, frr, bound) if others * bound >= 1 else None
                  for bound in FALSE_ALARMS})
    if costs:
        found.update({name: class_means(cost, trials.labels, weights) for name, cost in costs.items()})
        found["min_cllr"] = min_cllr(trials, weights)
    return found


def bootstrap(trials, enrolled, probes, *, costs=None, resamples=1000, seed=0):
    """Return 95 % intervals of the measures, resampling speakers.

    Speakers are drawn with replacement; a target trial counts as often as its speaker was drawn, a non-target trial
    the product of both speakers' counts (as in the pigeonhole bootstrap; Owen 2007).

    Parameters
    ----------
    trials : Trials
    enrolled, probes : np.ndarray of int, shape (n,)
        The speakers of each trial, numbered from 0.
    costs : dict, optional
        As in `measures`.
    resamples, seed : int

    Returns
    -------
    dict
        Name: (low, high); None where a measure is None, and of fewer than three speakers, of whom only one draw holds
        both kinds of trials.
    """
    rng, n_speakers = np.random.default_rng(seed), int(max(enrolled.max(), probes.max())) + 1
    same, found = enrolled == probes, []
    if n_speakers < 3:
        return dict.fromkeys(measures(trials, None, costs))
    while len(found) < resamples:
        drawn = np.bincount(rng.integers(n_speakers, size=n_speakers), minlength=n_speakers).astype(float)
        weights = np.where(same, drawn[enrolled], drawn[enrolled] * drawn[probes])
        if all(part.sum() > 0 for part in trials.counts(weights)):       # else there is nothing to measure
            found.append(measures(trials, weights, costs))
    return {name: None if value is None else interval([one[name] for one in found]) for name, value in found[0].items()}


def interval(values):
    """Return the 2.5 and 97.5 percentiles of values, which may be infinite."""
    return float(np.percentile(values, 2.5, method="lower")), float(np.percentile(values, 97.5, method="higher"))


def calibrate(scores, labels):
    """Return scale and offset that turn scores into log-likelihood ratios: logistic regression, both classes alike.

    Trials without a finite score are left out; a mild penalty keeps the scale finite where the classes are separable.
    """
    from sklearn.linear_model import LogisticRegression

    scores, labels = np.asarray(scores, float).ravel(), np.asarray(labels, bool).ravel()
    heard = np.isfinite(scores)
    share = labels[heard].mean()
    weights = np.where(labels[heard], 0.5 / share, 0.5 / (1 - share))
    fitted = LogisticRegression(C=1000).fit(scores[heard, np.newaxis], labels[heard], weights)
    return float(fitted.coef_[0, 0]), float(fitted.intercept_[0])


def operating_points(scores, labels, false_alarms=FALSE_ALARMS):
    """Return thresholds with their error rates: at the EER, and the lowest that keeps FAR within each bound.

    A bound f needs at least 1 / f non-target trials and a threshold among the scores; where it has not, it is left out.

    Returns
    -------
    dict
        {"eer" or str(bound): {"threshold", "far", "frr"}}
    """
    thresholds, far, frr = error_rates(scores, labels)
    n_others = np.size(labels) - np.count_nonzero(labels)
    chosen = {"eer": equal(far, frr)}
    for bound in false_alarms:
        index = int(np.argmax(far <= bound))
        if n_others * bound >= 1 and np.isfinite(thresholds[index]):
            chosen[str(bound)] = index
    thresholds = np.nan_to_num(thresholds)     # +inf becomes the largest finite number, which JSON can hold
    return {name: {"threshold": float(thresholds[i]), "far": float(far[i]), "frr": float(frr[i])}
            for name, i in chosen.items()}


def describe_points(points):
    """Return a line with the thresholds of operating_points, and those that its trials could not show."""
    names = {"eer": "EER", **{str(bound): f"FAR {bound:.1%}" for bound in FALSE_ALARMS}}
    found = [f"{label} at {points[name]['threshold']:.4f}" for name, label in names.items() if name in points]
    absent = [label for name, label in names.items() if name not in points]
    line = "thresholds: " + (", ".join(found) or "none")
    return line + (f"; the trials show none for {', '.join(absent)}" if absent else "")


@dataclass(frozen=True)
class Scored:
    """n scored trials: their names, and the speakers of both sides, numbered from 0."""

    enrolled: list                          # n names of what was enrolled
    probes: list                            # n names of what was compared with it
    scores: np.ndarray                      # (n,) -inf for a probe without speech
    labels: np.ndarray                      # (n,) True for a target trial
    enrolled_speakers: np.ndarray           # (n,)
    probe_speakers: np.ndarray              # (n,)
    vectors: dict                           # {name: d-vector (D,)} of both sides, NaN without speech

    def normalised(self, cohort, k=200):
        """Return the scores (n,) after adaptive s-norm with a cohort's d-vectors (C, D): Matejka et al. 2017.

        Each side's k highest scores against the cohort give the mean and deviation that the score is measured by.
        """
        names = list(self.vectors)
        highest = np.sort(np.stack([self.vectors[name] for name in names]) @ cohort.T, axis=1)[:, -k:]    # (U, k)
        mean, deviation = highest.mean(axis=1), np.maximum(highest.std(axis=1), 1e-6)
        place = {name: number for number, name in enumerate(names)}
        sides = [np.array([place[name] for name in side]) for side in (self.enrolled, self.probes)]
        scores = sum((self.scores - mean[side]) / deviation[side] for side in sides) / 2
        return np.where(np.isfinite(self.scores), scores, self.scores)

    def measured(self, calibration=None, seed=0):
        """Return {measure: {"value", "low", "high"}} with 95 % intervals; `calibration` has a scale and an offset."""
        trials, costs = Trials(self.scores, self.labels), None
        if calibration:
            costs = llr_costs(calibration["scale"] * self.scores + calibration["offset"], self.labels)
        intervals = bootstrap(trials, self.enrolled_speakers, self.probe_speakers, costs=costs, seed=seed)
        return {name: {"value": value, "low": intervals[name] and intervals[name][0],
                       "high": intervals[name] and intervals[name][1]}
                for name, value in measures(trials, None, costs).items()}


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


def describe_rates(scores, labels, stored=None):
    """Return the lines on trials, EER, and error rates at the stored threshold."""
    labels, point = np.asarray(labels), operating_points(scores, labels)["eer"]
    lines = [f"{labels.sum()} target and {(~labels).sum()} non-target trials",
             f"EER : {(point['far'] + point['frr']) / 2:.4f} (thres:{point['threshold']:.4f}, FAR:{point['far']:.4f}, "
             f"FRR:{point['frr']:.4f})"]
    if stored:
        threshold = stored["points"]["eer"]["threshold"]
        _, far, frr = error_rates(scores, labels, at=np.array([threshold]))
        lines.append(f"at the threshold {threshold:.4f}, measured on {stored['source']}: FAR:{far[0]:.4f}, "
                     f"FRR:{frr[0]:.4f}")
    return "\n".join(lines)


class History:
    """history.csv: a row per stretch of training, rewritten whole; rows after `iteration` are forgotten."""

    FIELDS = ("iteration", "loss", "learning_rate", "utterances_per_second", "seconds", "valid_eer", "valid_loss")

    def __init__(self, path, iteration):
        self.path, self.rows = path, []
        if iteration and path.exists():
            with open(path, newline="", encoding="utf-8") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["iteration"]) <= iteration]

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
