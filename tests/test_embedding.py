"""What listens: the exported encoder beside TensorFlow's, where it comes from, thresholds, model folders."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from conftest import train_flags
from test_encoder import loop_encoder, small_encoder

import configuration
import embedding
import features
import measures
import model
import protocol
import verification
from common import InputError
from encoder import export, load_encoder, trainable_numbers


def test_embed_reads_160_frames_and_averages_unit_vectors():
    encoder = small_encoder()
    segments = np.random.default_rng(0).standard_normal((3, 40, 180)).astype(np.float32)
    vectors = np.array([loop_encoder(encoder, segment[:, :160].T) for segment in segments])
    mean = vectors.mean(axis=0)
    found = embedding.embed(encoder, segments)
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=1e-5)
    segments[..., 160:] = 9
    np.testing.assert_array_equal(embedding.embed(encoder, segments), found)


def test_many_segments_are_embedded_in_parts(monkeypatch):
    encoder = small_encoder()
    segments = np.random.default_rng(0).standard_normal((5, 40, 180)).astype(np.float32)
    whole = embedding.embed_rows(encoder, segments)
    monkeypatch.setattr(embedding, "EMBED_BATCH", 2)
    np.testing.assert_allclose(embedding.embed_rows(encoder, segments), whole, atol=1e-6)
    with pytest.raises(InputError, match="no segment"):
        embedding.embed(encoder, segments[:0])


def test_without_a_model_the_pretrained_one_is_taken_and_named(trained, voice, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(embedding, "PRETRAINED", trained)
    monkeypatch.chdir(tmp_path)
    flags = ["--verify", "--enroll_path", str(voice), "--verify_path", str(voice / "00.wav"), "--json",
             "--threshold", "-1"]
    assert model.main(flags) == 0
    captured = capsys.readouterr()
    assert "model: " in captured.err
    assert (tmp_path / json.loads(captured.out)["model"]).resolve() == trained.resolve()
    shutil.copytree(trained, tmp_path / "model")
    assert model.main(flags) == 0
    captured = capsys.readouterr()
    assert "model: ./model" in captured.err
    assert json.loads(captured.out)["model"] == "./model"


def test_the_pretrained_model_is_whole_and_small():
    folder = embedding.PRETRAINED
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 2e6
    verifier = verification.Verifier(configuration.get_config(["--model_path", str(folder)]))
    assert trainable_numbers(load_encoder(folder)[0]) == 210_434
    assert verifier.config.sr == 16000
    assert 0 < verifier.threshold.far < 0.1
    assert verifier.calibration.scale[0] > 0
    vectors = embedding.embed_rows(verifier.encoder, np.random.default_rng(0).standard_normal((3, 40, 180)))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


ROOT = pathlib.Path(model.__file__).parent


# ---- parity with TensorFlow -------------------------------------------------------------------------------------

@pytest.fixture(scope="module", params=["the paper's size", "tiny"])
def both(request, trained):
    """The same weights in TensorFlow and in LiteRT."""
    folder = embedding.PRETRAINED if request.param == "the paper's size" else trained
    return load_encoder(folder)[0], embedding.load_encoder(folder)[0]


@pytest.mark.parametrize(("batch", "frames"), [
    (1, 1), (1, 2), (3, 17), (1, 160), (31, 160), (32, 160), (33, 160), (2, 400), (512, 20)])
def test_litert_equals_tensorflow_for_every_length_and_batch(both, made_features, batch, frames):
    speech = np.concatenate([speaker.load() for speaker in features.load_features(made_features / "train")[0]])
    speech = np.concatenate(speech, axis=1).T                                          # (all frames, 40)
    rng = np.random.default_rng([batch, frames])
    rows = np.stack([speech[start:start + frames] for start in rng.integers(len(speech) - frames, size=batch)])
    theirs, ours = (np.asarray(encoder(rows)) for encoder in both)
    assert ours.shape == theirs.shape == (batch, theirs.shape[1])
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_threads_may_share_an_encoder(trained):
    encoder, _ = embedding.load_encoder(trained)
    frames = np.random.default_rng(0).standard_normal((40, 30, 40)).astype(np.float32)
    alone = [encoder(frames[i:i + 1]) for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda i: encoder(frames[i:i + 1]), range(40)))
    np.testing.assert_array_equal(alone, together)


# ---- the exported file ------------------------------------------------------------------------------------------

@pytest.fixture
def copied(trained, tmp_path, monkeypatch):
    """A copy of a trained model, and a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return shutil.copytree(trained, tmp_path / "model")


def weights_of(encoder):
    """Return what tells two encoders apart: the d-vector of one sequence."""
    frames = np.random.default_rng(0).standard_normal((1, 50, 40)).astype(np.float32)
    return np.asarray(encoder(frames))[0]


def test_training_exports_the_best_checkpoint(trained):
    origin = embedding.read_origin(trained / "encoder.tflite")
    best = embedding.choose_checkpoint(trained)
    assert origin["model_num"] == best
    assert origin["sha256"] == embedding.checkpoint_sha256(trained, best)
    np.testing.assert_allclose(weights_of(embedding.load_encoder(trained)[0]), weights_of(load_encoder(trained)[0]),
                               atol=1e-5)


def test_a_run_without_validation_exports_its_last_checkpoint(made_features, tmp_path):
    assert model.main(train_flags(made_features, tmp_path, "--iteration", 3, "--valid_ratio", 0)) == 0
    assert embedding.read_origin(tmp_path / "encoder.tflite")["model_num"] == 3


def test_a_missing_export_is_made_once(copied, capsys):
    (copied / "encoder.tflite").unlink()
    expected = weights_of(load_encoder(copied)[0])
    np.testing.assert_allclose(weights_of(embedding.load_encoder(copied)[0]), expected, atol=1e-5)
    assert "exporting checkpoint" in capsys.readouterr().err
    embedding.load_encoder(copied)
    assert "exporting" not in capsys.readouterr().err


def test_another_number_has_an_export_of_its_own(copied):
    best = embedding.choose_checkpoint(copied)
    before = (copied / "encoder.tflite").read_bytes()
    for path in (copied / "Check_Point").glob(f"model.ckpt-{best}.*"):
        shutil.copy(path, path.with_name(path.name.replace(f"-{best}.", "-99.")))
    encoder, config = embedding.load_encoder(copied, 99)
    assert config.model_num == 99
    np.testing.assert_allclose(weights_of(encoder), weights_of(load_encoder(copied, 99)[0]), atol=1e-5)
    assert (copied / "encoder.tflite").read_bytes() == before
    assert (copied / "Check_Point" / "model.ckpt-99.tflite").exists()


def test_a_number_is_taken_where_the_best_one_is_gone(copied):
    best = embedding.choose_checkpoint(copied)
    for path in (copied / "Check_Point").glob(f"model.ckpt-{best}.*"):
        path.rename(path.with_name(path.name.replace(f"-{best}.", "-99.")))
    assert embedding.load_encoder(copied, 99)[1].model_num == 99


def test_the_fingerprint_is_that_of_the_weights(copied, tmp_path):
    """The same weights, whatever checkpoint file they were exported from."""
    again = tmp_path / "again.tflite"
    export(load_encoder(copied)[0], again, tmp_path, 7)
    assert again.read_bytes() != (copied / "encoder.tflite").read_bytes()
    assert embedding.Encoder(again).sha256 == embedding.Encoder(copied / "encoder.tflite").sha256


def test_where_the_model_cannot_be_written_the_cache_keeps_the_export(copied, tmp_path, monkeypatch):
    (copied / "encoder.tflite").unlink()
    monkeypatch.setattr(embedding, "writable", lambda path: "cache" in path.parts)      # root may write everywhere
    np.testing.assert_allclose(weights_of(embedding.load_encoder(copied)[0]), weights_of(load_encoder(copied)[0]),
                               atol=1e-5)
    assert not (copied / "encoder.tflite").exists()
    assert len(list((tmp_path / "cache").rglob("*.tflite"))) == 1
    monkeypatch.setattr(embedding, "make_export", lambda *_: "it was made twice")
    embedding.load_encoder(copied)


def test_a_folder_may_hold_the_export_alone(copied):
    shutil.rmtree(copied / "Check_Point")
    expected = embedding.read_origin(copied / "encoder.tflite")["model_num"]
    encoder, config = embedding.load_encoder(copied)
    assert config.model_num == expected
    assert weights_of(encoder).shape == (8,)
    with pytest.raises(InputError, match=f"is of checkpoint {expected}, not of {expected + 1}"):
        embedding.load_encoder(copied, expected + 1)


def test_a_damaged_export_is_one_line(copied):
    shutil.rmtree(copied / "Check_Point")
    content = (copied / "encoder.tflite").read_bytes()
    (copied / "encoder.tflite").write_bytes(content[:1000])
    with pytest.raises(InputError, match=r"its encoder\.tflite is damaged"):         # it does not tell which it is
        embedding.load_encoder(copied)
    (copied / "encoder.tflite").write_bytes(b"junk" + content[-400:])
    with pytest.raises(InputError, match=r"encoder\.tflite is damaged: copy it anew"):
        embedding.Encoder(copied / "encoder.tflite")
    (copied / "encoder.tflite").write_bytes(content[:2000] + bytes(400) + content[2400:])          # weights: nobody's
    with pytest.raises(InputError, match=r"encoder\.tflite is damaged: copy it anew"):
        embedding.Encoder(copied / "encoder.tflite")


# ---- without TensorFlow -----------------------------------------------------------------------------------------

@pytest.fixture
def run_without_tensorflow(block_tensorflow, tmp_path, trained, made_features, monkeypatch):
    """Return a function that runs a command in a process that cannot import TensorFlow."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*argv):
        return subprocess.run([sys.executable, ROOT / argv[0], *map(str, argv[1:])], cwd=tmp_path, text=True,
                              capture_output=True, check=False)

    return run


def test_all_that_listens_works_without_tensorflow(run_without_tensorflow, trained, made_features, voice, tmp_path):
    run, model_path = run_without_tensorflow, ("--model_path", trained)
    done = run("model.py", "--verify", *model_path, "--enroll_path", voice, "--verify_path", voice / "00.wav",
               "--threshold", "-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Same person")
    done = run("record.py", *model_path, "--input", voice / "00.wav")
    assert done.returncode == 0, done.stderr
    done = run("record.py", "--verify", *model_path, "--input", voice / "00.wav", "--threshold", "-1")
    assert (done.returncode, done.stderr) == (0, "")
    for script in ("test.py", "model.py"):
        done = run(script, *model_path, "--test_path", made_features / "test")
        assert (done.returncode, done.stderr) == (0, "")
        assert "EER : " in done.stdout
    listen = "import gui, service, configuration; service.Service(configuration.get_config(" \
             f"['--model_path', '{trained}'])).load()"
    done = subprocess.run([sys.executable, "-c", listen], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_needs_tensorflow_says_so_in_one_line(run_without_tensorflow, copied, made_features, voice):
    done = run_without_tensorflow("model.py", "--train", "--train_path", made_features / "train", "--N", 3,
                                  "--model_path", "new")
    needed = ("TensorFlow is needed for training and export and cannot be loaded (tensorflow is blocked): pip install "
              "-r requirements.txt")
    assert (done.returncode, done.stderr) == (2, f"error: {needed}\n")
    (copied / "encoder.tflite").unlink()
    done = run_without_tensorflow("model.py", "--verify", "--model_path", copied, "--enroll_path", voice,
                                  "--verify_path", voice)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("exporting")]
    assert (done.returncode, len(lines)) == (2, 1)
    assert f"--model_path is {copied}: its encoder.tflite is missing" in lines[0]
    assert needed in lines[0]


def evaluation_of(targets, others):
    """Return an Evaluation of one probe per score against two enrolled speakers, a's and b's."""
    scores = np.stack([targets, others], axis=1)
    probes = [("a", str(number)) for number in range(len(targets))]
    return protocol.Evaluation(["a", "b"], probes, scores, np.tile([True, False], (len(targets), 1)), 1, 1.0, 1.0)


def test_the_stored_curve_and_points_equal_a_plain_loop(tmp_path):
    targets, others = [0.912, 0.703, -0.101, 0.333], [-0.707, -0.303, 0.404, -0.512]
    evaluation = evaluation_of(targets, others)
    embedding.store_thresholds(tmp_path, 7, evaluation, "two people", best={"model_num": 5, "valid_loss": 0.25})
    stored = embedding.load_thresholds(tmp_path, 7)
    for number in range(401):
        threshold = -1 + number / 200
        assert stored["curve"]["far"][number] == sum(score >= threshold for score in others) / 4
        assert stored["curve"]["frr"][number] == sum(score < threshold for score in targets) / 4
    assert stored["points"]["eer"] == {"threshold": 0.333, "far": 0.25, "frr": 0.25}
    assert stored["source"] == "two people"
    calibration = stored["calibration"]
    assert measures.calibrate(evaluation.scores, evaluation.labels) == measures.Calibration(
        (calibration["scale"],), (calibration["offset"],)) == embedding.calibration_of(stored)
    embedding.store_thresholds(tmp_path, 8, evaluation, "others")
    assert embedding.load_thresholds(tmp_path, 8)["best"] == {"model_num": 5, "valid_loss": 0.25}   # it stays the best


def test_thresholds_of_another_checkpoint_are_not_used(tmp_path):
    assert embedding.load_thresholds(tmp_path, 7) is None
    embedding.store_thresholds(tmp_path, 7, evaluation_of([0.9], [0.1]), "two people")
    assert embedding.load_thresholds(tmp_path, 7)["model_num"] == 7
    assert embedding.load_thresholds(tmp_path, 8) is None


def test_the_checkpoint_is_the_one_asked_for_the_best_or_the_last(tmp_path):
    (tmp_path / "Check_Point").mkdir()
    for number in (20, 100, 3):
        (tmp_path / "Check_Point" / f"model.ckpt-{number}.index").touch()
    assert embedding.checkpoint_numbers(tmp_path) == [3, 20, 100]
    assert embedding.choose_checkpoint(tmp_path) == 100
    embedding.store_thresholds(tmp_path, 100, evaluation_of([0.9], [0.1]), "two people", best={"model_num": 20})
    assert embedding.choose_checkpoint(tmp_path) == 20
    assert embedding.choose_checkpoint(tmp_path, 3) == 3
    with pytest.raises(InputError, match=r"--model_num is 5: .* has the checkpoints 3, 20, 100"):
        embedding.choose_checkpoint(tmp_path, 5)


def test_a_best_checkpoint_that_is_gone_is_named_by_the_file_that_names_it(tmp_path):
    (tmp_path / "Check_Point").mkdir()
    (tmp_path / "Check_Point" / "model.ckpt-3.index").touch()
    embedding.store_thresholds(tmp_path, 9, evaluation_of([0.9], [0.1]), "two people", best={"model_num": 9})
    with pytest.raises(InputError, match=r"thresholds\.json names checkpoint 9 as the best: .* one with --model_num"):
        embedding.choose_checkpoint(tmp_path)


def test_a_model_that_has_lost_its_config_is_no_ancestor(copied):
    (copied / "config.json").unlink()
    with pytest.raises(InputError, match=r"has no config\.json beside it, which tells what it listens to"):
        embedding.load_encoder(copied)


def test_an_export_that_fails_tells_its_error_whatever_follows(monkeypatch, tmp_path):
    done = subprocess.CompletedProcess([], 2, stderr="chatter\nerror: it does not fit\nW0000 a library's last word\n")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: done)
    assert embedding.make_export(tmp_path, 3, tmp_path / "x.tflite") == "it does not fit"


def test_files_beside_checkpoints_are_none(trained, tmp_path):
    """A file manager copied one."""
    shutil.copytree(trained, tmp_path / "model")
    before = embedding.checkpoint_numbers(tmp_path / "model")
    index = next((tmp_path / "model" / "Check_Point").glob("*.index"))
    shutil.copy(index, index.with_name(f"{index.stem} (copy).index"))
    assert embedding.checkpoint_numbers(tmp_path / "model") == before


def test_features_that_give_no_numbers_are_named(write_features):
    folder = write_features([[1, 1]])
    rows = np.load(folder / "s0.npy", allow_pickle=False)
    rows[1, 3, 4] = np.nan
    np.save(folder / "s0.npy", rows, allow_pickle=False)
    speaker, = features.load_features(folder)[0]
    with pytest.raises(InputError, match=r"s0\.npy gives embeddings that are not finite"):
        embedding.embed_speaker(small_encoder(), speaker)


def test_an_utterance_is_embedded_from_its_own_rows(write_features):
    speaker, = features.load_features(write_features([[2, 0, 1, 3]]))[0]
    rows = np.random.default_rng(0).standard_normal((6, 40, 180)).astype(np.float32)
    np.save(speaker.path, rows, allow_pickle=False)
    found = {utterance.file: vector for utterance, vector in embedding.embed_speaker(small_encoder(), speaker).items()}
    assert found.keys() == {"0.wav", "2.wav", "3.wav"}
    for file, part in (("0.wav", rows[:2]), ("2.wav", rows[2:3]), ("3.wav", rows[3:])):
        np.testing.assert_allclose(found[file], embedding.embed(small_encoder(), part), atol=1e-6)


def test_an_export_of_other_weights_is_not_listened_with(trained, tmp_path):
    """Beside a damaged checkpoint lies the encoder of the whole one: it is made anew, which fails, and says why."""
    shutil.copytree(trained, tmp_path / "model")
    number = embedding.choose_checkpoint(trained)
    assert embedding.load_encoder(tmp_path / "model", number)[1].model_num == number
    for path in (tmp_path / "model" / "Check_Point").glob(f"model.ckpt-{number}.data*"):
        path.write_bytes(path.read_bytes()[:100])
    problem = f"not of checkpoint {number}, and .*model.ckpt-{number} cannot be read as this model's checkpoint"
    with pytest.raises(InputError, match=problem):
        embedding.load_encoder(tmp_path / "model", number)


def test_a_file_that_is_no_encoder_is_refused(trained, tmp_path):
    (tmp_path / "encoder.tflite").write_bytes(b"not an encoder")
    assert embedding.read_origin(tmp_path / "encoder.tflite") == embedding.read_origin(tmp_path / "none") == {}
    with pytest.raises(InputError, match=r"encoder\.tflite cannot be read as an encoder"):
        embedding.Encoder(tmp_path / "encoder.tflite")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("checkpoint.json", '{"model_num": 7}')
    assert embedding.read_origin(tmp_path / "other.zip") == {}                  # it does not tell its weights


# ---- a calibration that knows conditions ------------------------------------------------------------------------

TERMS = len(measures.TERMS)


def known_trials(n=4000):
    """Trials by draw, of two corpora, whose scores fall with the noise."""
    rng = np.random.default_rng(0)
    labels, snr = rng.random(n) < 0.5, rng.uniform(0, 40, n)
    scores = 0.3 * labels + 0.01 * snr * labels + 0.15 * rng.standard_normal(n)
    return measures.KnownTrials(scores, labels, {"snr": snr}, (rng.random(n) < 0.3).astype(int), snr > 35)


def test_points_of_known_trials_are_ratios_with_the_scores_of_a_usual_trial(tmp_path):
    trials = known_trials()
    embedding.store_thresholds(tmp_path, 7, evaluation_of([0.9, 0.2], [0.1, 0.3]), "two people", trials=trials)
    stored = embedding.load_thresholds(tmp_path, 7)
    calibration = embedding.calibration_of(stored)
    ratios = calibration.ratio(trials.scores, trials.known)

    def rates(llr, kept):
        """Both corpora count alike: the mean of their FARs, and of their FRRs."""
        wrong = (ratios >= llr) != trials.labels
        return tuple(np.mean([np.mean(wrong[kept & (trials.labels == kind) & (trials.corpora == corpus)])
                              for corpus in (0, 1)]) for kind in (False, True))

    everything = np.ones(len(ratios), bool)
    for name, point in stored["points"].items():
        assert calibration.ratio(point["threshold"], {}) == pytest.approx(point["llr"])
        assert (point["far_all"], point["frr_all"]) == pytest.approx(rates(point["llr"], everything))
        assert (point["far"], point["frr"]) == pytest.approx(rates(point["llr"], trials.as_recorded))
        assert name == "eer" or point["far_all"] <= float(name)
    nearest = min(abs(far - frr) for far, frr in (rates(llr, trials.as_recorded) for llr in ratios[trials.as_recorded]))
    assert abs(stored["points"]["eer"]["far"] - stored["points"]["eer"]["frr"]) == pytest.approx(nearest)
    assert calibration.ratio(0.3, {"snr": 5}) != pytest.approx(calibration.ratio(0.3, {"snr": 35}))


def test_points_of_known_trials_need_as_many_trials_as_without_what_is_known():
    """A trial under fifty conditions is no fifty trials: 400 of others show no FAR of a thousandth."""
    trials = known_trials(800)
    trials.as_recorded[:] = True
    copies = measures.KnownTrials.joined([trials, *[replace(trials, as_recorded=~trials.as_recorded)] * 5])
    points = embedding.known_points(measures.calibrate_known(trials), copies)
    assert points.keys() == embedding.known_points(measures.calibrate_known(trials), trials).keys() == {"eer", "0.01"}
    for point in points.values():
        assert (point["far"], point["frr"]) == pytest.approx((point["far_all"], point["frr_all"]))


def test_what_is_stored_can_be_read(tmp_path, capsys):
    """Where higher scores are less likely the same person's there are no ratios, then no calibration; points stay."""
    trials = known_trials()
    trials = replace(trials, scores=-trials.scores)
    for targets, others, calibrated in (([0.9, 0.2], [0.1, 0.3], True), ([0.1, 0.2], [0.9, 0.8], False)):
        evaluation = evaluation_of(targets, others)
        embedding.store_thresholds(tmp_path, 7, evaluation, "two people", best={"model_num": 7}, trials=trials)
        stored = embedding.load_thresholds(tmp_path, 7)
        assert stored["points"] == evaluation.points
        assert (embedding.calibration_of(stored) is not None) == calibrated
        assert stored["best"] == {"model_num": 7}
        assert "checkpoint 7 has no calibration that knows conditions" in capsys.readouterr().err


@pytest.mark.parametrize("change", [
    {"calibration": {"scale": [1.0, 2.0], "offset": [1.0] * (1 + TERMS)}},
    {"calibration": {"scale": [1.0] * (1 + TERMS), "offset": [1.0] * (2 + TERMS)}},
    {"calibration": {"scale": [1.0] * (1 + TERMS), "offset": ["1"] * (1 + TERMS)}},
    {"calibration": {"scale": [1e12] * (1 + TERMS), "offset": [1.0] * (1 + TERMS)}},
    {"calibration": {"scale": [0.0] * (1 + TERMS), "offset": [1.0] * (1 + TERMS)}},
    {"calibration": {"scale": [], "offset": []}}, {"calibration": {"scale": [[1.0]], "offset": [1.0]}},
    {"points": {"eer": {"threshold": 0.5, "llr": "1", "far": 0.1, "frr": 0.1}}},
    {"points": {"eer": {"llr": 1.0, "far": 0.1, "frr": 0.1}}},
    {"points": {"eer": {"threshold": 0.5, "llr": 1.0, "far": 0.1, "frr": 0.1, "far_all": 0.1}}},
    {"points": {"eer": {"threshold": 0.5, "llr": None, "far": 0.1, "frr": 0.1}}}])
def test_a_damaged_calibration_is_one_line(tmp_path, change):
    embedding.store_thresholds(tmp_path, 7, evaluation_of([0.9, 0.2], [0.1, 0.3]), "two", trials=known_trials(200))
    stored = json.loads((tmp_path / "thresholds.json").read_text())
    embedding.load_thresholds(tmp_path, 7)
    (tmp_path / "thresholds.json").write_text(json.dumps(stored | change))
    with pytest.raises(InputError, match=r"thresholds\.json is of another program, or damaged"):
        embedding.load_thresholds(tmp_path, 7)


def test_a_ratio_without_its_calibration_is_refused(tmp_path):
    embedding.store_thresholds(tmp_path, 7, evaluation_of([0.9, 0.2], [0.1, 0.3]), "two", trials=known_trials(200))
    stored = json.loads((tmp_path / "thresholds.json").read_text())
    del stored["calibration"]
    (tmp_path / "thresholds.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match="need a calibration"):
        embedding.load_thresholds(tmp_path, 7)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_embeds_many_segments_too(trained):
    """Threads do not come with a fork: it needs its own."""
    script = ("import os, sys, numpy as np, embedding\n"
              "encoder, frames = embedding.Encoder(sys.argv[1]), np.ones((100, 160, 40), np.float32)\n"
              "vectors = encoder(frames)\n"
              "child = os.fork()\n"
              "if not child:\n"
              "    os._exit(int(not np.allclose(encoder(frames), vectors)))\n"
              "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n")
    done = subprocess.run([sys.executable, "-c", script, trained / "encoder.tflite"], cwd=embedding.PRETRAINED.parent,
                          timeout=60, check=False)
    assert done.returncode == 0


class Damaged:
    """An encoder whose weights are not finite."""

    def __call__(self, frames):
        return np.full((len(frames), 8), np.nan, np.float32)


def test_a_damaged_encoder_gives_no_verdict():
    with pytest.raises(InputError, match=r"not finite: encoder\.tflite .* is damaged: copy it anew"):
        embedding.embed(Damaged(), np.zeros((2, 40, 180), np.float32))


def test_the_config_of_another_model_is_refused(copied):
    path = copied / "config.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"flags": stored["flags"] | {"hidden": 128}}))
    with pytest.raises(InputError, match=r"config\.json has --hidden 128, its encoder 16: they are of two models"):
        embedding.load_encoder(copied)
