"""The flags, shared by every command.

`get_config` parses; nothing is parsed at import. Names, meaning and defaults of the older flags are those of
ngdangha/Speaker_Verification and its origin Janghyun1230/Speaker_Verification.
"""
import argparse
import functools
import os
import re
import sys
import traceback
from dataclasses import dataclass

from common import InputError

LISTENERS = "model record gui"              # the commands that verify
EVERYONE = f"data_preprocess test {LISTENERS}"
SPEECH_SECONDS = 0.5        # a recording with less speech gives no segment
TAKE_SECONDS = 0.2          # nor does a take of a known text with less
# Flags that serve nothing without another one, and why.
NEEDS = (("format", "export", "give --export, the folder that the encoder is written to"),
         ("json", "verify", "it is a form of verdicts; give --verify True"),
         ("timeline", "live", "only --live True makes one"),
         ("allow_missing", "trials", "only a list, --trials FILE, can miss recordings"),
         *((name, "train", "it serves training alone; give --train True")
           for name in ("restore", "init_from", "teacher", "valid_as")))
SURROGATE = re.compile("[\ud800-\udfff]")    # in a name: a byte that is not UTF-8


# ---- one flag ---------------------------------------------------------------------------------------------------

def boolean(text):
    """Read True or False, in the spellings the ancestors took."""
    if text.lower() in ("yes", "true", "t", "y", "1"):
        return True
    if text.lower() in ("no", "false", "f", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")


def number_or_none(text):
    """Read a number, or the word none."""
    try:
        return None if text.lower() == "none" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor none") from None


@dataclass(frozen=True)
class Flag:
    """All that is known of a flag; `add` in `flags` makes them."""

    name: str
    default: object
    words: str                      # its help
    group: str
    type: type
    unit: str = ""                  # of a number
    low: float | None = None        # least and highest number; NaN is in no range
    high: float | None = None
    must: str = ""                  # what a number must be, where range and unit do not say it
    choices: tuple = ()
    optional: bool = False          # the word none is a value of this number, and that of features that store none
    alias: str = ""
    metavar: str | None = None
    readers: str = EVERYONE         # the commands that read it, whose --help shows it
    stored: str = ""                # "features": they depend on it; "model": weights depend on it; "run": a training
    excludes: tuple = ()            # run keeps it; "progress": a run may change it when it goes on

    def problem(self, value):
        """Say what is wrong with a value, "" if nothing is."""
        if value is None and (self.default is None or self.optional):
            return ""
        kind = int if self.type is float and type(value) is int else self.type
        if type(value) is not kind:
            return f"--{self.name} is {value!r}: it must be of the type {self.type.__name__}"
        is_path = self.name.endswith("_path") or (self.metavar or "").startswith(("DIR", "FILE"))
        if kind is str and (SURROGATE.search(value) or (is_path and not value)):
            what = "it is not UTF-8; rename it" if value else "it names nothing; name a place, or leave the flag out"
            return f"--{self.name} is {value!r}: {what}"
        if self.choices and value not in self.choices:
            return f"--{self.name} is {value}: it must be {' or '.join(self.choices)}"
        if self.low is not None and not self.low <= value <= self.high:
            return f"--{self.name} is {value}: {self.must or f'it must be {self.bounds()}'}"
        return ""

    def bounds(self):
        """Return the range of a number and its unit, in words."""
        if self.high == sys.maxsize:
            return f"at least {self.low:g} {self.unit}".rstrip()
        return f"from {self.low:.9g} to {self.high:.10g} {self.unit}".rstrip()

    def help_text(self):
        """Return help, unit, range and default."""
        facts = [] if self.low is None else [self.bounds()]
        facts += [] if self.default is None else [f"default {self.default}"]
        return f"{self.words} ({', '.join(facts)})" if facts else self.words

    def options(self):
        """Return the options of argparse's add_argument."""
        if self.type is bool:
            return {"type": boolean, "nargs": "?", "const": True, "metavar": "True|False"}
        kind = number_or_none if self.optional else str.lower if self.choices else self.type
        return {"type": kind, "choices": self.choices or None,
                "metavar": self.metavar or (None if self.choices else self.type.__name__.upper())}


# ---- the flags --------------------------------------------------------------------------------------------------

@functools.cache
def flags():
    """Return {name: Flag} of all flags, in the order in which --help shows them."""
    found = {}

    def group(title, **common):
        def add(name, default, words, **more):
            kind = more.pop("type", str if default is None else type(default))
            found[name] = Flag(name, default, words, title, kind, **common | more)
        return add

    add_path_flags(group("data"))
    add_feature_flags(group("features", stored="features"))
    add_text_dependent_flags(group("text-dependent mode"))
    add_model_flags(group("model"))
    add_batch_flags(group("training", readers="model", stored="run"))
    add_training_flags(group("training", readers="model", stored="run"))
    add_evaluation_flags(group("evaluation", readers="test"))
    add_verification_flags(group("verification", readers=LISTENERS))
    add_recording_flags(group("recording", readers="record"))
    return found


def add_path_flags(add):
    """Add the flags of where data lie and who is tested."""
    add("raw_path", "./raw_data", "audio, one folder per speaker", readers=EVERYONE)
    add("download", None, "fetch this public corpus into --raw_path, a new folder, unless it is there",
        choices=("librispeech-dev-clean", "librispeech-test-clean"), readers="data_preprocess")
    add("train_path", "./train_tisv", "features of the training speakers", readers="data_preprocess model",
        stored="progress")
    add("test_path", "./test_tisv", "features of the test speakers", readers="data_preprocess model test")
    add("enroll_path", "./enroll", "enrolled speakers: features, or audio (a folder each)", readers=LISTENERS)
    add("verify_path", "./verify", "probes to be verified: features or audio", readers=LISTENERS)
    add("noise_raw_path", None, "recordings of noise, which copies and conditions mix in", metavar="DIR",
        readers="data_preprocess test")
    add("copies", 0, "copies of each training utterance under random conditions: noise, babble, rooms, telephones",
        unit="copies", low=0, high=1000, readers="data_preprocess")
    add("test_ratio", 0.1, "share of the speakers kept for the test", low=0, high=1, readers="data_preprocess",
        must="it must be a share from 0 to 1 of the speakers")
    add("scheduler", None, "preprocess on the workers of the Dask scheduler at this address", metavar="tcp://HOST:PORT",
        readers="data_preprocess")
    add("jobs", None, "processes that read audio; without it: one per core", type=int, low=1, high=4096,
        readers="data_preprocess model test", unit="processes")


def add_feature_flags(add):
    """Add the flags that a stored feature depends on."""
    add("sr", 8000, "sampling rate of the features", unit="Hz", low=1000, high=192000)
    add("nfft", 512, "FFT length", unit="samples", low=16, high=65536)
    add("window", 0.025, "analysis window", unit="s", low=0.001, high=1)
    add("hop", 0.01, "step between frames", unit="s", low=0.001, high=1)
    add("tisv_frame", 180, "length of a stored segment", unit="frames", low=160, high=10000,
        must="it must be at least the 160 frames that one embedding reads, and at most 10000")
    add("top_db", 30.0, "speech is what lies less than this below the loudest frame", unit="dB", low=1, high=120)
    add("floor_db", 3.0, "and this much above the noise floor, the level that a tenth of the frames stays below; none: "
        "wherever that is", unit="dB", low=0, high=60, optional=True)
    add("level", -26.0, "level that the speech of every recording gets; none: the one it has, and its offset, too",
        unit="dB of full scale", low=-80, high=0, optional=True)


def add_text_dependent_flags(add):
    """Add the flags of the text-dependent mode."""
    add("tdsv", False, "text-dependent verification: all speakers say the same words", stored="features")
    add("tdsv_text", None, "only recordings whose names begin or end with this text, as in 001_2.wav or anna_001.wav; "
        "all: several texts, each compared with itself alone; without it: all recordings say one text",
        metavar="TEXT", stored="features")
    add("tdsv_frame", 80, "the last frames of a take, which are its only segment", unit="frames", low=20, high=160,
        must="it must be from 20 frames to the 160 that one embedding reads", stored="features")
    add("clean_path", None, "recordings without noise, whose difference to those of the same names in --noisy_path is "
        "the noise of copies", metavar="DIR", readers="data_preprocess")
    add("noisy_path", None, "the same recordings in noise", metavar="DIR", readers="data_preprocess")
    add("noise_path", "./noise", "where that noise is kept, in --noise_filenum pieces; copies of takes mix it in",
        readers="data_preprocess test")
    add("noise_filenum", 16, "pieces of noise, and copies of a take that is its speaker's only one", unit="pieces",
        low=1, high=1000, readers="data_preprocess test")


def add_model_flags(add):
    """Add the flags of the encoder and its folder."""
    add("network", "lstm", "the paper's LSTM, or a convolutional network, of several times its work, that can teach it",
        choices=("lstm", "resnet"), readers="model", stored="model")
    add("hidden", 128, "LSTM cells per layer; kernels of a ResNet's last stage", unit="cells", low=2, high=65536,
        readers="model", stored="model")
    add("proj", 64, "dimensions of each layer's projection, and of the d-vector", unit="dimensions", low=2, high=65536,
        readers="model", stored="model")
    add("num_layer", 3, "LSTM layers; a ResNet's stages behind its first", unit="layers", low=1, high=64,
        readers="model", stored="model")
    add("model_path", "./model", "folder of the model; without ./model, verification takes ./pretrained",
        readers=f"test {LISTENERS}")
    add("model_num", None, "number of the checkpoint to load; without it: the best on validation", type=int,
        low=0, high=sys.maxsize, readers=f"test {LISTENERS}")
    add("export", None, "write the model to this folder, without what only training needs, and end", metavar="DIR",
        readers="model")
    add("format", None, "with --export: write the encoder for other programs, to saved_model/, encoder.tflite and "
        "encoder_int8.tflite, or encoder.onnx, and to features.json what it takes",
        choices=("savedmodel", "tflite", "onnx"), readers="model")
    add("restore", False, "go on with the training run in --model_path", readers="model")
    add("init_from", None, "start a new run from the weights of the model in this folder", metavar="DIR",
        readers="model")


def add_batch_flags(add):
    """Add the flags of what a batch holds."""
    add("speaker_number", 32, "speakers per batch; test.py: speakers tested, if given", alias="N", unit="speakers",
        low=2, high=100000, must="GE2E needs at least 2 speakers per batch", readers="model test")
    add("utterance_number", 5, "utterances per speaker: in a batch, in an enrolment", alias="M", unit="utterances",
        low=1, high=100000, readers="model test")
    add("crop_min", 140, "shortest crop of a batch", unit="frames", low=1, high=10000)
    add("crop_max", 180, "longest crop of a batch", unit="frames", low=1, high=10000)
    add("mask_channels", 0, "half of the crops lose a band of up to this many of the 40 mel channels", unit="channels",
        low=0, high=39)
    add("weigh", False, "draw speakers as often as they have utterances, up to M; else all alike")
    add("one_corpus", False, "each batch is of speakers of one corpus (the --raw_path that they come from)")
    add("copy_share", 0.6, "share of the crops that are of a copy of their utterance, where it has copies", low=0,
        high=1)
    add("speed", 0.0, "three of five speakers of a batch play up to this share faster or slower", low=0, high=0.5)
    add("one_speed", False, "instead three of five batches do, all speakers of one at the same speed")
    add("bend", False, "with --speed: tempo and four ranges of frequencies of a voice each have a speed of their own")
    add("equalize", 0.0, "each crop gets a random equalizer, four cosines over its channels and a gain of this "
        "standard deviation each", unit="dB", low=0, high=30)


def add_training_flags(add):
    """Add the flags of the loss, the optimizer and the course of training."""
    add("train", False, "train; without it model.py tests", stored="", excludes=("verify", "export"))
    add("loss", "softmax", "GE2E eq. 6, eq. 7, or eq. 6 and the logistic costs of all trials",
        choices=("softmax", "contrast", "trials"))
    add("teacher", None, "learn the similarities that the model in this folder finds, too, or those in several on "
        "average", metavar="DIR,DIR", stored="progress")
    add("optim", "sgd", "optimizer; rmsprop and adam cancel the gradient scales of w, b (0.01) and the projections "
        "(0.5)", choices=("sgd", "rmsprop", "adam"))
    add("lr", 0.01, "learning rate at the start", low=1e-9, high=1e3)
    add("schedule", "step", "the learning rate halves every 10000 iterations, or falls to 0 over --iteration",
        choices=("step", "cosine"))
    add("warmup", 0, "the learning rate rises to its value within the first iterations", unit="iterations", low=0,
        high=sys.maxsize)
    add("beta1", 0.5, "Adam's decay of the first moment", low=0, high=0.999999)
    add("beta2", 0.9, "Adam's decay of the second moment", low=0, high=0.999999)
    add("iteration", 60000, "training steps in all", unit="iterations", low=1, high=sys.maxsize, stored="progress")
    add("valid_ratio", 0.1, "share of the training speakers with more than --M utterances that is kept for "
        "validation, of each corpus, 2 at least", low=0, high=1)
    add("valid_as", None, "keep for validation the speakers that the model in this folder kept, whatever --valid_ratio "
        "is", metavar="DIR")
    add("valid_every", 1000, "iterations between validations, each with a checkpoint", unit="iterations", low=1,
        high=sys.maxsize, stored="progress")
    add("patience", 0, "stop after this many validations without a lower loss; 0: never", unit="validations", low=0,
        high=sys.maxsize, stored="progress")
    add("max_minutes", 0.0, "stop after this many minutes; 0: never", unit="minutes", low=0, high=1e6,
        stored="progress")
    add("strategy", "none", "train on this process alone, on all devices of this machine, or on the workers that the "
        "environment variable TF_CONFIG names", choices=("none", "mirrored", "multi_worker"))
    add("seed", 0, "seed of weights, batches, validation and tested speakers, and intervals", low=0, high=2**32 - 1,
        readers="model test")
    add("comment", "", "any words, kept in the model's config.json", stored="progress")


def add_evaluation_flags(add):
    """Add the flags of test.py."""
    add("report_path", "./report", "folder of evaluation.json and its pictures")
    add("trials", None, "score this list, '1 path1 path2' (VoxCeleb) or 'enrol-utt test-utt target|nontarget' (Kaldi), "
        "on the audio in --raw_path", metavar="FILE", excludes=("store_threshold",))
    add("conditions", False, "also test in noise, rooms, over telephones and codecs, on the audio in --raw_path")
    add("allow_missing", False, "leave out trials whose audio is missing or without speech")
    add("snorm", None, "adaptive s-norm with the training features in this folder, before and after", metavar="DIR")
    add("save_embeddings", None, "write names, d-vectors and seconds of probes and enrolments", metavar="FILE.npz")
    add("store_threshold", False, "store the thresholds measured on the test set with the model")


def add_verification_flags(add):
    """Add the flags of record.py, gui.py and model.py --verify True."""
    add("verify", False, "verify a probe: model.py compares, record.py records one first", readers="model record",
        excludes=("export", "replace", "forget", "keep_recording"))
    add("min_speech", 1.0, "least speech of an enrolment and of a probe; 0.5 s are the least that gives a segment; of "
        "a text-dependent take 0.2 s, which is its default", unit="s", low=0.2, high=3600)
    add("far", None, "take the threshold stored for this false-acceptance rate, 0.01 or 0.001; without it: that of "
        "the EER", type=float, readers=f"test {LISTENERS}", low=1e-9, high=1,
        must="it must be a false-acceptance rate above 0, such as 0.01", excludes=("threshold",))
    add("threshold", None, "accept from this score on, whatever is stored", type=float, low=-1, high=1,
        must="it must be a cosine from -1 to 1")
    add("json", False, "print the verdicts as one JSON object", readers="model record")
    add("speaker", "speaker0", "who enrols or is forgotten; in verification, if given: the only one",
        readers="model record")


def add_recording_flags(add):
    """Add the flags of the microphone and of enrolments."""
    add("seconds", 10.0, "length of a recording", unit="s", low=1, high=3600, readers="record gui")
    add("device", None, "microphone: its number, or a part of its name; without it: the system's default",
        readers="record gui")
    add("list_devices", False, "list the microphones and end")
    add("input", None, "take this recording instead of the microphone", metavar="FILE")
    add("replace", False, "drop what the speaker has enrolled before; recordings that were kept stay until --forget",
        readers="record gui")
    add("forget", False, "delete the speaker's enrolment and kept recordings, and end",
        excludes=("replace", "input", "keep_recording"))
    add("keep_recording", False, "keep the enrolled recording as WAV in --raw_path", readers="record gui")
    add("live", False, "with --verify: show the verdict while it grows, end as soon as it is sure; without: say who "
        "speaks now, until Ctrl-C or for --seconds, if typed",
        excludes=("replace", "forget", "keep_recording", "list_devices"))
    add("timeline", None, "keep who spoke when: time (s), name, ratio", metavar="FILE.csv",
        excludes=("verify", "forget", "list_devices"))


def with_later_flags(stored):
    """Return stored flags with `none` for those of features that are younger than what stores them.

    What stores its features but no mode is text-independent; an ancestor's model does not say which it is.
    """
    later = {name: None for name in flags_stored("features") if flags()[name].optional}
    return later | ({"tdsv": False, "tdsv_text": None} if "sr" in stored else {}) | stored


def without_free_text(config, stored):
    """Return a model's stored flags, without its text where another was typed and it takes any."""
    free = "tdsv_text" in config.given and stored.get("tdsv_text") in (None, "all")
    return {name: value for name, value in stored.items() if not (free and name == "tdsv_text")}


def flags_stored(*kinds):
    """Return the names of the flags that features, a model, or a training run depend on: see Flag.stored."""
    return tuple(name for name, flag in flags().items() if flag.stored in kinds)


# ---- parsing ----------------------------------------------------------------------------------------------------

class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, without the usage of every flag before them."""

    def error(self, message):
        """Print the message and end with exit code 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


class Help(argparse.Action):
    """--help prints the flags that the command reads, --help all every one."""

    def __call__(self, parser, namespace, value, option_string=None):
        """Print the help and end."""
        parser = build_parser(parser.description, None) if value == "all" else parser
        print(parser.format_help(), flush=True)
        parser.exit()


def build_parser(doc="", command=None):
    """Return the ArgumentParser of a command, whose help shows the flags that it reads; without one, all flags."""
    parser = OneLineParser(allow_abbrev=False, add_help=False, description=doc, usage="%(prog)s [flags]",
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-h", "--help", action=Help, nargs="?", choices=("all",), metavar="all",
                        default=argparse.SUPPRESS, help="show the flags that this command reads, or all, and end")
    groups = {}
    for flag in flags().values():
        if flag.group not in groups:
            groups[flag.group] = parser.add_argument_group(flag.group)
        names = [f"--{name}" for name in (flag.name, flag.alias) if name]
        shown = command is None or command in flag.readers.split()
        groups[flag.group].add_argument(*names, dest=flag.name, default=argparse.SUPPRESS, **flag.options(),
                                        help=flag.help_text().replace("%", "%%") if shown else argparse.SUPPRESS)
    return parser


def get_config(argv=None, doc="", command=None):
    """Parse and check the flags; what is wrong ends the program with one line and exit code 2.

    Parameters
    ----------
    argv : list of str, optional
        Flags; without it, those of the command line.
    doc, command : str, optional
        What --help says first, and the name of the command whose flags it shows.

    Returns
    -------
    argparse.Namespace
        One value per flag, and `given`, the set of the names that were typed.
    """
    parser = build_parser(doc, command)
    typed = vars(parser.parse_args(argv if argv is None else list(map(str, argv))))
    config = argparse.Namespace(**{name: flag.default for name, flag in flags().items()} | typed, given=set(typed))
    for problem in flag_problems(config):
        parser.error(problem)
    return config


def flag_problems(config):
    """Yield a line for every value out of its range and every two flags that exclude each other."""
    set_flags = {name for name in flags() if not (getattr(config, name) is None or getattr(config, name) is False)}
    for name, flag in flags().items():
        if flag.problem(getattr(config, name)):
            yield flag.problem(getattr(config, name))
        for other in set_flags.intersection(flag.excludes if name in set_flags else ()):
            yield f"--{name} and --{other} contradict each other: give one of the two"
    if bool(config.clean_path) != bool(config.noisy_path):
        yield "--clean_path and --noisy_path belong together: their difference is noise; give both or neither"
    if config.verify and config.tdsv_text == "all":
        yield "--tdsv_text is all: a verdict is on one text; name it"
    if config.forget and "speaker" not in config.given:
        yield "--forget is True: give --speaker, whose enrolment it deletes"
    if config.input and "seconds" in config.given:
        yield f"--seconds is {config.seconds:g}: it is for the microphone, --input is heard whole; leave it out"
    if config.trials and "raw_path" not in config.given:
        yield f"--trials is {config.trials}: give --raw_path, the folder of the audio that it names"
    for name in config.given & {"speaker_number", "utterance_number", "tdsv_text"} if config.trials else ():
        yield f"--trials is {config.trials}: it says what is compared; leave --{name} out"
    yield from training_problems(config)
    for name, other, why in NEEDS:
        if name in set_flags and other not in set_flags:
            yield f"--{name} is {spelled(getattr(config, name))}: {why}"


def training_problems(config):
    """Yield the same of the flags of training."""
    if config.network == "resnet" and config.hidden % 2**config.num_layer:
        yield (f"--hidden is {config.hidden}: a ResNet's kernels halve --num_layer ({config.num_layer}) times; name a "
               f"multiple of {2**config.num_layer}")
    if config.teacher and not config.teacher.strip(","):
        yield f"--teacher is {config.teacher}: it names no folder; name one, or leave it out"
    if config.restore and config.init_from:
        yield f"--init_from is {config.init_from}: --restore True goes on with a run of its own; give one of the two"
    for name in config.given & {"beta1", "beta2"} if config.train and config.optim != "adam" else ():
        if not config.restore:
            yield f"--{name} is {getattr(config, name)}: only --optim adam has it; give that, or leave it out"
    if config.train and config.utterance_number < 2:
        yield f"--utterance_number is {config.utterance_number}: GE2E needs at least 2 utterances per speaker"
    if config.train and config.model_num is not None:
        yield f"--model_num is {config.model_num}: training goes on from the last checkpoint; leave it out"


def segment_flag(tdsv):
    """Return the name of the flag that tells how many frames a segment has."""
    return "tdsv_frame" if tdsv else "tisv_frame"


def least_seconds(config):
    """Return how many seconds of speech give a segment: takes of a known text are short."""
    return TAKE_SECONDS if config.tdsv or config.tdsv_text else SPEECH_SECONDS


def settle(config):
    """Give what was not typed its value in text-dependent mode, where a take is short and read whole."""
    whole = int(config.tdsv_frame / (1 + config.speed))
    for name, value in (("crop_min", whole), ("crop_max", whole), ("min_speech", TAKE_SECONDS), ("seconds", 3.0)):
        kept = config.restore and name.startswith("crop")              # the run has said it
        if name not in config.given and not kept and getattr(config, name) == flags()[name].default:
            setattr(config, name, value)


def check_relations(config):
    """Raise InputError where features or crops do not fit each other, once a folder or a model has given its values.

    What was not typed gets its value in text-dependent mode first.
    """
    if config.tdsv:
        settle(config)
    if config.min_speech < least_seconds(config):
        raise InputError(f"--min_speech is {config.min_speech:g}: {least_seconds(config):g} s of speech are the least "
                         "that gives a segment")
    samples = round(config.window * config.sr, 6)
    if not 2 <= samples <= config.nfft:
        raise InputError(f"--nfft is {config.nfft}: a window of {config.window} s at {config.sr} Hz has {samples:.0f} "
                         "samples, where it takes from 2 to --nfft of them")
    if not config.train:
        return
    for name, words in (("one_speed", "whose speed varies"), ("bend", "which speeds vary")):
        if getattr(config, name) and not config.speed:
            raise InputError(f"--{name} is True: it says {words}, --speed by how much; give --speed too")
    if config.crop_min > config.crop_max:
        raise InputError(f"--crop_min is {config.crop_min}: it must not exceed --crop_max {config.crop_max}")
    flag, speed = segment_flag(config.tdsv), 1 + config.speed
    if config.crop_max * speed > getattr(config, flag):
        played = f", played faster by --speed {config.speed}" if config.speed else ""
        raise InputError(f"--crop_max is {config.crop_max}{played}: a stored segment has only --{flag} "
                         f"{getattr(config, flag)} frames; {int(getattr(config, flag) / speed)} fit")


def spelled(value):
    """Return a flag's value as it is typed: None is none."""
    return "none" if value is None else value


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

    Raises InputError if a typed flag differs from the stored value, or that is none the flag can have.
    """
    for name, value in stored.items():
        if name not in flags():
            raise InputError(f"{source} stores --{name}, which no flag is: it was made by another program or version")
        if flags()[name].problem(value):
            raise InputError(f"{source} is damaged: {flags()[name].problem(value)}")
        typed = getattr(config, name)
        if name in config.given and typed != value:
            raise InputError(f"--{name} is {spelled(typed)}, but {source} was made with {spelled(value)}: leave the "
                             "flag out, or name another folder")
        setattr(config, name, value)


# ---- what all commands do alike ---------------------------------------------------------------------------------

def run(work, argv=None, command=None, doc=""):
    """Parse a command's flags, call work(config) and return its exit code; errors become one line and exit code 2.

    Where nobody reads the output to its end, as in `| head`, it ends with that code and no word; a fault of ours shows
    its traceback. What a terminal's encoding lacks is printed as its escape.
    """
    if sys.stderr is None:                      # it is closed; what opens next would take its place
        sys.stderr = open(os.devnull, "w")      # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = work(get_config(argv, doc, command)) or 0
        print(end="", flush=True)
        return code
    except KeyboardInterrupt as stop:
        print(f"\n{str(stop) or 'stopped by the keyboard'}", file=sys.stderr)
    except (InputError, OSError) as error:
        if not isinstance(error, BrokenPipeError) or output_is_read():
            print(f"error: {error}", file=sys.stderr)
    except MemoryError as error:
        print(f"error: there is not enough memory: {error}", file=sys.stderr)
    except Exception:
        traceback.print_exc()
    return 2


def output_is_read():
    """Tell whether somebody reads what is printed; where not, it goes nowhere from now on."""
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())      # Python flushes once more at its end
        return False
    return True
