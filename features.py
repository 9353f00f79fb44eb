"""The feature folders: what preprocessing writes and all others read.

A folder holds `<speaker>.npy`, float32 (K, 40, frames), `<speaker>.json`, which tells what its rows were made of, and
`manifest.json` with the settings of all. Without these two, as the ancestors wrote it, each row counts as an utterance.
"""
import concurrent.futures
import contextlib
import functools
import io
import math
import os
import pathlib
import re
import shlex
import unicodedata
import warnings
from dataclasses import dataclass, replace
from types import NoneType
from typing import NamedTuple

import numpy as np

import common
import configuration
from audio import N_MELS
from common import SOMEBODY, InputError, json_bytes, read_json, write_json, write_whole

SPEAKER_NAME = re.compile(r"[\w][\w .-]*")
LONGEST_NAME = 240           # bytes: a file's may have 255, with its suffix
TAKEN = ("manifest", SOMEBODY)          # names: of a folder's own file, and of who is not enrolled
HEAD_BYTES = 128             # of a .npy that NumPy writes
MANY_FILES = 2000            # so many that reading them ahead pays
READERS = 16                 # at once
LARGEST = 1e9                # of the numbers in features: the encoder computes with them in float32
RECORD_KINDS = {"segments": int, "settings": dict, "source": str, "speaker": str, "ignored": dict, "recordings": list,
                "slots": list, "utterances": list}
# Of an Utterance: the kinds of value that each field may have, and the least of its numbers.
UTTERANCE_KINDS = {"file": (str,), "first": (int,), "count": (int,), "seconds": (int, float),
                   "speech_seconds": (int, float), "dropped": (str,), "snr": (int, float, NoneType),
                   "bandwidth": (int, float, NoneType), "condition": (str,), "copies": (tuple,), "text": (str,),
                   "babblers": (tuple,)}
LEAST = {"first": 0, "count": 0, "seconds": 0, "speech_seconds": 0, "snr": -1000, "bandwidth": 0}


# ---- names ------------------------------------------------------------------------------------------------------

def normal_form(text):
    """Return a text in Unicode normal form C: a name is one name however its accents are written."""
    return unicodedata.normalize("NFC", text)


def speaker_name(text):
    """Return a speaker's name in Unicode normal form C; InputError where it could not be a file name."""
    name = normal_form(text)
    signs = [letter for letter in name if unicodedata.category(letter) in ("Mn", "Mc")]      # vowels of Hindi or Thai
    if name[:1] in signs or not SPEAKER_NAME.fullmatch(name.translate(dict.fromkeys(map(ord, signs)))) or (
            name in TAKEN):
        raise InputError(f"speaker name {text!r}: use letters, digits, spaces, '_', '.' and '-', "
                         f"beginning with a letter, a digit or '_'; {' and '.join(map(repr, TAKEN))} are taken")
    if len(name.encode()) > LONGEST_NAME:
        raise InputError(f"speaker name {text!r}: its {len(name.encode())} bytes are too many for a file's; use at "
                         f"most {LONGEST_NAME}")
    return name


def check_place(path):
    """Raise InputError where a path, without links, could not be written into a description."""
    place = str(pathlib.Path(path).resolve())
    if configuration.SURROGATE.search(place):
        raise InputError(f"{place!r} is not UTF-8; rename it")


def place_of(source):
    """Return the path of a speaker's folder as descriptions have it: of a link its own, in the folder that it is in."""
    return str(pathlib.Path(source).parent.resolve() / pathlib.Path(source).name)


def visible_paths(folder):
    """Return what lies in a folder and is not hidden, in order."""
    return sorted(path for path in pathlib.Path(folder).iterdir() if not path.name.startswith("."))


def is_one_place(one, other):
    """Tell whether two paths lead to one place; None and what else is no path lead nowhere."""
    return isinstance(one, str) and isinstance(other, str) and os.path.realpath(one) == os.path.realpath(other)


def sub_folders(folder):
    """Return the visible sub-folders, in order, without those that hold features."""
    return [path for path in visible_paths(folder) if path.is_dir() and not holds_features(path)]


def holds_features(folder):
    """Tell whether a folder's manifest.json is that of features; other programs write files of that name, too."""
    with contextlib.suppress(InputError):
        return read_settings(folder) is not None
    return False


def folders_by_name(folders):
    """Return {speaker name: folder}; InputError where two folders carry one name."""
    speakers = {}
    for folder in folders:
        name = speaker_name(folder.name)
        check_place(folder)
        if name in speakers:
            raise InputError(f"{folder} and {speakers[name]} are one speaker's name: rename one of them")
        speakers[name] = folder
    return speakers


def own_split(raw_path):
    """Return {"train": folder, "test": folder} of a corpus that has these folders alone, {} of others."""
    folders = sorted(sub_folders(raw_path), key=lambda folder: folder.name.lower())
    parts = [folder.name.lower() for folder in folders]
    return {"train": folders[1], "test": folders[0]} if parts == ["test", "train"] else {}


def files_of(folder, suffix):
    """Return the files with a suffix in a folder that need not be there, without hidden ones, in order."""
    return sorted(path for path in pathlib.Path(folder).glob(f"*{suffix}") if not path.name.startswith("."))


# ---- one speaker ------------------------------------------------------------------------------------------------

class Utterance(NamedTuple):
    """One source file of a speaker: rows [first, first + count) of the features; a reason where it gave none.

    `copies` are the same under other conditions, Utterances without copies of their own.
    """

    file: str
    first: int
    count: int
    seconds: float = 0.0
    speech_seconds: float = 0.0
    dropped: str = ""
    snr: float | None = None            # dB, estimated
    bandwidth: float | None = None      # Hz, estimated
    condition: str = ""                 # of a copy
    copies: tuple = ()
    text: str = ""                      # what is said, where that is known
    babblers: tuple = ()                # names of the speakers who are known to talk in a copy's babble

    @property
    def session(self):
        """The sub-folder of the speaker that the file lies in."""
        return os.path.dirname(self.file)


@dataclass(frozen=True)
class Speaker:
    """One speaker's feature file (K, 40, frames) and the utterances that its rows come from."""

    name: str
    path: pathlib.Path
    utterances: tuple
    corpus: str = ""            # the folder that the speaker's folder lies in
    frames: int = 0             # of a segment
    text: str = ""              # of all utterances, where a person with several texts counts as several speakers

    @property
    def person(self):
        """The name of the person, whatever the text."""
        return person_of(self.name)

    @functools.cached_property
    def voiced(self):
        """The utterances that gave segments."""
        return [utterance for utterance in self.utterances if utterance.count]

    def load(self):
        """Open the features, float32 (K, 40, frames), memory-mapped."""
        return open_features(self.path)

    def read(self, rows):
        """Read some rows (n,) of the features, (n, 40, frames), in a third of the time that a memory map takes."""
        return read_rows(self.path, rows)


def open_features(path, mmap_mode="r"):
    """Memory-map a feature file (K, 40, frames); InputError where it is anything else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")         # of headers as Python 2 wrote them, and damaged ones seem to be
            features = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
        fits = (features.ndim == 3 and features.shape[1] == N_MELS and features.dtype.kind == "f" and features.size)
    except FileNotFoundError as error:
        raise InputError(f"{path} is gone", f"{path} is gone: enrol this speaker again") from error
    except PermissionError:
        raise
    except Exception as error:      # NumPy's parser of headers raises some ten kinds, tokenize.TokenError among them
        raise InputError(f"{path} is not a feature file: {error}",
                         f"{path} is not a feature file: enrol this speaker again") from error
    if not fits:
        raise InputError(f"{path} holds {features.dtype} of shape {features.shape}; features are float32 "
                         f"of shape (segments, {N_MELS}, frames): preprocess this speaker again",
                         f"{path} is damaged: enrol this speaker again")
    return features


def read_rows(path, rows):
    """Read rows (n,) of a feature file, (n, 40, frames); InputError where it is no feature file, or lacks a row."""
    with contextlib.suppress(OSError), open(path, "rb", buffering=0) as file:
        shape = head_shape(file)
        if shape and max(rows) < shape[0]:
            segments, size = np.empty((len(rows), *shape[1:]), np.float32), 0
            for segment, row in zip(segments, rows, strict=True):
                file.seek((row - shape[0]) * segment.nbytes, os.SEEK_END)
                size += file.readinto(segment)
            if size == segments.nbytes:
                return segments
    segments = open_features(path)                          # of an ancestor, or damaged
    if max(rows) >= len(segments):
        raise InputError(f"{path} has {len(segments)} rows, where it had more: preprocess this speaker again")
    return segments[rows]


def features_shape(path):
    """Return the shape of a feature file, as open_features finds it, by its head: many have the same one."""
    with contextlib.suppress(OSError), open(path, "rb", buffering=0) as file:
        if shape := head_shape(file):
            return shape
    return open_features(path).shape


def has_rows(path, number):
    """Tell whether a feature file has that many rows, or is not there where there are none."""
    with contextlib.suppress(InputError):           # cut short
        return (features_shape(path)[0] if path.exists() else 0) == number
    return False


def head_shape(file):
    """Return shape_of an open feature file, by its head and size."""
    return shape_of(file.read(HEAD_BYTES), os.fstat(file.fileno()).st_size)


@functools.lru_cache(4096)
def shape_of(head, size):
    """Return the shape of float32 features, row after row, that have this head and size in bytes; None of others."""
    file = io.BytesIO(head)
    try:
        with warnings.catch_warnings(action="ignore"):
            np.lib.format.read_magic(file)
            shape, by_columns, kind = np.lib.format.read_array_header_1_0(file)
    except Exception:               # see open_features
        return None
    fits = kind == np.float32 and not by_columns and len(shape) == 3 and shape[1] == N_MELS
    return shape if fits and 0 < 4 * math.prod(shape) == size - file.tell() else None


def is_usable(segments):
    """Tell whether all numbers of features are finite, and not so large that the encoder's would not be."""
    return bool(np.isfinite(segments).all() and (np.abs(segments) < LARGEST).all())


def parse_record(record):
    """Check what the .json beside a speaker's features holds; return it and its Utterances."""
    for name in RECORD_KINDS.keys() & record.keys():
        if type(record[name]) is not RECORD_KINDS[name]:
            raise ValueError(f"{name} is {record[name]!r}")
    for name, number in [*record.get("ignored", {}).items(), ("segments", record.get("segments", 0))]:
        if type(number) is not int or not 0 <= number < 2**53:
            raise ValueError(f"{name} is {number!r}")
    for path in record.get("recordings", []):
        if not isinstance(path, str):
            raise ValueError(f"{path!r} in recordings is no path")
    utterances = tuple(map(parse_utterance, record["utterances"]))
    copies = sorted((copy for utterance in utterances for copy in utterance.copies), key=lambda copy: copy.first)
    first = 0
    for utterance in [*utterances, *copies]:
        if utterance.count and utterance.first != first:
            raise ValueError(f"{utterance.file} begins in row {utterance.first}, not in row {first}")
        first += utterance.count
    return record, utterances


def parse_utterance(entry):
    """Return the Utterance of an entry of a description; KeyError, TypeError or ValueError where it is none."""
    file = entry["file"]
    copies = tuple(parse_utterance({"file": file, **copy}) for copy in entry["copies"]) if "copies" in entry else ()
    utterance = Utterance(file, entry["first"], entry["count"], entry["seconds"], entry["speech_seconds"],
                          entry["dropped"], entry.get("snr"), entry.get("bandwidth"), entry.get("condition", ""),
                          copies, entry.get("text", ""), tuple(map(normal_form, entry.get("babblers", ()))))
    misfit = misfit_of(tuple(map(type, utterance)))
    if misfit:
        raise ValueError(f"{misfit} is {getattr(utterance, misfit)!r}")
    for name, least in LEAST.items():
        value = getattr(utterance, name)
        if value is not None and not least <= value < 2**53:
            raise ValueError(f"{name} is {value!r}")
    return utterance


@functools.lru_cache
def misfit_of(kinds):
    """Return the name of the first field of an Utterance whose kind of value does not fit, None where all do."""
    fields = zip(Utterance._fields, kinds, strict=True)
    return next((name for name, kind in fields if kind not in UTTERANCE_KINDS[name]), None)


def count_recordings(speakers):
    """Return how many utterances with speech, and copies of them, speakers have."""
    utterances = [utterance for speaker in speakers for utterance in speaker.voiced]
    return [len(utterances), sum(len(utterance.copies) for utterance in utterances)]


def gone_speakers(folder, sources):
    """Return a line per speaker in a feature folder whose audio was beside that of `sources`, {name: folder}, once."""
    homes = {os.path.dirname(place_of(source)) for source in sources.values()}
    others = [path for path in files_of(folder, ".json") if path.name != "manifest.json" and path.stem not in sources]
    places = {path: read_record(path)[0].get("source", "") for path in others}
    return [f"{place} is gone; {path.with_suffix('.npy')} is kept, delete it if it is not wanted"
            for path, place in places.items() if os.path.dirname(place) in homes and not os.path.exists(place)]


def read_record(path):
    """Return what the .json beside the feature file `path` holds, and its Utterances; None and () without one."""
    try:
        return read_json(pathlib.Path(path).with_suffix(".json"), parse_record) or (None, ())
    except InputError as error:
        raise InputError(f"{error}; delete it and its .npy, and preprocess or enrol this speaker again") from error


def read_speaker(path, described):
    """Return the Speaker of a .npy file and, where `described`, of the .json beside it."""
    shape = features_shape(path)
    if not described:
        utterances = tuple(Utterance(f"{path.name}[{row}]", row, 1) for row in range(shape[0]))
        return Speaker(path.stem, path, utterances, frames=shape[2])
    record, utterances = read_record(path)
    count = sum(part.count for utterance in utterances for part in (utterance, *utterance.copies))
    adding = "recordings" in (record or {})         # record.py, which may have been killed between its two files
    if count > shape[0] or (count < shape[0] and not adding):
        raise InputError(f"{path} and the .json beside it do not belong together: run data_preprocess.py again",
                         f"{path} and the .json beside it do not belong together: enrol this speaker again")
    return Speaker(path.stem, path, utterances, os.path.dirname((record or {}).get("source", "")), shape[2])


def write_rows(file, parts):
    """Write arrays (k, 40, frames) as one .npy of their rows, as np.save would, without a copy of them all."""
    shape = (sum(map(len, parts)), *parts[0].shape[1:])
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    for part in parts:
        file.write(np.ascontiguousarray(part, "<f4"))


def write_features(folder, record, parts, private=False):
    """Write a speaker's segments, a list of (K, 40, frames), and the record that describes them; whole, in turn."""
    features = pathlib.Path(folder) / f"{record['speaker']}.npy"
    json_bytes(record)                  # what cannot be written shall change nothing
    if parts:
        write_whole(features, functools.partial(write_rows, parts=parts), private)
    else:
        features.unlink(missing_ok=True)
    write_json(features.with_suffix(".json"), record, private)


# ---- a folder ---------------------------------------------------------------------------------------------------

def load_features(folder):
    """List the speakers of a feature folder.

    Returns
    -------
    speakers : list of Speaker
        In the order of their names.
    settings : dict or None
        The flags they were made with; None for an ancestor's folder, where each row counts as an utterance.

    Raises
    ------
    InputError
        If there are none, or a file does not fit its description.
    """
    folder, settings = pathlib.Path(folder), read_settings(folder)
    paths = files_of(folder, ".npy")
    if not paths:
        raise InputError(f"{folder} holds no features: make them with python data_preprocess.py --raw_path DIR")
    if len(paths) > MANY_FILES:
        with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
            list(pool.map(read_ahead, (paths[reader::READERS] for reader in range(READERS))))
    with common.without_garbage_collection():
        return [read_speaker(path, described=bool(settings)) for path in paths], settings


def read_ahead(paths):
    """Bring speakers' descriptions and the heads of their features into memory: a disk answers many at once faster."""
    for path in map(str, paths):
        for file, number in ((path, HEAD_BYTES), (f"{path.removesuffix('.npy')}.json", -1)):
            with contextlib.suppress(OSError), open(file, "rb", buffering=0) as opened:
                opened.read(number)


def speakers_without_speech(folder):
    """Return the names of the speakers of a feature folder none of whose files holds speech."""
    paths = [path for path in files_of(folder, ".json") if path.name != "manifest.json"]
    return [path.stem for path in paths if not path.with_suffix(".npy").exists()]


def person_of(name):
    """Return the name of the person in that of a speaker, which may have a text behind it."""
    return name.partition("/")[0]


def people(speakers):
    """Return the names of the persons among speakers, each once."""
    return list(dict.fromkeys(speaker.person for speaker in speakers))


def name_of(file):
    """Return the name of a recording without its suffix, nor VCTK's microphone, in one spelling."""
    return re.sub("_mic[12]$", "", normal_form(pathlib.PurePath(file).stem))


def text_of(file, speaker):
    """Return what a recording says by its name: what comes before the first - or _, or after the last behind a name.

    That is backward of backward_03.wav, and 001 of p225_001.wav, a recording of p225.
    """
    stem = name_of(file)
    named = re.match(f"{re.escape(speaker)}[-_]", stem)
    return re.split("[-_]", stem[named.end():])[-1] if named else re.split("[-_]", stem)[0]


def says(file, text):
    """Tell whether the name of a recording begins or ends with a text up to _, - or the suffix; with any, if None."""
    stem, text = name_of(file), text and re.escape(normal_form(text))
    return text is None or bool(re.search(f"^{text}(?![^-_])|(?<![^-_]){text}$", stem))


def split_texts(speakers):
    """Return a speaker for each text of each person, where several texts are known."""
    if len({utterance.text for speaker in speakers for utterance in speaker.utterances}) < 2:
        return speakers
    found = []
    for speaker in speakers:
        by_text = {}
        for utterance in speaker.utterances:
            by_text.setdefault(utterance.text, []).append(utterance)
        found += [replace(speaker, name=f"{speaker.name}/{text}", text=text, utterances=tuple(own))
                  for text, own in sorted(by_text.items()) if any(utterance.count for utterance in own)]
    return found


def lone_takes(speakers):
    """Return speakers of text-dependent features, where the copies of a lone take are utterances, and their number."""
    found, number = [], 0
    for speaker in speakers:
        if len(speaker.voiced) == 1 and speaker.voiced[0].copies:
            take, number = speaker.voiced[0], number + 1
            copies = [copy._replace(file=f"{take.file} ({place}: {copy.condition})", text=take.text)
                      for place, copy in enumerate(take.copies, 1)]
            speaker = replace(speaker, utterances=(take._replace(copies=()), *copies))
        found.append(speaker)
    return found, number


def protocol_speakers(speakers, tdsv):
    """Return the speakers as training and test draw them, by text and of lone takes, and notes on them."""
    speakers = split_texts(speakers)
    if not tdsv:
        return speakers, []
    speakers, number = lone_takes(speakers)
    return speakers, [f"{number} speakers have one take each: its noised copies are their utterances, so enrolment and "
                      "probe share a take, and error rates are too low"] if number else []


def feature_settings(config):
    """Return the flags that features depend on: but for the segment length of the other mode."""
    other = configuration.segment_flag(not config.tdsv)
    return {name: getattr(config, name) for name in configuration.flags_stored("features") if name != other}


def read_settings(folder):
    """Return the settings in a feature folder's manifest.json, None where there is none."""
    return read_json(pathlib.Path(folder, "manifest.json"),
                     lambda manifest: configuration.with_later_flags(dict(manifest["settings"].items())))


def adopt_settings(config, stored, settings, folder):
    """Take the feature flags of a folder's settings where the model, whose flags are `stored`, stores none.

    An ancestor's folder has no settings: the flags describe it, but for those that are younger than it.
    """
    settings = configuration.with_later_flags(settings or {})
    names = [name for name in configuration.flags_stored("features") if name in settings and name not in stored]
    configuration.adopt(config, {name: settings[name] for name in names}, folder)


def check_alike(*folders):
    """Refuse feature folders that no run could add to alike."""
    first, second = (read_settings(folder) or {} for folder in folders)
    for name in (*configuration.flags_stored("features"), "test_ratio"):
        if name in first.keys() & second.keys() and first[name] != second[name]:
            raise InputError(f"{folders[0]} was made with --{name} {configuration.spelled(first[name])}, {folders[1]} "
                             f"with {configuration.spelled(second[name])}: name a new folder instead of one of them")


def check_mode(settings, wanted, folder):
    """Refuse features of the other mode, by name."""
    kinds = {False: "text-independent", True: "text-dependent"}
    if settings and "tdsv" in settings and settings["tdsv"] != wanted.get("tdsv", False):
        theirs, ours = kinds[settings["tdsv"]], kinds[not settings["tdsv"]]
        raise InputError(f"{folder} holds {theirs} features (--tdsv {settings['tdsv']}), and {ours} ones are wanted "
                         f"(--tdsv {not settings['tdsv']}): preprocess the audio again, or name another folder",
                         f"{folder} was made {theirs}, the model is {ours}: enrol from the audio again")


def check_features(speakers, settings, wanted, folder):
    """Refuse features made with other settings than the dict `wanted`; return notes on those that do not say how."""
    settings = configuration.with_later_flags(settings) if settings else None
    check_mode(settings, wanted, folder)
    flag = configuration.segment_flag(wanted.get("tdsv"))
    for speaker in speakers:
        if speaker.frames != wanted[flag] and speaker.frames != (settings or {}).get(flag):
            problem = f"{speaker.path} holds segments of {speaker.frames} frames"
            raise InputError(f"{problem}: --{flag} is {wanted[flag]}",
                             f"{problem}, the model hears {wanted[flag]}: enrol from the audio again")
    if settings is None:
        return [f"{folder} does not say how its features were made: each row counts as an utterance"]
    for name, value in wanted.items():
        if name == "tdsv_text" and value in (None, "all"):          # any will do
            continue
        if settings.get(name) != value:
            theirs, value = map(configuration.spelled, (settings.get(name), value))
            raise InputError(f"{folder} was made with --{name} {theirs}, the model with {value}: preprocess the audio "
                             f"again with --{name} {value}",
                             f"{folder} was made with {name} {theirs}, the model with {value}: enrol from the audio "
                             "again")
    return []


def open_speaker(path, wanted):
    """Return the Speaker of one feature file that fits the settings `wanted`, its own settings, and notes.

    Features are described by their folder, or by record.py, which keeps the settings beside each enrolment.
    """
    record = read_record(path)[0] or {}
    settings = record.get("settings") or read_settings(path.parent)
    try:
        speaker = read_speaker(path, described=bool(settings))
        return speaker, settings, check_features([speaker], settings, wanted, path)
    except InputError as error:
        if "recordings" not in record:          # of another hand than record.py's
            raise
        again = f"python record.py --speaker {shlex.quote(path.stem)} --replace True"
        raise InputError(f"{error.window} with {again}", error.window) from None
