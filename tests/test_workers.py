"""Training on several replicas: workers that are processes of their own, and the devices of one machine."""
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import configuration
import embedding
import encoder as encoder_room
import features
import model
import utils

ROOT = pathlib.Path(model.__file__).parent
SCRIPT = """
import sys
import numpy as np
import model
run = model.Trainer.run
def run_and_tell(self):
    run(self)
    np.savez(sys.argv[1], *[variable.numpy() for variable in self.encoder.trainable_variables])
model.Trainer.run = run_and_tell
sys.exit(model.main(sys.argv[2:]))
"""
DEVICES = """
import tensorflow as tf
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0],
                                           [tf.config.LogicalDeviceConfiguration()] * 2)
"""


def flags_of(made_features, folder, *more):
    return ["--train", "--train_path", str(made_features / "train"), "--model_path", str(folder), "--N", "3", "--M",
            "3", "--hidden", "16", "--proj", "8", "--num_layer", "2", "--lr", "0.1", "--valid_ratio", "0.5",
            "--valid_every", "10", *map(str, more)]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_workers(flags, folder):
    """Start two workers on this machine, which leave their weights in <folder>/<number>.npz; the chief is the first."""
    workers = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    return [subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder / f"{number}.npz"), *flags, "--strategy", "multi_worker"], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"TF_CONFIG": json.dumps({"cluster": {"worker": workers},
                                                   "task": {"type": "worker", "index": number}})})
        for number in range(2)]


def finish(processes):
    """Return (exit code, output, errors) of each."""
    texts = [process.communicate(timeout=120) for process in processes]
    return [(process.returncode, *text) for process, text in zip(processes, texts, strict=True)]


def weights_of(path):
    with np.load(path, allow_pickle=False) as stored:
        return [stored[name] for name in stored.files]


def averaged_steps(flags, iterations, replicas=2):
    """Return the weights after steps of one process with the mean of the gradients of the replicas' batches."""
    config = configuration.get_config(flags)
    speakers, settings = features.load_features(config.train_path)
    features.adopt_settings(config, {}, settings, config.train_path)
    training, _ = utils.split_validation(speakers, config.utterance_number, ratio=config.valid_ratio,
                                         rng=np.random.default_rng(config.seed))
    encoder, optimizer = encoder_room.build_encoder(config), utils.build_optimizer(config)
    mean, deviation = utils.channel_statistics(training, np.random.default_rng(config.seed))
    encoder.mean.assign(mean)
    encoder.deviation.assign(deviation)
    variables = encoder.trainable_variables
    for step in range(iterations):
        parts = []
        for replica in range(replicas):
            frames = utils.random_batch(training, config.speaker_number, config.utterance_number,
                                        rng=np.random.default_rng([config.seed, replicas * step + replica]),
                                        crop=(config.crop_min, config.crop_max))
            with tf.GradientTape() as tape:
                embedded = tf.reshape(encoder(frames), (config.speaker_number, config.utterance_number, -1))
                loss = utils.batch_loss(embedded, encoder.w, encoder.b, config.loss)
            parts.append(tape.gradient(loss, variables))
        gradients, _ = tf.clip_by_global_norm([tf.add_n(part) / replicas for part in zip(*parts, strict=True)], 3.0)
        optimizer.apply([scale * gradient for scale, gradient in zip(
            encoder.gradient_scales(), gradients, strict=True)], variables)
    return [variable.numpy() for variable in variables]


def test_two_workers_equal_one_process_with_averaged_gradients(made_features, tmp_path):
    flags = flags_of(made_features, tmp_path / "model", "--iteration", 20)
    (chief, other) = finish(start_workers(flags, tmp_path))
    assert (chief[0], other[0]) == (0, 0), chief[2] + other[2]
    assert "done: checkpoint" in chief[1]
    assert "done" not in other[1]
    expected = averaged_steps(flags, 20)
    for ours, theirs, alone in zip(*(weights_of(tmp_path / f"{number}.npz") for number in range(2)), expected,
                                   strict=True):
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_allclose(ours, alone, atol=1e-5)
    assert embedding.checkpoint_numbers(tmp_path / "model")[-1] == 20
    assert [row["iteration"] for row in utils.History(tmp_path / "model" / "history.csv", 20).rows] == ["10", "20"]
    assert len(list((tmp_path / "model" / "logs").iterdir())) == 1                  # the chief's


def test_a_killed_worker_stops_the_other_and_both_go_on(made_features, tmp_path):
    flags = flags_of(made_features, tmp_path / "model")
    chief, other = start_workers([*flags, "--iteration", "100000"], tmp_path)
    assert any(line.startswith("iteration 10:") for line in chief.stdout)
    other.kill()
    _, errors = chief.communicate(timeout=60)
    other.communicate()
    assert chief.returncode == 2
    assert "error: training stopped, a worker is gone, perhaps; go on with --restore True" in errors
    assert "Traceback" not in errors
    saved = embedding.checkpoint_numbers(tmp_path / "model")[-1]
    last = saved + 5
    again = ["--train", "--restore", "--model_path", str(tmp_path / "model"), "--iteration", str(last)]
    ends = finish(start_workers(again, tmp_path))
    assert [end[0] for end in ends] == [0, 0], ends
    assert embedding.checkpoint_numbers(tmp_path / "model")[-1] == last
    for ours, theirs in zip(*(weights_of(tmp_path / f"{number}.npz") for number in range(2)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_ctrl_c_at_one_worker_stops_both_and_saves(made_features, tmp_path):
    chief, other = start_workers(flags_of(made_features, tmp_path / "model", "--iteration", "100000"), tmp_path)
    assert any(line.startswith("iteration 10:") for line in chief.stdout)
    other.send_signal(signal.SIGINT)
    ends = finish([chief, other])
    assert ends[1][0] == 2
    last = embedding.checkpoint_numbers(tmp_path / "model")[-1]
    assert f"stopped at iteration {last} of 100000, which is saved" in ends[0][1]
    assert f"stopped at iteration {last} of 100000, which is saved" in ends[1][2]


def test_the_devices_of_one_machine_share_a_step(made_features, tmp_path):
    flags = [*flags_of(made_features, tmp_path / "model", "--iteration", 10), "--strategy", "mirrored"]
    done = subprocess.run([sys.executable, "-c", DEVICES + SCRIPT, str(tmp_path / "0.npz"), *flags], cwd=ROOT,
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    expected = averaged_steps(flags[:-2], 10)
    for ours, alone in zip(weights_of(tmp_path / "0.npz"), expected, strict=True):
        np.testing.assert_allclose(ours, alone, atol=1e-5)


def test_the_devices_of_one_machine_train_a_convolutional_encoder(made_features, tmp_path):
    flags = [*flags_of(made_features, tmp_path / "model", "--iteration", 4, "--network", "resnet"), "--strategy",
             "mirrored"]
    done = subprocess.run([sys.executable, "-c", DEVICES + SCRIPT, str(tmp_path / "0.npz"), *flags], cwd=ROOT,
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "done: checkpoint 4" in done.stdout
    encoder, _ = encoder_room.load_encoder(tmp_path / "model")
    moved = [weight for weight in encoder.weights if "moving_mean" in weight.name]
    assert moved
    assert all(np.abs(weight.numpy()).max() > 0 for weight in moved)                # what the replicas heard is kept


@pytest.mark.parametrize("text", [
    None, "", "{}", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 3}}',
    '{"cluster": {"worker": [1]}, "task": {"type": "worker", "index": 0}}',
    '{"cluster": {"chief": ["a:1"], "worker": ["a:2"]}, "task": {"type": "worker", "index": 0}}'])
def test_workers_must_be_named(made_features, tmp_path, monkeypatch, capsys, text):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    assert model.main([*flags_of(made_features, tmp_path), "--strategy", "multi_worker"]) == 2
    assert "--strategy is multi_worker: the environment variable TF_CONFIG must name the workers" in (
        capsys.readouterr().err)


# ---- kills ------------------------------------------------------------------------------------------------------

KILLS = """
import os, random, signal, sys, time
import configuration, embedding, encoder, features, model       # and no operation yet: it is forked

folder, data = sys.argv[1:]
config = configuration.get_config(["--train", "--model_path", folder, "--train_path", data, "--hidden", "8", "--proj",
                                   "4", "--num_layer", "1", "--iteration", "1000000000", "--speaker_number", "3"])
speakers = features.load_features(data)[0]

def save_again_and_again():
    config.restore = bool(embedding.checkpoint_numbers(folder))
    trainer = model.Trainer(config, encoder.build_encoder(config), speakers, [])
    while True:
        number = trainer.iteration + 1
        trainer.optimizer.iterations.assign(number)
        trainer.encoder.w.assign(number)
        trainer.save()

def check():
    trainer = model.Trainer(config, encoder.build_encoder(config), speakers, [])
    encoder.restore_checkpoint(trainer.checkpoint, embedding.checkpoint_path(folder, trainer.numbers()[-1]))
    assert float(trainer.encoder.w) == trainer.iteration == trainer.numbers()[-1] > int(sys.argv[3])

def forked(work, seconds=None):
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

last = 0
while not embedding.checkpoint_numbers(folder):
    forked(save_again_and_again, 3)
for kill in range(50):
    sys.argv[3:] = [str(last)]
    assert forked(save_again_and_again, random.Random(kill).uniform(0.3, 1.0)) == -signal.SIGKILL
    last = embedding.checkpoint_numbers(folder)[-1] - 1
    assert forked(check) == 0, kill
print("survived", last)
"""


def test_fifty_kills_leave_a_good_checkpoint(made_features, tmp_path):
    """Weights, optimizer and number of the last one belong together, whenever the writing ended."""
    done = subprocess.run([sys.executable, "-c", KILLS, str(tmp_path / "model"), str(made_features / "train")],
                          cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) > 50
