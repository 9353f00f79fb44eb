"""A model folder as a listener sees it: segments → d-vectors in LiteRT; thresholds and calibration. No TensorFlow.

    encoder, config = embedding.load_encoder("pretrained")
    vector = embedding.embed(encoder, audio.segments(wave, config))          (D,)

`encoder.tflite` is the best checkpoint, exported: a LiteRT file with a zip archive behind it, as TensorFlow's metadata
library writes them, whose only member tells which checkpoint it is. Where the file is missing or of another checkpoint,
a process of its own makes it with TensorFlow. Shapes: B sequences, K segments, T frames, F = 40 channels.
"""
import hashlib
import json
import os
import pathlib
import queue
import re
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import joblib
import numpy as np
import platformdirs

import audio
import common
import configuration
import measures
from common import InputError, read_json, write_json
from configuration import flags_stored

EMBED_FRAMES = 160           # frames of a segment that an embedding reads (GE2E, section 3.2)
EMBED_BATCH = 512            # segments embedded at a time
PART = 32                    # sequences that one core embeds at a time
PRETRAINED = pathlib.Path(__file__).parent / "pretrained"
ORIGIN = "checkpoint.json"   # the member of the archive behind an exported encoder
NOT_AS_EXPORTED = "is damaged: copy it anew, or delete it where its checkpoint is there, and it is exported again"


# ---- the encoder ------------------------------------------------------------------------------------------------

class Encoder:
    """An exported encoder in LiteRT: float32 frames (B, T, 40) → d-vectors (B, D) of length 1, on all cores.

    Parameters
    ----------
    path : str or Path
        encoder.tflite

    Raises
    ------
    InputError
        If LiteRT cannot read or run the file, or it is not what was exported.
    """

    def __init__(self, path):
        self.path, self.content = path, pathlib.Path(path).read_bytes()
        self.origin = read_origin(path)
        if self.origin.get("content", self.sha256) != self.sha256:          # exports from before tell none
            raise InputError(f"{path} {NOT_AS_EXPORTED}")
        self.idle, self.lock = queue.LifoQueue(), threading.Lock()
        try:
            with common.quiet_libraries():           # LiteRT tells of its delegate once
                self.idle.put(self.interpreter())
        except (ValueError, RuntimeError, ImportError) as error:
            raise InputError(f"{path} cannot be read as an encoder: {error}") from error
        self.workers, self.process = None, None

    @property
    def sha256(self):
        """The fingerprint of all weights, without the archive that tells where they come from."""
        return fingerprint([self.content.rpartition(b"PK\3\4")[0] or self.content])

    def interpreter(self):
        """Return a new interpreter, which has buffers of its own, and the numbers of its input and output."""
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_content=self.content, num_threads=1)
        interpreter.allocate_tensors()
        return interpreter, interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def __call__(self, frames):
        """Return the d-vectors (B, D) of sequences of frames (B, T, 40)."""
        if self.process != os.getpid():             # a fork has no threads of the process that it comes from
            self.workers, self.process = ThreadPoolExecutor(joblib.cpu_count(), "encoder"), os.getpid()
        frames = np.asarray(frames, np.float32)
        parts = [frames[start:start + PART] for start in range(0, len(frames), PART)]
        return np.concatenate(list(self.workers.map(self.embed_part, parts) if len(parts) > 1
                                   else map(self.embed_part, parts)))

    def embed_part(self, frames):
        """Return the d-vectors of a few sequences, on an interpreter that no other thread uses."""
        try:
            interpreter, source, target = self.idle.get_nowait()
        except queue.Empty:
            with self.lock:
                interpreter, source, target = self.interpreter()
        try:
            interpreter.resize_tensor_input(source, frames.shape)
            interpreter.allocate_tensors()
            interpreter.set_tensor(source, np.ascontiguousarray(frames))
            interpreter.invoke()
        except RuntimeError as error:
            raise InputError(f"{self.path} {NOT_AS_EXPORTED}") from error
        vectors = interpreter.get_tensor(target)
        self.idle.put((interpreter, source, target))
        return vectors


def embed_rows(encoder, segments):
    """Return the unit vectors (K, D) of segments (K, 40, 180), of which the first 160 frames are read."""
    with np.errstate(over="ignore"):            # float64 may hold more; embed_speaker refuses what comes of it
        frames = np.swapaxes(np.asarray(segments, np.float32)[..., :EMBED_FRAMES], 1, 2)
    return np.concatenate([np.asarray(encoder(frames[start:start + EMBED_BATCH]))
                           for start in range(0, len(frames), EMBED_BATCH)])


def embed(encoder, segments):
    """Return the d-vector (D,) of an utterance's segments (K, 40, 180), K > 0: the normalised mean of their vectors.

    The encoder is this module's or encoder.Encoder.
    """
    if not len(segments):
        raise InputError("there is no segment of speech to embed")
    rows = embed_rows(encoder, segments)
    if not np.isfinite(rows).all():
        raise InputError(f"d-vectors are not finite: encoder.tflite in the model's folder {NOT_AS_EXPORTED}")
    return measures.unit_mean(rows)


def embed_speaker(encoder, speaker):
    """Return {utterance: d-vector (D,)} of a features.Speaker's utterances and copies with speech, in one batch."""
    parts = [part for utterance in speaker.voiced for part in (utterance, *utterance.copies) if part.count]
    places = np.concatenate([np.arange(part.first, part.first + part.count) for part in parts])
    rows = embed_rows(encoder, speaker.load()[places])
    if not np.isfinite(rows).all():
        raise InputError(f"{speaker.path} gives embeddings that are not finite: preprocess this speaker again")
    own = np.split(rows, np.cumsum([part.count for part in parts])[:-1])
    return {part: measures.unit_mean(vectors) for part, vectors in zip(parts, own, strict=True)}


def embed_files(encoder, paths, config):
    """Return {path: (d-vector (D,) or None, entry as of audio.read_utterance)} of recordings, read on all cores."""
    read = common.run_on_cores(audio.read_utterance, [(path, config) for path in paths], config.jobs)
    found = {}
    for path, (cuts, entry) in zip(paths, common.progress(read, total=len(paths), unit="file"), strict=True):
        found[path] = (embed(encoder, cuts) if len(cuts) else None), entry
    return found


# ---- the exported file ------------------------------------------------------------------------------------------

def read_origin(path):
    """Return what an exported encoder tells of itself: "model_num", "flags", "sha256" of the checkpoint, of "content".

    It is empty where there is no such file, or it tells nothing.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            origin = json.loads(archive.read(ORIGIN))
        kinds = {"model_num": int, "sha256": str, "flags": dict}
        return origin if all(type(origin[name]) is kind for name, kind in kinds.items()) else {}
    except Exception:               # zipfile raises some ten kinds where an archive is damaged
        return {}


def fingerprint(parts):
    """Return the SHA-256 of parts, an iterable of bytes."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()


def checkpoint_sha256(model_path, number):
    """Return the fingerprint of a checkpoint's files."""
    prefix = pathlib.Path(checkpoint_path(model_path, number))
    return fingerprint(path.read_bytes() for path in sorted(prefix.parent.glob(f"{prefix.name}.data-*")))


def find_export(model_path, number):
    """Return the path of the exported encoder of a checkpoint; without one, make it with TensorFlow, if that is there.

    It is kept in the model folder or, where that cannot be written, in the user's cache folder.
    """
    if not checkpoint_numbers(model_path):              # a folder that only listens
        return pathlib.Path(model_path, "encoder.tflite")
    wanted, own = checkpoint_sha256(model_path, number), pathlib.Path(model_path, "encoder.tflite")
    if number != best_checkpoint(model_path):
        own = pathlib.Path(f"{checkpoint_path(model_path, number)}.tflite")
    paths = own, platformdirs.user_cache_path("ge2e-speaker-verification") / f"{wanted}.tflite"
    for path in paths:
        if read_origin(path).get("sha256") == wanted:
            return path
    path = next((path for path in paths if writable(path)), paths[-1])
    problem = make_export(model_path, number, path)
    if problem:
        raise InputError(f"--model_path is {model_path}: its encoder.tflite is missing or not of checkpoint {number}, "
                         f"and {problem}", f"The model in {model_path} is not ready: {problem}")
    return path


def writable(path):
    """Tell whether a file can be written where its folder, or the nearest one above it that exists, lies."""
    return os.access(next(folder for folder in path.absolute().parents if folder.exists()), os.W_OK)


def make_export(model_path, number, path):
    """Export a checkpoint to `path` in a process that loads TensorFlow; return why that cannot be, "" if it was."""
    script = pathlib.Path(__file__).with_name("encoder.py")
    print(f"exporting checkpoint {number} to {path}", file=sys.stderr)
    done = subprocess.run([sys.executable, script, str(model_path), str(number), str(path)], check=False, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"the export ended with {done.returncode}"]
        told = [line for line in lines if line.startswith("error: ")] or lines       # libraries may have the last word
        return told[-1].removeprefix("error: ").removeprefix("common.InputError: ")
    return ""


# ---- the model folder -------------------------------------------------------------------------------------------

def read_model(model_path):
    """Return what config.json in a model folder holds, None where there is none; InputError if it is no model's."""
    return read_json(pathlib.Path(model_path, "config.json"), parse_config)


def parse_config(stored):
    """Check the parts of a model's config.json that are used, and return it."""
    if type(stored["flags"]) is not dict:
        raise ValueError("flags is no dict")
    for name in ("speakers", "training", "validation", "commands"):
        texts = stored.get(name, [])
        if type(texts) is not list or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{name} is no list of texts")
    return stored | {"flags": {"network": "lstm"} | configuration.with_later_flags(stored["flags"])}


def choose_model(config):
    """Take the model that comes with the project where --model_path was not given and ./model is missing; say which."""
    if "model_path" in config.given:
        return
    own = any(os.path.exists(os.path.join(config.model_path, name)) for name in ("config.json", "Check_Point"))
    if not own and PRETRAINED.is_dir():
        config.model_path = "./pretrained" if PRETRAINED.parent == pathlib.Path.cwd() else str(PRETRAINED)
    print(f"model: {config.model_path}", file=sys.stderr)


def checkpoint_numbers(model_path):
    """Return the numbers of the checkpoints in a model folder, ascending."""
    names = [path.name for path in pathlib.Path(model_path, "Check_Point").glob("model.ckpt-*.index")]
    found = [re.fullmatch(r"model\.ckpt-(\d+)\.index", name) for name in names]             # no "model.ckpt-5 (copy)"
    return sorted(int(match[1]) for match in found if match)


def holds_model(model_path):
    """Tell whether a folder holds a model: checkpoints, or what listens alone."""
    listens = all(pathlib.Path(model_path, name).exists() for name in ("config.json", "encoder.tflite"))
    return bool(checkpoint_numbers(model_path)) or listens


def checkpoint_path(model_path, number):
    """Return the prefix of a checkpoint's files."""
    return str(pathlib.Path(model_path, "Check_Point", f"model.ckpt-{number}"))


def is_ancestors(model_path, number):
    """Tell whether a checkpoint is of TensorFlow 1, as the ancestors' are: ours describe their objects, too."""
    index = pathlib.Path(f"{checkpoint_path(model_path, number)}.index")
    return b"_CHECKPOINTABLE_OBJECT_GRAPH" not in index.read_bytes()


def best_checkpoint(model_path):
    """Return the number of the best checkpoint on validation, else of the last one; there must be one."""
    best = (read_thresholds(model_path) or {}).get("best")
    return best["model_num"] if best else checkpoint_numbers(model_path)[-1]


def choose_checkpoint(model_path, model_num=None):
    """Return the number of the checkpoint to load: the one asked for, else the best on validation, else the last."""
    numbers = checkpoint_numbers(model_path)
    if not numbers:
        raise InputError(f"--model_path is {model_path}: there is no checkpoint; train one with "
                         f"python model.py --train True --model_path {model_path}",
                         f"The model in {model_path} has no checkpoint.")
    chosen = best_checkpoint(model_path) if model_num is None else model_num
    if chosen in numbers:
        return chosen
    there = f"{model_path} has the checkpoints {', '.join(map(str, numbers))}"
    if model_num is not None:
        raise InputError(f"--model_num is {chosen}: {there}")
    raise InputError(f"{model_path}/thresholds.json names checkpoint {chosen} as the best: {there}; choose one with "
                     "--model_num", f"The best checkpoint of the model in {model_path} is gone.")


def choose_exported(model_path, model_num=None):
    """Return the number of the checkpoint to listen with; a folder that only listens has encoder.tflite alone."""
    number = read_origin(pathlib.Path(model_path, "encoder.tflite")).get("model_num")
    if checkpoint_numbers(model_path) or not pathlib.Path(model_path, "encoder.tflite").exists():
        return choose_checkpoint(model_path, model_num)
    if number is None or model_num not in (None, number):
        holds = "is damaged" if number is None else f"is of checkpoint {number}, not of {model_num}"
        raise InputError(f"--model_path is {model_path}: its encoder.tflite {holds}, and there is no checkpoint to "
                         "export it from")
    return number


def load_config(model_path, flag="model_path"):
    """Return what config.json in a model folder holds; of an ancestor's folder, which has none, no flags.

    InputError names the folder as that of `flag`.
    """
    stored, numbers = read_model(model_path), checkpoint_numbers(model_path)
    if stored is None and not numbers:
        raise InputError(f"--{flag} is {model_path}: there is no model; train one with "
                         f"python model.py --train True --model_path {model_path}",
                         f"There is no model in {model_path}.")
    if stored is None and not is_ancestors(model_path, numbers[-1]):
        raise InputError(f"{checkpoint_path(model_path, numbers[-1])} has no config.json beside it, which tells what "
                         "it listens to: bring it back, or copy the model's folder whole",
                         f"The model in {model_path} has lost its config.json.")
    return stored or {"ancestor": True, "flags": configuration.with_later_flags({})}


def load_encoder(model_path, model_num=None):
    """Load an exported encoder.

    Parameters
    ----------
    model_path : str or Path
        A model folder.
    model_num : int, optional
        The checkpoint's number; without it the best on validation.

    Returns
    -------
    encoder : Encoder
        Maps float32 arrays (B, T, 40) to (B, D).
    config : argparse.Namespace
        The flags of its training, of which `given` lists those that the folder stores (an ancestor's does not store
        its features), and `model_num`, the checkpoint that was loaded.

    Raises
    ------
    InputError
        If the folder holds no model, not that checkpoint, or one that is not exported where TensorFlow is missing.
    """
    stored = load_config(model_path)
    number = choose_exported(model_path, model_num)
    encoder = Encoder(find_export(model_path, number))
    own = encoder.origin.get("flags", {})
    flags = own if "ancestor" in stored else stored["flags"]
    other = [name for name, value in own.items() if flags.get(name, value) != value]
    if other:
        raise InputError(f"{model_path}/config.json has --{other[0]} {flags[other[0]]}, its encoder {own[other[0]]}: "
                         "they are of two models; copy the model's folder whole")
    return encoder, config_of(model_path, flags, number)


def config_of(model_path, flags, number):
    """Return the config of a model folder whose flags are stored, and the number of its checkpoint."""
    config, flags = configuration.get_config([]), configuration.with_later_flags(flags)
    configuration.adopt(config, {name: value for name, value in flags.items() if name in configuration.flags()},
                        f"{model_path}/config.json")
    config.model_path, config.model_num, config.given = str(model_path), number, set(flags)
    return config


def open_model(config):
    """Load the encoder of config.model_path; config takes its feature flags, sizes and checkpoint number.

    Returns the encoder and what the folder's config.json holds, a dict, of its "flags" these alone.
    """
    stored = load_config(config.model_path)
    encoder, trained = load_encoder(config.model_path, config.model_num)
    return encoder, stored | {"flags": adopt_trained(config, trained)}


def adopt_trained(config, trained):
    """Give config the feature flags, sizes and checkpoint number of a model's config; return these flags, a dict."""
    flags = {name: getattr(trained, name) for name in flags_stored("features", "model") if name in trained.given}
    configuration.adopt(config, configuration.without_free_text(config, flags), config.model_path)
    configuration.check_relations(config)
    config.model_num = trained.model_num
    return flags


def adopt_model(config):
    """Take the feature flags of the model, without loading it; an ancestor's model leaves them to the flags."""
    stored = read_model(config.model_path)
    if stored is None and not pathlib.Path(config.model_path, "Check_Point").is_dir():
        raise InputError(f"--model_path is {config.model_path}: there is no model, and its rate is needed to record; "
                         f"train one with python model.py --train True --model_path {config.model_path}",
                         f"There is no model in {config.model_path}.")
    flags = (stored or load_config(config.model_path))["flags"]
    flags = {name: flags[name] for name in flags_stored("features") if name in flags}
    configuration.adopt(config, configuration.without_free_text(config, flags), config.model_path)
    configuration.check_relations(config)


def model_notes(config, stored):
    """Return a note where a model does not store its features."""
    line = f"{config.model_path} does not say what features it was trained on: the flags describe them"
    return [] if "sr" in stored["flags"] else [line]


# ---- thresholds -------------------------------------------------------------------------------------------------

def store_thresholds(model_path, model_num, evaluation, source, *, best=None, trials=None):
    """Write thresholds.json: the operating points of a checkpoint, measured on `source` (a text), and which is best.

    `evaluation` has scores, labels and points, as protocol.Evaluation. With `trials`, measures.KnownTrials, the points
    are log-likelihood ratios that take into account what is known of a trial; the thresholds are a usual trial's. A
    calibration under which a higher score is less likely the same person's is left out, and so are its ratios.
    """
    best = best or (read_thresholds(model_path) or {}).get("best")
    scores, labels = evaluation.scores[evaluation.compared], evaluation.labels[evaluation.compared]
    _, far, frr = measures.error_rates(scores, labels, at=measures.CURVE)
    points, calibration = evaluation.points, measures.calibrate(scores, labels)
    knowing = measures.calibrate_known(trials) if trials else None
    if knowing and knowing.is_usable:
        points, calibration = known_points(knowing, trials), knowing
    elif knowing:
        print(f"note: checkpoint {model_num} has no calibration that knows conditions: with it higher scores would be "
              "less likely the same person's", file=sys.stderr)
    kept = {name: part[0] if len(part) == 1 else part for name, part in asdict(calibration).items()}
    write_json(pathlib.Path(model_path, "thresholds.json"), {
        "model_num": model_num, "source": source, "points": points, "best": best,
        "curve": {"far": far.tolist(), "frr": frr.tolist()}} | ({"calibration": kept} if calibration.is_usable else {}))


def known_points(calibration, trials):
    """Return the operating points of measures.KnownTrials, {name: point}.

    Thresholds are log-likelihood ratios ("llr"; "threshold" is the score that a usual trial needs). Those of a FAR keep
    it over all trials, "far_all"; that of the EER is of the trials as recorded, of which "far" and "frr" tell. Corpora
    weigh the same in all of them. The calibration was fitted to the same trials, so new speakers may have other rates;
    a probe without speech is none of the trials.
    """
    ratios, weights = calibration.ratio(trials.scores, trials.known), measures.corpus_weights(trials)
    recorded = trials.part(trials.as_recorded)
    own_ratios, own_weights = ratios[trials.as_recorded], measures.corpus_weights(recorded)
    n_others = np.count_nonzero(~recorded.labels)               # the others are the same under other conditions
    points = measures.operating_points(ratios, trials.labels, weights=weights, n_others=n_others)
    points["eer"] = measures.operating_points(own_ratios, recorded.labels, weights=own_weights)["eer"]
    for point in points.values():
        llr = point["threshold"]
        point |= {"llr": llr, "threshold": float(np.nan_to_num(calibration.score(llr, {})))}
        point["far_all"], point["frr_all"] = measures.decision_rates(ratios >= llr, trials.labels, weights)
        point["far"], point["frr"] = measures.decision_rates(own_ratios >= llr, recorded.labels, own_weights)
    return points


def calibration_of(stored):
    """Return the measures.Calibration that thresholds.json holds, None where it holds none."""
    if not stored or "calibration" not in stored:
        return None
    scale, offset = (stored["calibration"][name] for name in ("scale", "offset"))
    if not isinstance(scale, list):                 # of a calibration that takes nothing else into account
        scale, offset = [scale], [offset]
    return measures.Calibration(tuple(scale), tuple(offset))


def choose_point(stored, config, by_hand=False):
    """Return the operating point that --far asks for, that of the EER without it, and its name in words.

    `stored` is what load_thresholds returns. Raises InputError where there is no such point; `by_hand` tells whether
    --threshold would do instead.
    """
    points = stored["points"] if stored else {}
    wanted = "eer" if config.far is None else str(config.far)
    if wanted in points:
        label = "EER" if config.far is None else f"FAR {config.far:.2g}"
        return points[wanted], f"{label} of {stored['source']}"
    flags = "" if config.far is None else f"--far is {config.far}: "
    names = ", ".join(name if name == "eer" else f"--far {name}" for name in points) or "no threshold"
    remedy = (f"measure {'on more speakers ' if points else ''}with python test.py --store_threshold True --model_path "
              f"{config.model_path}")
    if config.far not in (None, *measures.FALSE_ALARMS):
        remedy = f"choose {' or '.join(map(str, measures.FALSE_ALARMS))}, which can be stored"
    raise InputError(f"{flags}{config.model_path} stores {names} for checkpoint {config.model_num}; {remedy}"
                     f"{', or give --threshold' * by_hand}", f"The model stores {names}; {remedy}.")


def decide(stored, config, scored):
    """Return a text on the threshold that --far chooses and which of the trials, measures.Scored, it accepts (n,) bool.

    --threshold goes before what is stored. None where there is neither.
    """
    if config.threshold is not None:
        return f"threshold {config.threshold:.4f}, given by --threshold", scored.scores >= config.threshold
    if not stored and config.far is None:
        return None
    point, _ = choose_point(stored, config)
    at = "" if config.far is None else f" of FAR {config.far:.2g}"
    if "llr" in point:
        accepted = calibration_of(stored).ratio(scored.scores, scored.known) >= point["llr"]
        heard = "as recorded" if config.far is None else "under all conditions"
        return f"log-likelihood ratio {point['llr']:.4f}{at}, measured on {stored['source']} {heard}", accepted
    text = f"threshold {point['threshold']:.4f}{at}, measured on {stored['source']}"
    return text, scored.scores >= point["threshold"]


def read_thresholds(model_path):
    """Return what thresholds.json in a model folder holds, None where there is none; InputError if it is damaged."""
    return read_json(pathlib.Path(model_path, "thresholds.json"), parse_thresholds)


def parse_thresholds(stored):
    """Check what thresholds.json holds, and return it."""
    points, best = stored["points"], stored.get("best") or {"model_num": 0}
    curve = stored.get("curve", dict.fromkeys(("far", "frr"), [0.0] * len(measures.CURVE)))
    rates = [point[name] for point in [points["eer"], *points.values()] for name in ("far", "frr")]
    rates += [*curve["far"], *curve["frr"]]
    calibration = parse_calibration(stored["calibration"]) if "calibration" in stored else []
    rates += [point[name] for point in points.values() for name in ("far_all", "frr_all")
              if point.keys() & {"far_all", "frr_all"}]
    others = [point[name] for point in points.values() for name in ("threshold", "llr")
              if name == "threshold" or name in point]
    others.append(best.get("valid_loss", 0))
    if any(type(number) not in (int, float) for number in rates + calibration + others):
        raise ValueError("what must be a number is none")
    if type(stored["model_num"]) is not int or type(best["model_num"]) is not int or type(stored["source"]) is not str:
        raise ValueError("the number of a checkpoint is none, or the source is no text")
    large = any(abs(number) > measures.LARGEST_WEIGHT for number in calibration)
    if large or not np.isfinite(np.array(others, float)).all():
        raise ValueError("its thresholds or its calibration are too large")
    if not all(0 <= rate <= 1 for rate in rates) or {len(rates) for rates in curve.values()} != {len(measures.CURVE)}:
        raise ValueError("its error rates are not from 0 to 1, or too few")
    if any("llr" in point for point in points.values()) and not (calibration and calibration[0] > 0):
        raise ValueError("its thresholds need a calibration")
    return {"best": None} | stored


def parse_calibration(calibration):
    """Return the numbers of a calibration; KeyError, TypeError or ValueError where it is none."""
    parts = [calibration[name] if isinstance(calibration[name], list) else [calibration[name]]
             for name in ("scale", "offset")]
    if {len(part) for part in parts} not in ({1}, {1 + len(measures.TERMS)}):
        raise ValueError(f"its calibration has {len(parts[0])} and {len(parts[1])} weights, this version 1 or "
                         f"{1 + len(measures.TERMS)}")
    return [number for part in parts for number in part]


def load_thresholds(model_path, model_num):
    """Return what thresholds.json holds, None if it is missing or was measured for another checkpoint."""
    stored = read_thresholds(model_path)
    return stored if stored and stored["model_num"] == model_num else None
