"""Damaged files: whatever 500 mutated features, descriptions and model files hold, it ends in InputError."""
import json
import shutil
import tokenize

import numpy as np
import pytest

import configuration
import embedding
import features
import model
import record
import test as evaluation_script
import verification
from configuration import InputError

MUTATIONS = 500
VALUES = (None, -1, 0, 1.5, 1e300, "text", "", [], {}, True, [1], {"a": 1})


def damaged_bytes(content, rng):
    """Return bytes with one to four of them flipped, dropped or added, or cut off; two thirds hit the first 128."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(min(128, len(content)) if rng.random() < 0.67 else len(content)))
        kind = rng.integers(4)
        if kind == 0:
            content[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del content[place:place + int(rng.integers(1, 9))]
        elif kind == 2:
            content[place:place] = rng.bytes(int(rng.integers(1, 5)))
        else:
            del content[place + 1:]
        if not content:
            break
    return bytes(content)


def damaged_json(content, rng):
    """Return JSON of which one value, drawn at any depth, is another or missing."""
    value = json.loads(content)
    node = value
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = keys[int(rng.integers(len(keys)))]
        if isinstance(node[key], (dict, list)) and node[key] and rng.random() < 0.7:
            node = node[key]
            continue
        if rng.random() < 0.3:
            del node[key]
        else:
            node[key] = VALUES[int(rng.integers(len(VALUES)))]
        return json.dumps(value).encode()


@pytest.fixture
def damage(tmp_path, capsys):
    """Return a function that mutates a file again and again, and calls `use` each time; it returns the refusals."""

    def run(path, use, number, seed):
        whole, refused = path.read_bytes(), []
        for mutation in range(number):
            rng = np.random.default_rng([seed, mutation])
            structure = path.suffix == ".json" and mutation % 2
            path.write_bytes(damaged_json(whole, rng) if structure else damaged_bytes(whole, rng))
            try:
                use()
            except (InputError, OSError) as error:
                refused.append(str(error))
            except Exception as error:
                raise AssertionError(f"{path.name}, seed {seed}, mutation {mutation}: {error!r}") from error
        path.write_bytes(whole)
        return refused

    return run


def test_500_damaged_files_are_refused_or_read(damage, trained, made_features, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "make_export", lambda *_: "nothing is exported here")     # it would take seconds
    test_path = shutil.copytree(made_features / "test", tmp_path / "test")
    enroll_path = shutil.copytree(made_features / "test", tmp_path / "enroll")
    model_path = shutil.copytree(trained, tmp_path / "model")
    flags = ["--model_path", str(model_path), "--test_path", str(test_path), "--enroll_path", str(enroll_path)]
    loaded, _ = embedding.load_encoder(trained)
    monkeypatch.setattr(embedding, "Encoder", lambda path: loaded)                           # it stays the same
    encoder = verification.Verifier(configuration.get_config(flags))

    def evaluate():
        model.test(configuration.get_config(flags))

    def enrol():
        config = configuration.get_config(flags)
        record.list_enrolled(config)
        encoder.voices(enroll_path, "voice08")
        list(encoder.probes(enroll_path / "voice08.npy"))
        features.adopt_settings(config, {}, features.read_settings(enroll_path), enroll_path)
        record.read_enrolment(enroll_path / "voice08.npy", config)

    def load():
        config = configuration.get_config(flags)
        verification.choose_threshold(config, embedding.choose_exported(model_path))
        verification.Verifier(config).rates(0.5)
        embedding.load_config(model_path)

    files = [(test_path / "voice08.npy", evaluate, 120), (test_path / "voice08.json", evaluate, 60),
             (test_path / "manifest.json", evaluate, 40), (enroll_path / "voice08.npy", enrol, 60),
             (enroll_path / "voice08.json", enrol, 60), (enroll_path / "manifest.json", enrol, 20),
             (model_path / "config.json", load, 80), (model_path / "thresholds.json", load, 60)]
    assert sum(number for *_, number in files) == MUTATIONS
    refused = {path: damage(path, use, number, seed) for seed, (path, use, number) in enumerate(files)}
    assert all(refused.values())
    assert all(len(line.splitlines()) == 1 for lines in refused.values() for line in lines)
    assert sum(map(len, refused.values())) > MUTATIONS // 3


def test_a_header_that_does_not_parse_is_one_line(trained, made_features, tmp_path, fails):
    folder = shutil.copytree(made_features / "test", tmp_path / "test")
    content = (folder / "voice08.npy").read_bytes()
    (folder / "voice08.npy").write_bytes(content.replace(b"}", b" ", 1))
    with pytest.raises(tokenize.TokenError):
        np.load(folder / "voice08.npy", allow_pickle=False)
    for command in (model.main, evaluation_script.main):
        line = fails(command, "--model_path", trained, "--test_path", folder)
        assert "voice08.npy is not a feature file" in line


def test_a_damaged_archive_behind_an_export_is_no_origin(trained, tmp_path):
    content, path = (trained / "encoder.tflite").read_bytes(), tmp_path / "encoder.tflite"
    for mutation in range(60):
        rng = np.random.default_rng(mutation)
        tail = damaged_bytes(content[-300:], rng)
        path.write_bytes(content[:-300] + tail)
        assert embedding.read_origin(path).keys() in ({}.keys(), {"model_num", "sha256", "flags"})
