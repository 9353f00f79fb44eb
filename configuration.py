"""The flags, shared by every script, and what all scripts do alike: errors, progress, Ctrl-C, files.

    python data_preprocess.py --raw_path DIR
    python model.py --train True --speaker_number 16
    python test.py --model_path ./model

`get_config` parses; nothing is parsed at import. Names, meaning and defaults of the older flags are those of
ngdangha/Speaker_Verification and its origin Janghyun1230/Speaker_Verification.
"""
import argparse
import contextlib
import json
import os
import pathlib
import secrets
import signal
import sys
import tempfile

import tqdm

FEATURE_FLAGS = ("sr", "nfft", "window", "hop", "tisv_frame", "top_db")  # what a stored feature depends on
MODEL_FLAGS = ("hidden", "proj", "num_layer")                            # what a stored weight depends on

PRETRAINED = pathlib.Path(__file__).parent / "pretrained"

# flag: lowest, highest, what it must be. NaN is in no range.
RANGES = {
    "sr": (1000, 192000, "it must be a sampling rate from 1000 to 192000 Hz"),
    "nfft": (16, 65536, "it must be an FFT length from 16 to 65536 samples"),
    "window": (0.001, 1, "it must be a window from 0.001 to 1 s"),
    "hop": (0.001, 1, "it must be a hop from 0.001 to 1 s"),
    "tdsv_frame": (1, 10000, "it must be at least 1 frame"),
    "tisv_frame": (160, 10000, "it must be at least the 160 frames that one embedding reads"),
    "top_db": (1, 120, "it must be from 1 to 120 dB below the loudest frame"),
    "test_ratio": (0, 1, "it must be a share from 0 to 1 of the speakers"),
    "hidden": (1, 65536, "it must be at least 1 cell"),
    "proj": (1, 65536, "it must be at least 1 dimension"),
    "num_layer": (1, 64, "it must be from 1 to 64 layers"),
    "model_num": (0, sys.maxsize, "it must be the number of a checkpoint, 0 or more"),
    "speaker_number": (2, 100000, "GE2E needs at least 2 speakers per batch"),
    "utterance_number": (2, 100000, "GE2E needs at least 2 utterances per speaker"),
    "noise_filenum": (1, 100000, "it must be at least 1 noise file"),
    "crop_min": (1, 10000, "it must be at least 1 frame"),
    "crop_max": (1, 10000, "it must be at least 1 frame"),
    "mask_channels": (0, 39, "it must be from 0 to 39 of the 40 mel channels"),
    "speed": (0, 0.5, "it must be a share from 0 to 0.5"),
    "equalize": (0, 30, "it must be from 0 to 30 dB"),
    "lr": (1e-9, 1e3, "it must be a learning rate from 1e-9 to 1e3"),
    "beta1": (0, 0.999999, "it must be at least 0 and below 1"),
    "beta2": (0, 0.999999, "it must be at least 0 and below 1"),
    "iteration": (1, sys.maxsize, "it must be at least 1 iteration"),
    "valid_ratio": (0, 1, "it must be a share from 0 to 1 of the training speakers"),
    "valid_every": (1, sys.maxsize, "it must be at least 1 iteration"),
    "seed": (0, 2**32 - 1, "it must be from 0 to 4294967295"),
    "jobs": (1, 4096, "it must be at least 1 process"),
    "seconds": (1, 3600, "it must be from 1 to 3600 s"),
    "min_speech": (0.5, 3600, "it must be at least 0.5 s, the least that gives a segment"),
    "far": (1e-9, 1, "it must be a false-acceptance rate above 0, such as 0.01"),
    "threshold": (-1, 1, "it must be a cosine from -1 to 1"),
}


CONTRADICTIONS = (("train", "verify"), ("train", "export"), ("verify", "export"), ("far", "threshold"),
                  ("trials", "store_threshold"), ("verify", "replace"), ("verify", "forget"),
                  ("verify", "keep_recording"), ("forget", "replace"), ("forget", "input"),
                  ("forget", "keep_recording"))


class InputError(ValueError):
    """What the user gave cannot be used; the message names the thing, the value and the remedy in one line."""


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, without the usage of every flag before them."""

    def error(self, message):
        """Print the message and end with exit code 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def boolean(text):
    """Read True or False, in the spellings the ancestors took."""
    if text.lower() in ("yes", "true", "t", "y", "1"):
        return True
    if text.lower() in ("no", "false", "f", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")


SWITCH = {"type": boolean, "nargs": "?", "const": True, "default": False, "metavar": "True|False"}


def build_parser():
    """Return the ArgumentParser of all scripts; units stand in the help."""
    parser = OneLineParser(allow_abbrev=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_data_flags(parser.add_argument_group("data").add_argument)
    add_model_flags(parser.add_argument_group("model").add_argument)
    add_training_flags(parser.add_argument_group("training").add_argument)
    add_evaluation_flags(parser.add_argument_group("evaluation").add_argument)
    add_recording_flags(parser.add_argument_group("recording and verification").add_argument)
    return parser


def add_data_flags(add):
    """Add the flags of audio and features; `add` is a group's add_argument, as below."""
    add("--raw_path", default="./raw_data", help="audio, one folder per speaker")
    add("--train_path", default="./train_tisv", help="features of the training speakers")
    add("--test_path", default="./test_tisv", help="features of the test speakers")
    add("--noise_path", default="./noise", help="noise of text-dependent training")
    add("--enroll_path", default="./enroll", help="enrolled speakers: features, or audio (a folder each)")
    add("--verify_path", default="./verify", help="probes to be verified: features or audio")
    add("--tdsv", **SWITCH, help="text-dependent verification; only False is built so far")
    add("--verify", **SWITCH, help="verify a probe: model.py compares, record.py records one first")
    add("--test_ratio", type=float, default=0.1, help="share of the speakers kept for the test")
    add("--sr", type=int, default=8000, help="sampling rate of the features (Hz)")
    add("--nfft", type=int, default=512, help="FFT length (samples)")
    add("--window", type=float, default=0.025, help="analysis window (s)")
    add("--hop", type=float, default=0.01, help="step between frames (s)")
    add("--top_db", type=float, default=30.0, help="speech is what lies less than this below the loudest frame (dB)")
    add("--tdsv_frame", type=int, default=80, help="length of a text-dependent segment (frames)")
    add("--tisv_frame", type=int, default=180, help="length of a stored segment (frames)")
    add("--jobs", type=int, help="processes that preprocess; none: one per core")


def add_model_flags(add):
    """Add the flags of the encoder and its folder."""
    add("--hidden", type=int, default=128, help="LSTM cells per layer")
    add("--proj", type=int, default=64, help="dimension of each layer's projection, and of the d-vector")
    add("--num_layer", type=int, default=3, help="LSTM layers")
    add("--model_path", default="./model", help="folder of the model; without ./model, verification takes ./pretrained")
    add("--model_num", type=int, help="number of the checkpoint to load; none: the best on validation")
    add("--export", metavar="DIR", help="model.py: write the model to DIR, without what only training needs, and end")
    add("--restore", **SWITCH, help="go on with the training run in --model_path")
    add("--init_from", metavar="DIR", help="start a new run from the weights of the model in DIR")


def add_training_flags(add):
    """Add the flags of the loss, the batches and the optimizer."""
    add("--train", **SWITCH, help="train; without it model.py tests")
    add("--speaker_number", "--N", type=int, default=32, help="speakers per batch; test.py: speakers tested, if given")
    add("--utterance_number", "--M", type=int, default=5, help="utterances per speaker: in a batch, in an enrolment")
    add("--noise_filenum", type=int, default=16, help="noise files of text-dependent training")
    add("--crop_min", type=int, default=140, help="shortest crop of a batch (frames)")
    add("--crop_max", type=int, default=180, help="longest crop of a batch (frames)")
    add("--mask_channels", type=int, default=0, help="half of the crops lose a band of up to this many mel channels")
    add("--weigh", **SWITCH, help="draw speakers as often as they have utterances, up to M; else all alike")
    add("--speed", type=float, default=0.0, help="half of a batch's speakers play up to this share faster or slower")
    add("--equalize", type=float, default=0.0, help="each crop gets a random smooth equalizer, standard deviation (dB)")
    add("--loss", default="softmax", choices=("softmax", "contrast"), help="GE2E eq. 6 or eq. 7")
    add("--optim", type=str.lower, default="sgd", choices=("sgd", "rmsprop", "adam"),
        help="optimizer; rmsprop and adam cancel the gradient scales of w, b (0.01) and the projections (0.5)")
    add("--lr", type=float, default=0.01, help="learning rate at the start")
    add("--schedule", default="step", choices=("step", "cosine"),
        help="the learning rate halves every 10000 iterations, or falls to 0 over --iteration")
    add("--beta1", type=float, default=0.5, help="Adam's decay of the first moment")
    add("--beta2", type=float, default=0.9, help="Adam's decay of the second moment")
    add("--iteration", type=int, default=60000, help="training steps in all")
    add("--valid_ratio", type=float, default=0.1, help="share of the training speakers kept for validation")
    add("--valid_every", type=int, default=1000, help="iterations between validations, each with a checkpoint")
    add("--seed", type=int, default=0, help="seed of weights, batches and validation speakers")
    add("--comment", default="", help="any words, kept in the model's config.json")


def add_evaluation_flags(add):
    """Add the flags of test.py."""
    add("--report_path", default="./report", help="folder of evaluation.json and its pictures")
    add("--trials", metavar="FILE", help="test.py: score this list, '1 path1 path2' (VoxCeleb) or 'enrol-utt test-utt "
        "target|nontarget' (Kaldi), on the audio in --raw_path")
    add("--allow_missing", **SWITCH, help="test.py: leave out trials whose audio is missing or without speech")
    add("--snorm", metavar="DIR", help="test.py: adaptive s-norm with the training features in DIR, before and after")
    add("--save_embeddings", metavar="FILE.npz", help="test.py: write names, d-vectors and seconds of speech")
    add("--store_threshold", **SWITCH, help="test.py: store the thresholds measured on the test set with the model")


def add_recording_flags(add):
    """Add the flags of record.py, of gui.py and of model.py --verify True."""
    add("--speaker", default="speaker0", help="who enrols or is forgotten; in verification, if given: the only one")
    add("--seconds", type=float, default=10.0, help="length of a recording (s)")
    add("--device", help="microphone: its number, or a part of its name; none: the system's default")
    add("--list_devices", **SWITCH, help="list the microphones and end")
    add("--input", metavar="FILE", help="take this recording instead of the microphone")
    add("--replace", **SWITCH, help="drop what the speaker has enrolled before")
    add("--forget", **SWITCH, help="delete the speaker's enrolment and kept recordings, and end")
    add("--keep_recording", **SWITCH, help="keep the enrolled recording as WAV in --raw_path")
    add("--min_speech", type=float, default=1.0, help="least speech of an enrolment and of a probe (s)")
    add("--far", type=float, help="take the threshold stored for this false-acceptance rate; none: that of the EER")
    add("--threshold", type=float, help="accept from this score on, whatever is stored")
    add("--json", **SWITCH, help="print the verdicts as one JSON object")


def get_config(argv=None):
    """Parse and check the flags; what is wrong ends the program with one line and exit code 2.

    Parameters
    ----------
    argv : list of str, optional
        Flags; without it, those of the command line.

    Returns
    -------
    argparse.Namespace
        One value per flag, and `given`, the set of the names that were typed.
    """
    parser = build_parser()
    unset = object()
    names = [action.dest for action in parser._actions if action.dest != "help"]
    config = parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(names, unset)))
    config.given = {name for name in names if getattr(config, name) is not unset}
    for name in set(names) - config.given:
        setattr(config, name, parser.get_default(name))
    for problem in problems(config):
        parser.error(problem)
    return config


def problems(config):
    """Yield a line for every value out of its range and every two flags that exclude each other."""
    for name, (low, high, what) in RANGES.items():
        value = getattr(config, name)
        if value is not None and not low <= value <= high:
            yield f"--{name} is {value}: {what}"
    if config.tdsv:
        yield "--tdsv is True: only text-independent speech is built so far; leave it out"
    for first, second in CONTRADICTIONS:
        if not any(getattr(config, name) is None or getattr(config, name) is False for name in (first, second)):
            yield f"--{first} and --{second} contradict each other: give one of the two"
    if config.restore and config.init_from:
        yield f"--init_from is {config.init_from}: --restore True goes on with a run of its own; give one of the two"
    if config.trials and "raw_path" not in config.given:
        yield f"--trials is {config.trials}: give --raw_path, the folder of the audio that it names"
    if config.train and config.model_num is not None:
        yield f"--model_num is {config.model_num}: training goes on from the last checkpoint; leave it out"
    if not config.train and (config.restore or config.init_from):
        yield f"--{'restore' if config.restore else 'init_from'} is given without --train True: it only serves training"


def check_relations(config):
    """Raise InputError where features or crops do not fit each other, once a folder or a model has given its values."""
    samples = config.window * config.sr
    if samples > config.nfft:
        raise InputError(f"--nfft is {config.nfft}: a window of {config.window} s at {config.sr} Hz has {samples:.0f} "
                         "samples, so --nfft must be at least that")
    if not config.train:
        return
    if config.crop_min > config.crop_max:
        raise InputError(f"--crop_min is {config.crop_min}: it must not exceed --crop_max {config.crop_max}")
    if config.crop_max * (1 + config.speed) > config.tisv_frame:
        played = f", played faster by --speed {config.speed}" if config.speed else ""
        raise InputError(f"--crop_max is {config.crop_max}{played}: a stored segment has only --tisv_frame "
                         f"{config.tisv_frame} frames; {int(config.tisv_frame / (1 + config.speed))} fit")


def adopt(config, stored, source):
    """Take the values that `source` was made with; a flag that was typed must agree with them.

    Parameters
    ----------
    config : argparse.Namespace
        Changed in place.
    stored : dict
        Flag names and values.
    source : str or Path
        Where the values are stored, for the error.

    Raises
    ------
    InputError
        If a typed flag differs from the stored value.
    """
    for name, value in stored.items():
        if not hasattr(config, name):
            raise InputError(f"{source} stores --{name}, which no flag is: it was made by another program or version")
        typed = getattr(config, name)
        if name in config.given and typed != value:
            raise InputError(f"--{name} is {typed}, but {source} was made with {value}: leave the flag out, "
                             "or name another folder")
        setattr(config, name, value)


def read_model(model_path):
    """Return what config.json in a model folder holds, None where there is none; InputError if it is no model's."""
    stored = read_json(pathlib.Path(model_path, "config.json"))
    if stored is not None and not isinstance(stored.get("flags"), dict):
        raise InputError(f"{model_path}/config.json is of another program: --model_path must name a model folder")
    return stored


def choose_model(config):
    """Take the model that comes with the project where --model_path was not given and ./model is missing; say which."""
    if "model_path" in config.given:
        return
    own = any(os.path.exists(os.path.join(config.model_path, name)) for name in ("config.json", "Check_Point"))
    if not own and PRETRAINED.is_dir():
        config.model_path = "./pretrained" if PRETRAINED.parent == pathlib.Path.cwd() else str(PRETRAINED)
    print(f"model: {config.model_path}", file=sys.stderr)


# ---- what all scripts do alike ----------------------------------------------------------------------------------

def run(work, argv=None):
    """Parse the flags, call work(config) and return its exit code; errors become one line and exit code 2."""
    config = get_config(argv)
    try:
        return work(config) or 0
    except KeyboardInterrupt as stop:
        print(f"\n{str(stop) or 'stopped by the keyboard'}", file=sys.stderr)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
    return 2


def progress(iterable=None, **options):
    """Return a tqdm bar that a log file, unlike a terminal, shows only every 30 s."""
    return tqdm.tqdm(iterable, mininterval=0.1 if sys.stderr.isatty() else 30, dynamic_ncols=True, **options)


@contextlib.contextmanager
def graceful_interrupt():
    """Yield a function that tells whether Ctrl-C was pressed since; a second Ctrl-C interrupts at once."""
    pressed = []

    def note(number, frame):
        pressed.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def quiet_libraries():
    """Keep what compiled libraries write to file descriptor 2; show it if anything but an InputError comes of it."""
    kept = os.dup(2)
    with tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), 2)
        try:
            yield
        except InputError:
            raise
        except BaseException:
            chatter.seek(0)
            os.write(kept, chatter.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


# ---- files ---------------------------------------------------------------------------------------------------------

def read_json(path):
    """Return what a JSON file holds, None where there is no file."""
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error


def private_folder(path):
    """Make a folder that only its owner may enter; say so where an older one is open to others. Returns its Path."""
    path = pathlib.Path(path)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name == "posix" and path.stat().st_mode & 0o077:
        print(f"note: {path} is open to other users; close it with chmod 700 {path}", file=sys.stderr)
    return path


def write_whole(path, write, private=False):
    """Call write(file) on a temporary file beside `path` and rename it: the file is there whole or not at all.

    Only its owner may read a private one.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")      # two programs may write at once
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0),
                             0o600 if private else 0o666)
        with open(descriptor, "w+b") as file:
            write(file)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path, value, private=False):
    """Write a value as JSON, whole or not at all."""
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    write_whole(path, lambda file: file.write(text.encode()), private)
