"""Measures of scored trials against plain loops, scikit-learn and hand-made cases."""
import json
import pathlib

import numpy as np
import pytest
import scipy.optimize
import sklearn.isotonic
import sklearn.metrics

import measures
from common import InputError


def draw(n=400, ties=1, seed=0):
    """Return overlapping scores with ties, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.3
    return np.round(rng.standard_normal(n) + 1.5 * labels, ties), labels


def loop_min_dcf(scores, labels, p):
    """Accept from each score on, and none; count misses and false alarms one by one."""
    costs = []
    for threshold in [*scores, np.inf]:
        misses = sum(score < threshold for score in scores[labels]) / sum(labels)
        alarms = sum(score >= threshold for score in scores[~labels]) / sum(~labels)
        costs.append((p * misses + (1 - p) * alarms) / min(p, 1 - p))
    return min(costs)


def loop_cllr(llrs, labels):
    """Brummer and du Preez's definition, a trial at a time."""
    targets = [np.log2(1 + np.exp(-llr)) for llr, label in zip(llrs, labels, strict=True) if label]
    others = [np.log2(1 + np.exp(llr)) for llr, label in zip(llrs, labels, strict=True) if not label]
    return (sum(targets) / len(targets) + sum(others) / len(others)) / 2


def test_detection_cost_and_area_equal_others():
    scores, labels = draw()
    far, frr = measures.Trials(scores, labels).rates()
    for p in (0.01, 0.05, 0.5, 0.9):
        assert measures.min_dcf(far, frr, p) == pytest.approx(loop_min_dcf(scores, labels, p))
    assert measures.area_under_curve(far, frr) == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores))
    fpr, tpr, _ = sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False)
    for bound in (0.01, 0.1):
        assert measures.miss_rate(far, frr, bound) == pytest.approx(1 - tpr[fpr <= bound].max())


def test_cllr_equals_a_loop_and_its_least_scikit_learns_isotonic_regression():
    scores, labels = draw()
    assert measures.cllr(3 * scores - 2, labels) == pytest.approx(loop_cllr(3 * scores - 2, labels))
    posterior = sklearn.isotonic.IsotonicRegression().fit_transform(scores, labels)
    with np.errstate(divide="ignore"):
        llrs = np.log(posterior / (1 - posterior)) - np.log(labels.sum() / (~labels).sum())
    assert measures.min_cllr(measures.Trials(scores, labels)) == pytest.approx(loop_cllr(llrs, labels))
    assert loop_cllr(llrs, labels) < measures.cllr(1.5 * scores - 1, labels) < 1


@pytest.mark.parametrize(("llrs", "labels", "expected"), [
    ([0, 0], [1, 0], 1.0), ([np.log(3), -np.log(3)], [1, 0], np.log2(4 / 3)), ([np.inf, -np.inf], [1, 0], 0.0),
    ([-np.inf, 0], [1, 0], np.inf)])
def test_cllr_by_hand(llrs, labels, expected):
    assert measures.cllr(llrs, labels) == pytest.approx(expected)


def test_costs_at_the_bayes_threshold_by_hand():
    """At p = 0.01 a trial is accepted from log 99 = 4.6 on: one of two targets missed, one of four others accepted."""
    llrs, labels = np.array([5.0, 4.0, 4.7, 1.0, -2.0, -9.0]), np.array([1, 1, 0, 0, 0, 0], bool)
    found = measures.all_measures(measures.Trials(llrs, labels), None, measures.Trials(llrs, labels))
    assert found["act_dcf_0.01"] == pytest.approx((0.01 * 0.5 + 0.99 * 0.25) / 0.01)
    assert found["act_dcf_0.05"] == pytest.approx(0.95 * 0.25 / 0.05)       # from 2.9 on: none missed, one accepted
    assert found["frr_at_far_0.01"] is None                                 # four non-target trials cannot show it
    assert found["cllr"] == pytest.approx(loop_cllr(llrs, labels))


@pytest.mark.parametrize(("scores", "labels", "expected"), [
    ([1, 2, 3, 4], [0, 0, 1, 1], {"eer": 0, "auc": 1, "min_dcf_0.01": 0, "min_cllr": 0}),               # perfect
    ([4, 3, 2, 1], [0, 0, 1, 1], {"eer": 1, "auc": 0, "min_dcf_0.01": 1, "min_cllr": 1}),               # inverted
    ([7, 7, 7, 7], [0, 0, 1, 1], {"eer": 0.5, "auc": 0.5, "min_dcf_0.01": 1, "min_cllr": 1}),           # all equal
    ([1, 2, 3], [0, 0, 1], {"eer": 0, "auc": 1, "min_dcf_0.05": 0, "min_cllr": 0}),                     # one target
    ([1, 2, 2, 3], [0, 0, 1, 1], {"eer": 0.25, "auc": 0.875, "min_dcf_0.05": 0.5})])                    # a tie
def test_degenerate_cases_have_an_answer(scores, labels, expected):
    found = measures.all_measures(measures.Trials(scores, labels))
    found["min_cllr"] = measures.min_cllr(measures.Trials(scores, labels))
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_weights_are_repetitions():
    scores, labels = draw(200)
    weights = np.random.default_rng(1).integers(0, 4, 200)
    llrs = 2 * scores - 1
    weighted = measures.all_measures(measures.Trials(scores, labels), weights.astype(float),
                                     measures.Trials(llrs, labels))
    again = [np.repeat(values, weights) for values in (scores, labels, llrs)]
    repeated = measures.all_measures(measures.Trials(*again[:2]), None, measures.Trials(again[2], again[1]))
    assert len(weighted) == 11
    assert weighted == pytest.approx(repeated)


def test_the_bootstrap_resamples_speakers(monkeypatch):
    """Drawn 0, 1, ..., 5, each speaker counts once; drawn 0 and 1 alone, only their trials count, repeatedly."""
    rng = np.random.default_rng(0)
    enrolled, probes = (part.ravel() for part in np.indices((6, 6)))
    scores, labels = rng.standard_normal(36) + (enrolled == probes), enrolled == probes
    trials = measures.Trials(scores, labels)

    class Draws:
        def __init__(self, drawn):
            self.drawn = drawn

        def integers(self, high, size):
            assert high == size == 6
            return np.array(self.drawn)

    for drawn in (range(6), [0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 2], [2, 3, 3, 4, 4, 4]):
        monkeypatch.setattr(np.random, "default_rng", lambda seed, drawn=drawn: Draws(drawn))
        counts = np.bincount(list(drawn), minlength=6)
        repeats = [counts[i] if i == j else counts[i] * counts[j] for i, j in zip(enrolled, probes, strict=True)]
        expected = measures.all_measures(measures.Trials(np.repeat(scores, repeats), np.repeat(labels, repeats)))
        found = measures.bootstrap(trials, enrolled, probes, resamples=3)
        assert found["eer"] == pytest.approx((expected["eer"], expected["eer"]))
        assert found["auc"] == pytest.approx((expected["auc"], expected["auc"]))
        assert found["frr_at_far_0.01"] is None


def test_two_speakers_have_no_interval():
    """Only the draw of both holds target and non-target trials: it would tell a width of zero."""
    speakers = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    trials = measures.Trials([0.9, 0.1, 0.2, 0.8], [True, False, False, True])
    assert set(measures.bootstrap(trials, *speakers).values()) == {None}


def test_the_interval_narrows_with_more_speakers():
    widths = []
    for n in (10, 60):
        rng = np.random.default_rng(0)
        enrolled, probes = (part.ravel() for part in np.indices((n, n)))
        own = rng.standard_normal(n)                              # some speakers are easier than others
        scores = rng.standard_normal(n * n) + (enrolled == probes) * (3 + own[enrolled])
        trials = measures.Trials(scores, enrolled == probes)
        low, high = measures.bootstrap(trials, enrolled, probes, resamples=200)["auc"]
        assert low < measures.all_measures(trials)["auc"] < high
        widths.append(high - low)
    assert widths[1] < 0.6 * widths[0]


def line_of(calibration):
    """Return scale and offset of a calibration that takes nothing into account."""
    (scale,), (offset,) = calibration.scale, calibration.offset
    return scale, offset


def test_calibration_finds_the_ratio_of_two_gaussians():
    """Scores of N(0.5, 0.2) and N(0, 0.2) have the ratio (0.5 x - 0.125) / 0.04, whatever their shares."""
    rng = np.random.default_rng(0)
    labels = rng.random(40000) < 0.05
    scores = 0.2 * rng.standard_normal(40000) + 0.5 * labels
    scores[:10] = -np.inf
    assert line_of(measures.calibrate(scores, labels)) == pytest.approx((12.5, -3.125), rel=0.05)
    scale, offset = line_of(measures.calibrate([0.9, 0.8, 0.1, 0.0], [True, True, False, False]))       # separable
    assert 0 < scale < 100
    assert -offset / scale == pytest.approx(0.45, abs=0.01)


def test_a_score_file_measured_by_others():
    """scores.txt: Cllr and its least by lir 1.3.1 (cllr, cllr_min of 12 s - 4), the others from scikit-learn's ROC."""
    lines = [line.split() for line in (pathlib.Path(__file__).parent / "scores.txt").read_text().splitlines()]
    scores, labels = np.array([float(line[0]) for line in lines]), np.array([line[1] == "target" for line in lines])
    assert (len(scores), labels.sum()) == (400, 80)
    found = measures.all_measures(measures.Trials(scores, labels), None, measures.Trials(12 * scores - 4, labels))
    assert found["cllr"] == pytest.approx(0.332774796357662, abs=1e-12)
    assert found["min_cllr"] == pytest.approx(0.2778257748653687, abs=1e-12)
    fpr, tpr, _ = sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False)
    closest = np.argmin(np.abs(fpr - (1 - tpr)))
    assert found["eer"] == pytest.approx((fpr[closest] + 1 - tpr[closest]) / 2)
    assert found["min_dcf_0.05"] == pytest.approx(np.min(0.05 * (1 - tpr) + 0.95 * fpr) / 0.05)
    assert found["min_dcf_0.01"] == pytest.approx(np.min(0.01 * (1 - tpr) + 0.99 * fpr) / 0.01)
    assert found["auc"] == pytest.approx(sklearn.metrics.auc(fpr, tpr))


FOUR = np.array([
    [[.77, -.13, .7, .42], [-.15, -.19, -.11, -.24], [.77, -.2, .46, .35], [.34, -.06, .16, -.28],
     [.13, -.23, .03, -.4]],
    [[.25, .99, -.07, .7], [.24, .99, -.09, .69], [.22, .99, -.06, .69], [.31, 1., .02, .71], [.26, 1., -.05, .69]],
    [[.58, .0, .95, .38], [.27, -.14, .3, -.34], [.31, -.15, .34, -.32], [.53, -.04, .99, .26], [.51, -.09, .99, .18]],
    [[.59, .64, .62, .85], [.59, .49, .73, .75], [.37, .99, .01, .78], [.39, .95, .06, .85], [.33, .99, .01, .75]]])


TWO = FOUR[:2, :, :2]


@pytest.mark.parametrize(("matrix", "eer", "threshold", "far", "frr"), [
    (FOUR, 0.25, 0.58, 0.25, 0.25),     # its 0.53 accepts the same trials: it took score > 0.53, and 0.58 is the next
    (TWO, 0.20, 0.26, 0.20, 0.20)])
def test_the_published_matrices(matrix, eer, threshold, far, frr):
    labels = np.broadcast_to(np.eye(len(matrix), dtype=bool)[:, None], matrix.shape)
    assert measures.equal_error_rate(matrix, labels) == pytest.approx((eer, threshold))
    assert measures.operating_points(matrix, labels)["eer"] == pytest.approx(
        {"threshold": threshold, "far": far, "frr": frr})


def test_error_rates_by_hand():
    thresholds, far, frr = measures.error_rates([0.9, 0.4, 0.4, 0.1], [True, True, False, False])
    assert thresholds.tolist() == [0.1, 0.4, 0.9, np.inf]
    assert far.tolist() == [1.0, 0.5, 0.0, 0.0]
    assert frr.tolist() == [0.0, 0.0, 0.5, 1.0]
    at = measures.error_rates([0.9, 0.4, 0.4, 0.1], [True, True, False, False], at=np.array([0.4, 0.41, 1.0]))
    assert [rates.tolist() for rates in at[1:]] == [[0.5, 0.0, 0.0], [0.0, 0.5, 1.0]]         # 0.4 reaches 0.4


@pytest.mark.parametrize(("scores", "labels", "eer"), [
    ([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], 0.0),                    # perfect, below and above 0.5
    ([-0.1, -0.2, -0.8, -0.9], [1, 1, 0, 0], 0.0),                # perfect, where the ancestors' grid saw nothing
    ([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0], 1.0),                    # inverted
    ([0.5, 0.5, 0.5, 0.5], [1, 1, 0, 0], 0.5),                    # all equal: accept all or none
    ([0.3, 0.4, 0.2, 0.1], [1, 1, 0, 0], 0.0),
    ([-np.inf, 0.6, 0.5, 0.1], [1, 1, 0, 0], 0.5),                # a target probe without speech is lost
])
def test_equal_error_rates_by_hand(scores, labels, eer):
    assert measures.equal_error_rate(scores, labels)[0] == pytest.approx(eer)


def test_error_rates_agree_with_scikit_learn():
    rng = np.random.default_rng(1)
    labels = rng.random(500) < 0.2
    scores = np.round(rng.standard_normal(500) + labels, 1)        # rounded: many ties
    thresholds, far, frr = measures.error_rates(scores, labels)
    fpr, tpr, cuts = sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False)
    assert len(thresholds) == len(cuts) > 50
    np.testing.assert_allclose(thresholds, cuts[::-1])
    np.testing.assert_allclose(far, fpr[::-1], atol=1e-12)
    np.testing.assert_allclose(frr, 1 - tpr[::-1], atol=1e-12)


@pytest.mark.parametrize(("scores", "labels", "words"), [
    ([0.1, np.nan], [True, False], "1 of 2 scores are NaN"), ([0.1, 0.2], [True, True], "2 target and 0 non-target"),
    ([], [], "0 target and 0 non-target")])
def test_what_has_no_error_rate(scores, labels, words):
    with pytest.raises(InputError, match=words):
        measures.error_rates(scores, labels)


@pytest.mark.parametrize(("scores", "words"), [
    ([-np.inf] * 3, "0 target and 0 non-target trials hold speech"),
    ([0.1, 0.2, -np.inf], "2 target and 0 non-target trials hold speech: a calibration needs both kinds")])
def test_what_has_no_calibration(scores, words):
    with pytest.raises(InputError, match=words):
        measures.calibrate(scores, [True, True, False])


def test_what_is_known_of_a_trial_by_hand():
    """Shipped calibrations are weights of these: a usual trial has none of them, each step is about 1."""
    usual = {"probe_seconds": 4, "enrolled_seconds": 20, "enrolments": 5, "snr": 30, "bandwidth": 8000}
    np.testing.assert_array_equal(measures.term_matrix(usual), [1, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(measures.term_matrix({}), [1, 0, 0, 0, 0, 0])
    other = {"probe_seconds": 4 / np.e, "enrolled_seconds": 20 / np.e, "enrolments": 5 / np.e, "snr": 20,
             "bandwidth": 4000}
    np.testing.assert_allclose(measures.term_matrix(other), [1, -1, -1, -1, -1, -1])


def test_operating_points_by_hand():
    others = np.arange(200) / 1000                                 # 0.000 ... 0.199
    scores = np.concatenate([others, [0.1985, 0.5]])
    points = measures.operating_points(scores, np.arange(202) >= 200, false_alarms=(0.01, 0.001))
    assert points["0.01"] == pytest.approx({"threshold": 0.198, "far": 0.01, "frr": 0.0})   # two of 200 pass
    assert "0.001" not in points                                   # 200 non-target trials cannot show 1 in 1000
    assert points["eer"] == pytest.approx({"threshold": 0.1985, "far": 0.005, "frr": 0.0})


def test_a_bound_that_only_rejecting_all_keeps_is_left_out():
    points = measures.operating_points([0.9, *[0.99] * 100], [True, *[False] * 100], false_alarms=(0.01,))
    assert points.keys() == {"eer"}


def test_s_norm_equals_a_loop():
    rng = np.random.default_rng(0)
    vectors = {name: vector / np.linalg.norm(vector) for name, vector in zip("abcd", rng.standard_normal((4, 6)),
                                                                           strict=True)}
    cohort = rng.standard_normal((9, 6))
    pairs = [("a", "b"), ("a", "c"), ("d", "b")]
    raw = np.array([vectors[first] @ vectors[second] for first, second in pairs])
    zeros = np.zeros(3, int)
    scored = measures.Scored([p[0] for p in pairs], [p[1] for p in pairs], raw, np.array([True, False, False]), zeros,
                          zeros, vectors)
    for k in (4, 200):
        expected = []
        for (first, second), score in zip(pairs, raw, strict=True):
            sides = []
            for name in (first, second):
                highest = sorted((float(vectors[name] @ other) for other in cohort), reverse=True)[:k]
                sides.append((score - np.mean(highest)) / np.std(highest))
            expected.append(sum(sides) / 2)
        assert scored.s_norm(cohort, k) == pytest.approx(np.array(expected))


def test_a_resample_is_a_list_of_the_drawn_speakers_trials():
    """Written out trial by trial, whatever was drawn; speaker 5 is never enrolled."""
    rng = np.random.default_rng(7)
    enrolled, probes = (part.ravel() for part in np.indices((5, 6)).repeat(3, axis=2))
    scores, labels = rng.standard_normal(90) + (enrolled == probes), enrolled == probes
    own = [(i, i) for i in range(5)]
    for seed in range(4):
        drawn = np.random.default_rng(seed).integers(6, size=6).tolist()
        pairs = [pair for pair in own for speaker in drawn if speaker == pair[0]]
        pairs += [(first, second) for first in drawn for second in drawn if first != second]
        rows = [row for pair in pairs for row in range(90) if (enrolled[row], probes[row]) == pair]
        expected = measures.all_measures(measures.Trials(scores[rows], labels[rows]))
        found = measures.bootstrap(measures.Trials(scores, labels), enrolled, probes, resamples=1, seed=seed)
        for name in ("eer", "auc", "min_dcf_0.05"):
            assert found[name] == pytest.approx((expected[name], expected[name]))


def test_an_interval_leaves_out_a_fortieth_on_either_side():
    assert measures.percentile_interval(np.arange(1000)[::-1]) == (24, 975)   # of 0 to 999, outwards
    assert measures.percentile_interval([0.5, np.inf]) == (0.5, np.inf)


def test_error_rates_at_given_thresholds_by_hand():
    """A threshold between two scores accepts from the next one on; one that is a score accepts that score."""
    at = [-1, 0.1, 0.4, 0.41, 0.9, 1]
    thresholds, far, frr = measures.error_rates([0.9, 0.4, 0.4, 0.1], [True, True, False, False], at)
    assert thresholds == at
    assert far.tolist() == [1, 1, 0.5, 0, 0, 0]
    assert frr.tolist() == [0, 0, 0, 0.5, 0.5, 1]


def test_of_equal_differences_the_lowest_threshold_counts():
    """From 4 on FAR is 1 and FRR 1/3, from 5 on FAR 0 and FRR 2/3; as floats 1 - 1/3 is more than 2/3."""
    assert 1 - 1 / 3 > 2 / 3
    assert measures.equal_error_rate([4, 2, 5, 4], [1, 1, 1, 0]) == pytest.approx((2 / 3, 4))


def test_a_hundred_others_show_one_percent():
    points = measures.operating_points(np.arange(101) / 100, np.arange(101) == 100, false_alarms=(0.01,))
    assert points["0.01"] == pytest.approx({"threshold": 0.99, "far": 0.01, "frr": 0.0})
    points = measures.operating_points(np.arange(100) / 100, np.arange(100) == 99, false_alarms=(0.01,))
    assert points.keys() == {"eer"}


def test_operating_points_are_numbers_that_json_can_hold():
    points = measures.operating_points([-np.inf, -np.inf], [True, False])      # no probe holds speech
    assert json.loads(json.dumps(points, allow_nan=False)) == points


def test_a_ratio_at_the_bayes_threshold_is_accepted():
    llrs = np.log([99.0, 99.0])
    assert measures.llr_costs(llrs, np.array([True, False]))["act_dcf_0.01"].tolist() == pytest.approx([0, 99])


def test_calibration_is_the_least_of_its_cost():
    """Found by SciPy: the logistic loss, both classes alike, with a penalty of scale² / 2000 on as many trials."""
    scores, labels = draw(50)

    def cost(line):
        losses = np.logaddexp(0, np.where(labels, -1, 1) * (line[0] * scores + line[1]))
        return 25 * (losses[labels].mean() + losses[~labels].mean()) + line[0] ** 2 / 2000

    assert line_of(measures.calibrate(scores, labels)) == pytest.approx(
        scipy.optimize.minimize(cost, [1, 0]).x, abs=1e-3)
    scores = 0.1 * labels                                                       # separable: the penalty decides
    assert line_of(measures.calibrate(scores, labels))[0] == pytest.approx(
        scipy.optimize.minimize(cost, [1, 0], tol=1e-9).x[0], rel=0.01)


def test_s_norm_leaves_silence_at_the_bottom():
    vectors = {"a": np.array([1.0, 0.0]), "b": np.array([0.6, 0.8]), "mute": np.full(2, np.nan)}
    numbers = np.zeros(2, int)
    scored = measures.Scored(["a", "a"], ["b", "mute"], np.array([0.6, -np.inf]), np.array([True, False]), numbers,
                             numbers, vectors)
    found = scored.s_norm(np.array([[0.8, 0.6], [0.0, 1.0]]), 2)
    # The cohort's cosines are 0.8 and 0 with a, 0.96 and 0.8 with b: means 0.4 and 0.88, deviations 0.4 and 0.08.
    assert found.tolist() == pytest.approx([(0.2 / 0.4 - 0.28 / 0.08) / 2, -np.inf])
    assert np.isfinite(scored.s_norm(np.array([[0.8, 0.6]]), 2)[0])                # one voice has no deviation


def test_figures_are_those_of_calibrated_scores_and_intervals_those_of_the_seed():
    scores, labels = draw(90, ties=3)
    enrolled, probes = np.arange(90) % 9, np.where(labels, np.arange(90) % 9, (np.arange(90) + 1) % 9)
    scored = measures.Scored([], [], scores, labels, enrolled, probes, {})
    found = scored.figures(measures.Calibration((2.0,), (-1.5,)), seed=3)
    assert found["cllr"]["value"] == pytest.approx(loop_cllr(2 * scores - 1.5, labels))
    assert found["eer_llr"] == found["eer"]                                # a line without terms moves no order
    expected = measures.bootstrap(measures.Trials(scores, labels), enrolled, probes, seed=3)
    assert (found["auc"]["low"], found["auc"]["high"]) == expected["auc"]
    assert found["frr_at_far_0.001"] == {"value": None, "low": None, "high": None}
    assert "cllr" not in scored.figures()
    other = scored.figures(seed=4)["auc"]
    assert (other["low"], other["high"]) != expected["auc"]


def test_measures_of_ratios_follow_what_is_known_of_a_trial():
    """Probes of 2 s score 1 lower than those of 4 s: ratios that know it order the trials as scores without that."""
    scores, labels = draw(300, ties=3)
    short = np.random.default_rng(5).random(300) < 0.5
    known = {"probe_seconds": np.where(short, 2.0, 4.0)}
    place = list(measures.TERMS).index("probe_seconds")
    terms = measures.term_matrix(known)[:, 1 + place]
    offset = np.zeros(len(measures.TERMS) + 1)
    offset[1 + place] = -1 / (terms[~short][0] - terms[short][0])
    speakers = np.arange(300) % 30
    scored = measures.Scored([], [], scores - short, labels, speakers, np.where(labels, speakers, speakers + 1),
                             {}, known)
    found = scored.figures(measures.Calibration((1.0,), tuple(offset)))
    assert found["eer_llr"]["value"] == pytest.approx(measures.equal_error_rate(scores, labels)[0])
    assert found["min_cllr"]["value"] == pytest.approx(measures.min_cllr(measures.Trials(scores, labels)))
    assert found["eer_llr"]["value"] < found["eer"]["value"]
    assert found["eer_llr"]["low"] < found["eer_llr"]["value"] < found["eer_llr"]["high"]


def test_the_printed_rates_by_hand():
    """From 0.4 on one of four others and both targets are accepted, from 0.45 on one of either."""
    scores, labels = np.array([0.9, 0.4, 0.5, 0.35, 0.1, 0.0]), np.array([1, 1, 0, 0, 0, 0], bool)
    decided = "threshold 0.4500, measured on 5 people", scores >= 0.45
    assert measures.describe_rates(scores, labels, decided).splitlines() == [
        "2 target and 4 non-target trials", "EER : 0.1250 (thres:0.4000, FAR:0.2500, FRR:0.0000)",
        "at the threshold 0.4500, measured on 5 people: FAR:0.2500, FRR:0.5000"]
    assert measures.describe_rates(scores, labels).count("\n") == 1


def test_the_thresholds_that_trials_show_are_listed():
    points = {"eer": {"threshold": 0.5}, "0.01": {"threshold": 0.75}}
    assert measures.describe_points(points) == (
        "thresholds: EER at 0.5000, FAR 1.0% at 0.7500; the trials show none for FAR 0.1%")
    assert measures.describe_points(points | {"0.001": {"threshold": 1}}).endswith("FAR 0.1% at 1.0000")


# ---- calibration that knows conditions --------------------------------------------------------------------------

def draw_known(n=60000, seed=0):
    """Trials: with 4 s of speech N(0.6, 0.1) against N(0.1, 0.1), with 1 s N(0.4, 0.2) against N(0, 0.2)."""
    rng = np.random.default_rng(seed)
    labels, short = rng.random(n) < 0.5, rng.random(n) < 0.5
    mean = np.where(short, 0.4 * labels, 0.1 + 0.5 * labels)
    scores = mean + np.where(short, 0.2, 0.1) * rng.standard_normal(n)
    return measures.KnownTrials(scores, labels, {"probe_seconds": np.where(short, 1.0, 4.0)}, np.zeros(n, int),
                                ~short), short


def test_a_calibration_follows_what_is_known():
    """The ratios of two Gaussians: 50 s - 17.5 with 4 s of speech, 10 s - 2 with 1 s."""
    trials, short = draw_known()
    calibration = measures.calibrate_known(trials)
    for seconds, line in ((4.0, (50, -17.5)), (1.0, (10, -2))):
        assert np.concatenate(np.atleast_1d(*calibration.line({"probe_seconds": seconds}))).tolist() == pytest.approx(
            line, rel=0.1)
    ratios = calibration.ratio(trials.scores, trials.known)
    expected = np.where(short, 10 * trials.scores - 2, 50 * trials.scores - 17.5)
    assert measures.cllr(ratios, trials.labels) == pytest.approx(loop_cllr(expected, trials.labels), rel=0.01)
    assert measures.cllr(ratios, trials.labels) < 0.9 * measures.cllr(
        measures.calibrate(trials.scores, trials.labels).ratio(trials.scores, {}), trials.labels)


def test_a_score_and_its_ratio_belong_together():
    calibration = measures.calibrate_known(draw_known(2000)[0])
    for known in ({}, {"probe_seconds": 1.0}, {"snr": 3.0, "bandwidth": 3400.0, "enrolments": 1}):
        assert calibration.score(calibration.ratio(0.3, known), known) == pytest.approx(0.3)
        assert calibration.ratio(0.31, known) > calibration.ratio(0.3, known)
    assert calibration.ratio(-np.inf, {}) == -np.inf


def test_what_is_not_known_is_taken_as_usual():
    terms = measures.term_matrix({"probe_seconds": np.array([4.0, np.nan, 1.0]), "snr": None, "enrolments": 5})
    assert terms.shape == (3, 1 + len(measures.TERMS))
    assert (terms[:, 0] == 1).all()
    assert (terms[:2, 1:] == 0).all()
    assert terms[2, 1] == pytest.approx(np.log(1 / 4))
    usual = measures.term_matrix({"probe_seconds": 4, "enrolled_seconds": 20, "enrolments": 5, "snr": 30,
                                  "bandwidth": 8000})
    assert usual.tolist() == [1] + len(measures.TERMS) * [0]


def test_the_scale_stays_positive():
    """However far the terms reach, a higher score never has a lower ratio."""
    calibration = measures.Calibration((1.0, 5.0, 0, 0, 0, 0), (0.0, 0, 0, 0, 0, 0))
    assert calibration.ratio(1.0, {"probe_seconds": 0.5}) == pytest.approx(measures.LEAST_SCALE)


def test_corpora_weigh_the_same():
    """Three targets of one corpus and one of another, two other trials of either."""
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)
    trials = measures.KnownTrials(np.zeros(8), labels, {}, np.array([0, 0, 0, 1, 0, 0, 1, 1]), labels)
    assert measures.corpus_weights(trials).tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1, 0.5, 0.5, 0.5, 0.5])


def test_weighted_points_by_hand():
    """Scores 0.9 and 0.1 of targets, 0.5 and 0.2 of others; the other at 0.5 weighs 9 times as much."""
    scores, labels = [0.9, 0.1, 0.5, 0.2], np.array([1, 1, 0, 0], bool)
    points = measures.operating_points(scores, labels, (0.5,), weights=np.array([1, 1, 9, 1.0]))
    assert points["0.5"] == {"threshold": 0.9, "far": 0.0, "frr": 0.5}
    assert measures.operating_points(scores, labels, (0.5,))["0.5"] == {"threshold": 0.5, "far": 0.5, "frr": 0.5}


def test_an_interval_is_that_of_any_measure():
    """The mean weight of the trials, resampled by hand."""
    scores, labels = draw(90)
    enrolled, probes = np.arange(90) % 9, np.where(labels, np.arange(90) % 9, (np.arange(90) + 1) % 9)

    def measure(weights=None):
        return {"sum": float(90 if weights is None else weights.sum())}

    low, high = measures.bootstrap(measures.Trials(scores, labels), enrolled, probes, measure=measure)["sum"]
    assert low < 90 < high
    accepted = scores >= 0.5
    far, frr = measures.decision_rates(accepted, labels, np.ones(90))
    assert (far, frr) == (accepted[~labels].mean(), (~accepted[labels]).mean())


def test_scores_and_labels_belong_together():
    for scores, labels in (([0.1, 0.2, 0.3], [1, 0]), (np.ma.masked_less([0.1, -999.0], 0), [1, 0])):
        with pytest.raises(InputError, match="each trial has both"):
            measures.equal_error_rate(scores, labels)


def test_labels_may_be_0_and_1():
    rng = np.random.default_rng(0)
    labels = rng.random(200) < 0.3
    scores = rng.standard_normal(200) + 2 * labels
    numbers = labels.astype(int)
    assert measures.describe_rates(scores, numbers) == measures.describe_rates(scores, labels)
    assert measures.decision_rates(scores >= 1, numbers) == measures.decision_rates(scores >= 1, labels)
    costs = measures.llr_costs(scores, numbers)["cllr"]
    assert measures.class_means(costs, numbers) == measures.cllr(scores, labels)


def test_an_interval_without_width_is_none():
    """Nobody errs among these: that tells nothing of the error rate of others."""
    assert measures.with_interval(0.0, (0.0, 0.0)) == {"value": 0.0, "low": None, "high": None}
    assert measures.with_interval(0.1, None) == {"value": 0.1, "low": None, "high": None}
    assert measures.with_interval(0.1, (0.0, 0.2)) == {"value": 0.1, "low": 0.0, "high": 0.2}
