"""Damaged files: whatever a file holds, it is read or refused in one line, and no other error or warning comes of it.

Seeded mutations of every kind of file that is read back, given to the functions that the commands call.
"""
import contextlib
import copy
import io
import json
import shutil
import sys
import tokenize
import traceback
import types
import warnings

import numpy as np
import pytest
from conftest import CONTAINERS, write_container

import audio
import common
import configuration
import data_preprocess
import embedding
import features
import measures
import model
import record
import test
import utils
import verification
from common import InputError

MUTATIONS = 500
REFUSED = 350                # of these, at least; without it a test that damages nothing would pass
RECORDINGS = 15              # mutations of each kind of recording
VALUES = (None, -1, 0, 0.5, True, float("inf"), float("nan"), 10**400, 1e300, "text", "two\nlines", "\ud800", [], {},
          [None], {"text": []})


# ---- mutations: each returns the damaged content and what was done -----------------------------------------------

def mutate_bytes(rng, content, first=0):
    """Flip, set, insert, delete, swap, zero or cut off bytes; two thirds of the times within 128 bytes from `first`."""
    data = bytearray(content)
    stop = min(len(data), first + 128) if rng.random() < 2 / 3 else len(data)
    at, length = int(rng.integers(min(first, stop - 1), stop)), int(rng.integers(1, 9))
    kind = rng.choice(["flip", "set", "print", "insert", "delete", "swap", "zero", "truncate"])
    if kind == "flip":
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == "set":
        data[at] = int(rng.integers(256))
    elif kind == "print":                               # what a parser may take for something else
        data[at] = ord(rng.choice(list("0123456789-+.,:'\"()[]{}<>|=fiuObUTF \\\n")))
    elif kind == "insert":
        data[at:at] = rng.bytes(length)
    elif kind == "delete":
        del data[at:at + length]
    elif kind == "swap":
        other = int(rng.integers(min(first, stop - 1), stop))
        data[at], data[other] = data[other], data[at]
    elif kind == "zero":
        data[at:at + length] = bytes(len(data[at:at + length]))
    else:
        del data[at:]
    return bytes(data), f"{kind} {length} at {at}"


def mutate_value(rng, content):
    """Replace a value of a JSON text by another kind of value, or delete a key."""
    value = json.loads(content)
    parent, key, place = None, None, value
    while parent is None or (isinstance(place, (dict, list)) and place and rng.random() < 0.7):
        keys = list(place) if isinstance(place, dict) else range(len(place))
        parent, key = place, keys[int(rng.integers(len(keys)))]
        place = parent[key]
    if rng.random() < 0.25:
        del parent[key]
        return json.dumps(value).encode(), f"delete {key}"
    parent[key] = copy.deepcopy(VALUES[int(rng.integers(len(VALUES)))])
    return json.dumps(value).encode(), f"{key} = {str(parent[key])[:20]!r}"


def mutate_json(rng, content):
    """Damage a JSON text, as a text or as what it says."""
    return mutate_value(rng, content) if rng.random() < 0.6 else mutate_bytes(rng, content)


def mutate_archive(rng, content):
    """Damage the archive behind an encoder, or cut the file off: other damage could end the process within LiteRT."""
    first = content.rindex(b"PK\3\4")
    if rng.random() < 0.8:
        tail, done = mutate_bytes(rng, content[first:])
        return content[:first] + tail, f"archive: {done}"
    size = int(rng.integers(len(content)))
    return content[:size], f"truncate at {size}"


# ---- what the commands do with a file: each takes the folders at hand -------------------------------------------

def evaluate(at):
    """What model.py prints of a test."""
    config = configuration.get_config(["--model_path", str(at.model), "--test_path", str(at.features)])
    evaluation = model.test(config)
    stored = embedding.load_thresholds(config.model_path, config.model_num)
    scored = evaluation.scored()
    print(evaluation.describe(),
          measures.describe_rates(scored.scores, scored.labels, embedding.decide(stored, config, scored)))
    assert np.isfinite(evaluation.enrolment_vectors).all()
    if stored and "calibration" in stored:
        calibration = stored["calibration"]
        measures.llr_costs(calibration["scale"] * evaluation.scores + calibration["offset"], evaluation.labels)


def train(at):
    """What training reads before it begins."""
    config = configuration.get_config(["--train", "--train_path", str(at.features), "--speaker_number", "2",
                                       "--valid_ratio", "0"])
    speakers, *_ = model.training_speakers(config, {})
    rng = np.random.default_rng(0)
    utils.channel_statistics(speakers, rng)
    utils.random_batch(speakers, 2, 3, crop=(140, 180), rng=rng)


def go_on(at):
    """What training reads of a run that goes on."""
    config = configuration.get_config(["--train", "--restore", "--train_path", str(at.train),
                                       "--model_path", str(at.model)])
    stored = model.adopt_base(config)
    training, *_ = model.training_speakers(config, stored)
    print(model.membership_notes(config, stored, training), [*stored["commands"], stored["normalisation"]],
          sorted(stored.get("training", ())), utils.History(at.model / "history.csv", 8).last)


def compare(at):
    """Compare the speakers of a folder with each other; the verdicts in words and as JSON."""
    verifier = at.verifier or verification.Verifier(configuration.get_config(["--model_path", str(at.model)]))
    voices = verifier.voices(at.features)
    for probe in verifier.probes(at.features):
        verdict = verifier.compare(probe, voices)
        assert verdict.score is None or np.isfinite(verdict.score)
        print(f"{verdict}".encode(), json.dumps(verdict.as_dict()), verifier.rates(0.5))


def preprocess(at):
    """What data_preprocess.py reads of an older folder."""
    data_preprocess.adopt_folder(at.features, configuration.get_config([]))
    print(data_preprocess.totals_table({"test": data_preprocess.folder_totals(at.features)}))


def list_enrolled(at):
    """List and forget, but for the deletion."""
    config = configuration.get_config(["--enroll_path", str(at.features)])
    print(record.list_enrolled(config), record.kept_recordings(config, at.npy, record.readable_record(at.npy)))
    assert all(isinstance(path, str) for path in (record.readable_record(at.npy) or {}).get("recordings", []))


def add_to_enrolment(at):
    """Read what record.py adds a recording to."""
    old = record.read_enrolment(at.npy, configuration.get_config([]))
    print([*old["utterances"], *old["recordings"]])
    if old["utterances"]:
        features.open_features(at.npy, mmap_mode=None)


def start_over(at):
    """Read what record.py --replace True needs of an older enrolment."""
    print(record.read_enrolment(at.npy, configuration.get_config(["--replace", "--raw_path", str(at.features)])))


def load_model(at):
    """Load a model, as all do, and without its encoder, as record.py does."""
    config = configuration.get_config(["--model_path", str(at.model)])
    embedding.adopt_model(config)
    encoder, _ = embedding.load_encoder(at.model)
    assert np.isfinite(embedding.embed_rows(encoder, np.zeros((1, 40, 180)))).all()


def choose(at):
    """Choose thresholds in all ways, as far as they are stored."""
    for argv in (["--threshold", "0.5"], [], ["--far", "0.01"]):
        config = configuration.get_config(["--model_path", str(at.model), *argv])
        print(verification.Verifier(config).threshold)


def draw_history(at):
    """Read the course of training, as the report draws it."""
    for row in utils.History(at.model / "history.csv", sys.maxsize).rows:
        print(int(row["iteration"]), float(row["loss"]), float(row["valid_eer"] or 0))


def hear(path):
    """Read a recording of a second; an OSError would be no refusal here."""
    try:
        audio.bandwidth_notes(path, 16000)
        assert len(audio.load_audio(path, 16000)) < 2 * 16000
    except OSError as error:
        raise AssertionError(f"{path}: OSError") from error


OF_FEATURES = (evaluate, train, compare, preprocess, list_enrolled, add_to_enrolment, start_over)
OF_MODEL = (load_model, evaluate, compare, choose, go_on)
KINDS = {               # file: mutations, how, and who reads it
    "features/voice08.npy": (170, mutate_bytes, OF_FEATURES),
    "features/voice08.json": (110, mutate_json, OF_FEATURES),
    "features/manifest.json": (40, mutate_json, OF_FEATURES),
    "model/config.json": (80, mutate_json, OF_MODEL),
    "model/thresholds.json": (80, mutate_json, OF_MODEL),
    "model/history.csv": (20, mutate_bytes, (draw_history, go_on)),
    "model/encoder.tflite": (15, mutate_archive, OF_MODEL),
    "listener/encoder.tflite": (45, mutate_archive, OF_MODEL[:-1]),
}


# ---- the tests --------------------------------------------------------------------------------------------------

@pytest.fixture
def folders(made_features, trained, tmp_path, monkeypatch):
    """Copies of what is damaged: features of two speakers, one of them enrolled, a model, a model that only listens."""
    monkeypatch.setattr(embedding, "make_export", lambda *_: "it is not made in this test")
    (tmp_path / "features").mkdir()
    for name in ("voice08.npy", "voice08.json", "voice09.npy", "voice09.json", "manifest.json"):
        shutil.copy(made_features / "test" / name, tmp_path / "features")
    path = tmp_path / "features" / "voice08.json"
    common.write_json(path, json.loads(path.read_text()) | {"recordings": ["voice08/a.wav"]})
    stored = json.loads((trained / "thresholds.json").read_text())
    stored["points"]["0.01"] = {"threshold": 0.75, "far": 0.01, "frr": 0.5}
    for name, left_out in (("model", "logs"), ("listener", "Check_Point")):
        shutil.copytree(trained, tmp_path / name, ignore=shutil.ignore_patterns("logs", left_out))
        common.write_json(tmp_path / name / "thresholds.json", stored)
    return tmp_path


def attempt(read, at):
    """Return whether a reader refused what it read, and what it should not have done, "" if nothing."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), encoding="utf-8")):
                read(at)
            refusal = ""
        except OSError:
            refusal = "OSError"
        except InputError as error:
            refusal = str(error) + error.window
        except Exception:
            return False, traceback.format_exc(limit=-3)
    if len(refusal.splitlines()) > 1:
        return True, f"{read.__name__}: more than one line: {refusal}"
    return bool(refusal), "".join(f"{read.__name__} warns: {warning.message}\n" for warning in told)


def test_whatever_a_file_holds_is_read_or_refused(folders, trained, made_features):
    """Undamaged files are read first; then each mutation of each file."""
    verifier = verification.Verifier(configuration.get_config(["--model_path", str(trained), "--threshold", "0"]))
    ran, refused, faults = 0, 0, []
    for file, (number, mutate, readers) in KINDS.items():
        path, own = folders / file, file.split("/")[0]
        at = types.SimpleNamespace(features=folders / "features", npy=folders / "features" / "voice08.npy",
                                   model=trained if own == "features" else folders / own, train=made_features / "train",
                                   verifier=verifier if own == "features" else None)
        content = path.read_bytes()
        assert {read.__name__: attempt(read, at) for read in readers} == {
            read.__name__: (False, "") for read in readers}
        for seed in range(number):
            damaged, done = mutate(np.random.default_rng(seed), content)
            path.write_bytes(damaged)
            found = [attempt(read, at) for read in readers]
            ran, refused = ran + 1, refused + any(refusal for refusal, _ in found)
            faults += [f"{file}, seed {seed}, {done}: {fault}" for _, fault in found if fault]
        path.write_bytes(content)
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults[:200])
    assert ran >= MUTATIONS
    assert refused >= REFUSED


def test_whatever_a_recording_holds_is_heard_or_refused(voice, tmp_path, capfd, caplog):
    """Those of telephones and browsers, whose decoders keep what they have to say to themselves."""
    wave, refused, faults = audio.load_audio(voice / "00.wav", 16000)[8000:24000], [], []
    for name, (codec, options) in CONTAINERS.items():
        path = tmp_path / name
        write_container(path, wave, 16000, codec, **options)
        content = path.read_bytes()
        caplog.clear()                                      # of what the encoders said
        assert attempt(hear, path) == (False, "")
        for seed in range(RECORDINGS):
            damaged, done = mutate_bytes(np.random.default_rng(seed), content)
            path.write_bytes(damaged)
            is_refused, fault = attempt(hear, path)
            refused.append(is_refused)
            faults += [f"{name}, seed {seed}, {done}: {fault}"] * bool(fault)
        assert not caplog.text
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults)
    assert len(refused) >= 200
    assert sum(refused) >= 80
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("main", [model.main, test.main])
def test_a_header_that_numpy_cannot_parse_is_one_line(folders, trained, fails, main):
    path = folders / "features" / "voice08.npy"
    content = path.read_bytes()
    path.write_bytes(content[:10] + b"'''" + content[13:])        # a text that does not end: tokenize.TokenError
    with pytest.raises(tokenize.TokenError):
        np.load(path, mmap_mode="r", allow_pickle=False)
    line = fails(main, "--model_path", trained, "--test_path", folders / "features")
    assert f"{path} is not a feature file" in line
