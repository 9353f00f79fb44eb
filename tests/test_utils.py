"""Equations against plain NumPy loops and finite differences, error rates by hand and against scikit-learn."""
import numpy as np
import pytest

import audio
import configuration
import features
import measures
import protocol
import utils
from common import InputError, tf

# Similarity matrices [speaker][utterance][enrolled speaker] that Janghyun1230/Speaker_Verification published in its
# README (TI-SV, 60000 iterations), with what it reported: EER 0.25 at 0.53, and 0.15 at 0.50, where its grid began.


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def loop_similarity(embedded, w, b):
    """GE2E eq. 5, 8, 9 word by word."""
    n, m, _ = embedded.shape
    matrix = np.empty((n, m, n))
    for j in range(n):
        for i in range(m):
            for k in range(n):
                members = [embedded[k, other] for other in range(m) if not (k == j and other == i)]
                centroid = sum(members) / len(members)
                cosine = embedded[j, i] @ centroid / np.linalg.norm(embedded[j, i]) / np.linalg.norm(centroid)
                matrix[j, i, k] = abs(w) * cosine + b
    return matrix


def loop_loss(matrix, kind):
    """GE2E eq. 6 (corrected: minus the target, plus the log of the sum) and eq. 7 word by word."""
    total = 0.0
    for j, speaker in enumerate(matrix):
        for row in speaker:
            if kind == "softmax":
                total += -row[j] + np.log(sum(np.exp(value) for value in row))
            else:
                probability = [1 / (1 + np.exp(-value)) for value in row]
                total += 1 - probability[j] + max(p for k, p in enumerate(probability) if k != j)
    return total


@pytest.fixture
def embedded():
    return unit(np.random.default_rng(0).standard_normal((4, 3, 5)))


@pytest.mark.parametrize("w", [10.0, -3.0])
def test_similarity_equals_a_double_loop(embedded, w):
    found = utils.similarity(tf.constant(embedded), w, -5.0).numpy()
    assert found.shape == (4, 3, 4)
    np.testing.assert_allclose(found, loop_similarity(embedded, w, -5.0), rtol=1e-12)


def test_similarity_to_enrolled_centroids_leaves_nothing_out():
    embedded = tf.constant([[[0.6, 0.8]], [[1.0, 0.0]]])
    found = utils.similarity(embedded, 2.0, 1.0, centroids=tf.constant([[5.0, 0.0], [0.0, 3.0]])).numpy()
    np.testing.assert_allclose(found, [[[2.2, 2.6]], [[3.0, 1.0]]], rtol=1e-6)


@pytest.mark.parametrize("kind", ["softmax", "contrast"])
def test_loss_equals_a_double_loop(embedded, kind):
    matrix = loop_similarity(embedded, 10.0, -5.0)
    np.testing.assert_allclose(utils.ge2e_loss(tf.constant(matrix), kind).numpy(), loop_loss(matrix, kind), rtol=1e-12)


def test_softmax_loss_survives_large_similarities():
    matrix = np.array([[[1000.0, 0.0]], [[1000.0, 0.0]]])  # the second utterance is 1000 on the wrong side
    assert utils.ge2e_loss(tf.constant(matrix), "softmax").numpy() == pytest.approx(1000.0)


def test_an_unknown_loss_is_refused():
    with pytest.raises(InputError, match="choose softmax or contrast"):
        utils.ge2e_loss(tf.zeros((2, 2, 2)), "triplet")


def loop_trials(embedded, w, b):
    """The logistic costs of all trials, one after the other."""
    def cost(similarity, own):
        return np.log(1 + np.exp(-similarity if own else similarity))

    n, m, _ = embedded.shape
    matrix, total = loop_similarity(embedded, w, b), 0.0
    for j in range(n):
        for i in range(m):
            for k in range(n):
                total += cost(matrix[j, i, k], j == k)
                others = [other for place, other in enumerate(embedded[k]) if (k, place) != (j, i)]
                total += sum(cost(abs(w) * embedded[j, i] @ other + b, j == k) for other in others) / len(others)
    return total


def trial_loss(embedded, w, b):
    return utils.trial_loss(utils.similarity(embedded, w, b), utils.pair_similarity(embedded, w, b))


@pytest.mark.parametrize("w", [10.0, -3.0])
def test_the_loss_of_trials_equals_a_double_loop(embedded, w):
    found = trial_loss(tf.constant(embedded), w, -5.0).numpy()
    np.testing.assert_allclose(found, loop_trials(embedded, w, -5.0), rtol=1e-12)
    both = utils.batch_loss(tf.constant(embedded), w, -5.0, "trials").numpy()
    assert both == pytest.approx(found + loop_loss(loop_similarity(embedded, w, -5.0), "softmax"), rel=1e-12)


def test_the_loss_of_a_teacher_equals_a_double_loop(embedded):
    ours = unit(embedded.reshape(12, 5))
    taught = [unit(np.random.default_rng(9).standard_normal((12, size))) for size in (7, 3)]
    pairs = [(i, j) for i in range(12) for j in range(12) if i != j]
    differences = {(i, j): ours[i] @ ours[j] - (taught[0][i] @ taught[0][j] + taught[1][i] @ taught[1][j]) / 2
                   for i, j in pairs}
    mean = sum(differences.values()) / len(pairs)
    expected = sum((difference - mean) ** 2 for difference in differences.values()) / 11
    found = utils.teacher_loss(tf.constant(ours), [tf.constant(vectors) for vectors in taught]).numpy()
    assert found == pytest.approx(utils.TEACHER_WEIGHT * expected, rel=1e-12)
    assert utils.teacher_loss(tf.constant(ours), [tf.constant(ours)]).numpy() == pytest.approx(0.0)


def test_the_loss_of_trials_survives_large_similarities():
    embedded = tf.constant([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])
    assert trial_loss(embedded, 2000.0, -1000.0).numpy() == pytest.approx(0.0)


@pytest.mark.parametrize("kind", ["softmax", "contrast", "trials"])
def test_gradients_equal_finite_differences(embedded, kind):
    flat = np.concatenate([embedded.ravel(), [1.5, -0.5]])

    def loss(values):
        vectors = tf.reshape(values[:-2], (4, 3, 5))
        return utils.batch_loss(vectors, values[-2], values[-1], kind)

    values = tf.constant(flat)
    with tf.GradientTape() as tape:
        tape.watch(values)
        result = loss(values)
    found = tape.gradient(result, values).numpy()
    steps = 1e-6 * np.eye(len(flat))
    # The vectors move off the sphere; what is compared treats them as the code does, without renormalising.
    expected = [(loss(tf.constant(flat + step)) - loss(tf.constant(flat - step))).numpy() / 2e-6 for step in steps]
    assert np.abs(found).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-7)


# ---- batches ----------------------------------------------------------------------------------------------------

def draw(folder, n, m, seed=0, *, weigh=False, **options):
    speakers, _ = features.load_features(folder)
    options = {"crop": (140, 180), "pools": utils.speaker_pools(speakers, n, m, weigh=weigh)} | options
    return utils.random_batch(speakers, n, m, rng=np.random.default_rng(seed), **options)


def test_a_batch_has_different_speakers_and_utterances(write_features):
    folder = write_features([[2, 2, 2, 2]] * 5)
    lengths = set()
    for seed in range(30):
        batch = draw(folder, 4, 3, seed)
        lengths.add(batch.shape[1])
        assert batch.shape == (12, batch.shape[1], 40)
        assert batch.dtype == np.float32
        speaker, row = np.divmod(batch[:, 0, 0] // 1000, 1000)     # each number tells speaker, row and frame
        assert len(set(speaker[::3])) == 4
        assert (speaker.reshape(4, 3) == speaker[::3, None]).all()
        assert all(len(set(rows // 2)) == 3 for rows in row.reshape(4, 3))
        assert (np.diff(batch, axis=1) == 1).all()                 # unbroken frames
    assert min(lengths) >= 140
    assert max(lengths) <= 180
    assert len(lengths) > 10


def test_a_speaker_with_one_recording_is_drawn_less_often(write_features):
    folder, drawn = write_features([[1, 1, 1, 1, 1]] * 3 + [[5]] * 3), []
    for seed in range(600):
        drawn += [int(number // 1e6) for number in draw(folder, 2, 4, seed, weigh=True)[::4, 0, 0]]
    assert len(drawn) == 1200
    # Speakers 0 to 2 weigh 4, the others 1: drawn first 12 / 15, drawn second 12 / 14 or 8 / 11.
    assert np.mean(np.array(drawn) < 3) == pytest.approx((12 / 15 + 12 / 15 * 8 / 11 + 3 / 15 * 12 / 14) / 2, abs=0.04)
    assert len({number for number in drawn if number >= 3}) == 3


def test_without_weights_all_speakers_are_drawn_alike(write_features):
    folder, drawn = write_features([[1] * 4] * 3 + [[1]] * 3), []
    for seed in range(300):
        drawn += [int(number // 1e6) for number in draw(folder, 2, 4, seed)[::4, 0, 0]]
    assert np.bincount(drawn, minlength=6) / 600 == pytest.approx(np.full(6, 1 / 6), abs=0.06)


def test_statistics_of_many_speakers_are_those_of_some(write_features, monkeypatch):
    """Of ten speakers, whose numbers differ by a million, three: the mean tells how many were read."""
    monkeypatch.setattr(utils, "STATISTICS_SPEAKERS", 3)
    speakers, _ = features.load_features(write_features([[1]] * 10))
    means = {round(utils.channel_statistics(speakers, np.random.default_rng(seed))[0][0] * 3e-6) for seed in range(40)}
    assert means <= set(range(3, 25))
    assert len(means) > 8


def test_crops_reach_both_ends_of_a_segment(write_features):
    folder = write_features([[4, 4]] * 2)
    frames = [draw(folder, 2, 2, seed, crop=(150, 150))[:, 0, 0] % 1000 for seed in range(100)]
    assert np.min(frames) == 0
    assert np.max(frames) == 30


@pytest.mark.parametrize(("counts", "m", "utterances", "rows"), [
    ([5], 4, 1, 4),        # one utterance: different segments of it
    ([2], 3, 1, 2),
    ([1], 3, 1, 1),        # one segment: again and again
    ([3, 3], 4, 2, 4),     # two utterances share the four
    ([2, 2, 2], 3, 3, 3),
])
def test_rows_repeat_only_where_they_must(counts, m, utterances, rows):
    firsts = np.cumsum([0, *counts])
    spoken = [features.Utterance(str(i), int(firsts[i]), count) for i, count in enumerate(counts)]
    for seed in range(20):
        drawn = utils.draw_rows(spoken, m, np.random.default_rng(seed))
        assert len(drawn) == m
        assert len(set(drawn)) == rows
        assert len({int(np.searchsorted(firsts, row, side="right")) for row in drawn}) == utterances


def test_enrolments_are_drawn_anew(write_features):
    speakers, _ = features.load_features(write_features([[1] * 8, [1] * 6]))
    draws = list(utils.redraw_enrolments(speakers, 4))
    assert draws[0] == speakers
    enrolling = [[frozenset(protocol.enrol_and_probe(speaker, 4)[0]) for speaker in drawn] for drawn in draws]
    for own, one, *others in zip(speakers, *draws, strict=True):
        assert all(set(other.voiced) == set(own.voiced) == set(one.voiced) for other in others)
    assert all(len(set(drawn)) > 2 for drawn in zip(*enrolling, strict=True))
    again = list(utils.redraw_enrolments(speakers, 4))
    assert again == draws                                                          # a run can be repeated


def test_half_of_the_crops_lose_a_band():
    batch = np.ones((2000, 3, 40), np.float32)
    utils.mask_bands(batch, 5, np.arange(40) + 100, np.random.default_rng(0))
    masked = batch != 1
    assert (masked == masked[:, :1]).all()                                     # the same channels in all frames
    widths = masked[:, 0].sum(axis=1)
    assert set(widths) == {0, 1, 2, 3, 4, 5}
    assert 0.45 < np.mean(widths > 0) < 0.55
    assert (np.diff(masked[:, 0].astype(int), axis=1) == 1).sum(axis=1).max() == 1   # one band
    assert (batch[masked] == np.broadcast_to(np.arange(40) + 100, batch.shape)[masked]).all()


def test_playing_faster_moves_time_and_frequency():
    centres = audio.mel_centres(16000)
    tone = np.zeros((200, 40), np.float32)
    tone[:, 10], tone[100:, :] = 1, tone[100:, :] + 5                          # a tone in channel 10, a step at 100
    played = utils.play_at_speed(tone, 1.25, 160, centres, (1.25, 1.25))
    assert played.shape == (160, 40)
    assert np.argmax(played[:, 0] > 2.5) == 80                                 # 100 / 1.25
    moved = np.interp(1.25 * centres[10], centres, np.arange(40))              # the channel at 1.25 times its frequency
    assert abs(np.argmax(played[0]) - moved) < 1
    np.testing.assert_array_equal(utils.play_at_speed(tone, 1.0, 160, centres, (1, 1)), tone[:160])


def test_low_and_high_frequencies_move_each_by_their_own_speed():
    centres = audio.mel_centres(16000)
    tones = np.zeros((200, 40), np.float32)
    tones[:, 10], tones[:, 35] = 1, 1
    played = utils.play_at_speed(tones, 1.0, 160, centres, (0.8, 1.2))[0]
    for tone, factor, found in ((10, 0.9, np.argmax(played[:20])), (35, 1.16, 20 + np.argmax(played[20:]))):
        assert centres[found - 1] < factor * centres[tone] < centres[found + 1]
        assert found != tone


def test_each_range_of_frequencies_moves_by_its_own_speed():
    centres = audio.mel_centres(16000)
    tones = np.zeros((200, 40), np.float32)
    tones[:, [13, 26]] = 1                                                     # where the second and third factor count
    played = utils.play_at_speed(tones, 1.0, 160, centres, (1.0, 0.8, 1.2, 1.0))[0]
    for tone, factor, found in ((13, 0.8, np.argmax(played[:20])), (26, 1.2, 20 + np.argmax(played[20:]))):
        assert abs(found - np.interp(factor * centres[tone], centres, np.arange(40))) < 1.5


@pytest.mark.parametrize(("bend", "different"), [(False, 1), (True, 5)])
def test_voices_bend_where_they_shall(bend, different):
    drawn = [utils.draw_speeds(0.2, np.random.default_rng(seed), bend) for seed in range(40)]
    assert {len(set(speeds)) for speeds in drawn} == {1, different}
    assert all(0.8 <= speeds[0] <= 1.2 for speeds in drawn)
    assert all(0.76 <= speed <= 1.24 for speeds in drawn for speed in speeds)


@pytest.mark.parametrize("one_speed", [False, True])
def test_three_of_five_voices_are_played_at_another_speed(write_features, one_speed):
    folder, paces = write_features([[2, 2, 2, 2]] * 8), []
    for seed in range(200 if one_speed else 40):
        batch = draw(folder, 8, 3, seed, crop=(140, 160), speed=0.1, one_speed=one_speed, centres=np.arange(1.0, 41))
        pace = np.diff(batch[:, :, 0].astype(float), axis=1).mean(axis=1).reshape(8, 3)  # frames of the file per frame
        own = pace[:1, :1] if one_speed else pace[:, :1]                                 # of the batch, of a speaker
        np.testing.assert_allclose(pace, own + np.zeros((8, 3)), atol=0.02)
        paces.extend(pace[:1 if one_speed else 8, 0])
    paces = np.array(paces)
    assert 0.3 < np.mean(np.abs(paces - 1) < 1e-4) < 0.5
    assert 0.89 < paces.min() < 0.91
    assert 1.09 < paces.max() < 1.11


def test_every_crop_has_an_equalizer_of_its_own():
    batch = np.zeros((4000, 3, 40), np.float32)
    utils.equalize(batch, 5, np.random.default_rng(0))
    assert (batch == batch[:, :1]).all()                                       # the same in all frames
    assert len(np.unique(batch[:, 0], axis=0)) == 4000
    waves = np.cos(np.pi * np.outer(np.arange(40) + 0.5, np.arange(4)) / 40)
    amplitudes, residue, *_ = np.linalg.lstsq(waves, batch[:, 0].T, rcond=None)
    assert residue.max() < 1e-6                                                # four cosines make it
    np.testing.assert_allclose(amplitudes.std(axis=1), 0.5, rtol=0.05)         # 5 dB are 0.5 in log10 of power


def test_batches_are_drawn_by_seed_and_number(write_features):
    folder = write_features([[2, 2]] * 4)
    assert (draw(folder, 3, 2, [7, 5]) == draw(folder, 3, 2, [7, 5])).all()
    assert not np.array_equal(draw(folder, 3, 2, [7, 5]), draw(folder, 3, 2, [7, 6]))


# ---- protocol and folders ---------------------------------------------------------------------------------------

def test_enrolment_and_probes_share_no_file_and_no_session():
    files = ["a/1", "a/2", "a/3", "b/1", "b/2"]
    speaker = features.Speaker("s", None, tuple(features.Utterance(file, i, 1, 2.0) for i, file in enumerate(files)))
    enrolment, probes = protocol.enrol_and_probe(speaker, 2)
    assert [utterance.file for utterance in enrolment] == ["b/1", "b/2"]
    assert [utterance.file for utterance in probes] == ["a/1", "a/2", "a/3"]


@pytest.mark.parametrize(("sizes", "m", "enrolled", "probed"), [
    ({"a": 2, "b": 6}, 5, {"b"}, {"a"}),                   # only b holds five
    ({"a": 6, "b": 9, "c": 2}, 5, {"a"}, {"b", "c"}),      # the smallest that holds five
    ({"a": 3, "b": 1, "c": 2}, 4, {"a", "c"}, {"b"}),      # none does: the largest first
    ({"a": 4, "b": 4}, 5, {"a", "b"}, {"b"}),              # none is left: mixed
])
def test_sessions_are_kept_apart_where_they_can_be(sizes, m, enrolled, probed):
    files = [f"{session}/{i}" for session, size in sizes.items() for i in range(size)]
    speaker = features.Speaker("s", None, tuple(features.Utterance(file, i, 1, 2.0) for i, file in enumerate(files)))
    enrolment, probes = protocol.enrol_and_probe(speaker, m)
    assert len(enrolment) == m
    assert {utterance.session for utterance in enrolment} == enrolled
    assert {utterance.session for utterance in probes} == probed
    assert not set(enrolment) & set(probes)


def test_one_session_is_split_by_file_and_silence_is_a_probe():
    counts = {"1": 1, "2": 0, "3": 1, "4": 1, "broken": 0}
    spoken = tuple(features.Utterance(file, 0, count, seconds=0.0 if file == "broken" else 2.0)
                   for file, count in counts.items())
    enrolment, probes = protocol.enrol_and_probe(features.Speaker("s", None, spoken), 2)
    assert [utterance.file for utterance in enrolment] == ["1", "3"]
    assert [utterance.file for utterance in probes] == ["2", "4"]              # what cannot be read is no trial


def test_a_session_without_speech_does_not_take_the_place_of_the_probes():
    utterances = [features.Utterance(f"a/{i}", i, 1, 2.0) for i in range(4)] + [features.Utterance("b/1", 4, 0, 0.3)]
    enrolment, probes = protocol.enrol_and_probe(features.Speaker("s", None, tuple(utterances)), 2)
    assert [utterance.file for utterance in enrolment] == ["a/0", "a/1"]
    assert [utterance.file for utterance in probes] == ["a/2", "a/3", "b/1"]


def test_validation_speakers_have_more_than_m_utterances(write_features):
    just_m, _ = features.load_features(write_features([[1, 1]] * 6, "just_m"))       # no probe would be left
    assert utils.split_validation(just_m, 2, ratio=0.5, rng=np.random.default_rng(0))[1] == []
    speakers, _ = features.load_features(write_features([[1, 1, 1]] * 6 + [[5]] * 4))
    training, validation = utils.split_validation(speakers, 2, ratio=0.5, rng=np.random.default_rng(0))
    assert len(validation) == 3
    assert {speaker.name for speaker in validation} <= {f"s{i}" for i in range(6)}
    assert not {speaker.name for speaker in validation} & {speaker.name for speaker in training}
    again = utils.split_validation(speakers, 2, ratio=0.5, rng=None, names=[speaker.name for speaker in validation])
    assert again == (training, validation)
    assert utils.split_validation(speakers, 2, ratio=0.2, rng=np.random.default_rng(0))[1] == []   # one is too few


def test_those_who_validated_before_must_be_able_to(write_features):
    """Before a step is taken, not at its first validation."""
    speakers, _ = features.load_features(write_features([[1, 1, 1]] * 6))
    with pytest.raises(InputError, match=r"s1\.npy has 3 utterances with speech, and validates .*: that takes 4"):
        utils.split_validation(speakers, 3, ratio=0.5, rng=None, names=["s1", "s2"])
    with pytest.raises(InputError, match="lacks zoe, who validates this run or --valid_as: bring it back, or begin"):
        utils.split_validation(speakers, 2, ratio=0.5, rng=None, names=["s1", "zoe"])


def test_flags_without_effect_are_noted(write_features):
    speakers, _ = features.load_features(write_features([[1, 1]] * 3))
    def notes(*argv, before=None):
        config = configuration.get_config(["--train", "--N", 2, "--M", 2, "--iteration", 80, *argv])
        return utils.course_notes(config, {"flags": {"iteration": before}} if before else {}, speakers)

    assert notes() == notes("--one_corpus", "False") == []
    assert "--copy_share does nothing" in notes("--copy_share", 0.9)[0]
    assert "--one_corpus does nothing" in notes("--one_corpus", "True")[0]
    assert notes("--warmup", 80) == ["--warmup takes 80 of 80 iterations: --lr is never reached"]
    cosine = ("--restore", "True", "--schedule", "cosine")
    assert "was to reach 0 after 40 iterations and now does after 80" in notes(*cosine, before=40)[0]
    assert notes(*cosine, before=80) == notes("--restore", "True", before=40) == []


def test_statistics_are_those_of_all_numbers(write_features):
    folder = write_features([[2], [1]])
    speakers, settings = features.load_features(folder)
    mean, deviation = utils.channel_statistics(speakers, np.random.default_rng(0))
    everything = np.concatenate([np.load(folder / f"s{i}.npy", allow_pickle=False) for i in (0, 1)]).astype(float)
    assert settings["sr"] == 8000
    np.testing.assert_allclose(mean, everything.mean(axis=(0, 2)))
    np.testing.assert_allclose(deviation, everything.std(axis=(0, 2)))


def test_not_finite_features_are_named(write_features):
    folder = write_features([[1], [1]])
    made_features = np.load(folder / "s1.npy", allow_pickle=False)
    made_features[0, 3, 4] = np.nan
    np.save(folder / "s1.npy", made_features, allow_pickle=False)
    with pytest.raises(InputError, match=r"s1\.npy holds numbers that are not finite"):
        utils.channel_statistics(features.load_features(folder)[0], np.random.default_rng(0))


def test_history_forgets_what_came_after_the_checkpoint(tmp_path):
    history = utils.History(tmp_path / "history.csv", 0)
    for iteration in (100, 200, 300):
        history.add(dict.fromkeys(history.FIELDS, 0.5) | {"iteration": iteration})
    again = utils.History(tmp_path / "history.csv", 250)
    assert [row["iteration"] for row in again.rows] == ["100", "200"]
    assert again.last["seconds"] == "0.5"


def test_the_loss_of_probes_by_hand():
    scores = np.array([[1.0, 0.0], [-1.0, 0.0], [-np.inf, -np.inf]])     # the last probe holds no speech
    evaluation = protocol.Evaluation(["a", "b"], [("a", "1"), ("b", "1"), ("b", "2")], scores,
                                  np.array([[1, 0], [0, 1], [0, 1]], bool), 2, 1.0, 1.0)
    assert evaluation.loss(-np.log(3)) == pytest.approx(-np.log(3 / 4))  # both posteriors are 3 to 1


def test_the_matrix_has_the_ancestors_form():
    scores = np.arange(12.0).reshape(4, 3)
    evaluation = protocol.Evaluation(["a", "b", "c"], [("a", "1"), ("a", "2"), ("b", "1"), ("c", "1")], scores,
                                  np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], bool), 2, 1.0, 1.0)
    assert evaluation.matrix(2).tolist() == [[[0, 1]], [[6, 7]]]
    assert evaluation.without_speech == 0
    assert evaluation.describe().startswith("[[[ 0.  1.  2.]]")
    text = measures.describe_rates(scores, evaluation.labels)
    assert "4 target and 8 non-target trials" in text
    assert "EER : " in text
    scored = evaluation.scored()
    assert list(zip(scored.enrolled, scored.probes, scored.scores, strict=True))[3:6] == [
        ("a", "a/2", 3.0), ("b", "a/2", 4.0), ("c", "a/2", 5.0)]
    assert ((scored.enrolled_speakers == scored.probe_speakers) == scored.labels).all()


def test_a_channel_that_never_changes_has_a_deviation_to_divide_by(write_features):
    speaker, = features.load_features(write_features([[2]]))[0]
    np.save(speaker.path, np.full((2, 40, 180), -6, np.float32), allow_pickle=False)
    mean, deviation = utils.channel_statistics([speaker], np.random.default_rng(0))
    np.testing.assert_allclose(mean, -6)
    np.testing.assert_allclose(deviation, 1e-3)


def test_crops_are_as_long_as_the_longest_and_the_shortest(write_features):
    folder = write_features([[2, 2]] * 2)
    assert {draw(folder, 2, 2, seed, crop=(150, 152)).shape[1] for seed in range(30)} == {150, 151, 152}


def test_a_speaker_with_many_recordings_weighs_no_more_than_m_of_them(write_features):
    folder, drawn = write_features([[1] * 30, [1] * 2]), []
    for seed in range(400):
        drawn.append(draw(folder, 1, 2, seed, weigh=True)[0, 0, 0] < 1e6)
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.1)


def test_a_band_may_lie_at_either_end():
    batch = np.ones((2000, 1, 40), np.float32)
    utils.mask_bands(batch, 5, np.zeros(40), np.random.default_rng(0))
    share = np.mean(batch[:, 0] == 0, axis=0)                                  # of the crops, for each channel
    assert share[0] == pytest.approx(0.0132, abs=0.008)                        # 0.5 x the mean of 1 / (41 - width)
    assert share[-1] == pytest.approx(0.0132, abs=0.008)


def test_a_validation_speaker_is_unseen_and_there(write_features):
    speakers, _ = features.load_features(write_features([[1, 1, 1]] * 6 + [[1, 1]] * 4))
    draws = [utils.split_validation(speakers, 2, ratio=0.5, rng=np.random.default_rng(seed), seen=("s0", "s1", "s2"))
             for seed in range(5)]
    assert all({speaker.name for speaker in validation} == {"s3", "s4", "s5"} for _, validation in draws)
    with pytest.raises(InputError, match="lacks s99, who validates this run or --valid_as"):
        utils.split_validation(speakers, 2, ratio=0.5, rng=None, names=["s0", "s99"])


def test_a_centroid_has_length_1():
    """Two enrolment vectors at right angles: their mean has length 0.71, and a probe along it scores 1."""
    probes = np.array([[0.5 ** 0.5, 0.5 ** 0.5], [1, 0], [np.nan, np.nan]])
    found = protocol.enrolment_scores(np.array([[[1.0, 0.0], [0.0, 1.0]]]), probes)
    assert found[:, 0].tolist() == pytest.approx([1, 0.5 ** 0.5, -np.inf])


def embed_by_name(speaker):
    """Return vectors by hand: at the angle in a speaker's name, in degrees, its fourth utterance 10 degrees further."""
    degrees = {utterance: int(speaker.name[1:]) + 10 * (utterance.first == 3) for utterance in speaker.voiced}
    angles = {utterance: np.radians(angle) for utterance, angle in degrees.items()}
    return {utterance: np.array([np.cos(angle), np.sin(angle)]) for utterance, angle in angles.items()}


def test_an_evaluation_by_hand():
    """Two speakers 60 degrees apart, 4 s a recording, half of it speech; to enrol 3 of b's mixes its two days."""
    files = {"a0": ["0", "1", "2", "3"], "b60": ["x/0", "x/1", "y/0", "y/1"]}
    speakers = [features.Speaker(name, None, tuple(features.Utterance(file, row, 1, 4.0, 2.0)
                                                   for row, file in enumerate(own))) for name, own in files.items()]
    found = protocol.evaluate(embed_by_name, speakers, 3)
    assert found.probes == [("a0", "3"), ("b60", "y/1")]
    np.testing.assert_allclose(found.scores, np.cos(np.radians([[10, 50], [70, 10]])))
    assert found.labels.tolist() == [[True, False], [False, True]]
    np.testing.assert_allclose(found.probe_vectors, np.cos(np.radians([[10, 80], [70, 20]])))
    assert (found.eer, found.embedded_seconds) == (0, 16.0)
    assert found.notes == ["1 speakers have too few utterances in separate sessions: theirs are mixed"]
    parted = protocol.evaluate(embed_by_name, speakers, 2)
    assert [file for _, file in parted.probes] == ["2", "3", "y/0", "y/1"]
    assert parted.notes == []


def test_speech_against_time_is_told():
    evaluation = protocol.Evaluation(["a", "b"], [("a", "1"), ("b", "1"), ("b", "2")],
                                  np.array([[0.9, 0.1], [-np.inf, 0.8], [-np.inf, -np.inf]]),
                                  np.array([[1, 0], [0, 1], [0, 1]], bool), 1, 120.0, 0.5)
    assert evaluation.describe().splitlines()[-3:] == [
        "2 speakers, each enrolled with 1 utterances", "1 of 3 probes without speech, scored below all others",
        "embedding: 240 x real time"]


def test_a_centroid_that_is_scored_is_the_enrolled_one():
    vectors = np.array([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [-1.0, 0.0]]])
    evaluation = protocol.Evaluation(["a", "b"], [("a", "1"), ("b", "1")], np.array([[0.7, -0.7], [0.1, 0.9]]),
                                  np.eye(2, dtype=bool), 2, 1.0, 1.0, [], vectors, np.array([[0.6, 0.8], [0.0, 1.0]]))
    found = {name: vector.tolist() for name, vector in evaluation.scored().vectors.items()}
    assert found == {"a": pytest.approx([0.5 ** 0.5] * 2), "b": [-1, 0], "a/1": [0.6, 0.8], "b/1": [0, 1]}


def test_what_a_reader_of_the_figures_must_know_is_noted(write_features):
    speakers, _ = features.load_features(write_features([[1, 1], [1, 1]]))
    notes = protocol.provenance_notes({"training": ["s0", "x"], "validation": ["s1"]}, speakers, ["s2"])
    assert notes[0].startswith("2 of 2 speakers carry names of speakers that the model was trained or validated on")
    assert notes[1] == "1 speakers without any speech are left out: s2"
    assert protocol.provenance_notes({}, speakers, ["s2"]) == notes[1:]


def test_the_speakers_of_a_test_are_drawn_in_their_order(write_features):
    folder = write_features([[1, 1]] * 6)
    argv = ["--test_path", str(folder), "--speaker_number"]
    drawn = []
    for seed in range(6):
        config = configuration.get_config([*argv, "3", "--seed", str(seed)])
        speakers, notes = protocol.speakers_to_test(config, {"flags": {"sr": 8000}})
        drawn.append(tuple(speaker.name for speaker in speakers))
        assert notes == []
    assert drawn == [tuple(sorted(names)) for names in drawn]
    assert len(set(drawn)) > 2
    assert len(protocol.speakers_to_test(configuration.get_config([*argv, "6"]), {"flags": {"sr": 8000}})[0]) == 6
    with pytest.raises(InputError, match=r"--speaker_number is 7: .* has 6 speakers"):
        protocol.speakers_to_test(configuration.get_config([*argv, "7"]), {"flags": {"sr": 8000}})


def test_history_keeps_the_row_of_the_checkpoint(tmp_path):
    history = utils.History(tmp_path / "history.csv", 0)
    for iteration in (100, 200):
        history.add(dict.fromkeys(history.FIELDS, 0.5) | {"iteration": iteration})
    assert [row["iteration"] for row in utils.History(tmp_path / "history.csv", 200).rows] == ["100", "200"]
    assert utils.History(tmp_path / "history.csv", 0).last["seconds"] == 0


def test_what_breaks_in_a_graph_says_how_to_go_on(tmp_path):
    """With --restore True where there is a checkpoint; else by the same command again."""
    config = configuration.get_config(["--model_path", str(tmp_path)])
    for again in ("run it again", "go on with --restore True"):
        with pytest.raises(InputError, match=f"^training stopped; {again}: a.npy is gone$"), (
                utils.graph_errors_named(config)):
            raise tf.errors.UnknownError(None, None, "{{function_node x}} common.InputError: a.npy is gone\nTraceback")
        with pytest.raises(InputError, match=r"not enough memory .*: lower --speaker_number"), (
                utils.graph_errors_named(config)):
            raise tf.errors.UnknownError(None, None, "{{function_node x}} MemoryError: Unable to allocate 33.7 GiB")
        (tmp_path / "Check_Point").mkdir(exist_ok=True)
        (tmp_path / "Check_Point" / "model.ckpt-1.index").touch()
