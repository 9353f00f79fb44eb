"""The encoder in TensorFlow against a plain loop; its checkpoints, and those of the ancestors."""
import json
import re
import shutil

import numpy as np
import pytest

import configuration
import data_preprocess
import embedding
import model
from common import InputError, tf
from encoder import VARIANCE_FLOOR, Encoder, ResNet, build_encoder, load_encoder, trainable_numbers


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def loop_encoder(encoder, frames):
    """LSTMP word by word in float64: frames (T, F) → unit vector (P,)."""
    inputs = (frames.astype(float) - encoder.mean.numpy()) / encoder.deviation.numpy()
    for layer in encoder.layers:
        kernel, bias, projection = (layer[name].numpy().astype(float) for name in ("kernel", "bias", "projection"))
        cell, output, outputs = np.zeros(len(projection)), np.zeros(projection.shape[1]), []
        for frame in inputs:
            i, j, f, o = np.split(np.concatenate([frame, output]) @ kernel + bias, 4)
            cell = sigmoid(f + 1) * cell + sigmoid(i) * np.tanh(j)
            output = sigmoid(o) * np.tanh(cell) @ projection
            outputs.append(output)
        inputs = np.array(outputs)
    return inputs[-1] / np.linalg.norm(inputs[-1])


def small_encoder():
    """A small encoder with random biases and normalisation, so that each of them shows."""
    encoder = Encoder(hidden=7, proj=5, num_layer=3, seed=1)
    rng = np.random.default_rng(0)
    for layer in encoder.layers:
        layer["bias"].assign(rng.standard_normal(28))
    encoder.mean.assign(rng.standard_normal(40))
    encoder.deviation.assign(rng.uniform(0.5, 2, 40))
    return encoder


def same_padding(size, kernel, stride):
    """Zeros before and behind, of which the greater half is behind (TensorFlow's SAME)."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def loop_convolution(image, kernel, strides):
    """A cross-correlation word by word: image (H, W, C), kernel (h, w, C, C')."""
    size = kernel.shape[:2]
    borders = [same_padding(*sizes) for sizes in zip(image.shape[:2], size, strides, strict=True)]
    padded = np.pad(image, [*borders, (0, 0)])
    shape = [-(-length // stride) for length, stride in zip(image.shape[:2], strides, strict=True)]
    found = np.empty((*shape, kernel.shape[3]))
    for row, column in np.ndindex(*shape):
        top, left = row * strides[0], column * strides[1]
        patch = padded[top:top + size[0], left:left + size[1]]
        found[row, column] = np.einsum("hwc,hwcd->d", patch, kernel)
    return found


class LoopResNet:
    """The convolutional encoder word by word in float64; layers of a kind are taken in the order they were made in."""

    def __init__(self, encoder):
        def number(layer):
            found = re.search(r"_(\d+)$", layer.name)
            return int(found[1]) if found else 0

        self.encoder, layers = encoder, sorted(encoder.body.__self__.layers, key=number)
        self.layers = {kind: iter([layer for layer in layers if type(layer).__name__ == kind])
                       for kind in ("Conv2D", "Dense", "BatchNormalization")}

    def weights(self, kind):
        layer = next(self.layers[kind])
        return layer, [weight.numpy().astype(float) for weight in layer.weights]

    def normalise(self, inputs):
        _, (gamma, beta, mean, variance) = self.weights("BatchNormalization")
        return (inputs - mean) / np.sqrt(variance + 1e-3) * gamma + beta

    def convolve(self, image, every=1):
        image = image[::every, ::every]
        layer, (kernel,) = self.weights("Conv2D")
        return self.normalise(loop_convolution(image, kernel, layer.strides))

    def dense(self, inputs):
        _, (kernel, bias) = self.weights("Dense")
        return inputs @ kernel + bias

    def block(self, inputs, halve):
        outputs = self.convolve(np.maximum(self.convolve(inputs), 0))
        weights = sigmoid(self.dense(np.maximum(self.dense(outputs.mean(axis=(0, 1))), 0)))
        if halve:
            inputs = self.convolve(inputs, every=2)
        return np.maximum(inputs + weights * outputs, 0)

    def __call__(self, frames):
        image = ((frames.astype(float) - self.encoder.mean.numpy()) / self.encoder.deviation.numpy())[..., np.newaxis]
        image = np.maximum(self.convolve(image), 0)
        for stage in range(self.encoder.num_layer + 1):
            image = self.block(self.block(image, halve=stage > 0), halve=False)
        rows = image.reshape(len(image), -1)
        scores = self.dense(np.tanh(self.dense(rows)))
        weights = np.exp(scores) / np.exp(scores).sum(axis=0)
        mean = (weights * rows).sum(axis=0)
        deviation = np.sqrt(np.maximum((weights * (rows - mean) ** 2).sum(axis=0), VARIANCE_FLOOR))
        found = self.dense(self.normalise(np.concatenate([mean, deviation])))
        return found / np.linalg.norm(found)


def short_name(variable):
    return variable.name.split("/")[-1].split(":")[0]


def small_resnet():
    """A small convolutional encoder with random normalisation, so that each number shows."""
    encoder, rng = ResNet(hidden=4, proj=5, num_layer=1, seed=1), np.random.default_rng(0)
    for variable in encoder.variables:
        if short_name(variable) in {"gamma", "moving_variance", "deviation"}:
            variable.assign(rng.uniform(0.5, 2, variable.shape))
        elif len(variable.shape) == 1:
            variable.assign(0.3 * rng.standard_normal(variable.shape))
    return encoder


def test_the_papers_encoder_has_210434_trainable_numbers():
    encoder = build_encoder(configuration.get_config([]))
    assert trainable_numbers(encoder) == 210_434
    assert sum(variable.numpy().size for variable in encoder.trainable_variables) == 210_434
    assert (encoder.w.numpy(), encoder.b.numpy()) == (10.0, -5.0)


def test_the_encoder_equals_a_plain_loop():
    encoder = small_encoder()
    frames = np.random.default_rng(2).standard_normal((3, 25, 40)).astype(np.float32)
    found = encoder(frames).numpy()
    assert found.shape == (3, 5)
    np.testing.assert_allclose(found, [loop_encoder(encoder, sequence) for sequence in frames], atol=1e-5)
    in_training = tf.function(encoder.forward, input_signature=[tf.TensorSpec((3, None, 40))])
    np.testing.assert_allclose(in_training(frames), found, atol=1e-6)


@pytest.mark.parametrize("frames", [1, 2, 25, 30])
def test_the_convolutional_encoder_equals_a_plain_loop(frames):
    encoder = small_resnet()
    batch = np.random.default_rng(2).standard_normal((2, frames, 40)).astype(np.float32)
    found = encoder(batch).numpy()
    np.testing.assert_allclose(found, [LoopResNet(encoder)(sequence) for sequence in batch], atol=1e-4)


def test_a_training_pass_normalises_by_its_batch_and_remembers_it():
    encoder, batch = small_resnet(), 3 + np.random.default_rng(2).standard_normal((4, 25, 40)).astype(np.float32)
    before, listening = [variable.numpy() for variable in encoder.variables], encoder(batch).numpy()
    in_training = encoder.forward(batch, training=True).numpy()
    assert np.abs(in_training - listening).max() > 0.01
    moved = [short_name(variable) for old, variable in zip(before, encoder.variables, strict=True)
             if np.abs(old - variable.numpy()).max() > 0]
    assert set(moved) == {"moving_mean", "moving_variance"}
    assert set(map(short_name, encoder.trainable_variables)) == {"kernel", "gamma", "beta", "bias", "w", "b"}


def test_one_graph_serves_every_length_and_batch():
    encoder = small_encoder()
    for shape in ((1, 3, 40), (4, 160, 40), (2, 77, 40)):
        norms = np.linalg.norm(encoder(np.ones(shape, np.float32)), axis=1)
        np.testing.assert_allclose(norms, 1, atol=1e-5)
    assert encoder.__call__.experimental_get_tracing_count() == 1


def test_the_seed_draws_the_weights():
    first, same, other = (Encoder(7, 5, 2, seed).layers[1]["kernel"].numpy() for seed in (1, 1, 2))
    assert (first == same).all()
    assert not (first == other).any()


def write_ancestor(folder, encoder, number):
    """Write an encoder's weights as TensorFlow 1's Saver did, with the ancestors' names and an optimizer's slot."""
    names = {"w": encoder.w.numpy()[None], "b": encoder.b.numpy()[None], "global_step": np.int64(7)}
    for index, layer in enumerate(encoder.layers):
        cell = f"lstm/rnn/multi_rnn_cell/cell_{index}/lstm_cell"
        names |= {f"{cell}/kernel": layer["kernel"].numpy(), f"{cell}/kernel/Adam": layer["kernel"].numpy(),
                  f"{cell}/bias": layer["bias"].numpy(), f"{cell}/projection/kernel": layer["projection"].numpy()}
    (folder / "Check_Point").mkdir(parents=True, exist_ok=True)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, value in names.items():
            tf.compat.v1.get_variable(name, initializer=value)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver().save(session, str(folder / "Check_Point" / "model.ckpt"), global_step=number)


def test_an_ancestors_checkpoint_is_loaded(tmp_path, corpus, made_features, capsys, fails):
    encoder = small_encoder()
    write_ancestor(tmp_path, Encoder(7, 5, 3), 4)
    write_ancestor(tmp_path, encoder, 5)
    loaded, config = load_encoder(tmp_path)
    assert (config.hidden, config.proj, config.num_layer, config.model_num) == (7, 5, 3, 5)       # the highest
    for ours, theirs in zip(loaded.trainable_variables, encoder.trainable_variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert (loaded.mean.numpy() == 0).all()
    listened = embedding.load_encoder(tmp_path)[1]                                  # what its export tells
    assert (listened.hidden, listened.proj, listened.num_layer, listened.model_num) == (7, 5, 3, 5)
    assert "was made with --floor_db 3.0, the model with none" in fails(
        model.main, "--model_path", tmp_path, "--test_path", made_features / "test")
    test_path = tmp_path / "test"
    assert data_preprocess.main(["--raw_path", str(corpus), "--train_path", str(tmp_path / "train"), "--test_path",
                                 str(test_path), "--level", "none", "--floor_db", "none", "--jobs", "1"]) == 0
    assert model.main(["--model_path", str(tmp_path), "--test_path", str(test_path)]) == 0
    assert "does not say what features it was trained on" in capsys.readouterr().out
    assert "an ancestor's model is used as it is; copy its folder" in fails(
        model.main, "--model_path", tmp_path, "--export", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_run_from_an_ancestor_has_its_size(tmp_path, corpus, made_features, fails):
    write_ancestor(tmp_path / "old", Encoder(7, 5, 3), 5)
    assert data_preprocess.main(["--raw_path", str(corpus), "--train_path", str(tmp_path / "train"), "--test_path",
                                 str(tmp_path / "test"), "--level", "none", "--floor_db", "none", "--jobs", "1"]) == 0
    flags = ["--train", "--init_from", tmp_path / "old", "--train_path", tmp_path / "train", "--model_path",
             tmp_path / "new", "--N", 4, "--M", 2, "--iteration", 1, "--level", "none", "--floor_db", "none"]
    assert "--hidden is 9, but" in fails(model.main, *flags, "--hidden", 9)
    assert model.main([*map(str, flags)]) == 0
    loaded, config = load_encoder(tmp_path / "new")
    assert (loaded.hidden, config.hidden, config.proj, config.num_layer) == (7, 7, 5, 3)


def test_a_checkpoint_of_another_network_is_no_ancestor(tmp_path):
    checkpoint = tf.train.Checkpoint(weights=tf.Variable([1.0]))
    checkpoint.write(str(tmp_path / "Check_Point" / "model.ckpt-3"))
    with pytest.raises(InputError, match=r"has no config\.json beside it, which tells what it listens to"):
        load_encoder(tmp_path)


def test_loading_names_what_is_wrong(trained, tmp_path):
    with pytest.raises(InputError, match=r"--model_num is 5: .* has the checkpoints"):
        load_encoder(trained, 5)
    with pytest.raises(InputError, match=r"there is no model"):
        load_encoder(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    for path in (copy / "Check_Point").glob("*.data*"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read as this model's checkpoint"):
        load_encoder(copy)
    stored = json.loads((copy / "config.json").read_text())
    shutil.rmtree(copy / "Check_Point")
    shutil.copytree(trained / "Check_Point", copy / "Check_Point")
    stored["flags"]["hidden"] = 17
    (copy / "config.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match="cannot be read as this model's checkpoint"):
        load_encoder(copy)
