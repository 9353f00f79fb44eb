"""The encoder for other programs: the same d-vectors from every format, and what features.json says."""
import json
import subprocess
import sys

import librosa
import numpy as np
import pytest
from test_encoder import small_encoder, write_ancestor

import audio
import configuration
import embedding
import features
import model

FILES = {"savedmodel": {"saved_model"}, "tflite": {"encoder.tflite", "encoder_int8.tflite"}, "onnx": {"encoder.onnx"}}
# What a stranger types: TensorFlow, LiteRT and ONNX Runtime, without this project.
STRANGER = """
import numpy as np, sys, tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
frames = np.load("frames.npy", allow_pickle=False)
found = {"load": tf.saved_model.load("saved_model").signatures["serving_default"](tf.constant(frames))["d_vectors"],
         "layer": tf.keras.layers.TFSMLayer("saved_model", call_endpoint="serving_default")(frames)["d_vectors"]}
for name in ("encoder", "encoder_int8"):
    run = Interpreter(f"{name}.tflite").get_signature_runner()
    found[name], = run(frames=frames).values()
assert not {"encoder", "embedding", "common", "audio"} & sys.modules.keys()
np.savez("found.npz", **found)
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The pretrained model in every format, in one folder."""
    folder = tmp_path_factory.mktemp("exported") / "encoder"
    for name, files in FILES.items():
        before = set(folder.iterdir()) if folder.exists() else set()
        assert model.main(["--model_path", str(embedding.PRETRAINED), "--export", str(folder), "--format", name]) == 0
        assert {path.name for path in set(folder.iterdir()) - before} - {"features.json"} == files
    assert list(folder.parent.iterdir()) == [folder]
    return folder


@pytest.fixture(scope="module")
def original():
    return embedding.load_encoder(embedding.PRETRAINED)[0]


@pytest.fixture(scope="module")
def speech(corpus):
    """Frames (T, 40) of a synthetic voice as the pretrained model wants them."""
    config = embedding.load_encoder(embedding.PRETRAINED)[1]
    files = sorted((corpus / "test").rglob("*.wav"))
    return np.concatenate([audio.speech_frames(audio.load_audio(file, config.sr), config)[0] for file in files[::3]])


def rows_of(speech, batch, frames):
    starts = np.random.default_rng([batch, frames]).integers(len(speech) - frames, size=batch)
    return np.stack([speech[start:start + frames] for start in starts])


def test_a_stranger_gets_the_same_d_vectors(exported, original, speech, tmp_path):
    for name in ("saved_model", "encoder.tflite", "encoder_int8.tflite"):
        (tmp_path / name).symlink_to(exported / name)
    frames = rows_of(speech, 33, 160)
    np.save(tmp_path / "frames.npy", frames, allow_pickle=False)
    done = subprocess.run([sys.executable, "-c", STRANGER], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = original(frames)
    with np.load(tmp_path / "found.npz", allow_pickle=False) as found:
        assert set(found) == {"load", "layer", "encoder", "encoder_int8"}
        for name in found:
            np.testing.assert_allclose(found[name], expected, atol=0.05 if name == "encoder_int8" else 1e-4)
        assert np.abs(found["encoder_int8"] - expected).max() > 1e-4           # it is another encoder


@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (3, 17), (1, 160), (33, 160), (2, 400)])
def test_onnx_and_int8_run_every_batch_and_length(exported, original, speech, batch, frames):
    import onnxruntime

    session = onnxruntime.InferenceSession(exported / "encoder.onnx")
    (source,), (target,) = session.get_inputs(), session.get_outputs()
    assert (source.name, source.type, source.shape) == ("frames", "tensor(float)", ["batch", "frames", 40])
    assert (target.name, target.shape) == ("d_vectors", ["batch", 64])
    rows = rows_of(speech, batch, frames)
    np.testing.assert_allclose(session.run(None, {"frames": rows})[0], original(rows), atol=1e-4)
    small = embedding.Encoder(exported / "encoder_int8.tflite")
    np.testing.assert_allclose(small(rows), original(rows), atol=0.05)
    assert (small(rows) * original(rows)).sum(axis=1).min() > 0.995
    np.testing.assert_allclose(small(rows)[-1:], small(rows[-1:]), atol=1e-5)       # whatever is beside it


def test_int8_is_a_third_of_the_size_and_tells_its_checkpoint(exported):
    sizes = [(exported / name).stat().st_size for name in ("encoder_int8.tflite", "encoder.tflite")]
    assert sizes[0] < 0.35 * sizes[1]
    paths = exported / "encoder_int8.tflite", exported / "encoder.tflite", embedding.PRETRAINED / "encoder.tflite"
    origins = [embedding.read_origin(path) for path in paths]
    assert [origin.pop("content") for origin in origins] == [embedding.Encoder(path).sha256 for path in paths]
    assert origins[0] == origins[1] == origins[2]


def test_features_json_lets_a_stranger_make_the_frames(exported):
    about = json.loads((exported / "features.json").read_text())
    stored = json.loads((embedding.PRETRAINED / "config.json").read_text())["flags"]
    settings = features.feature_settings(configuration.get_config([]))
    assert about["features"] == {name: stored.get(name) for name in settings}
    assert about["model_num"] == embedding.choose_checkpoint(embedding.PRETRAINED)
    flags, wave = about["features"], np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    found = eval(about["log_mel"], {"librosa": librosa, "np": np, "wave": wave, **flags})
    flags = {name: flags[name] for name in ("sr", "nfft", "window", "hop")}
    np.testing.assert_allclose(found, audio.log_mel(wave, **flags), atol=1e-4)


def test_what_export_refuses(trained, exported, tmp_path, fails, monkeypatch):
    def refused(*argv):
        return fails(model.main, "--model_path", trained, *argv)

    onnx = ("--format", "onnx")
    assert "--format is onnx: give --export" in refused(*onnx)
    assert "invalid choice: 'torch'" in refused("--export", tmp_path / "x", "--format", "torch")
    assert "--train and --export contradict" in refused("--train", "--export", tmp_path / "x", *onnx)
    assert "--verify and --export contradict" in refused("--verify", "--export", tmp_path / "x", *onnx)
    assert "there is a model already" in refused("--export", embedding.PRETRAINED, *onnx)
    assert "there is the encoder of another model" in refused("--export", exported, *onnx)
    assert "that holds an encoder for other programs" in refused("--export", exported)
    assert "--sr is 16000, but" in refused("--export", tmp_path / "x", *onnx, "--sr", 16000)
    (tmp_path / "file").touch()
    assert "file: it cannot be written" in refused("--export", tmp_path / "file", *onnx)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "encoder.onnx").touch()                                 # nobody knows whose that is
    assert "there is the encoder of another model" in refused("--export", tmp_path / "own", *onnx)
    assert "file: it cannot be written" in refused("--export", tmp_path / "file")
    (tmp_path / "own" / "encoder.onnx").unlink()
    for name, words in (("history.csv", "there is history.csv already"), ("manifest.json", "that holds features"),
                        ("config.json", "there is config.json already")):
        (tmp_path / "own" / name).write_text('{"my": "own"}')
        assert words in refused("--export", tmp_path / "own")
        assert [path.name for path in (tmp_path / "own").iterdir()] == [name]
        (tmp_path / "own" / name).unlink()
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    assert "--format is onnx: its converter is needed" in refused("--export", tmp_path / "x", *onnx)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "own"}


def test_an_export_is_made_again(trained, tmp_path):
    flags = ["--model_path", str(trained), "--export", str(tmp_path / "x"), "--format", "savedmodel"]
    assert model.main(flags) == 0
    written = (tmp_path / "x" / "features.json").read_bytes()
    (tmp_path / "x" / "saved_model" / "saved_model.pb").write_bytes(b"damaged")
    assert model.main(flags) == 0
    assert (tmp_path / "x" / "saved_model" / "saved_model.pb").stat().st_size > 1000
    assert (tmp_path / "x" / "features.json").read_bytes() == written


def test_an_ancestors_encoder_is_exported_and_its_flags_describe_the_features(tmp_path, capsys):
    encoder = small_encoder()
    encoder.mean.assign(np.zeros(40))
    encoder.deviation.assign(np.ones(40))
    write_ancestor(tmp_path / "old", encoder, 5)
    assert model.main(["--model_path", str(tmp_path / "old"), "--export", str(tmp_path / "new"), "--format", "tflite",
                       "--sr", "16000"]) == 0
    assert "note: " in capsys.readouterr().out
    frames = np.random.default_rng(0).standard_normal((2, 30, 40)).astype(np.float32)
    found = embedding.Encoder(tmp_path / "new" / "encoder.tflite")(frames)
    np.testing.assert_allclose(found, encoder(frames).numpy(), atol=1e-5)
    about = json.loads((tmp_path / "new" / "features.json").read_text())
    assert about["features"] == features.feature_settings(configuration.get_config(
        ["--sr", "16000", "--floor_db", "none", "--level", "none"]))
