"""The encoders in TensorFlow: checkpoints, exports. Training and export alone import it.

The encoder is a stack of LSTM layers with a recurrent projection (LSTMP; Sak, Senior, Beaufays 2014) whose last output,
scaled to length 1, is the d-vector; a convolutional one can teach it. Shapes: B sequences, T frames, F = 40 channels, H
cells or kernels, P = D projected.
embedding.py runs `python encoder.py MODEL_FOLDER NUMBER FILE` where a checkpoint has not been exported.
"""
import contextlib
import io
import json
import math
import os
import pathlib
import re
import shutil
import sys
import tempfile
import zipfile

import joblib
import numpy as np

import audio
import common
import embedding
import features
from audio import N_MELS
from common import InputError, write_json, write_whole

tf = common.tensorflow()

SCALE_W_B = 0.01             # gradient scale of w and b
SCALE_PROJECTION = 0.5       # gradient scale of the projections
ATTENTION = 64               # units that find out which frames count
VARIANCE_FLOOR = 1e-5        # below which a deviation over time has no gradient
CHECKPOINT_ERRORS = (tf.errors.OpError, AssertionError, ValueError, IndexError)
FILES = ("saved_model", "encoder.tflite", "encoder_int8.tflite", "encoder.onnx")        # that --format writes
MODEL_FILES = ("config.json", "history.csv", "thresholds.json")        # beside the checkpoints
ANCESTOR_NAME = re.compile(r".*multi_rnn_cell/cell_(\d+)/lstm_cell/(kernel|bias|projection)(?:/kernel)?")


class AnyEncoder(tf.Module):
    """Log-mel frames (B, T, 40) → d-vectors (B, P) of length 1; holds w and b of the similarity (GE2E, eq. 5) too."""

    def __init__(self):
        super().__init__()
        self.w = tf.Variable(10.0, name="w")
        self.b = tf.Variable(-5.0, name="b")
        self.mean = tf.Variable(tf.zeros(N_MELS), trainable=False, name="mean")            # of each mel channel
        self.deviation = tf.Variable(tf.ones(N_MELS), trainable=False, name="deviation")
        self.by_batch = True        # whether training normalises inner layers by the batch, where there is such a thing

    @tf.function(input_signature=[tf.TensorSpec((None, None, N_MELS))])
    def __call__(self, frames):
        """Return the d-vectors (B, P) of sequences of frames (B, T, 40)."""
        return self.forward(frames)

    def gradient_scales(self):
        """Return the factor of each trainable variable's gradient, in their order."""
        scales = self.slow_variables()
        return [scales.get(id(variable), 1.0) for variable in self.trainable_variables]

    def slow_variables(self):
        """Return {id of a variable: its gradient's factor}, of those that have one."""
        return {id(self.w): SCALE_W_B, id(self.b): SCALE_W_B}


class Encoder(AnyEncoder):
    """The paper's encoder: a stack of projected LSTM layers.

    Gates as in TensorFlow 1's LSTMCell: input i, candidate j, forget f, output o, forget bias 1, no peepholes.
    """

    network = "lstm"

    def __init__(self, hidden, proj, num_layer, seed=0):
        super().__init__()
        seeds = np.random.default_rng(seed).integers(2**31, size=(num_layer, 2)).tolist()
        self.hidden, self.proj, self.num_layer = hidden, proj, num_layer
        self.layers = []
        for layer, (kernel_seed, projection_seed) in enumerate(seeds):
            inputs = proj if layer else N_MELS
            kernel = tf.keras.initializers.GlorotUniform(kernel_seed)((inputs + proj, 4 * hidden))
            projection = tf.keras.initializers.GlorotUniform(projection_seed)((hidden, proj))
            self.layers.append({"kernel": tf.Variable(kernel, name=f"kernel_{layer}"),
                                "bias": tf.Variable(tf.zeros(4 * hidden), name=f"bias_{layer}"),
                                "projection": tf.Variable(projection, name=f"projection_{layer}")})

    def forward(self, frames, training=False):
        """Return the same without a graph of its own: in one that knows B, no gradient looks for it at every frame."""
        batch = frames.shape[0] or tf.shape(frames)[0]
        frames = tf.transpose((frames - self.mean) / self.deviation, (1, 0, 2))            # (T, B, F)
        n_frames, ones = tf.shape(frames)[0], tf.ones((batch, 1))
        by_time = tf.TensorArray(tf.float32, n_frames).unstack(frames)
        kernels = [self.whole_kernel(layer) for layer in self.layers]
        cells = [tf.zeros((batch, self.hidden))] * len(kernels)
        outputs = [tf.zeros((batch, self.proj))] * len(kernels)
        # One loop carries all layers: the executor then runs layer 2 at frame t beside layer 1 at frame t + 1.
        _, _, outputs = tf.while_loop(
            lambda t, *_: t < n_frames,
            lambda t, cells, outputs: (t + 1, *self.step(kernels, by_time.read(t), cells, outputs, ones)),
            (0, cells, outputs), maximum_iterations=n_frames)
        return tf.math.l2_normalize(outputs[-1], axis=-1)

    def whole_kernel(self, layer):
        """Return a layer's kernel (I + P + 1, 4H): its last row, for an input of ones, holds the biases, f's 1 too."""
        forget = tf.repeat([0.0, 0.0, 1.0, 0.0], self.hidden)
        return tf.concat((layer["kernel"], [layer["bias"] + forget]), axis=0)

    def step(self, kernels, inputs, cells, outputs, ones):
        """Advance all layers by one frame (B, F); cells are (B, H) each, outputs (B, P), the ones (B, 1)."""
        new_cells, new_outputs = [], []
        for layer, kernel, cell, output in zip(self.layers, kernels, cells, outputs, strict=True):
            gates = tf.matmul(tf.concat((inputs, output, ones), axis=1), kernel)
            i, j, f, o = tf.split(gates, 4, axis=1)                                        # (B, H) each
            cell = tf.sigmoid(f) * cell + tf.sigmoid(i) * tf.tanh(j)
            inputs = tf.matmul(tf.sigmoid(o) * tf.tanh(cell), layer["projection"])         # (B, P)
            new_cells.append(cell)
            new_outputs.append(inputs)
        return new_cells, new_outputs

    def slow_variables(self):
        """Return those of w, b and the projections."""
        return super().slow_variables() | {id(layer["projection"]): SCALE_PROJECTION for layer in self.layers}


class ResNet(AnyEncoder):
    """A convolutional encoder: residual blocks over time and channels, as in He et al. 2016, then attention over time.

    The first of `num_layer` + 1 stages has `hidden` / 2^num_layer kernels; each further one has twice as many, for half
    of the frames and channels. Two blocks a stage, whose outputs squeeze and excitation weighs (Hu et al. 2018). The
    d-vector is a projection of mean and deviation over time, weighed by attention, each output by one of its own
    (Desplanques et al. 2020). The first convolution halves the frames, too.
    """

    network = "resnet"

    def __init__(self, hidden, proj, num_layer, seed=0):
        super().__init__()
        self.hidden, self.proj, self.num_layer = hidden, proj, num_layer
        self.seeds = iter(np.random.default_rng(seed).integers(2**31, size=100 * (num_layer + 1)).tolist())
        frames = tf.keras.Input((None, N_MELS))
        outputs = self.convolve(tf.keras.ops.expand_dims(frames, -1), hidden >> num_layer, stride=(2, 1))
        for stage in range(num_layer + 1):
            outputs = self.block(outputs, hidden >> (num_layer - stage), halve=stage > 0)
            outputs = self.block(outputs, hidden >> (num_layer - stage))
        outputs = tf.keras.layers.Reshape((-1, outputs.shape[2] * hidden))(outputs)
        body = tf.keras.Model(frames, self.dense(self.attend(outputs), proj))
        self.weights = [weight.value for weight in body.weights]        # tf.Module does not look into Keras's layers,
        self.body = body.__call__                                       # nor shall checkpoints, whose names change

    def forward(self, frames, training=False):
        """Return the d-vectors (B, P) of frames (B, T, 40); `training` normalises by the batch and remembers that."""
        return tf.math.l2_normalize(self.body((frames - self.mean) / self.deviation, training=training), axis=-1)

    def dense(self, inputs, units, activation=None):
        """Return a layer's outputs, (..., units)."""
        return tf.keras.layers.Dense(units, activation, kernel_initializer=self.drawn())(inputs)

    def drawn(self):
        """Return the next weights' initializer."""
        return tf.keras.initializers.GlorotUniform(next(self.seeds))

    def convolve(self, inputs, kernels, *, size=3, stride=1, activation="relu"):
        """Return a normalised convolution."""
        outputs = tf.keras.layers.Conv2D(kernels, size, stride, "same", use_bias=False,
                                         kernel_initializer=self.drawn())(inputs)
        return tf.keras.layers.Activation(activation)(tf.keras.layers.BatchNormalization()(outputs))

    def block(self, inputs, kernels, halve=False):
        """Return a residual block's outputs."""
        stride = 2 if halve else 1
        outputs = self.convolve(inputs, kernels, stride=stride)
        outputs = self.convolve(outputs, kernels, activation="linear")
        weights = tf.keras.layers.GlobalAveragePooling2D(keepdims=True)(outputs)
        weights = self.dense(self.dense(weights, max(1, kernels // 4), "relu"), kernels, "sigmoid")
        if halve:           # a stride of 2 would be the same, but crashes TensorFlow 2.21 where there are few kernels
            inputs = self.convolve(inputs[:, ::2, ::2], kernels, size=1, activation="linear")
        return tf.keras.layers.Activation("relu")(inputs + outputs * weights)

    def attend(self, inputs):
        """Return mean and deviation over time of inputs (B, T, C), weighed for each of the C by attention: (B, 2 C)."""
        ops = tf.keras.ops
        weights = ops.softmax(self.dense(self.dense(inputs, ATTENTION, "tanh"), inputs.shape[-1]), axis=1)
        mean = ops.sum(weights * inputs, axis=1)
        variance = ops.sum(weights * ops.square(inputs), axis=1) - ops.square(mean)
        return tf.keras.layers.BatchNormalization()(
            ops.concatenate([mean, ops.sqrt(ops.maximum(variance, VARIANCE_FLOOR))], axis=-1))


NETWORKS = {kind.network: kind for kind in (Encoder, ResNet)}


def build_encoder(config):
    """Return a new encoder of config.network, of the size that hidden, proj and num_layer give, drawn with config.seed.

    It maps (B, T, 40) to unit vectors (B, proj). With w and b, 3 layers of (128, 64) have 210,434 trainable numbers.
    """
    return NETWORKS[config.network](config.hidden, config.proj, config.num_layer, config.seed)


def trainable_numbers(encoder):
    """Return how many numbers training changes, w and b among them."""
    return sum(math.prod(variable.shape) for variable in encoder.trainable_variables)


# ---- checkpoints ------------------------------------------------------------------------------------------------

def write_checkpoint(checkpoint, model_path, number):
    """Write a tf.train.Checkpoint into a model folder, whole or not at all: its index, which counts, is the last."""
    path = pathlib.Path(embedding.checkpoint_path(model_path, number))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(".part")
    for left in path.parent.glob(".part*"):             # by a process that was killed
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    checkpoint.write(str(part))
    for suffix in (".data-00000-of-00001", ".index"):
        os.replace(f"{part}{suffix}", f"{path}{suffix}")


def check_folder(flag, folder):
    """Raise InputError where no model can be written: into what something else is, or TensorFlow would find none."""
    if re.search(r"[*?\[\]]", str(folder)):
        raise InputError(f"--{flag} is {folder}: *, ? and [] are a pattern to TensorFlow; name another folder")
    for name, what in (("features.json", "an encoder for other programs"), ("manifest.json", "features")):
        if os.path.exists(os.path.join(folder, name)):
            raise InputError(f"--{flag} is {folder}: that holds {what}; name another folder")
    common.check_target(flag, folder, "config.json")


def is_export(path):
    """Tell whether a checkpoint lacks what only training needs; of a damaged one, reading it tells more."""
    try:
        names = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    except CHECKPOINT_ERRORS:
        return False
    return not any(name.startswith("optimizer/") for name in names)


def restore_checkpoint(checkpoint, path):
    """Read a checkpoint's variables; InputError where they are damaged or not those of this network."""
    try:
        checkpoint.read(path).assert_existing_objects_matched().expect_partial()
    except CHECKPOINT_ERRORS as error:
        raise InputError(f"{path} cannot be read as this model's checkpoint: {str(error).splitlines()[0]}") from error


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
    return {"network": "lstm", "hidden": projections[0][0], "proj": projections[0][1], "num_layer": len(projections)}


def read_ancestor(encoder, path):
    """Assign an ancestor's variables; its cell has the same gates, and its features were not normalised."""
    for (layer, name), array in ancestor_weights(path).items():
        variable = getattr(encoder, name) if layer is None else encoder.layers[layer][name]
        variable.assign(array.reshape(variable.shape))


def load_encoder(model_path, model_num=None):
    """Rebuild a trained Encoder from its checkpoint; return it and its config, as embedding.load_encoder does.

    Raises InputError if the folder holds no model, not that checkpoint, or one that does not fit.
    """
    stored, number = embedding.load_config(model_path), embedding.choose_checkpoint(model_path, model_num)
    path = embedding.checkpoint_path(model_path, number)
    flags = ancestor_size(path) if "ancestor" in stored else stored["flags"]
    config = embedding.config_of(model_path, flags, number)
    encoder = build_encoder(config)
    if "ancestor" in stored:
        read_ancestor(encoder, path)
    else:
        restore_checkpoint(tf.train.Checkpoint(encoder=encoder), path)
    return encoder, config


def use_cores():
    """Let the encoder's layers run beside each other: as many operations as cores, few threads for each.

    TensorFlow takes this before its first operation only; a caller who has used it keeps the threads it has.
    """
    cores = joblib.cpu_count()
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(max(1, cores // 3))
        tf.config.threading.set_inter_op_parallelism_threads(cores)


def choose_strategy(config):
    """Return the tf.distribute.Strategy of --strategy, and whether this process is the one that writes the model.

    Waits until all workers that TF_CONFIG names have started. Shares the cores as the encoder wants them.
    """
    if config.network == "lstm":            # a convolution takes all cores at once
        use_cores()
    if config.strategy == "none":
        return tf.distribute.get_strategy(), True
    if config.strategy == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices]), True
    try:
        cluster = json.loads(os.environ["TF_CONFIG"])
        worker, workers = cluster["task"]["index"], cluster["cluster"]["worker"]
        if set(cluster["cluster"]) != {"worker"}:
            raise ValueError("its cluster has others than workers, the first of which is the chief here")
        if not isinstance(workers[worker], str) or cluster["task"]["type"] != "worker":
            raise ValueError(f"{workers[worker]!r} is no address of a worker")
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise InputError("--strategy is multi_worker: the environment variable TF_CONFIG must name the workers and "
                         f"this one, as README shows ({type(error).__name__}: {error})") from error
    print(f"worker {worker + 1} of {len(workers)}: waiting for the others", flush=True)
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise InputError(f"--strategy is multi_worker: the workers of TF_CONFIG do not find each other: "
                         f"{str(error).splitlines()[0]}") from error
    return strategy, worker == 0


# ---- export -----------------------------------------------------------------------------------------------------

def export(encoder, path, model_path, model_num, quantize=False):
    """Write an encoder as a LiteRT file that embedding.Encoder runs.

    Parameters
    ----------
    encoder : Encoder
    path : str or Path
        The file; it is written whole or not at all.
    model_path : str or Path
        The model folder with the encoder's checkpoint, which is written already: the file tells its fingerprint.
    model_num : int
        The checkpoint's number.
    quantize : bool
        Store the weights as integers of 8 bits, of which LiteRT calls the range dynamic.
    """
    function = encoder.__call__.get_concrete_function()
    with common.quiet_libraries():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], encoder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT] if quantize else []
        content = converter.convert()
    flags = {name: getattr(encoder, name) for name in ("network", "hidden", "proj", "num_layer")}
    origin = {"model_num": model_num, "sha256": embedding.checkpoint_sha256(model_path, model_num), "flags": flags,
              "content": embedding.fingerprint([content])}
    whole = io.BytesIO(content)
    with zipfile.ZipFile(whole, "a") as archive:                 # LiteRT does not read on behind its own data
        archive.writestr(zipfile.ZipInfo(embedding.ORIGIN), json.dumps(origin))
    write_whole(path, lambda file: file.write(whole.getvalue()))


def export_model(config):
    """Write the model in config.model_path to the folder config.export: weights, export, flags, thresholds, history.

    What only training needs, two thirds of a checkpoint, stays behind.
    """
    source, target = pathlib.Path(config.model_path), pathlib.Path(config.export)
    if "ancestor" in embedding.load_config(source):
        raise InputError(f"--model_path is {source}: an ancestor's model is used as it is; copy its folder")
    encoder, trained = load_encoder(source, config.model_num)
    check_folder("export", target)
    if embedding.holds_model(target):
        raise InputError(f"--export is {target}: there is a model already; name another folder")
    there = [name for name in MODEL_FILES if (target / name).exists()]
    if there and common.read_json(target / "config.json") != common.read_json(source / "config.json"):
        raise InputError(f"--export is {target}: there is {there[0]} already; name another folder")
    target.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "history.csv"):
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
    (target / "thresholds.json").unlink(missing_ok=True)
    measured = embedding.load_thresholds(source, trained.model_num)        # those of another checkpoint stay behind
    if measured:
        best = measured["best"] if (measured["best"] or {}).get("model_num") == trained.model_num else None
        write_json(target / "thresholds.json", measured | {"best": best})
    write_checkpoint(tf.train.Checkpoint(encoder=encoder), target, trained.model_num)
    export(encoder, target / "encoder.tflite", target, trained.model_num)
    print(f"checkpoint {trained.model_num} of {source} is in {target}")


# ---- for other programs -----------------------------------------------------------------------------------------

def export_format(config):
    """Write the encoder of config.model_path to the folder config.export, as config.format says, for other programs.

    features.json beside it says what it takes. Formats of one model may share a folder.
    """
    encoder, trained = load_encoder(config.model_path, config.model_num)
    notes = embedding.model_notes(config, {"flags": embedding.adopt_trained(config, trained)})
    target, about = pathlib.Path(config.export), describe_encoder(config)
    check_export_folder(target, about)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export", dir=target.parent) as folder:
        WRITERS[config.format](encoder, pathlib.Path(folder), config)
        write_json(target / "features.json", about)
        made = sorted(pathlib.Path(folder).iterdir())
        for path in made:
            shutil.rmtree(target / path.name, ignore_errors=True)       # a folder does not replace a folder
            os.replace(path, target / path.name)
    print(f"checkpoint {config.model_num} of {config.model_path} is in {', '.join(str(target / p.name) for p in made)}")
    for note in notes:
        print("note:", note)


def describe_encoder(config):
    """Return what features.json tells: whose encoder it is, what it takes and gives, and the flags of its features."""
    return {"model_num": config.model_num, "sha256": embedding.checkpoint_sha256(config.model_path, config.model_num),
            "input": f"float32 (batch, frames, {N_MELS}): log-mel frames, not normalised, the encoder does that",
            "output": f"float32 (batch, {config.proj}): d-vectors of length 1; a score is the cosine of two",
            "wave": "mono, less its mean; of it the voiced speech (top_db, floor_db: audio.py), its RMS at level dB of "
                    "full scale; without a level as it is",
            "log_mel": "np.log10(librosa.feature.melspectrogram(y=wave, sr=sr, n_fft=nfft, "
                       f"win_length=round(window * sr), hop_length=round(hop * sr), n_mels={N_MELS}, "
                       "pad_mode='constant').T + 1e-6)",
            "segments": f"the last {config.tdsv_frame} frames of a take" if config.tdsv else
                        f"{config.tisv_frame} frames, every {audio.SEGMENT_HOP} frames of a recording, the last one "
                        f"up to its last frame, a shorter recording repeated; the first {embedding.EMBED_FRAMES} of "
                        "each are read, and the normalised mean of their d-vectors is the recording's",
            "features": features.feature_settings(config)}


def check_export_folder(target, about):
    """Raise InputError where the folder `target` holds a model, or encoders of another one than `about` tells of."""
    common.check_target("export", target, "features.json")
    if (target / "config.json").exists() or embedding.checkpoint_numbers(target):
        raise InputError(f"--export is {target}: there is a model already; name another folder")
    there = common.read_json(target / "features.json")
    if there != about and (there is not None or any((target / name).exists() for name in FILES)):
        raise InputError(f"--export is {target}: there is the encoder of another model; name another folder")


def serving_function(encoder):
    """Return the encoder as a tf.function of `frames` (B, T, 40), which returns {"d_vectors": (B, P)}."""
    frames = tf.TensorSpec((None, None, N_MELS), name="frames")
    return tf.function(lambda frames: {"d_vectors": encoder(frames)}, input_signature=[frames])


def write_saved_model(encoder, folder, config):
    """Write saved_model/, which TensorFlow loads without this project."""
    with common.quiet_libraries():
        tf.saved_model.save(encoder, str(folder / "saved_model"), signatures=serving_function(encoder))


def write_tflite(encoder, folder, config):
    """Write encoder.tflite and, a third as large, encoder_int8.tflite."""
    export(encoder, folder / "encoder.tflite", config.model_path, config.model_num)
    export(encoder, folder / "encoder_int8.tflite", config.model_path, config.model_num, quantize=True)


def write_onnx(encoder, folder, config):
    """Write encoder.onnx."""
    try:
        import tf2onnx
    except ImportError as error:
        raise InputError(f"--format is onnx: its converter is needed and cannot be loaded ({error}): pip install "
                         "tf2onnx") from error
    function = serving_function(encoder)
    with common.quiet_libraries():
        model, _ = tf2onnx.convert.from_function(function, function.input_signature)
    for value, names in ((model.graph.input[0], ("batch", "frames")), (model.graph.output[0], ("batch",))):
        for dimension, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
            dimension.dim_param = name
    write_whole(folder / "encoder.onnx", lambda file: file.write(model.SerializeToString()))


WRITERS = {"savedmodel": write_saved_model, "tflite": write_tflite, "onnx": write_onnx}


def main(argv=None):
    """Export a checkpoint: MODEL_FOLDER NUMBER FILE; return the exit code."""
    model_path, number, path = sys.argv[1:] if argv is None else argv
    try:
        encoder, config = load_encoder(model_path, int(number))
        export(encoder, path, model_path, config.model_num)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
