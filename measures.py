"""Scores and labels → error rates, costs, calibration, intervals.

    eer, threshold = measures.equal_error_rate(scores, labels)

A trial is accepted where its score reaches the threshold; a probe without speech scores -inf, below everything.
"""
import functools
from dataclasses import dataclass, field, replace

import numpy as np
import scipy  # loads its parts when they are used

from common import InputError

FALSE_ALARMS = (0.01, 0.001)     # bounds on the FAR at which thresholds are stored beside that of the EER
P_TARGETS = (0.01, 0.05)         # prior probabilities of a target trial in the detection costs
LARGEST_WEIGHT = 1e9             # of a calibration: scores are float32
LEAST_SCALE = 0.05               # of a trial's scale, as a part of that of a usual trial
CURVE = np.linspace(-1, 1, 401)  # thresholds at which a model stores its FAR and FRR


def unit_mean(vectors):
    """Return the mean (D,) of vectors (K, D), scaled to length 1."""
    mean = np.mean(vectors, axis=0)
    return mean / np.linalg.norm(mean)


# ---- error rates ------------------------------------------------------------------------------------------------

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
        If a score is NaN or masked, a label or a score is missing, or so are target or non-target trials.
    """

    def __init__(self, scores, labels):
        if np.ma.is_masked(scores) or np.size(scores) != np.size(labels):
            raise InputError(f"{np.size(scores)} scores and {np.size(labels)} labels, or some masked: each trial has "
                             "both; leave out those without")
        scores, labels = np.asarray(scores, float).ravel(), np.asarray(labels, bool).ravel()
        if np.isnan(scores).any():
            raise InputError(f"{np.isnan(scores).sum()} of {len(scores)} scores are NaN: there is no error rate")
        if not labels.any() or labels.all():
            raise InputError(f"{labels.sum()} target and {(~labels).sum()} non-target trials: error rates need both "
                             "kinds")
        self.scores, self.labels, self.order = scores, labels, np.argsort(scores, kind="stable")
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

    @functools.cached_property
    def costs(self):
        """What the scores cost, see llr_costs, where they are log-likelihood ratios."""
        return llr_costs(self.scores, self.labels)


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
    return equal_error(far, frr), float(thresholds[equal_error_index(far, frr)])


def equal_error_index(far, frr):
    """Return the first index at which two rates differ least; rounded, so that equal differences tie."""
    return int(np.argmin(np.round(np.abs(far - frr), 12)))


def equal_error(far, frr):
    """Return the equal error rate of `Trials.rates`."""
    best = equal_error_index(far, frr)
    return float(far[best] + frr[best]) / 2


def operating_points(scores, labels, false_alarms=FALSE_ALARMS, weights=None, n_others=None):
    """Return thresholds with their error rates: at the EER, and the lowest that keeps FAR within each bound.

    Each trial counts once, or as often as `weights` say. A bound f needs at least 1 / f non-target trials, of which
    there are `n_others` where several are one trial under other conditions, and a threshold among the scores; where it
    has not, it is left out.

    Returns
    -------
    dict
        {"eer" or str(bound): {"threshold", "far", "frr"}}
    """
    trials = Trials(scores, labels)
    thresholds, (far, frr) = trials.thresholds, trials.rates(weights)
    n_others = np.size(labels) - np.count_nonzero(labels) if n_others is None else n_others
    chosen = {"eer": equal_error_index(far, frr)}
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
    return line + (f"; the trials show none for {', '.join(absent)}" if found and absent else "")


def describe_rates(scores, labels, decided=None):
    """Return the lines on trials, EER, and error rates at a stored threshold.

    `decided` has a text on that threshold and what it accepts, (n,) bool.
    """
    labels, point = np.asarray(labels, bool), operating_points(scores, labels)["eer"]
    lines = [f"{labels.sum()} target and {(~labels).sum()} non-target trials",
             f"EER : {(point['far'] + point['frr']) / 2:.4f} (thres:{point['threshold']:.4f}, FAR:{point['far']:.4f}, "
             f"FRR:{point['frr']:.4f})"]
    if decided:
        text, accepted = decided
        far, frr = decision_rates(accepted, labels)
        lines.append(f"at the {text}: FAR:{far:.4f}, FRR:{frr:.4f}")
    return "\n".join(lines)


def decision_rates(accepted, labels, weights=None):
    """Return FAR and FRR of decisions (n,), True where a trial is accepted."""
    accepted, labels = np.asarray(accepted, bool), np.asarray(labels, bool)
    weights = np.ones(len(labels)) if weights is None else weights
    return (float(np.average(accepted[~labels], weights=weights[~labels])),
            float(np.average(~accepted[labels], weights=weights[labels])))


# ---- costs and calibration --------------------------------------------------------------------------------------

def min_dcf(far, frr, p_target):
    """Return the least detection cost over the thresholds of `Trials.rates`, C_miss = C_fa = 1, normalised.

    Cost and norm as in NIST's speaker recognition evaluations: 1 is what rejecting or accepting all would cost.
    """
    return float(np.min(p_target * frr + (1 - p_target) * far)) / min(p_target, 1 - p_target)


def area_under_curve(far, frr):
    """Return the area under the ROC curve of `Trials.rates`: how often a target scores above a non-target."""
    return float(-np.trapezoid(1 - frr, far)) + 0.0                            # no -0


def miss_rate(far, frr, bound):
    """Return the FRR at the lowest threshold of `Trials.rates` that keeps FAR within `bound`."""
    return float(frr[np.argmax(far <= bound)])


def llr_costs(llrs, labels):
    """Return what each trial's log-likelihood ratio (n,), natural logarithm, costs: {measure: costs (n,)}.

    The mean over the target trials plus that over the non-target trials is the measure: "cllr" in bits (Brummer, du
    Preez 2006, eq. 8; 0 is perfect, 1 is what ratios of 1 cost, an infinitely wrong ratio costs infinity), and the
    normalised detection cost at the Bayes threshold, log(1 / p - 1), for each prior.
    """
    costs, llrs, labels = {}, np.asarray(llrs, float), np.asarray(labels, bool)
    for p in P_TARGETS:
        wrong = (llrs >= np.log(1 / p - 1)) != labels
        costs[f"act_dcf_{p}"] = wrong * np.where(labels, p, 1 - p) / min(p, 1 - p)
    return costs | {"cllr": np.logaddexp(0, np.where(labels, -llrs, llrs)) / np.log(4)}


def class_means(costs, labels, weights=None):
    """Return the weighted mean of costs (n,) over target trials plus that over non-target trials."""
    weights, labels = np.ones(len(costs)) if weights is None else weights, np.asarray(labels, bool)
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


def calibrate(scores, labels):
    """Return the Calibration of scores alone; trials without a finite score are left out."""
    scores, labels = np.asarray(scores, float).ravel(), np.asarray(labels, bool).ravel()
    heard = np.isfinite(scores)
    weights, offset = regress(scores[heard, np.newaxis], labels[heard], np.ones(heard.sum()))
    return Calibration(tuple(weights), (offset,))


def regress(inputs, labels, weights):
    """Return weights, a list, and offset of the log-likelihood ratio of inputs (n, k): logistic regression.

    Both classes count alike; a mild penalty keeps the weights finite where the classes are separable. InputError if
    one of them is missing.
    """
    from sklearn.linear_model import LogisticRegression

    labels = np.asarray(labels, bool)
    if not labels.any() or labels.all():
        raise InputError(f"{labels.sum()} target and {(~labels).sum()} non-target trials hold speech: a calibration "
                         "needs both kinds")
    halves = np.where(labels, 0.5 / weights[labels].sum(), 0.5 / weights[~labels].sum()) * weights * len(labels)
    fitted = LogisticRegression(C=1000, max_iter=1000).fit(inputs, labels, halves)
    return fitted.coef_[0].tolist(), float(fitted.intercept_[0])


# ---- what is known of a trial -----------------------------------------------------------------------------------

@dataclass(frozen=True)
class KnownTrials:
    """n trials and what is known of each."""

    scores: np.ndarray                      # (n,)
    labels: np.ndarray                      # (n,) True for a target trial
    known: dict                             # {name: (n,)} as in TERMS, NaN where it is not known
    corpora: np.ndarray                     # (n,) numbers of the corpora they are of
    as_recorded: np.ndarray                 # (n,) True for those of whole probes without a condition, fully enrolled

    @classmethod
    def joined(cls, parts):
        """Return the trials of several KnownTrials."""
        return cls(np.concatenate([part.scores for part in parts]), np.concatenate([part.labels for part in parts]),
                   {name: np.concatenate([part.known[name] for part in parts]) for name in parts[0].known},
                   np.concatenate([part.corpora for part in parts]),
                   np.concatenate([part.as_recorded for part in parts]))

    def part(self, kept):
        """Return those of the trials that a mask (n,) keeps."""
        return KnownTrials(self.scores[kept], self.labels[kept],
                           {name: values[kept] for name, values in self.known.items()}, self.corpora[kept],
                           self.as_recorded[kept])


TERMS = {                                   # of what is known of a trial, each 0 for a usual one and about 1 apart
    "probe_seconds": lambda seconds: np.log(np.clip(seconds, 0.5, 10) / 4),
    "enrolled_seconds": lambda seconds: np.log(np.clip(seconds, 0.5, 60) / 20),
    "enrolments": lambda number: np.log(np.clip(number, 1, 10) / 5),
    "snr": lambda snr: (np.clip(snr, 0, 40) - 30) / 10,
    "bandwidth": lambda hertz: np.log2(np.clip(hertz, 2000, 8000) / 8000)}


def term_matrix(known):
    """Return the terms (n, 1 + k) of what is known of n trials, the first is 1; what is not known is 0."""
    columns = [np.nan_to_num(np.asarray(term(np.asarray(known.get(name, np.nan), float))))
               for name, term in TERMS.items()]
    return np.stack([np.ones(np.broadcast_shapes(*(column.shape for column in columns))),
                     *np.broadcast_arrays(*columns)], axis=-1)


@dataclass(frozen=True)
class Calibration:
    """What turns scores into log-likelihood ratios, natural logarithm, with what is known of the trials.

    The ratio is scale * score + offset, and both follow the terms of a trial: they are weights of `term_matrix`, of
    which the first alone, for its 1, is there where a calibration takes nothing into account.
    """

    scale: tuple
    offset: tuple

    @property
    def is_usable(self):
        """Whether a usual trial's ratio rises with its score, and all weights are finite and not too large."""
        return self.scale[0] > 0 and bool((np.abs([*self.scale, *self.offset]) <= LARGEST_WEIGHT).all())

    def line(self, known):
        """Return scale and offset of trials of which this is known; the scale stays positive."""
        terms = term_matrix(known)
        scale = terms[..., :len(self.scale)] @ np.array(self.scale)
        return np.maximum(scale, LEAST_SCALE * self.scale[0]), terms[..., :len(self.offset)] @ np.array(self.offset)

    def ratio(self, scores, known):
        """Return the log-likelihood ratios of scores; -inf stays."""
        scale, offset = self.line(known)
        return scale * np.asarray(scores, float) + offset

    def score(self, ratios, known):
        """Return the scores that have these log-likelihood ratios."""
        scale, offset = self.line(known)
        return (np.asarray(ratios, float) - offset) / scale


def corpus_weights(trials):
    """Return weights (n,) of KnownTrials: of each kind, target or not, every corpus weighs the same."""
    weights = np.zeros(len(trials.scores))
    for kind in (trials.labels, ~trials.labels):
        counts = np.bincount(trials.corpora[kind], minlength=trials.corpora.max() + 1)
        weights[kind] = 1 / counts[trials.corpora[kind]]
    return weights


def calibrate_known(trials):
    """Return the Calibration of KnownTrials: scale and offset that follow the terms, by logistic regression."""
    terms = term_matrix(trials.known)
    inputs = np.concatenate((trials.scores[:, np.newaxis] * terms, terms[:, 1:]), axis=1)
    weights, offset = regress(inputs, trials.labels, corpus_weights(trials))
    return Calibration(tuple(weights[:len(TERMS) + 1]), (offset, *weights[len(TERMS) + 1:]))


def pooled_costs(conditions, calibration):
    """Return Cllr and min Cllr of the trials of all conditions, (name, Scored) each; those without speech are left out.

    Their ratio tells what a calibration loses that must serve every condition. {} where both kinds of trials are not
    there.
    """
    ratios = [calibration.ratio(scored.scores, scored.known) for _, scored in conditions]
    ratios, labels = np.concatenate(ratios), np.concatenate([scored.labels for _, scored in conditions])
    heard = np.isfinite(ratios)
    if not labels[heard].any() or labels[heard].all():
        return {}
    return {"cllr": cllr(ratios[heard], labels[heard]),
            "min_cllr": min_cllr(Trials(ratios[heard], labels[heard]))}


# ---- all measures, with intervals -------------------------------------------------------------------------------

def all_measures(trials, weights=None, ratios=None):
    """Return all measures of scored trials.

    Parameters
    ----------
    trials : Trials
    weights : np.ndarray, shape (n,), optional
        How often each trial counts.
    ratios : Trials, optional
        The same with their log-likelihood ratios as scores; without them the measures of those are left out.

    Returns
    -------
    dict
        Name: figure. A rate at a bound f on the FAR needs 1 / f non-target trials, else it is None.
    """
    far, frr = trials.rates(weights)
    found, others = {"eer": equal_error(far, frr)}, np.count_nonzero(~trials.labels)
    found.update({f"min_dcf_{p}": min_dcf(far, frr, p) for p in P_TARGETS})
    found["auc"] = area_under_curve(far, frr)
    found.update({f"frr_at_far_{bound}": miss_rate(far, frr, bound) if others * bound >= 1 else None
                  for bound in FALSE_ALARMS})
    if ratios:
        found["eer_llr"] = equal_error(*ratios.rates(weights))
        found.update({name: class_means(cost, trials.labels, weights) for name, cost in ratios.costs.items()})
        found["min_cllr"] = min_cllr(ratios, weights)
    return found


def bootstrap(trials, enrolled, probes, *, ratios=None, measure=None, resamples=1000, seed=0):
    """Return 95 % intervals of the measures, resampling speakers.

    Speakers are drawn with replacement; a target trial counts as often as its speaker was drawn, a non-target trial
    the product of both speakers' counts (the vertex bootstrap; Snijders, Borgatti 1999).

    Parameters
    ----------
    trials : Trials
    enrolled, probes : np.ndarray of int, shape (n,)
        The speakers of each trial, numbered from 0.
    ratios : Trials, optional
        As in `all_measures`.
    measure : callable, optional
        Returns {name: figure} for weights (n,) of the trials; without it, all_measures.
    resamples, seed : int

    Returns
    -------
    dict
        Name: (low, high); None where a measure is None, and of fewer than three speakers, of whom only one draw holds
        both kinds of trials. Those of min_dcf and min_cllr, whose thresholds are fitted to each draw, lie too low for
        fewer than some 40 speakers.
    """
    rng, n_speakers = np.random.default_rng(seed), int(max(enrolled.max(), probes.max())) + 1
    same, found = enrolled == probes, []
    measure = measure or functools.partial(all_measures, trials, ratios=ratios)
    if n_speakers < 3:
        return dict.fromkeys(measure(None))
    while len(found) < resamples:
        drawn = np.bincount(rng.integers(n_speakers, size=n_speakers), minlength=n_speakers).astype(float)
        weights = np.where(same, drawn[enrolled], drawn[enrolled] * drawn[probes])
        if all(part.sum() > 0 for part in trials.counts(weights)):       # else there is nothing to measure
            found.append(measure(weights))
    return {name: None if value is None else percentile_interval([one[name] for one in found])
            for name, value in found[0].items()}


def percentile_interval(values):
    """Return the 2.5 and 97.5 percentiles of values, which may be infinite."""
    return float(np.percentile(values, 2.5, method="lower")), float(np.percentile(values, 97.5, method="higher"))


def with_interval(value, interval):
    """Return a figure, {"value", "low", "high"}; the interval is (low, high) or None.

    One without width is left out: where nobody errs in any draw, that tells nothing of others.
    """
    low, high = interval if interval and interval[0] < interval[1] else (None, None)
    return {"value": value, "low": low, "high": high}


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
    known: dict = field(default_factory=dict)           # {name: (n,)} what is known of each trial, see TERMS

    def s_norm(self, cohort, k):
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

    def part(self, kept):
        """Return those of the trials for which `kept` (n,) is True."""
        places = np.flatnonzero(kept)
        return replace(
            self, enrolled=[self.enrolled[place] for place in places], probes=[self.probes[place] for place in places],
            scores=self.scores[kept], labels=self.labels[kept], enrolled_speakers=self.enrolled_speakers[kept],
            probe_speakers=self.probe_speakers[kept], known={name: values[kept] for name, values in self.known.items()})

    def ratios(self, calibration):
        """Return the Trials of the log-likelihood ratios that a Calibration makes of the scores; None without one."""
        return Trials(calibration.ratio(self.scores, self.known), self.labels) if calibration else None

    def figures(self, calibration=None, seed=0):
        """Return {measure: {"value", "low", "high"}} with 95 % intervals; with a Calibration, those that need one."""
        trials, ratios = Trials(self.scores, self.labels), self.ratios(calibration)
        intervals = bootstrap(trials, self.enrolled_speakers, self.probe_speakers, ratios=ratios, seed=seed)
        return {name: with_interval(value, intervals[name])
                for name, value in all_measures(trials, None, ratios).items()}
