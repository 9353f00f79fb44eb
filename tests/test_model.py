"""The encoder against a plain loop, one training step by hand, runs that stop and go on, what is refused."""
import io
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import evaluate, train_flags
from test_encoder import small_encoder

import common
import configuration
import data_preprocess
import embedding
import encoder as encoder_room
import features
import model
import protocol
import utils
from common import InputError, tf
from encoder import Encoder, load_encoder

ROOT = pathlib.Path(model.__file__).parent


# ---- the encoder ------------------------------------------------------------------------------------------------


# ---- a training step --------------------------------------------------------------------------------------------

def config_with(*argv):
    return configuration.get_config(["--train", *map(str, argv)])


@pytest.mark.parametrize("kind", ["softmax", "contrast", "trials"])      # softmax has no gradient on b
def test_a_step_clips_then_scales_the_gradients(monkeypatch, kind):
    monkeypatch.setattr(model, "CLIP_NORM", 0.01)
    encoder = small_encoder()
    encoder.w.assign(2.0)                                          # at 10 the sigmoids of eq. 7 have hardly a slope
    encoder.b.assign(-0.5)
    frames = np.random.default_rng(0).standard_normal((6, 20, 40)).astype(np.float32)
    with tf.GradientTape() as tape:
        embedded = tf.reshape(encoder(frames), (2, 3, -1))
        loss = utils.batch_loss(embedded, encoder.w, encoder.b, kind)
    gradients = [gradient.numpy() for gradient in tape.gradient(loss, encoder.trainable_variables)]
    norm = np.sqrt(sum(np.sum(gradient.astype(float) ** 2) for gradient in gradients))
    assert norm > 0.01
    before = [variable.numpy() for variable in encoder.trainable_variables]
    config = config_with("--lr", 1, "--N", 2, "--M", 3, "--loss", kind)
    step = model.build_step(encoder, utils.build_optimizer(config), config)
    assert float(step(frames, 0.0)[0]) == pytest.approx(float(loss), rel=1e-5)
    scales = {"w": 0.01, "b": 0.01, "projection": 0.5}
    for variable, old, gradient in zip(encoder.trainable_variables, before, gradients, strict=True):
        scale = scales.get(variable.name.split("_")[0].split(":")[0], 1.0)
        np.testing.assert_allclose(old - variable.numpy(), scale * gradient * 0.01 / norm, atol=2e-7)


@pytest.mark.parametrize(("argv", "rates"), [
    (["--lr", 0.01], {0: 0.01, 9999: 0.01, 10000: 0.005, 35000: 0.00125}),
    (["--lr", 0.01, "--schedule", "cosine", "--iteration", 1000], {0: 0.01, 500: 0.005, 1000: 0.0}),
    (["--lr", 0.01, "--warmup", 10], {0: 0.001, 4: 0.005, 9: 0.01, 10: 0.01, 10000: 0.005}),
    (["--lr", 0.01, "--warmup", 2, "--schedule", "cosine", "--iteration", 2], {0: 0.005, 1: 0.005, 2: 0.0})])
def test_the_learning_rate_falls_as_stated(argv, rates):
    optimizer = utils.build_optimizer(config_with(*argv))
    for iteration, rate in rates.items():
        optimizer.iterations.assign(iteration)
        assert float(optimizer.learning_rate) == pytest.approx(rate, abs=1e-9)


@pytest.mark.parametrize(("name", "kind"), [("sgd", "SGD"), ("rmsprop", "RMSprop"), ("adam", "Adam")])
def test_the_optimizer_is_the_one_named(name, kind):
    optimizer = utils.build_optimizer(config_with("--optim", name))
    assert type(optimizer).__name__ == kind
    if name == "adam":
        assert (optimizer.beta_1, optimizer.beta_2) == (0.5, 0.9)


def test_the_graph_does_not_grow_with_the_batch():
    def operations(n, m):
        encoder = small_encoder()
        config = config_with("--N", n, "--M", m)
        step = model.build_step(encoder, utils.build_optimizer(config), config)
        return len(step.get_concrete_function().graph.as_graph_def().node)

    assert operations(2, 2) == operations(20, 7) > 100


# ---- runs -------------------------------------------------------------------------------------------------------

def weights(folder, number=None):
    encoder, _ = load_encoder(folder, number)
    return [variable.numpy() for variable in (*encoder.trainable_variables, encoder.mean, encoder.deviation)]


def test_a_model_folder_tells_everything(trained, made_features):
    stored = json.loads((trained / "config.json").read_text())
    assert stored["flags"]["hidden"] == 16
    assert stored["flags"]["sr"] == 8000
    assert stored["versions"]["tensorflow"] == tf.__version__
    assert len(stored["validation"]) == len(stored["training"]) == 4
    assert len(stored["commands"]) == 1
    encoder, config = load_encoder(trained)
    np.testing.assert_allclose(stored["normalisation"]["mean"], encoder.mean.numpy(), rtol=1e-6)
    assert (config.hidden, config.proj, config.num_layer) == (16, 8, 2)
    assert list((trained / "logs").glob("events*"))
    rows = utils.History(trained / "history.csv", 8).rows
    assert [row["iteration"] for row in rows] == ["4", "8"]
    best = json.loads((trained / "thresholds.json").read_text())["best"]
    assert best["valid_loss"] == min(float(row["valid_loss"]) for row in rows)
    assert set(embedding.checkpoint_numbers(trained)) == {best["model_num"], 8}
    thresholds = embedding.load_thresholds(trained, best["model_num"])
    assert thresholds["points"]["eer"].keys() == {"threshold", "far", "frr"}
    assert thresholds["source"] == "4 validation speakers, 3 enrolment utterances each"
    assert embedding.load_thresholds(trained, 5) is None


def test_the_constants_are_those_of_the_paper():
    """Section 3: gradients are clipped at 3, those of w and b scaled by 0.01, those of the projections by 0.5."""
    assert (model.CLIP_NORM, encoder_room.SCALE_W_B, encoder_room.SCALE_PROJECTION) == (3.0, 0.01, 0.5)


def test_each_batch_of_a_run_is_another(made_features, tmp_path):
    config = configuration.get_config(train_flags(made_features, tmp_path, "--crop_min", 150, "--crop_max", 150))
    trainer = model.Trainer(config, Encoder(4, 2, 1), features.load_features(config.train_path)[0], [])
    np.testing.assert_array_equal(trainer.draw(3), trainer.draw(3))
    assert not np.array_equal(trainer.draw(3), trainer.draw(4))


def test_each_checkpoint_measures_its_validation_loss_once(made_features, tmp_path, monkeypatch):
    measured, loss = [], protocol.Evaluation.least_loss
    monkeypatch.setattr(protocol.Evaluation, "least_loss", lambda self: measured.append(1) or loss(self))
    assert model.main(train_flags(made_features, tmp_path, "--iteration", 8)) == 0
    assert len(measured) == 2 * model.DRAWS                         # at 4 and at 8


def test_training_learns(made_features, tmp_path):
    assert model.main(train_flags(made_features, tmp_path, "--iteration", 40, "--valid_every", 10)) == 0
    losses = [float(row["loss"]) for row in utils.History(tmp_path / "history.csv", 40).rows]
    assert len(losses) == 4
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("batches", [2, 7])
def test_a_run_that_stopped_equals_an_unbroken_one(trained, made_features, tmp_path, monkeypatch, batches):
    unbroken, broken = trained, tmp_path / "model"
    drawn, real = [], utils.random_batch

    def press_ctrl_c(*arguments, **options):
        """Draw batches 0 to 3 at once (they are prefetched); a Ctrl-C falls into the step or the validation then."""
        drawn.append(1)
        if len(drawn) == batches:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments, **options)

    monkeypatch.setattr(utils, "random_batch", press_ctrl_c)
    assert model.main(train_flags(made_features, broken, "--iteration", 8)) == 2
    assert 0 < embedding.checkpoint_numbers(broken)[-1] < 8
    monkeypatch.setattr(utils, "random_batch", real)
    assert model.main(["--train", "--restore", "--model_path", str(broken)]) == 0
    stored = [json.loads((folder / "thresholds.json").read_text()) for folder in (broken, unbroken)]
    assert stored[0] == stored[1]
    assert len(json.loads((broken / "config.json").read_text())["commands"]) == 2
    for number in (None, 8):
        for ours, theirs in zip(weights(broken, number), weights(unbroken, number), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    rows = [utils.History(folder / "history.csv", 8).rows for folder in (broken, unbroken)]
    for ours, theirs in zip(*rows, strict=True):
        same = ("iteration", "loss", "learning_rate", "valid_eer", "valid_loss")
        assert all(ours[name] == theirs[name] for name in same)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_saves_and_says_so(made_features, tmp_path, stop):
    """Ctrl-C, and what a machine sends that shuts down."""
    command = [sys.executable, str(ROOT / "model.py"), *train_flags(made_features, tmp_path, "--iteration", 100000)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("iteration 4:"):
            break
    process.send_signal(stop)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "which is saved; go on with --restore True" in err
    assert "Traceback" not in err
    last = embedding.checkpoint_numbers(tmp_path)[-1]
    assert f"stopped at iteration {last} of 100000" in err
    assert model.main(["--train", "--restore", "--model_path", str(tmp_path), "--iteration", str(last + 2)]) == 0
    assert embedding.checkpoint_numbers(tmp_path)[-1] == last + 2
    assert load_encoder(tmp_path)[1].iteration == last + 2    # and a third call goes on towards this


def test_patience_stops_a_run_that_gets_no_better(made_features, tmp_path, monkeypatch, capsys):
    """The losses fall twice, then rise: three validations later it stops, one step on, and can go on."""
    losses = iter([3.0, 2.0, 2.5, 2.4, 2.3, 2.2, 2.1])
    monkeypatch.setattr(model, "DRAWS", 1)
    monkeypatch.setattr(protocol.Evaluation, "least_loss", lambda self: next(losses))
    assert model.main(train_flags(made_features, tmp_path, "--iteration", 100, "--patience", 3)) == 0
    out = capsys.readouterr().out
    assert "stopped at iteration 21 of 100, which is saved; go on with --restore True" in out
    assert f"--model_path {tmp_path} --patience 6\n" in out
    assert "done: checkpoint 8 in" in out
    assert embedding.checkpoint_numbers(tmp_path) == [8, 21]


def test_fewer_iterations_than_were_taken_are_refused(trained, fails, tmp_path):
    shutil.copytree(trained, tmp_path / "model")
    before = (tmp_path / "model" / "config.json").read_bytes()
    assert f"--iteration is 4: {tmp_path}/model has taken 8; give a higher one" in fails(
        model.main, "--train", "--restore", "--model_path", tmp_path / "model", "--iteration", 4)
    assert (tmp_path / "model" / "config.json").read_bytes() == before


def test_of_several_workers_the_chief_alone_loses_patience(made_features, tmp_path, monkeypatch):
    """Another one has no validation, and knows of none after the run was restored."""
    import encoder as networks

    flags = train_flags(made_features, tmp_path, "--iteration", 8, "--valid_every", 4)
    assert model.main(flags) == 0
    monkeypatch.setattr(networks, "choose_strategy", lambda config: (model.tf.distribute.get_strategy(), False))
    monkeypatch.setattr(utils.History, "stalled", lambda self: 9)
    config = configuration.get_config(
        ["--train", "--restore", "--model_path", str(tmp_path), "--iteration", "16", "--patience", "1"])
    steps, take = [], model.Trainer.check_loss
    monkeypatch.setattr(model.Trainer, "check_loss", lambda self, loss, name="loss": (
        steps.append(self.iteration), take(self, loss, name)))
    assert not model.train(config)
    assert steps == list(range(9, 17))


def test_minutes_stop_a_run_with_a_validation(made_features, tmp_path, capsys):
    assert model.main(train_flags(made_features, tmp_path, "--iteration", 100000, "--max_minutes", 0.02)) == 0
    last = embedding.checkpoint_numbers(tmp_path)[-1]
    assert f"stopped at iteration {last} of 100000" in capsys.readouterr().out
    assert utils.History(tmp_path / "history.csv", last).last["valid_loss"]


def test_init_from_starts_with_the_weights_of_a_model(trained, made_features, tmp_path):
    flags = ["--train", "--train_path", str(made_features / "train"), "--model_path", str(tmp_path), "--N", "3",
             "--M", "3", "--init_from", str(trained), "--lr", "1e-9", "--iteration", "1"]
    assert model.main(flags) == 0
    for ours, theirs in zip(weights(tmp_path), weights(trained), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert model.main(["--train", "--restore", "--model_path", str(tmp_path), "--iteration", "2"]) == 0
    stored, base = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path, trained))
    assert stored["flags"]["init_from"] == str(trained)                 # it goes on, and still says what it began with
    assert not stored["validation"]                                     # a tenth of 8 speakers is none
    assert set(stored["training"]) == {*base["training"], *base["validation"]}


def test_the_threshold_of_trials_begins_as_in_a_new_encoder_or_where_trials_left_it(trained, made_features, tmp_path):
    flags = ["--train", "--train_path", str(made_features / "train"), "--valid_ratio", "0", "--N", "4", "--M", "3",
             "--lr", "1e-9", "--iteration", "1", "--loss", "trials"]
    assert model.main([*flags, "--init_from", str(trained), "--model_path", str(tmp_path / "a")]) == 0
    found, _ = load_encoder(tmp_path / "a")
    assert float(found.b) == pytest.approx(-abs(float(found.w)) / 2)       # the base's softmax gave b no gradient
    found.b.assign(-7.0)
    encoder_room.write_checkpoint(tf.train.Checkpoint(encoder=found), tmp_path / "a", 1)
    stored = json.loads((tmp_path / "a" / "config.json").read_text())
    for loss in ("trials", "contrast"):                                     # eq. 7 trains b, too
        stored["flags"]["loss"] = loss
        (tmp_path / "a" / "config.json").write_text(json.dumps(stored))
        assert model.main([*flags, "--init_from", str(tmp_path / "a"), "--model_path", str(tmp_path / loss)]) == 0
        assert float(load_encoder(tmp_path / loss)[0].b) == pytest.approx(-7.0)


def test_a_run_may_begin_on_features_that_hear_more_as_speech(trained, corpus, tmp_path):
    """What is normalised stays as it was: the weights know it."""
    folder = tmp_path / "features"
    assert data_preprocess.main(["--raw_path", str(corpus), "--train_path", str(folder / "train"), "--test_path",
                                 str(folder / "test"), "--top_db", "45"]) == 0
    assert model.main(train_flags(folder, tmp_path / "a", "--iteration", 1, "--init_from", trained, "--teacher",
                                  trained)) == 0
    base, stored = (json.loads((place / "config.json").read_text()) for place in (trained, tmp_path / "a"))
    assert (base["flags"]["top_db"], stored["flags"]["top_db"]) == (30, 45)
    assert stored["normalisation"] == base["normalisation"]


def test_init_from_validates_on_speakers_that_its_base_did_not_train_on(trained, made_features, tmp_path):
    """Half of 8 speakers validated the base, and validate this run, too; a third run knows whom the first has heard."""
    base = json.loads((trained / "config.json").read_text())
    for first, folder in ((trained, tmp_path / "a"), (tmp_path / "a", tmp_path / "b")):
        assert model.main(train_flags(made_features, folder, "--iteration", 1, "--init_from", first)) == 0
        stored = json.loads((folder / "config.json").read_text())
        assert sorted(stored["validation"]) == sorted(base["validation"])
        assert sorted(stored["training"]) == sorted(base["training"])


def cosines(folder, speakers):
    """Return the cosines (U, U) of all utterances of some speakers, by the model in a folder."""
    encoder, _ = load_encoder(folder)
    vectors = np.concatenate([list(embedding.embed_speaker(encoder, speaker).values()) for speaker in speakers])
    return vectors @ vectors.T


def test_a_student_learns_the_similarities_of_its_teacher(trained, made_features, tmp_path):
    speakers = features.load_features(made_features / "train")[0]
    taught, distances = cosines(trained, speakers), {}
    for name, more in (("alone", ()), ("taught", ("--teacher", trained))):
        flags = train_flags(made_features, tmp_path / name, "--iteration", 20, "--hidden", 8, "--seed", 3, *more)
        assert model.main(flags) == 0
        distances[name] = np.square(cosines(tmp_path / name, speakers) - taught).mean()
    assert distances["taught"] < 0.7 * distances["alone"]
    stored, teacher = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "taught", trained))
    assert sorted(stored["validation"]) == sorted(teacher["validation"])            # the others have taught it
    before = [weight.copy() for weight in weights(trained)]
    assert model.main(["--train", "--restore", "--model_path", str(tmp_path / "taught"), "--iteration", "24"]) == 0
    assert json.loads((tmp_path / "taught" / "config.json").read_text())["flags"]["teacher"] == str(trained)
    for old, new in zip(before, weights(trained), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_run_validates_on_the_speakers_of_another(trained, made_features, tmp_path, capsys):
    base = json.loads((trained / "config.json").read_text())
    for number, ratio in enumerate((0, 0.25)):
        flags = train_flags(made_features, tmp_path / str(number), "--iteration", 1, "--valid_as", trained)
        assert model.main([*flags, "--valid_ratio", str(ratio), "--seed", "5"]) == 0
        stored = json.loads((tmp_path / str(number) / "config.json").read_text())
        assert (stored["validation"], stored["speakers"]) == (base["validation"], base["speakers"])
    others = sorted({*base["training"]} - {*base["validation"]})
    (tmp_path / "config.json").write_text(json.dumps(base | {"validation": others[:2]}))
    (tmp_path / "Check_Point").symlink_to(trained / "Check_Point")
    for flag in ("--init_from", "--teacher"):
        flags = train_flags(made_features, tmp_path / "x", "--iteration", 1, "--valid_as", tmp_path, flag, trained)
        assert model.main(flags) == 2
        assert f"error: {others[0]} cannot validate: the weights that this run begins with, or its teacher" in (
            capsys.readouterr().err)
    (tmp_path / "config.json").write_text(json.dumps(base | {"validation": []}))
    assert model.main(train_flags(made_features, tmp_path / "x", "--iteration", 1, "--valid_as", tmp_path)) == 2
    assert "that model has no validation speakers; leave it out" in capsys.readouterr().err


def test_a_teacher_that_hears_other_features_is_refused(trained, made_features, tmp_path, capsys):
    assert model.main(train_flags(made_features, tmp_path, "--teacher", embedding.PRETRAINED)) == 2
    assert f"--teacher is {embedding.PRETRAINED}: it listens to other features than" in capsys.readouterr().err


@pytest.fixture(scope="module")
def convolutional(made_features, tmp_path_factory):
    """A convolutional model of 8 iterations."""
    folder = tmp_path_factory.mktemp("convolutional") / "model"
    assert model.main(train_flags(made_features, folder, "--iteration", 8, "--network", "resnet", "--hidden", 16)) == 0
    return folder


def test_a_convolutional_encoder_goes_all_ways(convolutional, made_features, tmp_path, capsys):
    test_flags = ["--model_path", str(convolutional), "--test_path", str(made_features / "test"), "--M", "3"]
    assert model.main(test_flags) == 0
    assert "EER" in capsys.readouterr().out
    light, config = embedding.load_encoder(convolutional)
    frames = np.random.default_rng(0).standard_normal((3, 160, 40)).astype(np.float32)
    np.testing.assert_allclose(light(frames), load_encoder(convolutional)[0](frames), atol=1e-5)
    assert (config.network, light.origin["flags"]["network"]) == ("resnet", "resnet")
    flags = train_flags(made_features, tmp_path / "student", "--iteration", 4, "--teacher", convolutional)
    assert model.main(flags) == 0
    assert model.main(["--train", "--restore", "--model_path", str(convolutional), "--iteration", "12"]) == 0
    assert utils.History(convolutional / "history.csv", 12).last["iteration"] == "12"
    flags = train_flags(made_features, tmp_path / "x", "--init_from", convolutional, "--network", "lstm")
    assert model.main(flags) == 2
    assert f"--network is lstm, but {convolutional} was made with resnet" in capsys.readouterr().err


def test_a_convolutional_encoder_that_goes_on_normalises_as_before(convolutional, made_features, tmp_path):
    flags = train_flags(made_features, tmp_path, "--init_from", convolutional, "--network", "resnet", "--hidden", 16)
    assert model.main([*flags, "--iteration", "4"]) == 0
    assert model.main(["--train", "--restore", "--model_path", str(tmp_path), "--iteration", "8"]) == 0
    base, ours = load_encoder(convolutional)[0], load_encoder(tmp_path, 8)[0]
    kept = {new.name: np.array_equal(old, new) for old, new in zip(base.weights, ours.weights, strict=True)}
    assert sum("moving_" in name for name in kept) > 20
    for name, same in kept.items():
        if not name.startswith("dense"):            # one unit squeezes four channels: no gradient where it is silent
            assert same == ("moving_" in name), name


def test_a_convolutional_run_that_stopped_ends_as_one_that_did_not(convolutional, made_features, tmp_path):
    whole = train_flags(made_features, tmp_path / "whole", "--iteration", 12, "--network", "resnet", "--hidden", 16)
    assert model.main(whole) == 0
    assert embedding.checkpoint_numbers(convolutional)[-1] == 12                    # by the test before
    for ours, theirs in zip(weights(convolutional, 12), weights(tmp_path / "whole", 12), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_what_the_base_was_trained_on_is_remembered(trained, write_features, tmp_path, capsys):
    folder = write_features([[1] * 5] * 4)
    flags = ["--train", "--train_path", str(folder), "--model_path", str(tmp_path / "x"), "--N", "3", "--M", "3",
             "--init_from", str(trained), "--iteration", "1"]
    assert model.main(flags) == 0
    training = json.loads((tmp_path / "x" / "config.json").read_text())["training"]
    assert {name[:5] for name in training} == {"voice", *(f"s{i}" for i in range(4))}


def test_a_run_that_goes_on_with_other_speakers_says_so(made_features, tmp_path, capsys):
    shutil.copytree(made_features / "train", tmp_path / "train")
    folder = tmp_path / "model"
    assert model.main(train_flags(tmp_path, folder, "--iteration", 1, "--valid_ratio", 0)) == 0
    on = ["--train", "--restore", "--model_path", str(folder), "--iteration"]
    assert model.main([*on, "2"]) == 0
    assert "came or went" not in capsys.readouterr().out
    for suffix in (".npy", ".json"):
        (tmp_path / "train" / f"voice00{suffix}").unlink()
    assert model.main([*on, "3"]) == 0
    assert "1 training speakers came or went since this run began" in capsys.readouterr().out
    path = tmp_path / "train" / "voice01.json"
    record = json.loads(path.read_text())
    record["utterances"][0]["copies"] = [{**record["utterances"][0], "count": 0, "first": 0, "condition": "opus"}]
    path.write_text(json.dumps(record))
    assert model.main([*on, "4"]) == 0
    assert "utterances or copies came or went since this run stopped" in capsys.readouterr().out
    assert model.main([*on, "5"]) == 0
    assert "came or went" not in capsys.readouterr().out


def test_a_new_run_forgets_the_thresholds_of_a_deleted_one(trained, made_features, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("Check_Point", "config.json"))
    common.write_json(folder / "thresholds.json", {
        "model_num": 5, "points": {"eer": {"threshold": 0, "far": 0, "frr": 0}}, "source": "a deleted run",
        "best": {"model_num": 5, "valid_loss": -1.0}})
    assert (folder / "encoder.tflite").exists()
    assert model.main(train_flags(made_features, folder, "--iteration", 4)) == 0
    assert load_encoder(folder)[1].model_num == embedding.read_origin(folder / "encoder.tflite")["model_num"] == 4
    assert embedding.load_thresholds(folder, 4)["best"]["model_num"] == 4


def test_a_model_that_only_listens_is_not_trained_over(trained, made_features, tmp_path, fails):
    listener = tmp_path / "listener"
    shutil.copytree(trained, listener, ignore=shutil.ignore_patterns("Check_Point", "history.csv"))
    before = (listener / "encoder.tflite").read_bytes()
    assert "there is a model already" in fails(model.main, *train_flags(made_features, listener, "--iteration", 1))
    assert "there is a model already" in fails(model.main, "--model_path", trained, "--export", listener)
    assert (listener / "encoder.tflite").read_bytes() == before
    assert (listener / "thresholds.json").exists()


def test_a_name_that_is_a_pattern_is_refused(trained, made_features, tmp_path, fails):
    assert "are a pattern to TensorFlow" in fails(model.main, *train_flags(made_features, tmp_path / "run[1]"))
    assert "are a pattern to TensorFlow" in fails(model.main, "--model_path", trained, "--export", tmp_path / "a*")


def test_a_best_checkpoint_that_a_kill_left_without_thresholds_is_saved_again(made_features, tmp_path, monkeypatch):
    """The kill comes between the checkpoint and its export."""
    losses = iter((0.5, 0.25, 0.25, 0.58))
    monkeypatch.setattr(protocol.Evaluation, "least_loss", lambda self: next(losses))
    monkeypatch.setattr(model, "DRAWS", 1)
    export, folder = model.Trainer.export, tmp_path / "model"

    def killed(trainer):
        if trainer.iteration == 4:
            raise SystemExit(9)
        export(trainer)

    monkeypatch.setattr(model.Trainer, "export", killed)
    with pytest.raises(SystemExit):
        model.main(train_flags(made_features, folder, "--iteration", 6, "--valid_every", 2))
    monkeypatch.setattr(model.Trainer, "export", export)
    assert model.main(["--train", "--restore", "--model_path", str(folder)]) == 0
    assert json.loads((folder / "thresholds.json").read_text())["best"]["model_num"] == 4
    assert embedding.checkpoint_numbers(folder) == [4, 6]


def test_every_flag_of_a_run_is_kept_or_may_change():
    """--restore keeps the flags that batches and steps depend on."""
    names = {name for name, flag in configuration.flags().items() if flag.group == "training"}
    kept = configuration.flags_stored("run")
    assert {"speed", "equalize", "weigh", "mask_channels", "lr", "seed"} <= set(kept)
    assert names == {"train", *kept, "iteration", "valid_every", "patience", "max_minutes", "comment",
                     "teacher"}             # whose folder may have moved


@pytest.mark.parametrize("flag", ["--speed", "--equalize", "--mask_channels", "--weigh"])
def test_each_variation_changes_the_batches_of_a_run(made_features, tmp_path, flag):
    def batch(*argv):
        flags = train_flags(made_features, tmp_path, "--crop_max", 150, "--crop_min", 150, *argv)
        config = configuration.get_config(flags)
        speakers, _ = features.load_features(config.train_path)
        few = [replace(speaker, utterances=speaker.utterances[:1]) for speaker in speakers[:4]]
        trainer = model.Trainer(config, Encoder(4, 2, 1), few + speakers[4:], [])
        return np.concatenate([trainer.draw(k) for k in range(6)])

    assert batch().shape == batch(flag, 0).shape
    np.testing.assert_array_equal(batch(), batch(flag, 0))
    assert not np.array_equal(batch(), batch(flag, {"--speed": 0.2, "--weigh": 1}.get(flag, 5)))


def test_few_validation_speakers_are_said(made_features, tmp_path, capsys):
    assert model.main(train_flags(made_features, tmp_path, "--iteration", 2, "--valid_ratio", 0.1)) == 0
    assert "python test.py --store_threshold True measures one" in capsys.readouterr().out
    assert not (tmp_path / "thresholds.json").exists()
    assert load_encoder(tmp_path)[1].model_num == 2           # none is best: the last


def test_what_training_refuses(trained, made_features, tmp_path, fails):
    def refused(*argv):
        return fails(model.main, "--train", *argv)

    data = ["--train_path", made_features / "train"]
    assert "there is a model already; go on with --restore True" in refused(*data, "--model_path", trained)
    assert "--hidden is 32, but" in refused("--restore", "--model_path", trained, "--hidden", 32)
    assert "--sr is 16000, but" in refused(*data, "--model_path", tmp_path / "x", "--sr", 16000)
    assert "--speaker_number is 50" in refused(*data, "--model_path", tmp_path / "x", "--N", 50)
    assert "holds no features" in refused("--train_path", tmp_path, "--model_path", tmp_path / "x")
    assert "--model_path is x: there is no model" in refused("--restore", "--model_path", "x")
    assert "that holds features; name another folder" in refused(*data, "--model_path", made_features / "test")
    (tmp_path / "file").touch()
    assert "file: it cannot be written" in refused(*data, "--model_path", tmp_path / "file")
    for name in ("init_from", "teacher", "valid_as"):
        assert f"--{name} is nowhere: there is no model; train one with python model.py --train True --model_path " in (
            refused(*data, "--model_path", tmp_path / "x", f"--{name}", "nowhere"))
    assert not (tmp_path / "x").exists()
    shutil.copytree(trained, tmp_path / "y", ignore=shutil.ignore_patterns("Check_Point"))
    assert "there is no checkpoint" in refused("--restore", "--model_path", tmp_path / "y")
    assert model.main(["--model_path", str(trained), "--export", str(tmp_path / "z")]) == 0
    before = (tmp_path / "z" / "config.json").read_bytes()
    assert "an export has not what only training needs; start a run with --init_from" in refused(
        "--restore", "--model_path", tmp_path / "z", "--iteration", 99)
    assert (tmp_path / "z" / "config.json").read_bytes() == before
    (tmp_path / "z" / "config.json").write_text("{}")
    assert "is of another program" in fails(model.main, "--model_path", tmp_path / "z")


def test_the_papers_size_trains_and_exports(made_features, tmp_path):
    """768 cells, 256 projected: a layer of i inputs has (i + 256) 4 x 768 weights, 4 x 768 biases, 768 x 256 more."""
    flags = train_flags(made_features, tmp_path / "model", "--iteration", 1, "--hidden", 768, "--proj", 256,
                        "--num_layer", 3, "--utterance_number", 2, "--crop_min", 20, "--crop_max", 20)
    assert model.main(flags) == 0
    numbers = sum((inputs + 256) * 3072 + 3072 + 768 * 256 for inputs in (40, 256, 256)) + 2
    assert encoder_room.trainable_numbers(load_encoder(tmp_path / "model")[0]) == numbers
    assert model.main(["--model_path", str(tmp_path / "model"), "--export", str(tmp_path / "export")]) == 0
    frames = np.random.default_rng(0).standard_normal((2, 30, 40)).astype(np.float32)
    exported, original = embedding.load_encoder(tmp_path / "export")[0], load_encoder(tmp_path / "model")[0]
    assert exported(frames).shape == (2, 256)
    np.testing.assert_allclose(exported(frames), original(frames), atol=1e-5)


def test_crops_must_fit_the_stored_segments(corpus, tmp_path, fails):
    paths = ["--train_path", str(tmp_path / "train"), "--test_path", str(tmp_path / "test")]
    assert data_preprocess.main(["--raw_path", str(corpus), *paths, "--tisv_frame", "160", "--jobs", "1"]) == 0
    flags = [*paths, "--model_path", str(tmp_path / "model"), "--N", "3"]
    assert ("--crop_max is 180: a stored segment has only --tisv_frame 160 frames; 160 fit"
            in fails(model.main, "--train", *flags))
    flags += ["--train", "--crop_min", "100", "--iteration", "1"]
    assert "--crop_max is 130, played faster by --speed 0.3: a stored segment" in fails(
        model.main, *flags, "--crop_max", 130, "--speed", 0.3)
    assert model.main([*flags, "--crop_max", "120", "--speed", "0.3"]) == 0
    assert model.main(["--train", "--restore", "--speed", "0.3", "--iteration", "2", *flags[4:6]]) == 0


def test_a_feature_file_that_is_gone_stops_a_run_in_one_line(trained, made_features, tmp_path, fails, monkeypatch):
    def gone(*arguments, **options):
        raise FileNotFoundError("s1.npy is gone")

    monkeypatch.setattr(utils, "random_batch", gone)
    assert "s1.npy is gone" in fails(model.main, *train_flags(made_features, tmp_path))


@pytest.mark.parametrize("kind", ["gone", "truncated", "not numbers"])
def test_features_that_break_under_a_run_stop_it_and_are_named(made_features, tmp_path, kind):
    """After the first validation, in the folder of a run that is under way; its last checkpoint stays good."""
    data, folder = tmp_path / "train", tmp_path / "model"
    shutil.copytree(made_features / "train", data)
    command = [sys.executable, str(ROOT / "model.py"), *train_flags(made_features, folder, "--iteration", 100000)]
    command[command.index("--train_path") + 1] = str(data)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert any(line.startswith("iteration 8:") for line in process.stdout)
    for path in data.glob("*.npy"):
        content = path.read_bytes()
        path.unlink()                               # the run's mapping keeps the old file
        if kind == "truncated":
            path.write_bytes(content[:1000])
        elif kind == "not numbers":
            np.save(path, np.full_like(np.load(io.BytesIO(content), allow_pickle=False), np.nan))
    _, errors = process.communicate(timeout=60)
    line = errors.splitlines()[-1]
    assert process.returncode == 2
    assert "error: " in line
    assert f"{data}/" in line
    assert "--restore True" in line
    assert "Traceback" not in errors
    assert load_encoder(folder)[1].model_num >= 4
    shutil.rmtree(data)
    shutil.copytree(made_features / "train", data)
    last = embedding.checkpoint_numbers(folder)[-1]
    assert model.main(["--train", "--restore", "--model_path", str(folder), "--iteration", str(last + 1)]) == 0


def test_a_full_disk_stops_a_run_and_leaves_its_checkpoints(trained, made_features, tmp_path):
    """No file may grow beyond 10 kB, which a checkpoint does."""
    folder = tmp_path / "model"
    shutil.copytree(trained, folder)
    command = [sys.executable, str(ROOT / "model.py"), "--train", "--restore", "--model_path", str(folder),
               "--iteration", "12"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr.splitlines()[-1]
    assert embedding.checkpoint_numbers(folder) == embedding.checkpoint_numbers(trained)
    for ours, theirs in zip(weights(folder), weights(trained), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert model.main(["--train", "--restore", "--model_path", str(folder), "--iteration", "12"]) == 0


def test_the_same_seed_gives_the_same_course(trained, made_features, tmp_path):
    assert model.main(train_flags(made_features, tmp_path, "--iteration", 8)) == 0
    courses = [[(row["iteration"], row["loss"], row["valid_loss"]) for row in utils.History(
        folder / "history.csv", 8).rows] for folder in (tmp_path, trained)]
    assert courses[0] == courses[1]


def test_a_model_does_not_validate_on_speakers_it_knows(write_features):
    speakers, _ = features.load_features(write_features([[1, 1, 1]] * 6))
    _, validation = utils.split_validation(speakers, 2, ratio=0.9, rng=np.random.default_rng(0), seen={"s0", "s1"})
    assert {speaker.name for speaker in validation} == {"s2", "s3", "s4", "s5"}


def test_a_loss_that_is_not_finite_stops_the_run(made_features, tmp_path, fails, monkeypatch):
    monkeypatch.setattr(utils, "ge2e_loss", lambda similarity, kind: tf.reduce_sum(similarity) * np.inf)
    assert "at iteration 1: lower --lr" in fails(model.main, *train_flags(made_features, tmp_path))


def test_weights_that_are_not_finite_blame_no_speaker(made_features, tmp_path, fails, monkeypatch):
    """The step before a validation breaks them, after a loss that was finite."""
    monkeypatch.setattr(utils, "ge2e_loss", lambda similarity, kind: tf.reduce_sum(tf.sqrt(0 * similarity)))
    line = fails(model.main, *train_flags(made_features, tmp_path, "--valid_every", 1))
    assert "the sum of the weights is nan at iteration 1: lower --lr, which is 0.01" in line


def test_a_history_that_was_deleted_does_not_thin_the_losses(made_features, tmp_path):
    """The mean of the steps since then, not their sum by all steps; one that is not there yet counts from the start."""
    folder = tmp_path / "model"
    for iteration in (8, 12):
        (folder / "history.csv").unlink(missing_ok=True)
        more = ["--restore"] if iteration == 12 else []
        assert model.main(train_flags(made_features, folder, "--iteration", iteration, *more)) == 0
    unbroken = tmp_path / "unbroken"
    assert model.main(train_flags(made_features, unbroken, "--iteration", 12)) == 0
    ours, theirs = (utils.History(path / "history.csv", 12).rows[-1] for path in (folder, unbroken))
    assert (ours["iteration"], float(ours["loss"])) == (theirs["iteration"], pytest.approx(float(theirs["loss"])))


def test_two_runs_do_not_share_a_folder(trained, made_features, tmp_path, fails):
    with utils.only_run(tmp_path):
        line = fails(model.main, *train_flags(made_features, tmp_path, "--iteration", 1))
        assert f"--model_path is {tmp_path}: another run trains there; wait for it, or name another folder" in line
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert not embedding.holds_model(tmp_path)
    assert model.main(train_flags(made_features, tmp_path, "--iteration", 1)) == 0
    assert model.main(["--model_path", str(tmp_path), "--export", str(tmp_path / "exported")]) == 0
    assert not (tmp_path / "exported" / ".lock").exists()


def test_a_validation_loss_that_is_not_finite_stops_the_run_before_it_is_written(made_features, tmp_path, fails,
                                                                                 monkeypatch):
    monkeypatch.setattr(protocol.Evaluation, "least_loss", lambda self: np.nan)
    line = fails(model.main, *train_flags(made_features, tmp_path, "--iteration", 4))
    assert "the validation loss is nan at iteration 4: lower --lr, which is 0.01" in line
    assert not (tmp_path / "history.csv").exists()
    assert embedding.checkpoint_numbers(tmp_path) == []


# ---- evaluation -------------------------------------------------------------------------------------------------

def test_scores_are_those_of_a_plain_loop(trained, made_features):
    encoder, _ = load_encoder(trained)
    speakers, _ = features.load_features(made_features / "test")
    evaluation = evaluate(encoder, speakers, 4)
    assert evaluation.scores.shape == evaluation.labels.shape == (6, 3)
    assert evaluation.embedded_seconds == pytest.approx(sum(u.speech_seconds for s in speakers for u in s.utterances))
    centroids = {}
    for speaker in speakers:
        rows = [speaker.load()[u.first:u.first + u.count] for u in speaker.utterances[:4]]
        mean = np.mean([embedding.embed(encoder, segments) for segments in rows], axis=0)
        centroids[speaker.name] = mean / np.linalg.norm(mean)
    for (name, file), row, labels in zip(evaluation.probes, evaluation.scores, evaluation.labels, strict=True):
        speaker = next(speaker for speaker in speakers if speaker.name == name)
        probe = next(u for u in speaker.utterances[4:] if u.file == file)
        vector = embedding.embed(encoder, speaker.load()[probe.first:probe.first + probe.count])
        np.testing.assert_allclose(row, [vector @ centroids[other.name] for other in speakers], atol=1e-5)
        assert labels.tolist() == [other.name == name for other in speakers]


def test_a_probe_without_speech_is_below_everything(write_features):
    folder = write_features([[2, 2, 0, 2], [1, 1, 1]])
    encoder = Encoder(7, 5, 2)
    encoder.deviation.assign(np.full(40, 1e6))
    evaluation = evaluate(encoder, features.load_features(folder)[0], 2)
    assert [file for _, file in evaluation.probes] == ["2.wav", "3.wav", "2.wav"]
    assert np.isneginf(evaluation.scores).all(axis=1).tolist() == [True, False, False]
    assert evaluation.without_speech == 1
    assert "1 of 3 probes without speech" in evaluation.describe()


@pytest.mark.parametrize(("speakers", "m", "words"), [
    ([[1, 1, 1]], 2, "1 speaker"),
    ([[1, 1, 1], [1, 1]], 2, r"s1\.npy has 2 utterances with speech: .* --utterance_number 2 and one probe need 3")])
def test_too_few_speakers_or_utterances(write_features, speakers, m, words):
    with pytest.raises(InputError, match=words):
        evaluate(Encoder(7, 5, 2), features.load_features(write_features(speakers))[0], m)


def test_testing_refuses_what_does_not_fit(trained, made_features, tmp_path, write_features, fails):
    flags = ["--model_path", trained, "--test_path", made_features / "test"]
    assert "--speaker_number is 4" in fails(model.main, *flags, "--N", 4)
    assert "lower it" in fails(model.main, *flags, "--M", 6)
    assert "--sr is 16000, but" in fails(model.main, *flags, "--sr", 16000)
    assert "--num_layer is 3, but" in fails(model.main, *flags, "--num_layer", 3)
    other = write_features([[1, 1, 1]] * 2, sr=16000)
    assert "was made with --sr 16000, the model with 8000" in fails(
        model.main, "--model_path", trained, "--test_path", other)
    assert "--trials serves python test.py" in fails(model.main, *flags, "--raw_path", "x", "--trials", "y")


def test_speakers_of_the_training_are_noted(trained, made_features, capsys):
    assert model.main(["--model_path", str(trained), "--test_path", str(made_features / "train")]) == 0
    assert "8 of 8 speakers carry names of speakers that the model was trained" in capsys.readouterr().out


def test_testing_draws_speakers_by_seed(trained, made_features):
    flags = ["--model_path", str(trained), "--test_path", str(made_features / "test"), "--M", "3", "--N", "2",
             "--seed"]
    drawn = {tuple(model.test(configuration.get_config([*flags, str(seed)])).speakers) for seed in range(8)}
    assert len(drawn) > 1
    assert all(len(names) == 2 for names in drawn)


def test_an_ancestors_features_are_noted(trained, made_features, tmp_path, capsys):
    for number, path in enumerate(sorted((made_features / "test").glob("*.npy"))):
        shutil.copy(path, tmp_path / f"speaker{number}.npy")
    flags = ["--model_path", str(trained), "--test_path", str(tmp_path)]
    assert model.main(flags) == 0
    assert "each row counts as an utterance" in capsys.readouterr().out
    known = model.test(configuration.get_config(flags)).known           # no 0 s, on which a threshold would depend
    assert np.isnan(known["probe_seconds"]).all()
    assert np.isnan(known["enrolled_seconds"]).all()
