"""The speaker encoder: train it, test it, verify with it.

    python model.py --train True                     features in --train_path → a model in --model_path
    python model.py --train True --restore True      go on where a run stopped
    python model.py                                  test on --test_path (test.py also draws and writes the report)
    python model.py --verify True --enroll_path A --verify_path B       are A and B the same person?

The encoder is a stack of LSTM layers with a recurrent projection (LSTMP; Sak, Senior, Beaufays 2014) whose last output,
scaled to length 1, is the d-vector. Shapes: B sequences, T frames, F = 40 channels, H cells, P = D projected.
"""
import contextlib
import json
import math
import os
import pathlib
import platform
import re
import shlex
import shutil
import sys
import time
from dataclasses import asdict, dataclass, field, replace

import joblib
import numpy as np

import configuration
import data_preprocess
import utils
from configuration import FEATURE_FLAGS, MODEL_FLAGS, InputError, read_json, write_json
from data_preprocess import N_MELS
from utils import tf

EMBED_FRAMES = 160           # frames of a segment that an embedding reads (GE2E, section 3.2)
EMBED_BATCH = 512            # segments embedded at a time
CLIP_NORM = 3.0              # global norm of the gradients
SCALE_W_B = 0.01             # gradient scale of w and b
SCALE_PROJECTION = 0.5       # gradient scale of the projections
LOG_EVERY = 100              # iterations per row of history.csv
# A run keeps these flags to its end; it may change those below when it goes on.
RUN_FLAGS = (*FEATURE_FLAGS, *MODEL_FLAGS, "speaker_number", "utterance_number", "crop_min", "crop_max", "weigh",
             "speed", "equalize", "mask_channels", "loss", "optim", "lr", "schedule", "beta1", "beta2", "valid_ratio",
             "seed")
FREE_FLAGS = ("train_path", "iteration", "valid_every", "comment")
REPORT_FLAGS = ("report_path", "trials", "allow_missing", "snorm", "save_embeddings", "store_threshold")  # of test.py
CHECKPOINT_ERRORS = (tf.errors.OpError, AssertionError, ValueError, IndexError)
ANCESTOR_NAME = re.compile(r".*multi_rnn_cell/cell_(\d+)/lstm_cell/(kernel|bias|projection)(?:/kernel)?")


# ---- the encoder ------------------------------------------------------------------------------------------------

class Encoder(tf.Module):
    """Log-mel frames (B, T, 40) → d-vectors (B, P) of length 1; holds w and b of the similarity (GE2E, eq. 5) too.

    Gates as in TensorFlow 1's LSTMCell: input i, candidate j, forget f, output o, forget bias 1, no peepholes.
    """

    def __init__(self, hidden, proj, num_layer, seed=0):
        super().__init__()
        seeds = np.random.default_rng(seed).integers(2**31, size=(num_layer, 2)).tolist()
        self.hidden, self.proj = hidden, proj
        self.layers = []
        for layer, (kernel_seed, projection_seed) in enumerate(seeds):
            inputs = proj if layer else N_MELS
            kernel = tf.keras.initializers.GlorotUniform(kernel_seed)((inputs + proj, 4 * hidden))
            projection = tf.keras.initializers.GlorotUniform(projection_seed)((hidden, proj))
            self.layers.append({"kernel": tf.Variable(kernel, name=f"kernel_{layer}"),
                                "bias": tf.Variable(tf.zeros(4 * hidden), name=f"bias_{layer}"),
                                "projection": tf.Variable(projection, name=f"projection_{layer}")})
        self.w = tf.Variable(10.0, name="w")
        self.b = tf.Variable(-5.0, name="b")
        self.mean = tf.Variable(tf.zeros(N_MELS), trainable=False, name="mean")            # of each mel channel
        self.deviation = tf.Variable(tf.ones(N_MELS), trainable=False, name="deviation")

    @tf.function(input_signature=[tf.TensorSpec((None, None, N_MELS))])
    def __call__(self, frames):
        """Return the d-vectors (B, P) of sequences of frames (B, T, 40)."""
        frames = tf.transpose((frames - self.mean) / self.deviation, (1, 0, 2))            # (T, B, F)
        n_frames, batch = tf.shape(frames)[0], tf.shape(frames)[1]
        by_time = tf.TensorArray(tf.float32, n_frames).unstack(frames)
        cells = [tf.zeros((batch, self.hidden))] * len(self.layers)
        outputs = [tf.zeros((batch, self.proj))] * len(self.layers)
        # One loop carries all layers: the executor then runs layer 2 at frame t beside layer 1 at frame t + 1.
        _, _, outputs = tf.while_loop(
            lambda t, *_: t < n_frames,
            lambda t, cells, outputs: (t + 1, *self.step(by_time.read(t), cells, outputs)),
            (0, cells, outputs), maximum_iterations=n_frames)
        return tf.math.l2_normalize(outputs[-1], axis=-1)

    def step(self, inputs, cells, outputs):
        """Advance all layers by one frame (B, F); cells are (B, H) each, outputs (B, P)."""
        new_cells, new_outputs = [], []
        for layer, cell, output in zip(self.layers, cells, outputs, strict=True):
            gates = tf.matmul(tf.concat((inputs, output), axis=1), layer["kernel"]) + layer["bias"]
            i, j, f, o = tf.split(gates, 4, axis=1)                                        # (B, H) each
            cell = tf.sigmoid(f + 1.0) * cell + tf.sigmoid(i) * tf.tanh(j)
            inputs = tf.matmul(tf.sigmoid(o) * tf.tanh(cell), layer["projection"])         # (B, P)
            new_cells.append(cell)
            new_outputs.append(inputs)
        return new_cells, new_outputs

    def gradient_scales(self):
        """Return the factor of each trainable variable's gradient, in their order."""
        scales = {id(self.w): SCALE_W_B, id(self.b): SCALE_W_B}
        scales.update({id(layer["projection"]): SCALE_PROJECTION for layer in self.layers})
        return [scales.get(id(variable), 1.0) for variable in self.trainable_variables]


def build_encoder(config):
    """Return a new Encoder of the size that config.hidden, proj and num_layer give, drawn with config.seed.

    It maps (B, T, 40) to unit vectors (B, proj). With w and b, 3 layers of (128, 64) have 210,434 trainable numbers.
    """
    return Encoder(config.hidden, config.proj, config.num_layer, config.seed)


def trainable_numbers(encoder):
    """Return how many numbers training changes, w and b among them."""
    return sum(math.prod(variable.shape) for variable in encoder.trainable_variables)


def embed_rows(encoder, segments):
    """Return the unit vectors (K, D) of segments (K, 40, 180), of which the first 160 frames are read."""
    frames = np.swapaxes(np.asarray(segments, np.float32)[..., :EMBED_FRAMES], 1, 2)
    return np.concatenate([encoder(frames[start:start + EMBED_BATCH]).numpy()
                           for start in range(0, len(frames), EMBED_BATCH)])


def embed(encoder, segments):
    """Return the d-vector (D,) of an utterance's segments (K, 40, 180), K > 0: the normalised mean of their vectors."""
    if not len(segments):
        raise InputError("there is no segment of speech to embed")
    return utils.unit_mean(embed_rows(encoder, segments))


def embed_speaker(encoder, speaker):
    """Return {utterance: d-vector (D,)} of a utils.Speaker's utterances that hold speech, in one batch."""
    rows = embed_rows(encoder, speaker.load())
    if not np.isfinite(rows).all():
        raise InputError(f"{speaker.path} gives embeddings that are not finite: preprocess this speaker again")
    return {utterance: utils.unit_mean(rows[utterance.first:utterance.first + utterance.count])
            for utterance in speaker.voiced}


# ---- the model folder -------------------------------------------------------------------------------------------

def checkpoint_numbers(model_path):
    """Return the numbers of the checkpoints in a model folder, ascending."""
    paths = pathlib.Path(model_path, "Check_Point").glob("model.ckpt-*.index")
    return sorted(int(path.stem.rpartition("-")[2]) for path in paths)


def checkpoint_path(model_path, number):
    """Return the prefix of a checkpoint's files."""
    return str(pathlib.Path(model_path, "Check_Point", f"model.ckpt-{number}"))


def choose_checkpoint(model_path, model_num=None):
    """Return the number of the checkpoint to load: the one asked for, else the best on validation, else the last."""
    numbers = checkpoint_numbers(model_path)
    if not numbers:
        raise InputError(f"--model_path is {model_path}: there is no checkpoint; train one with "
                         f"python model.py --train True --model_path {model_path}")
    best = (read_json(pathlib.Path(model_path, "thresholds.json")) or {}).get("best") or {"model_num": numbers[-1]}
    chosen = best["model_num"] if model_num is None else model_num
    if chosen not in numbers:
        raise InputError(f"--model_num is {chosen}: {model_path} has the checkpoints {', '.join(map(str, numbers))}")
    return chosen


def load_config(model_path):
    """Return what config.json in a model folder holds; for an ancestor's folder, what its checkpoint tells."""
    stored, numbers = configuration.read_model(model_path), checkpoint_numbers(model_path)
    if stored is None and not numbers:
        raise InputError(f"--model_path is {model_path}: there is no model; train one with "
                         f"python model.py --train True --model_path {model_path}")
    return stored or {"ancestor": True, "flags": ancestor_size(checkpoint_path(model_path, numbers[-1]))}


def ancestor_weights(path):
    """Return {(layer or None, our name): array} of an ancestor's TensorFlow 1 checkpoint."""
    try:
        reader = tf.train.load_checkpoint(path)
        names = reader.get_variable_to_shape_map()
        weights = {(None, name): reader.get_tensor(name) for name in names if name in ("w", "b")}
        matches = [match for match in map(ANCESTOR_NAME.fullmatch, names) if match]
        weights |= {(int(match[1]), match[2]): reader.get_tensor(match[0]) for match in matches}
    except CHECKPOINT_ERRORS as error:
        raise InputError(f"{path} cannot be read as a checkpoint: {str(error).splitlines()[0]}") from error
    if (0, "projection") not in weights:
        raise InputError(f"{path} has no config.json beside it and holds no LSTM with projection: it is no model")
    return weights


def ancestor_size(path):
    """Return hidden, proj and num_layer of an ancestor's checkpoint."""
    projections = [array.shape for (_, name), array in ancestor_weights(path).items() if name == "projection"]
    return {"hidden": projections[0][0], "proj": projections[0][1], "num_layer": len(projections)}


def read_ancestor(encoder, path):
    """Assign an ancestor's variables; its cell has the same gates, and its features were not normalised."""
    for (layer, name), array in ancestor_weights(path).items():
        variable = getattr(encoder, name) if layer is None else encoder.layers[layer][name]
        variable.assign(array.reshape(variable.shape))


def load_encoder(model_path, model_num=None):
    """Rebuild a trained encoder.

    Parameters
    ----------
    model_path : str or Path
        A model folder.
    model_num : int, optional
        The checkpoint's number; without it the best on validation.

    Returns
    -------
    encoder : Encoder
    config : argparse.Namespace
        The flags of its training, of which `given` lists those that the folder stores (an ancestor's does not store
        its features), and `model_num`, the checkpoint that was loaded.

    Raises
    ------
    InputError
        If the folder holds no model, not that checkpoint, or one that does not fit.
    """
    stored = load_config(model_path)
    config = configuration.get_config([])
    vars(config).update(stored["flags"], model_path=str(model_path), given=set(stored["flags"]))
    config.model_num = choose_checkpoint(model_path, model_num)
    encoder, path = build_encoder(config), checkpoint_path(model_path, config.model_num)
    if "ancestor" in stored:
        read_ancestor(encoder, path)
    else:
        restore(tf.train.Checkpoint(encoder=encoder), path)
    return encoder, config


def open_model(config):
    """Load the encoder of config.model_path; config takes its feature flags, sizes and checkpoint number.

    Returns the encoder and the flags that the folder stores, a dict.
    """
    encoder, trained = load_encoder(config.model_path, config.model_num)
    stored = {name: getattr(trained, name) for name in FEATURE_FLAGS + MODEL_FLAGS if name in trained.given}
    configuration.adopt(config, stored, config.model_path)
    configuration.check_relations(config)
    config.model_num = trained.model_num
    return encoder, stored


def export(config):
    """Write the model in config.model_path to the folder config.export: weights, flags, thresholds, history.

    What only training needs, two thirds of a checkpoint, stays behind.
    """
    source, target = pathlib.Path(config.model_path), pathlib.Path(config.export)
    if "ancestor" in load_config(source):
        raise InputError(f"--model_path is {source}: an ancestor's model is used as it is; copy its folder")
    encoder, trained = load_encoder(source, config.model_num)
    if checkpoint_numbers(target):
        raise InputError(f"--export is {target}: there is a model already; name another folder")
    (target / "Check_Point").mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "history.csv"):
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
    (target / "thresholds.json").unlink(missing_ok=True)
    measured = load_thresholds(source, trained.model_num)                  # those of another checkpoint stay behind
    if measured:
        best = measured["best"] if (measured["best"] or {}).get("model_num") == trained.model_num else None
        write_json(target / "thresholds.json", measured | {"best": best})
    tf.train.Checkpoint(encoder=encoder).write(checkpoint_path(target, trained.model_num))     # last: now it is whole
    print(f"checkpoint {trained.model_num} of {source} is in {target}")


def restore(checkpoint, path):
    """Read a checkpoint's variables; InputError where they are damaged or not those of this network."""
    try:
        checkpoint.read(path).assert_existing_objects_matched().expect_partial()
    except CHECKPOINT_ERRORS as error:
        raise InputError(f"{path} cannot be read as this model's checkpoint: {str(error).splitlines()[0]}") from error


# ---- scores -----------------------------------------------------------------------------------------------------

def evaluate(encoder, speakers, m):
    """Score every probe of every speaker against every speaker, each enrolled with m utterances.

    Parameters
    ----------
    encoder : Encoder
    speakers : list of utils.Speaker
    m : int

    Returns
    -------
    utils.Evaluation

    Raises
    ------
    InputError
        If there are fewer than two speakers, or one has fewer than m + 1 utterances.
    """
    if len(speakers) < 2:
        raise InputError(f"{len(speakers)} speaker: error rates need at least 2")
    started, enrolments, vectors, probes, mixed = time.perf_counter(), [], [], [], 0
    for speaker in speakers:
        enrolment, rest = utils.enrol_and_probe(speaker, m)
        if len(enrolment) < m or not rest:
            raise InputError(f"{speaker.path} has {len(speaker.voiced)} utterances with speech: enrolment with "
                             f"--utterance_number {m} and one probe need {m + 1}; lower it, or move that speaker away")
        sessions = {utterance.session for utterance in enrolment}
        mixed += len({u.session for u in speaker.voiced}) > 1 and any(probe.session in sessions for probe in rest)
        d_vectors, silence = embed_speaker(encoder, speaker), np.full(encoder.proj, np.nan, np.float32)
        enrolments.append([d_vectors[utterance] for utterance in enrolment])
        vectors += [d_vectors.get(probe, silence) for probe in rest]
        probes += [(speaker.name, probe.file) for probe in rest]
    names, elapsed = [speaker.name for speaker in speakers], time.perf_counter() - started
    labels = np.array([owner for owner, _ in probes])[:, None] == np.array(names)
    seconds = sum(utterance.speech_seconds for speaker in speakers for utterance in speaker.voiced)
    notes = [f"{mixed} speakers have too few utterances in separate sessions: theirs are mixed"] if mixed else []
    return utils.Evaluation(names, probes, utils.enrolment_scores(np.array(enrolments), np.array(vectors)), labels, m,
                            seconds, elapsed, notes, np.array(enrolments), np.array(vectors))


def shortened(encoder, speakers, evaluation, seconds, config):
    """Return d-vectors (P, D) of the first `seconds` of speech of an evaluation's probes; NaN where there is less."""
    silence, vectors = np.full(encoder.proj, np.nan, np.float32), []
    hop_length, utterances = round(config.hop * config.sr), {}
    for speaker in speakers:
        features = speaker.load()
        utterances.update({(speaker.name, utterance.file): (features, utterance) for utterance in speaker.voiced})
    for probe in evaluation.probes:
        features, utterance = utterances.get(probe, (None, None))
        if utterance is None or utterance.speech_seconds < seconds:
            vectors.append(silence)
            continue
        total = 1 + round(utterance.speech_seconds * config.sr) // hop_length
        frames = data_preprocess.joined(features[utterance.first:utterance.first + utterance.count], total)
        vectors.append(embed(encoder, data_preprocess.cut(frames[:round(seconds / config.hop)], features.shape[2])))
    return np.array(vectors)


def test(config):
    """Evaluate the model in config.model_path on the speakers of config.test_path, or on the audio of --raw_path.

    The feature flags become those of the model. Returns a utils.Evaluation; see `evaluate` for what is raised.
    """
    encoder, speakers, notes = open_test(config)
    evaluation = evaluate(encoder, speakers, config.utterance_number)
    evaluation.notes.extend(notes)
    return evaluation


def open_test(config):
    """Return the encoder, the test speakers and the notes of `test`."""
    encoder, stored = open_model(config)
    folder, names = config.test_path, None
    if "raw_path" in config.given:
        folder, names = data_preprocess.cached_features(config)
    speakers, settings = utils.load_features(folder)
    adopt_features(config, stored, settings, folder)
    notes = utils.check_features(speakers, settings, data_preprocess.feature_settings(config), folder)
    notes += provenance_notes(config, stored, speakers, folder)
    speakers = [speaker for speaker in speakers if names is None or speaker.name in names]
    if "speaker_number" in config.given:
        if len(speakers) < config.speaker_number:
            raise InputError(f"--speaker_number is {config.speaker_number}: {folder} has {len(speakers)} speakers")
        chosen = np.random.default_rng(config.seed).choice(len(speakers), config.speaker_number, replace=False)
        speakers = [speakers[i] for i in sorted(chosen)]
    return encoder, speakers, notes


def embed_files(encoder, paths, config):
    """Return {path: (d-vector (D,) or None, seconds of speech, why it gave none)} of recordings, read on all cores."""
    work = joblib.Parallel(n_jobs=config.jobs or -1, return_as="generator")
    read = work(joblib.delayed(data_preprocess.process_utterance)(path, config) for path in paths)
    found = {}
    for path, (cuts, entry) in zip(paths, configuration.progress(read, total=len(paths), unit="file"), strict=True):
        vector = embed(encoder, cuts) if len(cuts) else None
        found[path] = vector, entry["speech_seconds"], entry["dropped"]
    return found


def model_notes(config, stored):
    """Return a note where a model does not store its features."""
    line = f"{config.model_path} does not say what features it was trained on: the flags describe them"
    return [] if "sr" in stored else [line]


def provenance_notes(config, stored, speakers, folder):
    """Return notes on what a reader of the figures must know about the model and the speakers."""
    notes, known = model_notes(config, stored), load_config(config.model_path)
    seen = {*known.get("training", ()), *known.get("validation", ())} & {speaker.name for speaker in speakers}
    if seen:
        notes.append(f"{len(seen)} of {len(speakers)} speakers carry names of speakers that the model was trained or "
                     "validated on: if they are the same people, the error rates are too low")
    silent = utils.speechless(folder)
    if silent:
        notes.append(f"{len(silent)} speakers without any speech are left out: {', '.join(silent[:5])}")
    return notes


# ---- verification ----------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Voice:
    """What was heard of a speaker, or of a probe: U recordings with speech."""

    name: str
    files: list                 # U names of recordings
    vectors: np.ndarray         # (U, D) their d-vectors
    seconds: float              # of speech
    lost: list                  # recordings that gave nothing, and why
    problem: str = ""           # why it cannot be compared

    @property
    def centroid(self):
        """The normalised mean (D,) of the d-vectors."""
        return utils.unit_mean(self.vectors)


@dataclass(frozen=True)
class Threshold:
    """A score from which on a probe is accepted, and the error rates measured there; None where nothing was."""

    value: float
    far: float | None
    frr: float | None
    source: str

    def __str__(self):
        """Return it as a verdict prints it."""
        rates = f": FAR {self.far:.2%}, FRR {self.frr:.2%}" if self.far is not None else ", error rates not measured"
        return f"{self.value:.4f} ({self.source}{rates})"


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
    scores: list = field(default_factory=list)      # (speaker, score), best first

    @property
    def same(self):
        """Whether the score reaches the threshold."""
        return self.score is not None and self.score >= self.threshold.value

    @property
    def decision(self):
        """The verdict in words."""
        return self.problem or ("Same person" if self.same else "Different person")

    def as_dict(self):
        """Return it as plain values, for JSON."""
        threshold = asdict(self.threshold) if self.threshold else {"value": None}
        return {**asdict(self), "decision": self.decision, "same": self.same, "threshold": threshold.pop("value"),
                **threshold, "scores": dict(self.scores)}

    def __str__(self):
        """Return what the shell and the window print."""
        if self.problem:
            return printable(f"{self.probe}: {self.problem}")
        probe, speaker = self.probe_seconds, self.enrolled_seconds
        llr = "" if self.llr is None else f", log-likelihood ratio {self.llr:.2f}"
        lines = [f"{self.decision}: {self.probe} and {self.speaker}",
                 f"  score {self.score:.4f}{llr}, threshold {self.threshold}",
                 f"  speech: {probe:.1f} s of {self.probe}, {speaker:.1f} s of {self.speaker}"]
        if len(self.scores) > 1:
            if self.threshold.far is not None:
                n, chance = len(self.scores), 1 - (1 - self.threshold.far) ** len(self.scores)
                lines.append(f"  FAR is that of one comparison: a stranger passes as one of these {n} in up to "
                             f"{chance:.0%} of the cases")
            lines += [f"  {score:7.4f}  {speaker}" for speaker, score in self.scores]
        return "\n".join(map(printable, lines))


def printable(text):
    """Return a text with its control characters escaped: file names may hold some."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


class Verifier:
    """A loaded model that compares voices. `config` takes the model's feature flags; `notes` says what must be known.

    Raises InputError if there is no model in config.model_path, or config.threshold, config.far and the model leave
    the threshold open.
    """

    def __init__(self, config):
        self.encoder, stored = open_model(config)
        self.config, self.model_num = config, config.model_num
        self.settings = data_preprocess.feature_settings(config)
        self.measured = load_thresholds(config.model_path, config.model_num)
        self.threshold = self.choose_threshold()
        self.notes = model_notes(config, stored)

    def choose_threshold(self):
        """Return the Threshold that --threshold, --far or, without them, the model's EER gives."""
        config, measured = self.config, self.measured
        if config.threshold is not None:
            return Threshold(config.threshold, *self.rates(config.threshold), "given by --threshold")
        points = measured["points"] if measured else {}
        wanted = "eer" if config.far is None else str(config.far)
        if wanted in points:
            label = "EER" if config.far is None else f"FAR {config.far:.2g}"
            point = points[wanted]
            return Threshold(point["threshold"], point["far"], point["frr"], f"{label} of {measured['source']}")
        flags = "" if config.far is None else f"--far is {config.far}: "
        stored = ", ".join(name if name == "eer" else f"--far {name}" for name in points) or "no threshold"
        raise InputError(f"{flags}{config.model_path} stores {stored} for checkpoint {self.model_num}; measure with "
                         f"python test.py --store_threshold True --model_path {config.model_path}, or give --threshold")

    def rates(self, value):
        """Return FAR and FRR measured at a threshold, read off the stored curve; None, None where there is none."""
        if not self.measured or "curve" not in self.measured:
            return None, None
        return tuple(float(np.interp(value, utils.CURVE, self.measured["curve"][name])) for name in ("far", "frr"))

    def llr(self, score):
        """Return the log-likelihood ratio of a score, None where the model stores no calibration."""
        calibration = (self.measured or {}).get("calibration")
        return calibration and calibration["scale"] * score + calibration["offset"]

    def voices(self, path, speaker=None):
        """Return the Voices enrolled in a file or folder, or the one of that name; each may have a problem.

        Audio directly in the folder is one speaker, named after it; each sub-folder and each .npy is a speaker.
        """
        sources = data_preprocess.enrolment_sources(path)
        if speaker is not None:
            name = data_preprocess.composed(speaker)
            if name not in sources:
                raise InputError(f"--speaker is {speaker}: {path} has {', '.join(sources)}")
            sources = {name: sources[name]}
        return [self.hear(name, [part for file in files for part in self.read(file)])
                for name, files in sources.items()]

    def probes(self, path):
        """Yield a Voice per recording of a file or folder; each may have a problem."""
        path = pathlib.Path(path)
        for file in data_preprocess.probe_files(path):
            name = file.relative_to(path).as_posix() if file != path else file.name
            try:
                parts = list(self.read(file))
            except InputError as error:
                if file == path:
                    raise
                yield Voice(name, [], np.empty((0, 0)), 0.0, [], str(error))
                continue
            for part in parts:
                yield self.hear(name if len(parts) == 1 else f"{name}/{part[0]}", [part])

    def read(self, path):
        """Yield (file, segments (K, 40, frames), seconds of speech, why it gave none) of audio or of a feature file."""
        if path.suffix != ".npy":
            self.notes += data_preprocess.narrow(path, self.config.sr)
            cuts, entry = data_preprocess.process_utterance(path, self.config)
            if len(cuts) and data_preprocess.steady(cuts):
                cuts, entry = (), {"speech_seconds": 0.0, "dropped": "is steady noise or a tone"}
            yield path.name, cuts, entry["speech_seconds"], entry["dropped"]
            return
        record = read_json(path.with_suffix(".json")) or {}
        settings = record.get("settings") or data_preprocess.read_settings(path.parent)
        speaker = utils.read_speaker(path, described=bool(settings))
        self.notes += utils.check_features([speaker], settings, self.settings, path)
        segments = speaker.load()
        if not np.isfinite(segments).all():
            raise InputError(f"{path} holds numbers that are not finite: make it again")
        row_seconds = 0.0 if settings else segments.shape[2] * self.config.hop      # an ancestor's row is all speech
        for utterance in speaker.utterances:
            yield (utterance.file, segments[utterance.first:utterance.first + utterance.count],
                   utterance.speech_seconds or row_seconds, utterance.dropped)

    def hear(self, name, recordings):
        """Return the Voice of some recordings, each as `read` yields it."""
        heard = [(file, segments, seconds) for file, segments, seconds, reason in recordings if not reason]
        lost = [f"{file} {reason}" for file, _, _, reason in recordings if reason]
        vectors = [embed(self.encoder, segments) for _, segments, _ in heard]
        voice = Voice(name, [file for file, _, _ in heard], np.array(vectors), sum(part[2] for part in heard), lost)
        faint = sum(seconds for _, _, seconds, reason in recordings if reason)
        if voice.seconds >= self.config.min_speech:
            return voice
        problem = f"too little speech, {voice.seconds + faint:.1f} s; --min_speech is {self.config.min_speech:g} s"
        if not voice.seconds + faint:
            problem = "no speech" + (f": {lost[0]}" if lost else "")
        return replace(voice, problem=problem)

    def compare(self, probe, voices, threshold=None):
        """Return the Verdict on a probe, a Voice, against enrolled Voices; those with a problem are left out.

        `threshold` is a Threshold; without it, the verifier's own.
        """
        voices = [voice for voice in voices if not voice.problem]
        if not voices:
            raise InputError("there is no enrolled speaker to compare with")
        if probe.problem:
            return Verdict(probe.name, probe.problem)
        scores = [float(probe.centroid @ voice.centroid) for voice in voices]
        order = sorted(range(len(voices)), key=lambda index: -scores[index])
        best = voices[order[0]]
        score = scores[order[0]]
        return Verdict(probe.name, "", best.name, score, self.llr(score), threshold or self.threshold, best.seconds,
                       probe.seconds, [(voices[index].name, scores[index]) for index in order])


def verify(config, recording=None):
    """Compare the probes of config.verify_path with the speakers of config.enroll_path, or with --speaker if typed.

    With a recording, as Verifier.read yields it, that is the probe.

    Yields a Verdict per probe, as they are made; see Verifier for what is raised. Enrolments that give no speech are
    named on standard error.
    """
    verifier = Verifier(config)
    voices = verifier.voices(config.enroll_path, config.speaker if "speaker" in config.given else None)
    problems = [f"{voice.name}: {voice.problem}" for voice in voices if voice.problem]
    if len(problems) == len(voices):
        raise InputError(f"--enroll_path is {config.enroll_path}: {'; '.join(problems)}")
    data_preprocess.report_losses(problems + [f"{voice.name}: {line}" for voice in voices for line in voice.lost
                                              if not voice.problem])
    probes = [verifier.hear(recording[0], [recording])] if recording else verifier.probes(config.verify_path)
    for probe in probes:
        yield verifier.compare(probe, voices)
    for note in dict.fromkeys(verifier.notes):
        print("note:", note, file=sys.stderr)


def print_verdicts(config, recording=None):
    """Verify and print the verdicts; return the exit code: 0 if all are the same person, 2 if one has no verdict."""
    verdicts = []
    for verdict in verify(config, recording):
        verdicts.append(verdict)
        if not config.json:
            print(verdict, flush=True)
    if config.json:
        print(json.dumps({"model": str(config.model_path), "model_num": config.model_num,
                          "verdicts": [verdict.as_dict() for verdict in verdicts]}))
    if any(verdict.problem for verdict in verdicts):
        return 2
    return 0 if all(verdict.same for verdict in verdicts) else 1


# ---- training ---------------------------------------------------------------------------------------------------

def train(config):
    """Train an encoder on the features in config.train_path, into the model folder config.model_path.

    Ctrl-C saves a checkpoint, says so, and is raised again.

    Raises
    ------
    InputError
        If the folder holds a model and --restore is not True, the features do not fit, there are fewer than N
        speakers, or the loss is no longer finite.
    """
    if not config.restore and checkpoint_numbers(config.model_path):
        raise InputError(f"--model_path is {config.model_path}: there is a model already; go on with --restore True, "
                         "or name another folder")
    stored = adopt_base(config)
    speakers, settings = utils.load_features(config.train_path)
    adopt_features(config, stored.get("flags", {}), settings, config.train_path)
    configuration.check_relations(config)
    notes = utils.check_features(speakers, settings, data_preprocess.feature_settings(config), config.train_path)
    training, validation = utils.split_validation(
        speakers, config.utterance_number, ratio=config.valid_ratio, rng=np.random.default_rng(config.seed),
        names=stored["validation"] if config.restore else None, seen=stored.get("training", ()))
    if len(training) < config.speaker_number:
        raise InputError(f"--speaker_number is {config.speaker_number}: {config.train_path} has {len(training)} "
                         "training speakers; lower it")
    encoder = load_encoder(config.init_from)[0] if config.init_from else build_encoder(config)
    if not stored:
        mean, deviation = utils.channel_statistics(training, np.random.default_rng(config.seed))
        encoder.mean.assign(mean)
        encoder.deviation.assign(deviation)
    trainer = Trainer(config, encoder, training, validation)
    if not config.restore:
        pathlib.Path(config.model_path, "thresholds.json").unlink(missing_ok=True)         # of a run that was deleted
    notes += membership_notes(config, stored, training)
    write_config(config, stored, encoder, training=training, validation=validation, notes=notes)
    for line in introduction(encoder, config, training, validation) + notes:
        print(line)
    try:
        trainer.run()
    except tf.errors.OpError as error:
        raise InputError(f"training stopped, go on with --restore True: {error.message.splitlines()[0]}") from error


def adopt_base(config):
    """Take the flags of the model that the run goes on from or starts with; return what it stores, else {}."""
    base = config.model_path if config.restore else config.init_from
    if not base:
        return {}
    stored = load_config(base)
    if config.restore and "ancestor" in stored:
        raise InputError(f"--model_path is {base}: an ancestor's run cannot go on; start one with --init_from {base}")
    choose_checkpoint(base)
    kept = FEATURE_FLAGS + MODEL_FLAGS
    if config.restore:
        kept = RUN_FLAGS + tuple(name for name in FREE_FLAGS if name not in config.given)
    configuration.adopt(config, {name: stored["flags"][name] for name in kept if name in stored["flags"]}, base)
    return stored


def adopt_features(config, stored, settings, folder):
    """Take the feature flags of a folder where the model stores none."""
    names = [name for name in FEATURE_FLAGS if settings and name in settings and name not in stored]
    configuration.adopt(config, {name: settings[name] for name in names}, folder)


def membership_notes(config, stored, training):
    """Return a note where a run goes on with other speakers than it began with."""
    known = set(stored.get("speakers", ())) if config.restore else set()
    changed = known ^ {speaker.name for speaker in training}
    if not known or not changed:
        return []
    return [f"{len(changed)} training speakers came or went since this run began: its batches are not those of a run "
            "that never stopped"]


def write_config(config, stored, encoder, *, training, validation, notes):
    """Write config.json, which tells all that rebuilds the encoder and its features, and how it came about.

    "speakers" are those of this run's batches; "training" has those of the base that it started from, too.
    """
    names = [speaker.name for speaker in training]
    normalisation = {"mean": encoder.mean.numpy().tolist(), "deviation": encoder.deviation.numpy().tolist()}
    commands = stored["commands"] if config.restore else []
    write_json(os.path.join(config.model_path, "config.json"), {
        "flags": {name: value for name, value in vars(config).items() if name != "given"}
        | ({"init_from": stored["flags"].get("init_from")} if config.restore else {}), "notes": notes,
        "commands": [*commands, shlex.join(sys.argv)], "versions": versions(),
        "normalisation": stored["normalisation"] if config.restore else normalisation,
        "speakers": names, "training": sorted({*names, *stored.get("training", ())}),
        "validation": [speaker.name for speaker in validation]})


def introduction(encoder, config, training, validation):
    """Return the lines that say what is about to be trained on what."""
    utterances = sum(len(speaker.voiced) for speaker in training)
    size = f"{config.num_layer} x ({config.hidden}, {config.proj})"
    lines = [f"encoder: {size}, {trainable_numbers(encoder):,} trainable numbers",
             f"training: {len(training)} speakers, {utterances} utterances; validation: {len(validation)} speakers"]
    if not validation:
        strange = ", which --init_from was not trained on" if config.init_from else ""
        lines.append(f"validation needs 2 speakers with more than {config.utterance_number} utterances{strange}; "
                     f"--valid_ratio {config.valid_ratio} gives fewer: no EER is measured and no threshold stored; "
                     "python test.py --store_threshold True measures one on test speakers")
    return lines


def versions():
    """Return the versions that a model was trained with."""
    return {"python": platform.python_version(), "tensorflow": tf.__version__, "keras": tf.keras.__version__,
            "librosa": data_preprocess.librosa.__version__, "numpy": np.__version__}


def build_optimizer(config):
    """Return the Keras optimizer of --optim with the learning rate of --schedule."""
    keras = tf.keras.optimizers
    if config.schedule == "cosine":
        rate = keras.schedules.CosineDecay(config.lr, config.iteration)
    else:
        rate = keras.schedules.ExponentialDecay(config.lr, 10000, 0.5, staircase=True)
    if config.optim == "adam":
        return keras.Adam(rate, beta_1=config.beta1, beta_2=config.beta2)
    return {"sgd": keras.SGD, "rmsprop": keras.RMSprop}[config.optim](rate)


def build_step(encoder, optimizer, n, m, loss):
    """Return a compiled training step: frames (N * M, T, 40) → the loss of the batch; it updates the weights."""
    variables, scales = encoder.trainable_variables, encoder.gradient_scales()
    optimizer.build(variables)

    @tf.function(input_signature=[tf.TensorSpec((n * m, None, N_MELS))])
    def step(frames):
        with tf.GradientTape() as tape:
            embedded = tf.reshape(encoder(frames), (n, m, -1))
            value = utils.ge2e_loss(utils.similarity(embedded, encoder.w, encoder.b), loss)
        gradients, _ = tf.clip_by_global_norm(tape.gradient(value, variables), CLIP_NORM)
        optimizer.apply([scale * gradient for scale, gradient in zip(scales, gradients, strict=True)], variables)
        return value

    return step


class Trainer:
    """One training run: its loop, its checkpoints, its history. The optimizer counts the iterations."""

    def __init__(self, config, encoder, training, validation):
        self.config, self.encoder, self.training, self.validation = config, encoder, training, validation
        self.folder = pathlib.Path(config.model_path)
        self.optimizer = build_optimizer(config)
        self.step = build_step(encoder, self.optimizer, config.speaker_number, config.utterance_number, config.loss)
        self.loss_sum = tf.Variable(0.0, dtype=tf.float64)          # since the last row of the history
        self.checkpoint = tf.train.Checkpoint(encoder=encoder, optimizer=self.optimizer, loss_sum=self.loss_sum)
        if config.restore:
            restore(self.checkpoint, checkpoint_path(self.folder, checkpoint_numbers(self.folder)[-1]))
        self.history = utils.History(self.folder / "history.csv", self.iteration)
        self.writer = tf.summary.create_file_writer(str(self.folder / "logs"))
        self.clock = (time.perf_counter(), self.iteration)

    @property
    def iteration(self):
        """The number of steps taken."""
        return int(self.optimizer.iterations)

    def batches(self):
        """Return the batches from this iteration on."""
        config, first = self.config, self.iteration
        shape = (config.speaker_number * config.utterance_number, None, N_MELS)
        return tf.data.Dataset.from_generator(lambda: map(self.draw, range(first, config.iteration)),
                                              output_signature=tf.TensorSpec(shape)).prefetch(4)

    def draw(self, k):
        """Return batch k (N * M, T, F), drawn and varied with default_rng([seed, k])."""
        config, rng = self.config, np.random.default_rng([self.config.seed, k])
        batch = utils.random_batch(self.training, config.speaker_number, config.utterance_number, rng=rng,
                                   crop=(config.crop_min, config.crop_max), weigh=config.weigh, speed=config.speed,
                                   centres=data_preprocess.mel_centres(config.sr))
        if config.equalize:
            utils.equalize(batch, config.equalize, rng)
        if config.mask_channels:
            utils.mask_bands(batch, config.mask_channels, self.encoder.mean.numpy(), rng)
        return batch

    def run(self):
        """Train to the last iteration, or to Ctrl-C, which is heeded between two iterations."""
        config = self.config
        with (configuration.graceful_interrupt() as interrupted,
              configuration.progress(total=config.iteration, initial=self.iteration, unit="step") as bar):
            for frames in self.batches():
                loss = float(self.step(frames))
                if not math.isfinite(loss):
                    raise InputError(f"the loss is {loss} at iteration {self.iteration}: lower --lr, which is "
                                     f"{config.lr}, in a new run")
                self.loss_sum.assign_add(loss)
                bar.update()
                if self.iteration % config.valid_every == 0 or self.iteration == config.iteration:
                    evaluation = self.validate()
                    self.log(bar, evaluation)
                    self.save(evaluation)
                elif self.iteration % LOG_EVERY == 0:
                    self.log(bar)
                if interrupted():
                    break
        if self.iteration < config.iteration:
            self.save()
            raise KeyboardInterrupt(f"stopped at iteration {self.iteration} of {config.iteration}, which is saved; "
                                    f"go on with --restore True --model_path {self.folder}")

    def validate(self):
        """Return the Evaluation of the validation speakers, None if there are none."""
        return evaluate(self.encoder, self.validation, self.config.utterance_number) if self.validation else None

    def save(self, evaluation=None):
        """Write the checkpoint of this iteration and, if its validation loss is the least, its thresholds.

        That best one and the last one are kept.
        """
        (self.folder / "Check_Point").mkdir(parents=True, exist_ok=True)
        self.checkpoint.write(checkpoint_path(self.folder, self.iteration))
        best = (read_json(self.folder / "thresholds.json") or {}).get("best")
        loss = evaluation and evaluation.loss(float(self.encoder.w))
        if evaluation and (best is None or loss <= best["valid_loss"]):
            best = {"model_num": self.iteration, "valid_loss": loss, "valid_eer": evaluation.eer}
            source = (f"{len(self.validation)} validation speakers, {self.config.utterance_number} enrolment "
                      "utterances each")
            store_thresholds(self.folder, self.iteration, evaluation, source, best)
        for number in set(checkpoint_numbers(self.folder)) - {self.iteration, best and best["model_num"]}:
            for path in (self.folder / "Check_Point").glob(f"model.ckpt-{number}.*"):
                path.unlink()

    def log(self, bar, evaluation=None):
        """Add a row to history.csv, TensorBoard and the progress bar."""
        config, now, last = self.config, time.perf_counter(), self.history.last
        elapsed, steps = now - self.clock[0], self.iteration - self.clock[1]
        row = {"iteration": self.iteration, "loss": float(self.loss_sum) / (self.iteration - int(last["iteration"])),
               "learning_rate": float(self.optimizer.learning_rate),
               "utterances_per_second": steps * config.speaker_number * config.utterance_number / elapsed,
               "seconds": float(last["seconds"]) + elapsed,
               "valid_eer": evaluation and evaluation.eer,
               "valid_loss": evaluation and evaluation.loss(float(self.encoder.w))}
        self.history.add(row)
        self.loss_sum.assign(0.0)
        self.clock = now, self.iteration
        with self.writer.as_default(step=self.iteration):
            for name, value in row.items():
                if value is not None and name != "iteration":
                    tf.summary.scalar(name, value)
            self.writer.flush()
        bar.set_postfix_str(f"loss {row['loss']:.3f}, lr {row['learning_rate']:.2g}, "
                            f"{row['utterances_per_second']:.0f} utterances/s")
        if evaluation:
            bar.write(f"iteration {self.iteration}: loss {row['loss']:.3f}, on validation speakers "
                      f"EER {row['valid_eer']:.4f}, loss per probe {row['valid_loss']:.4f}")


def store_thresholds(model_path, model_num, evaluation, source, best=None):
    """Write thresholds.json: the operating points of a checkpoint, measured on `source` (a text), and which is best."""
    path = os.path.join(model_path, "thresholds.json")
    best = best or (read_json(path) or {}).get("best")
    _, far, frr = utils.error_rates(evaluation.scores, evaluation.labels, at=utils.CURVE)
    scale, offset = utils.calibrate(evaluation.scores, evaluation.labels)
    write_json(path, {"model_num": model_num, "source": source, "points": evaluation.points, "best": best,
                      "calibration": {"scale": scale, "offset": offset},
                      "curve": {"far": far.tolist(), "frr": frr.tolist()}})


def load_thresholds(model_path, model_num):
    """Return what thresholds.json holds, None if it is missing or was measured for another checkpoint."""
    stored = read_json(os.path.join(model_path, "thresholds.json"))
    return stored if stored and stored["model_num"] == model_num else None


def use_cores():
    """Let the encoder's layers run beside each other: as many operations as cores, few threads for each.

    TensorFlow takes this before its first operation only; a caller who has used it keeps the threads it has.
    """
    cores = joblib.cpu_count()
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(max(1, cores // 3))
        tf.config.threading.set_inter_op_parallelism_threads(cores)


def work(config):
    """Train, verify, export or test, as the flags say."""
    use_cores()
    if config.export:
        return export(config)
    if config.verify:
        configuration.choose_model(config)
        return print_verdicts(config)
    if config.train:
        train(config)
        number = choose_checkpoint(config.model_path)
        points = (load_thresholds(config.model_path, number) or {"points": {}})["points"]
        print(f"done: checkpoint {number} in {config.model_path}; {utils.describe_points(points)}")
    else:
        typed = [name for name in REPORT_FLAGS if name in config.given]
        if typed:
            raise InputError(f"--{typed[0]} serves python test.py, which evaluates in full: model.py prints its EER "
                             "alone")
        evaluation = test(config)
        print(evaluation.describe())
        stored = load_thresholds(config.model_path, config.model_num)
        print(utils.describe_rates(evaluation.scores, evaluation.labels, stored))
        for note in evaluation.notes:
            print("note:", note)
    return 0


def main(argv=None):
    """Run the command line; return the exit code."""
    return configuration.run(work, argv)


if __name__ == "__main__":
    sys.exit(main())
