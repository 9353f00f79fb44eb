"""A corpus → feature folders, on all cores: one .npy per speaker.

    python data_preprocess.py --raw_path DIR                     DIR/<speaker>/**/*.wav, .flac, .ogg, .mp3, .m4a ...
    python data_preprocess.py --raw_path DIR --sr 16000 --train_path ./train --test_path ./test
    python data_preprocess.py --raw_path DIR --copies 4 --noise_raw_path NOISES     training also hears noise, rooms
    python data_preprocess.py --download librispeech-dev-clean                      fetches ./raw_data first

Where the only sub-folders of DIR are `train` and `test`, that split is kept. A rerun does only what changed.
"""
import collections
import json
import os
import pathlib
import re
import shutil
import sys
import tarfile
import tempfile
import zlib
from dataclasses import dataclass, replace

import filelock
import numpy as np

import audio
import common
import conditions
import configuration
import features
from common import InputError, progress, short_digest, write_json
from features import feature_settings, folders_by_name, own_split, sub_folders

LIBRISPEECH = "https://www.openslr.org/resources/12"
CORPORA = {     # the address of each --download and its MD5, which LIBRISPEECH/md5sum.txt states
    "librispeech-dev-clean": (f"{LIBRISPEECH}/dev-clean.tar.gz", "42e2234ba48799c1f50f24a7926300a1"),
    "librispeech-test-clean": (f"{LIBRISPEECH}/test-clean.tar.gz", "32fa31d27d2e1cad72775fee3f4849a9")}
# What the archive of a part may hold: five texts, and <speaker>/<chapter>/ with recordings and their transcript.
MEMBER = "LibriSpeech(/[A-Z]+[.]TXT|/{part}(/[0-9]+(/[0-9]+(/[0-9-]+([.]flac|[.]trans[.]txt))?)?)?)?"
LARGEST_RATIO = 10          # of the size of what is unpacked and that of its archive: FLAC cannot be compressed
SERVER_SECONDS = 30         # that a server may be silent
NOISE_FLAGS = ("noise_raw_path", "clean_path", "noisy_path", "noise_path")        # places of what copies hear
IN_JSON = "; the .json beside each speaker's features names them"


# ---- a public corpus ----------------------------------------------------------------------------------------------

def download(name, raw_path):
    """Make a folder raw_path/<speaker>/<chapter>/<utterance>.flac of a public corpus, unless it is there.

    It is made in a hidden folder beside and renamed once it is whole; an archive that a stopped run has fetched is
    used there, and goes when it is unpacked.

    Parameters
    ----------
    name : str
        A key of CORPORA.
    raw_path : str or Path
        A folder that is this corpus, is empty, or does not exist.

    Raises
    ------
    InputError
        If raw_path holds anything else, the archive cannot be fetched or has another checksum, or a member of it is
        not what MEMBER describes. Nothing of it stays.
    """
    folder = pathlib.Path(raw_path).resolve()
    beside = folder.parent / f".{folder.name}.download"
    if not is_downloaded(name, folder):
        try:
            make_corpus(name, folder, beside)
        except InputError:
            shutil.rmtree(beside)
            raise
        except filelock.Timeout as error:
            raise InputError(f"--download is {name}: another program is making {raw_path}; wait for it") from error
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt("stopped by the keyboard; run the same command again") from stop
    shutil.rmtree(beside, ignore_errors=True)       # or what a run that was killed at this line left


def make_corpus(name, folder, beside):
    """Make the folder of a corpus in the folder `beside` and rename it; filelock.Timeout where another program does."""
    beside.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(beside / ".lock", timeout=0):
        archive = fetch(name, beside)
        with tempfile.TemporaryDirectory(dir=beside) as temporary:
            corpus = unpack(name, archive, temporary)
            if folder.exists():
                folder.rmdir()
            corpus.rename(folder)


def is_downloaded(name, folder):
    """Tell whether a folder is this corpus; InputError where it holds anything else."""
    found = common.read_json(folder / conditions.ORIGIN, lambda origin: origin["corpus"])
    if found and found != name:
        raise InputError(f"--raw_path is {folder}: that is {found}; name another folder for --download {name}")
    if not found and folder.exists() and (any(folder.iterdir()) or folder.is_mount() or folder.samefile(os.curdir)):
        raise InputError(f"--raw_path is {folder}: --download {name} needs a new folder, or one that is empty and "
                         "neither a mount nor the current folder; leave --download out to use what is there")
    return bool(found)


def fetch(name, folder):
    """Return the path of a corpus's archive in a folder, where it is fetched to unless it is there whole."""
    import pooch
    import requests

    url, md5 = CORPORA[name]
    file = url.rpartition("/")[2]
    pooch.get_logger().setLevel("WARNING")
    try:
        with progress(desc=file, total=1, unit="B", unit_scale=True, delay=1) as bar:   # pooch corrects a total above 0
            bar.reset = lambda: setattr(bar, "n", 0)            # it calls this at the end: the speed shall stay
            downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16, timeout=SERVER_SECONDS)
            return pathlib.Path(pooch.retrieve(url, f"md5:{md5}", file, folder, downloader=downloader))
    except requests.RequestException as error:
        raise InputError(f"--download is {name}: {url} cannot be fetched ({error}): look at the connection and run "
                         "again, or unpack the archive yourself and give its folder as --raw_path") from error
    except ValueError as error:
        raise InputError(f"--download is {name}: {error} Run again; if it comes to the same, {url} is not the file "
                         "that it was") from error


def unpack(name, archive, folder):
    """Unpack a corpus's archive into a folder; return the folder of its speakers, which says where it is from."""
    part, size = name.removeprefix("librispeech-"), 0
    expected = re.compile(MEMBER.format(part=part))
    try:
        with tarfile.open(archive, "r:gz") as members:
            members.extraction_filter = getattr(tarfile, "data_filter", None)       # Python 3.11.4 has it (PEP 706)
            for member in progress(members, desc="unpacking", unit="file", delay=1):
                size += member.size
                if not expected.fullmatch(member.name) or not (member.isreg() or member.isdir()):
                    raise InputError(f"--download is {name}: its archive holds {member.name!r}, which is no recording "
                                     "of this corpus; nothing was unpacked")
                if size > LARGEST_RATIO * archive.stat().st_size:
                    raise InputError(f"--download is {name}: {member.name!r} and what comes before it in the archive "
                                     f"are over {LARGEST_RATIO} times its size; nothing was unpacked")
                members.extract(member, folder)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise InputError(f"--download is {name}: its archive cannot be unpacked ({error})") from error
    corpus = pathlib.Path(folder, "LibriSpeech", part)
    for text in corpus.parent.glob("*.TXT"):        # the licence among them
        text.rename(corpus / text.name)
    write_json(corpus / conditions.ORIGIN, {"corpus": name, "url": CORPORA[name][0], "md5": CORPORA[name][1]})
    return corpus


# ---- the corpus -------------------------------------------------------------------------------------------------

def find_speakers(raw_path, test_ratio):
    """Assign the speaker folders of a corpus to train and test.

    Returns
    -------
    dict
        {"train": {name: folder}, "test": {name: folder}}. Folders named train and test alone are that split; else a
        speaker's own name decides, so that adding a speaker moves no other.
    """
    if not os.path.isdir(raw_path):
        raise InputError(f"--raw_path is {raw_path}: there is no such folder")
    features.check_place(raw_path)
    folders = sub_folders(raw_path)
    if not folders:
        raise InputError(f"--raw_path is {raw_path}: it has no folders; put the audio of each speaker into one")
    if own_split(raw_path):
        return {part: folders_by_name(sub_folders(folder)) for part, folder in own_split(raw_path).items()}
    if {"train", "test"}.intersection(folder.name.lower() for folder in folders):
        raise InputError(f"--raw_path is {raw_path}: train and test are parts where nothing is beside them, and it has "
                         f"{', '.join(folder.name for folder in folders[:5])}; name one of these, or rename a person's")
    parts = {"train": {}, "test": {}}
    for name, folder in folders_by_name(folders).items():
        parts["test" if int(short_digest(name), 16) < test_ratio * 16**16 else "train"][name] = folder
    return parts


def stray_recordings(raw_path):
    """Return the recordings of a corpus that lie where the folders of its speakers should."""
    return [path for folder in (raw_path, *own_split(raw_path).values()) for path in features.visible_paths(folder)
            if path.suffix.lower() in audio.SUFFIXES and path.is_file()]


@dataclass(frozen=True)
class Copies:
    """The copies that each utterance gets under other conditions.

    `slots` are names of conditions; others ("copy 1") stand for random ones. They mix in what is `around`.
    """

    slots: tuple = ()
    around: conditions.Surroundings = conditions.Surroundings()     # noqa: RUF009
    of_lone: bool = False                                           # only takes whose text is said once get them

    @property
    def are_named(self):
        """Whether they are under conditions that a test names."""
        return self.slots != copy_slots(len(self.slots))


def process_speaker(name, source, folder, config, copies):
    """Make <name>.npy and <name>.json from a speaker's folder: only what is missing, or all where something changed.

    Parameters
    ----------
    name : str
    source, folder : Path
        The folder of the audio, or one recording, and that of the features.
    config : argparse.Namespace
        Feature flags.
    copies : Copies

    Returns
    -------
    dict
        The record that the .json holds; under "kept", why the features of audio that is gone were left.
    """
    files, others = speaker_files(source, config)
    stamps = [common.size_and_time(source / file) if os.access(source / file, os.R_OK) else None for file in files]
    old, _ = features.read_record(path := pathlib.Path(folder, f"{name}.npy"))
    if old and not {"segments", "source", "settings", "ignored"} <= old.keys():
        raise InputError(f"{path.with_suffix('.json')} was not made by data_preprocess.py: name a new folder")
    if old and old["segments"] and not files:
        return {**old, "kept": f"{source} holds no audio any more; {path} is kept, delete it if it is not wanted"}
    if old and is_unchanged(old, source, files, stamps, config) and is_whole(path, old, copies):
        missing, now = missing_slots(old, config, copies), {"source": features.place_of(source)}
        if not missing and old == old | now:
            return old
        parts, record = [features.open_features(path, mmap_mode=None)] if old["segments"] else [], old | now
    else:
        parts, record = read_originals(name, source, files, stamps, config)
        missing = missing_slots(record, config, copies)
        record |= {"speaker": name, "source": features.place_of(source), "settings": feature_settings(config),
                   "ignored": others}
    copies = replace(copies, slots=missing, of_lone=bool(missing) and not copies.slots)
    add_copies(parts, record, source, config, copies)
    record |= {"segments": sum(map(len, parts)), "slots": record.get("slots", []) + missing,
               "of_lone": copies.of_lone or (not missing and record.get("of_lone", False))}
    features.write_features(folder, record, parts)
    return record


def speaker_files(source, config):
    """Return the recordings of a speaker's folder that say --tdsv_text, and the numbers of its other files by kind."""
    if not source.is_dir():
        return ["."], {}
    files, others = audio.audio_files(source)
    readable = [file for file in files if not configuration.SURROGATE.search(file)]
    if len(readable) < len(files):
        others["a name that is not UTF-8"], files = len(files) - len(readable), readable
    if config.tdsv_text in (None, "all"):
        return files, others
    said = [file for file in files if features.says(file, config.tdsv_text)]
    return said, others + collections.Counter({"another text": len(files) - len(said)})


def missing_slots(record, config, copies):
    """Return the names of the Copies that a record lacks; where a text is said once, they are its utterances."""
    lone = config.tdsv and 1 in texts_said(record).values() and not copies.are_named
    slots = copy_slots(config.copies or config.noise_filenum) if lone else copies.slots
    return [slot for slot in slots if slot not in record.get("slots", [])]


def texts_said(record):
    """Return how many takes with speech say a text, by text."""
    return collections.Counter(entry.get("text", "") for entry in record["utterances"] if entry["count"])


def copy_slots(number):
    """Return the names of a number of copies under random conditions."""
    return tuple(f"copy {place + 1}" for place in range(number))


def read_originals(name, source, files, stamps, config):
    """Return the parts (K, 40, frames) of features of a speaker's recordings, and a record with their utterances."""
    parts, utterances = [], []
    for file, stamp in zip(files, stamps, strict=True):
        cuts, entry = audio.read_utterance(source / file, config)
        text = features.text_of(file, name) if config.tdsv_text == "all" else config.tdsv_text or ""
        utterances.append({"file": file, "first": sum(map(len, parts)), "count": len(cuts), **entry, "text": text,
                           "stamp": None if entry["dropped"].startswith(audio.UNOPENED) else stamp})    # tried again
        if len(cuts):
            parts.append(cuts)
    return parts, {"utterances": utterances}


def add_copies(parts, record, source, config, copies):
    """Append the Copies of each utterance with speech to the parts of the features and to the record.

    What a copy hears depends on the names of speaker, file and slot, and on which voices and noises there are.
    """
    first, around = sum(map(len, parts)), copies.around
    said = texts_said(record)
    for entry in record["utterances"] if copies.slots else ():
        if not entry["count"] or (copies.of_lone and said[entry.get("text", "")] > 1):
            continue
        wave = audio.load_audio(source / entry["file"], config.sr)
        for slot in copies.slots:
            seed = int(short_digest(f"{record['speaker']}/{entry['file']}/{slot}"), 16)
            condition, heard = around.under(slot, wave, config.sr, np.random.default_rng(seed))
            cuts, known = audio.speech_segments(heard, config)
            known["babblers"] = around.who_babbles(slot, np.random.default_rng(seed))
            entry.setdefault("copies", []).append({"condition": condition, "first": first, "count": len(cuts), **known})
            first += len(cuts)
            if len(cuts):
                parts.append(cuts)


def is_whole(path, record, copies):
    """Tell whether a feature file has the rows of its record, and copies of all utterances where they are asked for."""
    return features.has_rows(path, record["segments"]) and not (record.get("of_lone") and copies.slots)


def is_unchanged(old, source, files, stamps, config):
    """Tell whether a record is of these files and settings; InputError if it is of another corpus's speaker."""
    before = [(entry["file"], entry.get("stamp")) for entry in old["utterances"]]
    now = list(zip(files, stamps, strict=True))
    sizes = [[(file, stamp and stamp[0]) for file, stamp in pairs] for pairs in (before, now)]
    copied = not os.path.exists(old["source"]) and sizes[0] == sizes[1]
    if old["source"] != features.place_of(source) and before and not copied and not any(pair in before for pair in now):
        raise InputError(f"{source} and {old['source']} are speakers of one name: rename a folder, or name new folders "
                         "for the features")
    return before == now and configuration.with_later_flags(old["settings"]) == feature_settings(config)


def adopt_folder(folder, config):
    """Adopt the settings of an existing feature folder, which then bind like typed flags; refuse a strange folder."""
    folder, settings = pathlib.Path(folder), features.read_settings(folder)
    if settings and features.files_of(folder, ".npy"):          # what nothing was made with binds nobody
        if "tdsv" in config.given:
            features.check_mode(settings, {"tdsv": config.tdsv}, folder)
        copies = settings.pop("copies", 0)
        if configuration.flags()["copies"].problem(copies):
            raise InputError(f"{folder} is damaged: {configuration.flags()['copies'].problem(copies)}")
        if "copies" in config.given and config.copies < copies:
            raise InputError(f"--copies is {config.copies}, but {folder} has {copies}: leave the flag out, or name "
                             "another folder")
        config.copies = max(config.copies, copies)
        pieces = settings.pop("noise_filenum", config.noise_filenum)
        config.noise_filenum = config.noise_filenum if "noise_filenum" in config.given else pieces
        for name in NOISE_FLAGS:
            moved = name in config.given and settings.get(name) and not os.path.exists(settings[name])
            if moved or features.is_one_place(getattr(config, name), settings.get(name)):
                settings[name] = getattr(config, name)                  # by the name that was typed
        configuration.adopt(config, settings, folder)
        config.given |= settings.keys()
    elif features.files_of(folder, ".npy"):
        raise InputError(f"{folder} holds features of another program (no manifest.json): name a new folder")


def preprocess(sources, folder, config, copies=None):
    """Make the features of several speakers in one folder, on several cores.

    Parameters
    ----------
    sources : dict
        {speaker name: folder of audio}
    folder : str or Path
        Where `<speaker>.npy`, `<speaker>.json` and `manifest.json` are written.
    config : argparse.Namespace
        Feature flags, test_ratio, noise_raw_path and jobs.
    copies : Copies, optional

    Returns
    -------
    totals : collections.Counter
        Speakers, files and seconds heard, kept and dropped.
    losses : list of str
        A line per file that gave nothing.
    """
    folder, copies = pathlib.Path(folder), copies or Copies()
    settings = folder_settings(config, copies)
    common.remove_parts(folder)
    write_json(folder / "manifest.json", {"settings": settings})
    around, home = copies.around.absolute(), folder.absolute()              # the workers of a cluster start elsewhere
    arguments = [(name, source.absolute(), home, config, replace(copies, around=around.beside(str(source.absolute()))))
                 for name, source in sources.items()]
    totals, losses = collections.Counter(), []
    try:
        made = common.run_on_cores(process_speaker, arguments, config.jobs, ordered=False, scheduler=config.scheduler)
        for record in progress(made, total=len(sources), desc=str(folder), unit="speaker"):
            totals.update(record_totals(record))
            losses += record_losses(record)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt("stopped by the keyboard; run the same command to go on") from stop
    write_json(folder / "manifest.json", {"settings": settings, "totals": folder_totals(folder)})
    return totals, sorted(losses) + features.gone_speakers(folder, sources)


def folder_settings(config, copies):
    """Return the settings that the manifest.json of a feature folder with these Copies holds."""
    settings = {**feature_settings(config), "test_ratio": config.test_ratio}
    if copies.slots or config.tdsv:
        places = {name: getattr(config, name) for name in NOISE_FLAGS if name != "noise_path" or config.clean_path}
        settings |= {name: path and os.path.realpath(path) for name, path in places.items()} | {
            "copies": len(copies.slots), "noise_filenum": config.noise_filenum}
    return settings


def record_losses(record):
    """Return a line per file of a speaker's record that gave nothing."""
    lines = [f"{record['source']}/{entry['file']}".removesuffix("/.") + f" {entry['dropped']}"
             for entry in record["utterances"] if entry["dropped"]]
    return lines + ([record["kept"]] if "kept" in record else [])


def folder_totals(folder):
    """Return the counts of all speakers in a feature folder, those of earlier runs too."""
    totals = collections.Counter()
    for path in features.files_of(folder, ".json"):
        if path.name != "manifest.json":
            totals.update(record_totals(features.read_record(path)[0]))
    return totals


def record_totals(record):
    """Return the numbers of one speaker's record, named as the summary shows them."""
    segments = sum(entry["count"] for entry in record["utterances"])
    numbers = collections.Counter(speakers=1, utterances=len(record["utterances"]), segments=segments)
    numbers["copies"] = sum(copy["count"] > 0 for entry in record["utterances"] for copy in entry.get("copies", ()))
    numbers.update({"speakers without speech": int(not segments), "seconds kept": 0.0,
                    "seconds in too short utterances": 0.0})
    for entry in record["utterances"]:
        numbers["seconds heard"] += entry["seconds"]
        numbers["seconds of pauses"] += entry["seconds"] - entry["speech_seconds"]
        numbers["seconds kept" if entry["count"] else "seconds in too short utterances"] += entry["speech_seconds"]
        if entry["dropped"]:
            numbers[f"dropped: {entry['dropped'].partition(':')[0]}"] += 1
    for suffix, number in record.get("ignored", {}).items():
        numbers[f"ignored: {suffix}"] += number
    return numbers


def totals_table(totals):
    """Return the table of counts: a row per kind, a column per part."""
    first = ["speakers", "speakers without speech", "utterances", "copies", "segments", "seconds heard",
             "seconds of pauses", "seconds in too short utterances", "seconds kept"]
    rows = first + sorted({row for numbers in totals.values() for row in numbers} - set(first))
    lines = [f"{'':40}" + "".join(f"{part:>12}" for part in totals)]
    lines += [f"{row:40}" + "".join(f"{numbers[row]:12,.0f}" for numbers in totals.values()) for row in rows]
    return "\n".join(lines)


def cached_features(config, under_conditions=False):
    """Make the features of the audio in config.raw_path, or of its test part, in a folder of ./cache.

    A later call with the same audio and settings finds them there. With `under_conditions` each utterance has a copy
    under each condition that the audio and config.noise_raw_path allow. Returns that folder and the speakers' names.
    """
    sources = find_speakers(config.raw_path, test_ratio=1.0)["test"]
    return cache(config, sources, sources.values() if under_conditions else ()), set(sources)


def cached_recordings(config, paths):
    """Make the features of recordings below config.raw_path under all conditions in a folder of ./cache.

    Each is a speaker there. Returns the folder, and {path: name}.
    """
    for path in paths:
        features.check_place(path)
    names = {path: short_digest(path.relative_to(config.raw_path).as_posix()) for path in paths}
    sources = {name: path for path, name in names.items()}
    return cache(config, sources, sub_folders(config.raw_path) or [pathlib.Path(config.raw_path)]), names


def cache(config, sources, voices):
    """Make the features of sources, {name: folder or recording}, in a folder of ./cache, which is returned.

    Where there are `voices`, folders of speakers who can babble, each utterance has a copy under each condition.
    """
    raw_path, slots, noises = pathlib.Path(config.raw_path).resolve(), (), ()
    key = [str(raw_path), feature_settings(config), all(map(os.path.isdir, sources.values()))]
    if voices or config.tdsv:
        conditions.check_libraries()        # before the processes that need them
        noises = conditions.noises_to_mix(config)
    if voices:
        voices = tuple(map(str, voices)) if len(voices) > 2 else ()
        slots = tuple(conditions.Surroundings(voices, noises).conditions)
        key += [slots, {"babblers": sorted(map(os.path.basename, voices))}]
    key += [(os.path.basename(noise), common.size_and_time(pathlib.Path(noise))) for noise in noises]
    folder = pathlib.Path("cache", f"{raw_path.name}-{short_digest(json.dumps(key))}")
    _, losses = preprocess(sources, folder, config, Copies(slots, conditions.Surroundings(voices, noises)))
    common.print_skipped(losses, IN_JSON)
    return folder


def split_notes(parts, folders, config):
    """Return notes on a part without speakers; InputError where one is in both, now or from an earlier run."""
    known = {part: {path.stem for path in features.files_of(folder, ".json")} - {"manifest"}
             for part, folder in folders.items()}
    both = (parts["train"].keys() | known["train"]) & (parts["test"].keys() | known["test"])
    if both:
        name = min(both)
        old = [pathlib.Path(folders[part], name) for part in folders if name not in parts[part]]
        raise InputError(f"speaker {name} is in train and test: " + (
            f"{old[0]}.npy and .json are of an earlier run; delete them, or rename a folder that is another person's"
            if old else "a test needs speakers of its own; rename one"))
    if own_split(config.raw_path) or not 0 < config.test_ratio < 1:
        return []
    number = sum(map(len, parts.values()))
    return [f"none of {number} speakers fell into the {part} part (--test_ratio {config.test_ratio:g} goes by their "
            f"names): use new folders with a {ratio} one, or folders train and test"
            for part, ratio in (("train", "lower"), ("test", "higher")) if not (parts[part] or known[part])]


def work(config):
    """Preprocess --raw_path into --train_path and --test_path and print what was kept and what was not."""
    folders = {"train": config.train_path, "test": config.test_path}
    if len({pathlib.Path(folder).resolve() for folder in folders.values()}) == 1:
        raise InputError(f"--train_path and --test_path are both {config.train_path}: test speakers must be apart")
    for part, folder in folders.items():
        common.check_target(f"{part}_path", folder, "manifest.json", ("Check_Point", "encoder.tflite", "report.html"))
    features.check_alike(*folders.values())
    for folder in folders.values():
        adopt_folder(folder, config)
    configuration.check_relations(config)
    if config.download:
        download(config.download, config.raw_path)
    parts = find_speakers(config.raw_path, config.test_ratio)
    notes = split_notes(parts, folders, config)
    if config.noise_raw_path and not (config.copies or config.tdsv):
        notes.append(f"--noise_raw_path is {config.noise_raw_path}, which --copies mix in: there are none")
    if config.copies or config.tdsv:
        conditions.check_libraries()        # before the processes that need them
    around = conditions.Surroundings(tuple(map(str, parts["train"].values())), conditions.noises_to_mix(config))
    copies = {"train": Copies(copy_slots(config.copies), around), "test": Copies((), around)}
    results = {part: preprocess(sources, folders[part], config, copies[part])
               for part, sources in parts.items() if sources}
    common.print_skipped([f"{path} lies in no speaker's folder" for path in stray_recordings(config.raw_path)])
    common.print_skipped([loss for _, lines in results.values() for loss in lines], IN_JSON)
    for note in notes:
        print("note:", note, file=sys.stderr)
    totals = {part: numbers for part, (numbers, _) in results.items()}
    print(totals_table(totals))
    if not sum(numbers["segments"] for numbers in totals.values()):
        said = f" that says --tdsv_text {config.tdsv_text}" if config.tdsv_text not in (None, "all") else ""
        raise InputError(f"--raw_path is {config.raw_path}: no recording of a speaker's folder there{said} can be used")
    return 0


def main(argv=None):
    """Run the command line; return the exit code."""
    return configuration.run(work, argv, "data_preprocess", __doc__)


if __name__ == "__main__":
    from data_preprocess import main as importable_main  # the worker processes find its functions by module name
    sys.exit(importable_main())
