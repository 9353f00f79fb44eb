"""What a training is made of: batches, the GE2E equations, the validation speakers, the course.

The equations are numbered as in Wan, Wang, Papir, Lopez Moreno: Generalized End-to-End Loss for Speaker Verification
(ICASSP 2018, arXiv 1710.10467), eq. 6 as the authors' page corrects it. N speakers, M utterances per speaker,
T frames, F = 40 mel channels, D dimensions of the d-vector.
"""
import collections
import contextlib
import csv
import io
import math
import pathlib
import signal
from dataclasses import replace

import filelock
import numpy as np

import features
from audio import N_MELS
from common import InputError, tf, write_whole

STATISTICS_SPEAKERS = 500    # whose segments tell mean and deviation of all
OTHER_VOICES = 0.6           # share of a batch's speakers, or of the batches, that are played at another speed
PITCHES = 4                  # of a voice that bends, from its lowest to its highest frequencies
TEACHER_WEIGHT = 1000.0      # of a mean square of cosines: 0.003 of it cost an utterance as much as 3 of --loss
WAVER = 0.4                  # by which each leaves the line between two, as a share of the greatest change

# ---- batches ----------------------------------------------------------------------------------------------------

def channel_statistics(speakers, rng):
    """Return mean and standard deviation (F,) of each mel channel over up to 20 segments of up to 500 speakers."""
    if len(speakers) > STATISTICS_SPEAKERS:
        speakers = [speakers[index] for index in np.sort(rng.permutation(len(speakers))[:STATISTICS_SPEAKERS])]
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


def random_batch(speakers, n, m, *, crop, rng, pools=None, copy_share=0.0, speed=0.0, one_speed=False, bend=False,
                 centres=None):
    """Draw a training batch: n different speakers, m crops of each, all of one random length.

    Parameters
    ----------
    speakers : sequence of Speaker
    n, m : int
        N and M.
    crop : (int, int)
        Shortest and longest crop, in frames.
    rng : np.random.Generator
    pools : list, optional
        Of speaker_pools; without them all speakers are drawn alike.
    copy_share : float
        How often a crop is taken from a copy of its utterance under another condition, where there are copies.
    speed : float
        OTHER_VOICES of the speakers are played up to this share faster or slower (`play_at_speed`); 0 for none.
    one_speed, bend : bool
        OTHER_VOICES of the batches are, and all speakers of one at the same speed, which then tells none of them apart;
        tempo and four ranges of frequencies each have a speed of their own.
    centres : np.ndarray, shape (F,)
        Centre frequencies of the mel channels in Hz, which speed needs.

    Returns
    -------
    np.ndarray, float32, shape (N * M, T, F), grouped by speaker
    """
    length = int(rng.integers(crop[0], crop[1] + 1))
    batch = np.empty((n, m, length, N_MELS), np.float32)
    drawn = draw_speakers(pools or speaker_pools(speakers, n, m), n, rng)
    common = draw_speeds(speed, rng, bend) if one_speed else None
    for i, speaker in enumerate(speakers[number] for number in drawn):
        tempo, *pitch = common or draw_speeds(speed, rng, bend)
        segments, frames = speaker.read(draw_rows(speaker.voiced, m, rng, copy_share)), math.ceil(length * tempo)
        for j, segment in enumerate(segments):
            start = int(rng.integers(segment.shape[1] - frames + 1))
            part = segment[:, start:start + frames].T
            batch[i, j] = part if tempo == 1 else play_at_speed(part, tempo, length, centres, pitch)
    return batch.reshape(n * m, length, N_MELS)


def speaker_pools(speakers, n, m, *, weigh=False, one_corpus=False):
    """Return what batches are drawn from: pools, as a list of (chance, places (P,) of its speakers, their chances).

    The chances (P,) within a pool are None where all are drawn alike. With `weigh`, one is drawn as often as it has
    utterances, up to m: one with a single recording, whose crops share room, microphone and mood, 1 / m as often as one
    with m, where n is a small part of the pool. With `one_corpus`, each corpus is a pool, so that no channel or
    language tells the speakers of a batch apart; it is drawn as often as it has utterances, and corpora with fewer than
    n speakers count as one. Each text is a pool in any case. InputError where no pool holds n speakers.
    """
    groups = [(speaker.text, speaker.corpus if one_corpus else "") for speaker in speakers]
    sizes = collections.Counter(groups)
    groups = [group if sizes[group] >= n else (group[0], "") for group in groups]
    utterances = np.array([len(speaker.voiced) for speaker in speakers])
    members = [np.flatnonzero([own == group for own in groups]) for group in sorted(set(groups))]
    members = [places for places in members if len(places) >= n]
    if not members:
        raise InputError(f"--speaker_number is {n}: no text, all of whose speakers a batch is of, has so many: lower "
                         "it")
    chances = np.array([utterances[places].sum() for places in members]) / utterances[np.concatenate(members)].sum()
    weights = [np.minimum(utterances[places], m) if weigh else None for places in members]
    return [(chance, places, None if weight is None else weight / weight.sum())
            for chance, places, weight in zip(chances, members, weights, strict=True)]


def draw_speakers(pools, n, rng):
    """Draw n different speakers of one of the pools that speaker_pools returns; return their places (n,)."""
    number = int(rng.choice(len(pools), p=[chance for chance, *_ in pools])) if len(pools) > 1 else 0
    _, places, chances = pools[number]
    return places[rng.choice(len(places), n, replace=False, p=chances)]


def draw_speeds(speed, rng, bend=False):
    """Draw the tempo and the pitches, of low to high frequencies, at which a voice is played: often all are 1.

    In OTHER_VOICES of the cases they are one number up to `speed` more or less, or, with `bend`, a tempo and PITCHES
    numbers near a line between two such ones, at most a fifth beyond.
    """
    if not speed or rng.random() >= OTHER_VOICES:
        return 1.0, 1.0
    if not bend:
        return (1 + speed * rng.uniform(-1, 1),) * 2
    tempo, low, high = rng.uniform(-1, 1, 3)
    pitches = np.linspace(low, high, PITCHES) + WAVER * rng.uniform(-1, 1, PITCHES)
    return tuple(1 + speed * np.clip([tempo, *pitches], -1.2, 1.2))


def play_at_speed(frames, tempo, length, centres, pitch):
    """Return log-mel frames (L, F) played at another speed, as (length, F): formants and pitch move, as on a tape.

    `pitch` holds the factors of the lowest to the highest channel, at equal steps, which on a tape are the tempo. L is
    at least length * tempo; linear interpolation between frames, channels, whose centres are in Hz, and factors.
    """
    times, numbers = np.arange(length) * tempo, np.arange(len(centres))
    factors = np.interp(numbers, np.linspace(0, len(centres) - 1, len(pitch)), pitch)
    channels = np.interp(centres / factors, centres, numbers)
    return interpolate_rows(interpolate_rows(frames, times).T, channels).T


def interpolate_rows(rows, positions):
    """Return an array's rows at fractional positions, by linear interpolation."""
    first = positions.astype(int)
    share = (positions - first)[:, np.newaxis].astype(rows.dtype)
    return (1 - share) * rows[first] + share * rows[np.minimum(first + 1, len(rows) - 1)]


def draw_rows(utterances, m, rng, copy_share=0.0):
    """Draw m rows of a speaker's features: of different utterances, and of different rows, as far as there are.

    Each is of one of the utterance's copies with the probability `copy_share`, if it has any.
    """
    order = np.resize(rng.permutation(len(utterances)), m)
    rows = []
    for index, picks in zip(*np.unique(order, return_counts=True), strict=True):
        utterance = utterances[index]
        copies = [copy for copy in utterance.copies if copy.count] if copy_share else []
        copied = int(rng.binomial(picks, copy_share)) if copies else 0
        rows += different_rows([utterance], picks - copied, rng) + different_rows(copies, copied, rng)
    return rows


def different_rows(parts, number, rng):
    """Draw rows of several utterances or copies: each of theirs before one comes again."""
    if not number:
        return []
    rows = np.concatenate([np.arange(part.first, part.first + part.count) for part in parts])
    return np.resize(rng.permutation(rows), number).tolist()


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


def batch_loss(embedded, w, b, kind):
    """Return the loss of a batch's unit vectors (N, M, D), summed over its utterances.

    "softmax" and "contrast" are those of `ge2e_loss`; "trials" adds the costs of `trial_loss` to the first.
    """
    matrix = similarity(embedded, w, b)
    if kind != "trials":
        return ge2e_loss(matrix, kind)
    return ge2e_loss(matrix, "softmax") + trial_loss(matrix, pair_similarity(embedded, w, b))


def pair_similarity(embedded, w, b):
    """Return |w| cos(e_ji, e_kl) + b of unit vectors (N, M, D), shape (N, M, N, M): an enrolment with one utterance."""
    embedded = tf.convert_to_tensor(embedded)
    w, b = tf.abs(tf.cast(w, embedded.dtype)), tf.cast(b, embedded.dtype)
    return w * tf.einsum("jid,kld->jikl", embedded, embedded) + b


def trial_loss(similarity, pairs):
    """Return the logistic costs of a batch's trials, summed over its utterances.

    Eq. 6 asks which of N speakers an utterance is of; a verdict knows one threshold for all, which is -b / |w| here:
    the loss of Heigold, Moreno, Bengio, Shazeer: End-to-End Text-Dependent Speaker Verification (ICASSP 2016, arXiv
    1509.08062), -log sigmoid(s) of a target's similarity s, -log sigmoid(-s) of a non-target's. The trials are each
    utterance against the N centroids, and against every other utterance; its pairs with one speaker's count as one.

    Parameters
    ----------
    similarity : tensor, shape (N, M, N)
    pairs : tensor, shape (N, M, N, M)
        Of `pair_similarity`, M > 1.

    Returns
    -------
    scalar tensor
    """
    own, m = same_speaker(similarity), tf.shape(similarity)[1]
    itself = own[..., tf.newaxis] & tf.eye(m, dtype=tf.bool)[:, tf.newaxis]                  # j = k and i = l
    costs = tf.where(itself, tf.zeros((), pairs.dtype), logistic_costs(pairs, own[..., tf.newaxis]))
    numbers = tf.cast(tf.where(own, m - 1, m), pairs.dtype)                                  # of pairs, (N, 1, N)
    return tf.reduce_sum(logistic_costs(similarity, own) + tf.reduce_sum(costs, axis=-1) / numbers)


def logistic_costs(similarity, own):
    """Return -log sigmoid(s) of similarities s where the mask `own` is, -log sigmoid(-s) elsewhere."""
    return tf.nn.softplus(tf.where(own, -similarity, similarity))


def teacher_loss(embedded, taught):
    """Return TEACHER_WEIGHT times the mean square by which each utterance's cosines differ from its teachers', summed.

    Relational knowledge distillation (Park, Kim, Lu, Cho: CVPR 2019, arXiv 1904.05068), by the cosines of pairs, as in
    Tung, Mori (ICCV 2019, arXiv 1907.09682), instead of distances or the angles of triplets: a teacher's dimensions
    need not be the student's, and the teachers' mean is what they find together. Which cosines are alike on the whole
    is no difference: the threshold is --loss's affair.

    Parameters
    ----------
    embedded : tensor, shape (B, D)
        Unit vectors of B utterances, by the student.
    taught : list of tensors, shapes (B, D')
        The same, by each of the teachers.

    Returns
    -------
    scalar tensor
    """
    found = [tf.matmul(vectors, vectors, transpose_b=True) for vectors in taught]
    difference = tf.matmul(embedded, embedded, transpose_b=True) - tf.add_n(found) / len(found)
    others = tf.cast(tf.shape(embedded)[0] - 1, difference.dtype)
    mean = tf.reduce_sum(difference) / (others * (others + 1))          # its diagonal is 0
    centred = tf.linalg.set_diag(difference - mean, tf.zeros(tf.shape(embedded)[0], difference.dtype))
    return TEACHER_WEIGHT * tf.reduce_sum(tf.square(centred)) / others


# ---- the speakers of a run --------------------------------------------------------------------------------------

def split_validation(speakers, m, *, ratio, rng, names=None, seen=()):
    """Part training from validation speakers.

    Parameters
    ----------
    speakers : list of Speaker
    m : int
        Validation speakers are drawn from those with more than m utterances.
    ratio : float
        The share of them that is drawn from each corpus, as far as they are not `seen`; fewer than 2 would measure
        nothing, and none is drawn.
    rng : np.random.Generator
    names : list of str, optional
        The validation speakers, where an earlier run has drawn them. InputError where they are not there, or `seen`.
    seen : collection of str
        Speakers that the weights were trained on before: none of them can validate.

    Returns
    -------
    training, validation : lists of Speaker
    """
    if names is None:
        names = []
        few = {speaker.person for speaker in speakers if len(speaker.voiced) <= m}
        for corpus in sorted({speaker.corpus for speaker in speakers}):
            able = features.people(speaker for speaker in speakers if speaker.corpus == corpus)
            able = [name for name in able if name not in few]
            unseen = [name for name in able if name not in seen]
            number = min(round(ratio * len(able)), len(unseen))
            names += rng.choice(unseen, number, replace=False).tolist() if number >= 2 else []
    check_validators(speakers, m, set(names), seen)
    return ([speaker for speaker in speakers if speaker.person not in names],
            [speaker for speaker in speakers if speaker.person in names])


def check_validators(speakers, m, names, seen):
    """Raise InputError where one who is to validate was `seen`, is not there, or has no more than m utterances."""
    heard = names.intersection(seen)
    if heard:
        raise InputError(f"{min(heard)} cannot validate: the weights that this run begins with, or its teacher, were "
                         "trained on this speaker")
    missing = names - set(features.people(speakers))
    if missing:
        raise InputError(f"{speakers[0].path.parent} lacks {min(missing)}, who validates this run or --valid_as: bring "
                         "it back, or begin another run")
    few = [speaker for speaker in speakers if speaker.person in names and len(speaker.voiced) <= m]
    if few:
        raise InputError(f"{few[0].path} has {len(few[0].voiced)} utterances with speech, and validates this run or "
                         f"--valid_as: that takes {m + 1}; lower --utterance_number, bring them back, or begin another "
                         "run")


def redraw_enrolments(speakers, draws):
    """Yield the speakers as they are, then in other orders of their utterances, so that others enrol: `draws` lists."""
    yield speakers
    for draw in range(1, draws):
        rng = np.random.default_rng(draw)
        orders = [rng.permutation(len(speaker.utterances)) for speaker in speakers]
        yield [replace(speaker, utterances=tuple(speaker.utterances[place] for place in order))
               for speaker, order in zip(speakers, orders, strict=True)]


# ---- the course of training -------------------------------------------------------------------------------------

def build_optimizer(config):
    """Return the Keras optimizer of --optim with the learning rate of --schedule, after --warmup."""
    keras = tf.keras.optimizers
    rate = (keras.schedules.CosineDecay(config.lr, config.iteration) if config.schedule == "cosine" else
            keras.schedules.ExponentialDecay(config.lr, 10000, 0.5, staircase=True))
    if config.warmup:
        rate = warmed_up(rate, config.warmup)
    if config.optim == "adam":
        return keras.Adam(rate, beta_1=config.beta1, beta_2=config.beta2)
    return {"sgd": keras.SGD, "rmsprop": keras.RMSprop}[config.optim](rate)


def course_notes(config, stored, training):
    """Return notes on typed flags that a run on training speakers gains nothing from, or not what it seems to.

    `stored` is what the model holds that it goes on from or starts with.
    """
    before, notes = stored.get("flags", {}).get("iteration"), []
    if "copy_share" in config.given and not any(take.copies for speaker in training for take in speaker.utterances):
        notes.append("--copy_share does nothing: no training utterance has copies (data_preprocess.py --copies)")
    if "copies" in config.given:
        notes.append("--copies does nothing in training: data_preprocess.py makes them, --copy_share takes them")
    if "one_corpus" in config.given and config.one_corpus and len({speaker.corpus for speaker in training}) == 1:
        notes.append("all training speakers are of one corpus, so --one_corpus does nothing")
    if config.warmup >= config.iteration:
        notes.append(f"--warmup takes {config.warmup} of {config.iteration} iterations: --lr is never reached")
    if config.restore and config.schedule == "cosine" and config.iteration != before:
        notes.append(f"the learning rate was to reach 0 after {before} iterations and now does after "
                     f"{config.iteration}: that is another run than one that never stopped")
    return notes


@contextlib.contextmanager
def graceful_interrupt():
    """Yield a function that tells whether Ctrl-C or SIGTERM came since; the same again interrupts at once."""
    came, before = [], {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number, frame):
        came.append(number)
        signal.signal(number, before[number])

    try:
        for number in before:
            signal.signal(number, note)
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def warmed_up(rate, steps):
    """Return a learning rate schedule that rises to `rate`, another one, within the first steps."""
    class WarmUp(tf.keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return rate(step) * tf.minimum(1.0, (tf.cast(step, tf.float32) + 1) / steps)

    return WarmUp()


@contextlib.contextmanager
def graph_errors_named(config):
    """Raise what TensorFlow raises in training as InputError, which says how to go on; ours comes out of a graph."""
    try:
        yield
    except tf.errors.OpError as error:
        if "MemoryError" in error.message or isinstance(error, tf.errors.ResourceExhaustedError):
            raise InputError("there is not enough memory for such a batch and encoder: lower --speaker_number, "
                             "--utterance_number, --hidden or --proj") from error
        cause = error.message.splitlines()[0].rpartition("InputError: ")[2]
        others = ", a worker is gone, perhaps" if config.strategy == "multi_worker" else ""
        raise stopped_run(config, cause, others) from error


def stopped_run(config, cause, others=""):
    """Return the InputError of a run that cannot go on: with --restore True it can, where there is a checkpoint."""
    saved = any(pathlib.Path(config.model_path, "Check_Point").glob("*.index"))
    return InputError(f"training stopped{others}; {'go on with --restore True' if saved else 'run it again'}: {cause}")


@contextlib.contextmanager
def only_run(folder):
    """Hold the lock of a model folder, which it makes; InputError where another run trains there.

    The system opens the lock of a run that was killed.
    """
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(pathlib.Path(folder, ".lock"), timeout=0):
            yield
    except filelock.Timeout as error:
        raise InputError(f"--model_path is {folder}: another run trains there; wait for it, or name another folder"
                         ) from error


class History:
    """history.csv: a row per stretch of training, rewritten whole; rows after `iteration` are forgotten.

    Where it was deleted after its first row, at iteration `first` at the latest, it is begun anew.
    """

    FIELDS = ("iteration", "loss", "learning_rate", "utterances_per_second", "seconds", "valid_eer", "valid_loss",
              "valid_copies_eer")

    def __init__(self, path, iteration, first=math.inf):
        self.path, self.rows = path, []
        if iteration and path.exists():
            self.rows = [row for row in self.read(path) if int(row["iteration"]) <= iteration]
        self.begun = 0 if self.rows or iteration < first else iteration

    def read(self, path):
        """Return the rows of a history.csv; InputError where it is damaged."""
        try:
            with open(path, newline="", encoding="utf-8") as file:
                rows = [{name: row.get(name, "") if name == "valid_copies_eer" else row[name] for name in self.FIELDS}
                        for row in csv.DictReader(file)]
            for row in rows:
                numbers = [float(row[name]) for name in self.FIELDS if row[name] or not name.startswith("valid")]
                if int(row["iteration"]) < 0 or not all(map(math.isfinite, numbers)):
                    raise ValueError("a number is out of its range")
        except (ValueError, TypeError, LookupError, csv.Error) as error:
            raise InputError(f"{path} is damaged ({error}): delete it; --patience then counts anew") from error
        return rows

    def stalled(self):
        """Return how many validations there were since the one with the least loss."""
        losses = [float(row["valid_loss"]) for row in self.rows if row["valid_loss"] not in ("", None)]
        return len(losses) - 1 - int(np.argmin(losses)) if losses else 0

    @property
    def last(self):
        """The last row, before the first one a row of zeros at the iteration from which on losses are summed."""
        return self.rows[-1] if self.rows else dict.fromkeys(self.FIELDS, 0) | {"iteration": self.begun}

    def add(self, row):
        """Append a row, a dict of FIELDS."""
        self.rows.append(row)
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, self.FIELDS, lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        write_whole(self.path, lambda file: file.write(text.getvalue().encode()))
