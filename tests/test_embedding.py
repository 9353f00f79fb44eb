"""What listens: the exported encoder beside TensorFlow's, where it comes from, thresholds, model folders."""
import json
import shutil

import numpy as np
import pytest
from test_encoder import loop_encoder, small_encoder

import configuration
import embedding
import model
import verification
from configuration import InputError
from encoder import load_encoder, trainable_numbers


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
    flags = ["--verify", "--enroll_path", str(voice), "--verify_path", str(voice / "00.wav"), "--json"]
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
    assert 0 < verifier.threshold.far < 0.05
    assert verifier.llr(verifier.threshold.value) is not None
    vectors = embedding.embed_rows(verifier.encoder, np.random.default_rng(0).standard_normal((3, 40, 180)))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
