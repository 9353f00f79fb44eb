"""Audio → voiced speech → log-mel segments → one .npy per speaker.

    python data_preprocess.py --raw_path DIR                     DIR/<speaker>/**/*.wav, .flac, .ogg, .opus, .mp3 ...
    python data_preprocess.py --raw_path DIR --sr 16000 --train_path ./train --test_path ./test

Where the only sub-folders of DIR are `train` and `test`, that split is kept. A rerun does only what changed.
"""
import collections
import functools
import hashlib
import json
import os
import pathlib
import re
import sys
import unicodedata

import joblib
import librosa
import numpy as np
import scipy.fft
import soundfile
from joblib.externals.loky.process_executor import TerminatedWorkerError

import configuration
from configuration import InputError, progress, read_json, write_json, write_whole

N_MELS = 40                  # mel channels F
SEGMENT_HOP = 80             # frames between the starts of two segments: half of the 160 that `model.embed` reads
MIN_SPEECH_SECONDS = 0.5     # an utterance with less gives no segment
SILENT_PEAK = 1e-4           # full scale is 1: three steps of 16-bit audio, -80 dB
STEADY_DB = 2.0              # standard deviation of the level below which a sound is no speech
LENGTH_OPEN = 0x7FFFF000     # bytes; SoX and ffmpeg announce this or more when they write WAV to a pipe
STFT_BLOCK = 1024            # frames transformed at a time; they stay in the processor's cache
SUFFIXES = {f".{name.lower()}" for name in soundfile.available_formats() if name != "RAW"} | {
    ".aif", ".aifc", ".oga", ".opus", ".snd", ".sph", ".wave"}
SPEAKER_NAME = re.compile(r"[\w][\w .-]*")
TRUNCATED = re.compile(r"(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)")


# ---- one recording ----------------------------------------------------------------------------------------------

def load_audio(path, sr):
    """Read a recording as mono samples at `sr`.

    Parameters
    ----------
    path : str or Path
        Any format that libsndfile reads, any rate and number of channels.
    sr : int
        Sampling rate of the result, in Hz.

    Returns
    -------
    np.ndarray, float32, shape (S,)

    Raises
    ------
    InputError
        If the file cannot be read, is empty, holds values that are not finite, or is cut short.
    """
    try:
        with soundfile.SoundFile(path) as audio:
            channels = audio.read(dtype="float32", always_2d=True).T
            rate, problem = audio.samplerate, cut_short(audio, channels.shape[1])
    except (soundfile.LibsndfileError, OSError, MemoryError, ValueError) as error:  # ValueError: a length left open
        raise InputError(f"{path} cannot be read: {getattr(error, 'error_string', error)}") from error
    if problem:
        raise InputError(f"{path} is cut short: {problem}")
    if not channels.size:
        raise InputError(f"{path} is empty")
    if not np.isfinite(channels).all():
        raise InputError(f"{path} holds samples that are not finite numbers")
    return librosa.resample(librosa.to_mono(channels), orig_sr=rate, target_sr=sr)


def narrow(path, sr):
    """Return a list with a note if a recording has a lower rate than `sr`: it lacks what the model listens to."""
    try:
        rate = soundfile.info(path).samplerate
    except (soundfile.LibsndfileError, OSError):        # load_audio says why
        return []
    line = f"{path} is at {rate} Hz, below the model's {sr} Hz: it lacks frequencies, and its scores are not reliable"
    return [line] if rate < sr else []


def cut_short(audio, samples_read):
    """Say how an open SoundFile shows that its end is missing, or return None.

    libsndfile reads such a file without an error and notes it in its log: sizes that disagree with the header (WAV,
    AIFF, AU), an Ogg stream without its last page. An MP3 announces its length in its first frame.
    """
    log = audio.extra_info
    for announced, found in TRUNCATED.findall(log):
        if int(found) < int(announced) < LENGTH_OPEN:
            return f"{found} of {announced} bytes are there"
    if audio.format == "OGG" and ("lacks an end-of-stream" in log or "Junk after the last page" in log
                                  or "without an End-Of-Stream" in log):
        return "its last Ogg page is missing"
    if samples_read < 0.98 * audio.frames:
        return f"{samples_read} of {audio.frames} samples are there"
    return None


def voiced(wave, *, sr, window, hop, top_db):
    """Join the voiced stretches of a recording: frames less than `top_db` dB below its loudest.

    Parameters
    ----------
    wave : np.ndarray, shape (S,)
    sr : int
        In Hz.
    window, hop : float
        Frame and step of the detector, in seconds.
    top_db : float
        In decibels.

    Returns
    -------
    np.ndarray, shape (V,)
        Empty where nothing is louder than silence.
    """
    peak = np.abs(wave).max(initial=0)
    if peak < SILENT_PEAK:
        return wave[:0]
    stretches = librosa.effects.split(wave / peak, top_db=top_db, frame_length=round(window * sr),
                                      hop_length=round(hop * sr))     # / peak: librosa floors levels at -100 dB
    return np.concatenate([wave[start:end] for start, end in stretches])


@functools.lru_cache(maxsize=4)
def mel_filters(sr, nfft):
    """Return librosa's mel filter bank, float32 (40, 1 + nfft // 2), built once per process."""
    return librosa.filters.mel(sr=sr, n_fft=nfft, n_mels=N_MELS)


def mel_centres(sr):
    """Return the centre frequencies (40,) of the mel channels, in Hz."""
    return librosa.mel_frequencies(N_MELS + 2, fmin=0, fmax=sr / 2)[1:-1]


@functools.lru_cache(maxsize=4)
def hann_window(samples):
    """Return the periodic Hann window, float32 (samples,)."""
    return np.hanning(samples + 1)[:-1].astype(np.float32)


def log_mel(wave, *, sr, nfft, window, hop):
    """Return the log-mel spectrogram: centred STFT, Hann window, power, mel filters, log10(. + 1e-6).

    Parameters
    ----------
    wave : np.ndarray, shape (S,)
    sr : int
        In Hz.
    nfft : int
        In samples.
    window, hop : float
        In seconds.

    Returns
    -------
    np.ndarray, float32, shape (T, 40), T = 1 + S // hop_length
    """
    win_length, hop_length = round(window * sr), round(hop * sr)
    before = nfft // 2 - (nfft - win_length) // 2          # librosa centres the window in nfft samples around a frame
    padded = np.pad(wave.astype(np.float32, copy=False), (before, win_length))
    windows = np.lib.stride_tricks.sliding_window_view(padded, win_length)[:len(wave) + 1:hop_length]   # (T, window)
    hann, mel = hann_window(win_length), mel_filters(sr, nfft).T
    frames = np.empty((len(windows), N_MELS), np.float32)
    for start in range(0, len(windows), STFT_BLOCK):
        part = slice(start, start + STFT_BLOCK)
        spectrum = scipy.fft.rfft(windows[part] * hann, nfft)                # (frames, 1 + nfft // 2)
        frames[part] = np.log10(librosa.util.abs2(spectrum) @ mel + 1e-6)
    return frames


def cut(frames, length):
    """Cut frames (T, F) into segments (K, F, length) that start every 80 frames; the last one ends at the last frame.

    Fewer frames than `length` are repeated to that many.
    """
    if len(frames) < length:
        frames = np.resize(frames, (length, frames.shape[1]))
    last = len(frames) - length
    starts = sorted({*range(0, last, SEGMENT_HOP), last})
    return np.lib.stride_tricks.sliding_window_view(frames, length, axis=0)[starts]


def joined(segments, total):
    """Return the `total` frames (T, F) that `cut` made segments (K, F, length) of."""
    length = segments.shape[2]
    frames = np.empty((max(total, length), segments.shape[1]), segments.dtype)
    for number, segment in enumerate(segments):
        start = min(number * SEGMENT_HOP, len(frames) - length)
        frames[start:start + length] = segment.T
    return frames[:total]


def speech_segments(wave, config):
    """Return segments (K, 40, tisv_frame) of a recording and its seconds of speech; K is 0 below 0.5 s of speech."""
    speech = voiced(wave, sr=config.sr, window=config.window, hop=config.hop, top_db=config.top_db)
    seconds = len(speech) / config.sr
    if seconds < MIN_SPEECH_SECONDS:
        return np.empty((0, N_MELS, config.tisv_frame), np.float32), seconds
    frames = log_mel(speech, sr=config.sr, nfft=config.nfft, window=config.window, hop=config.hop)
    return cut(frames, config.tisv_frame), seconds


def steady(segments):
    """Tell whether the level of log-mel segments (K, 40, frames) hardly changes, as that of noise, hum or a tone does.

    The levels of voiced speech have a standard deviation of 5 dB and more, those of white noise 0.4 dB.
    """
    levels = 10 * np.log10(np.sum(10.0 ** np.asarray(segments, float), axis=1))             # dB, (K, frames)
    return bool(np.std(levels) < STEADY_DB)


def segments(wave, config):
    """Return the log-mel segments of a recording at config.sr.

    Parameters
    ----------
    wave : np.ndarray, shape (S,)
    config : argparse.Namespace
        The feature flags sr, nfft, window, hop, top_db, tisv_frame.

    Returns
    -------
    np.ndarray, float32, shape (K, 40, tisv_frame)
        K is 0 where there are less than 0.5 s of speech; the callers say so.
    """
    return speech_segments(wave, config)[0]


# ---- the corpus -------------------------------------------------------------------------------------------------

def composed(text):
    """Return a text in Unicode normal form C: a name is one name however its accents are written."""
    return unicodedata.normalize("NFC", text)


def speaker_name(text):
    """Return a speaker's name in Unicode normal form C; InputError where it could not be a file name."""
    name = composed(text)
    if not SPEAKER_NAME.fullmatch(name) or name == "manifest":
        raise InputError(f"speaker name {text!r}: use letters, digits, spaces, '_', '.' and '-', "
                         "beginning with a letter, a digit or '_'; 'manifest' is taken")
    return name


def find_speakers(raw_path, test_ratio):
    """Assign the speaker folders of a corpus to train and test.

    Returns
    -------
    dict
        {"train": {name: folder}, "test": {name: folder}}. Folders named train and test alone are that split; else a
        speaker's own name decides, so that adding a speaker moves no other.
    """
    raw_path = pathlib.Path(raw_path)
    if not raw_path.is_dir():
        raise InputError(f"--raw_path is {raw_path}: there is no such folder")
    folders = sub_folders(raw_path)
    if not folders:
        raise InputError(f"--raw_path is {raw_path}: it has no folders; put the audio of each speaker into one")
    if {folder.name for folder in folders} == {"train", "test"}:
        return {part: named(sub_folders(raw_path / part)) for part in ("train", "test")}
    parts = {"train": {}, "test": {}}
    for name, folder in named(folders).items():
        parts["test" if int(digest(name), 16) < test_ratio * 16**16 else "train"][name] = folder
    return parts


def digest(text):
    """Return 16 hexadecimal digits that depend on a text alone."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sub_folders(folder):
    """Return the visible sub-folders, in order."""
    return [path for path in visible(folder) if path.is_dir()]


def visible(folder):
    """Return what lies in a folder and is not hidden, in order."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def named(folders):
    """Return {speaker name: folder}; InputError where two folders carry one name."""
    speakers = {}
    for folder in folders:
        name = speaker_name(folder.name)
        if name in speakers:
            raise InputError(f"{folder} and {speakers[name]} are one speaker's name: rename one of them")
        speakers[name] = folder
    return speakers


def audio_files(folder):
    """Return the visible recordings below a folder, as sorted relative paths, and the numbers of other files by suffix.

    Raises
    ------
    OSError
        If a sub-folder cannot be read.
    """
    def fail(error):
        raise error

    files, others = [], collections.Counter()
    for home, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                continue
            if suffix in SUFFIXES:
                files.append(pathlib.Path(home, name).relative_to(folder).as_posix())
            else:
                others[suffix or "no suffix"] += 1
    return sorted(files), others


def enrolment_sources(path):
    """Return {speaker: files} of an enrolment, each file a recording or a .npy of features.

    A file is one speaker. In a folder, the audio directly in it is one, named after it; each sub-folder with audio and
    each .npy is one.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise InputError(f"--enroll_path is {path}: there is no such file or folder; enrol with python record.py")
    if path.is_file():
        return {composed(path.stem): [path]}
    sources = {}
    for item in visible(path):
        if item.is_dir() and audio_files(item)[0]:
            add_source(sources, item.name, [item / file for file in audio_files(item)[0]])
        elif item.suffix == ".npy":
            add_source(sources, item.stem, [item])
    direct = [item for item in visible(path) if item.is_file() and item.suffix.lower() in SUFFIXES]
    if direct:
        add_source(sources, path.resolve().name, direct)
    if not sources:
        raise InputError(f"--enroll_path is {path}: it holds neither recordings nor features; enrol with "
                         "python record.py")
    return sources


def add_source(sources, name, files):
    """Add a speaker's files; InputError where the name is taken."""
    if composed(name) in sources:
        raise InputError(f"{files[0]} and {sources[composed(name)][0]} are two enrolments of one name: rename one")
    sources[composed(name)] = files


def probe_files(path):
    """Return the probes of a file or folder: recordings at any depth, and .npy files of features."""
    path = pathlib.Path(path)
    if not path.exists():
        raise InputError(f"--verify_path is {path}: there is no such file or folder; record a probe with "
                         "python record.py --verify True")
    if path.is_file():
        return [path]
    files = [path / file for file in audio_files(path)[0]] + sorted(path.glob("*.npy"))
    if not files:
        raise InputError(f"--verify_path is {path}: it holds neither recordings nor features")
    return files


def stamp(path):
    """Return size and time of a file, which tell that it changed; zeros for a link into nothing."""
    try:
        status = path.stat()
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def process_speaker(name, source, folder, config):
    """Make <name>.npy and <name>.json from a speaker's folder, unless they are there and nothing changed.

    Returns the record that the .json holds; under "kept", why the features of audio that is gone were left.
    """
    features, description = pathlib.Path(folder) / f"{name}.npy", pathlib.Path(folder) / f"{name}.json"
    files, others = audio_files(source)
    stamps = [stamp(source / file) for file in files]
    old = read_json(description)
    if old and old["segments"] and not files:
        return {**old, "kept": f"{source} holds no audio any more; {features} is kept, delete it if it is not wanted"}
    if old and unchanged(old, source, files, stamps, config) and features.exists() == (old["segments"] > 0):
        return old

    parts, utterances = [], []
    for file, mark in zip(files, stamps, strict=True):
        cuts, entry = process_utterance(source / file, config)
        utterances.append({"file": file, "first": sum(map(len, parts)), "count": len(cuts), **entry, "stamp": mark})
        if len(cuts):
            parts.append(cuts)
    record = {"speaker": name, "source": str(source.resolve()), "segments": sum(map(len, parts)),
              "settings": feature_settings(config), "ignored": others, "utterances": utterances}
    write_features(folder, record, parts)
    return record


def unchanged(old, source, files, stamps, config):
    """Tell whether a record is of these files and settings; InputError if it is of another corpus's speaker."""
    before = [(entry["file"], entry["stamp"]) for entry in old["utterances"]]
    now = list(zip(files, stamps, strict=True))
    if old["source"] != str(source.resolve()) and before and not any(pair in before for pair in now):
        raise InputError(f"{source} and {old['source']} are speakers of one name: rename a folder, or name new folders "
                         "for the features")
    return before == now and old["settings"] == feature_settings(config)


def process_utterance(path, config):
    """Return the segments of one recording and what is recorded of it: seconds heard, of speech, why it gave none."""
    try:
        wave = load_audio(path, config.sr)
    except InputError as error:
        return (), {"seconds": 0.0, "speech_seconds": 0.0, "dropped": str(error).removeprefix(f"{path} ")}
    cuts, speech = speech_segments(wave, config)
    dropped = "" if len(cuts) else f"holds under {MIN_SPEECH_SECONDS} s of speech" if speech else "is silent"
    return cuts, {"seconds": len(wave) / config.sr, "speech_seconds": speech, "dropped": dropped}


def feature_settings(config):
    """Return the flags that features depend on."""
    return {name: getattr(config, name) for name in configuration.FEATURE_FLAGS}


def open_features(path):
    """Memory-map a feature file (K, 40, frames); InputError where it is anything else."""
    try:
        features = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path} is not a feature file: {error}") from error
    if features.ndim != 3 or features.shape[1] != N_MELS or features.dtype.kind != "f" or not len(features):
        raise InputError(f"{path} holds {features.dtype} of shape {features.shape}; features are float32 "
                         f"of shape (segments, {N_MELS}, frames): preprocess this speaker again")
    return features


def write_features(folder, record, parts, private=False):
    """Write a speaker's segments, a list of (K, 40, frames), and the record that describes them; whole, in turn."""
    features = pathlib.Path(folder) / f"{record['speaker']}.npy"
    if parts:
        write_whole(features, lambda file: np.save(file, np.concatenate(parts), allow_pickle=False), private)
    else:
        features.unlink(missing_ok=True)
    write_json(features.with_suffix(".json"), record, private)


def read_settings(folder):
    """Return the settings in a feature folder's manifest.json, None where there is none."""
    manifest = read_json(pathlib.Path(folder, "manifest.json"))
    if manifest is not None and not isinstance(manifest.get("settings"), dict):
        raise InputError(f"{folder}/manifest.json is of another program: name a new folder")
    return manifest and manifest["settings"]


def claim(folder, config):
    """Adopt the settings of an existing feature folder, which then bind like typed flags; refuse a strange folder."""
    folder, settings = pathlib.Path(folder), read_settings(folder)
    if settings:
        configuration.adopt(config, settings, folder)
        config.given |= settings.keys()
    elif any(folder.glob("*.npy")):
        raise InputError(f"{folder} holds features of another program (no manifest.json): name a new folder")


def preprocess(sources, folder, config):
    """Make the features of several speakers in one folder, on several cores.

    Parameters
    ----------
    sources : dict
        {speaker name: folder of audio}
    folder : str or Path
        Where `<speaker>.npy`, `<speaker>.json` and `manifest.json` are written.
    config : argparse.Namespace
        Feature flags and jobs.

    Returns
    -------
    totals : collections.Counter
        Speakers, files and seconds heard, kept and dropped.
    losses : list of str
        A line per file that gave nothing.
    """
    folder = pathlib.Path(folder)
    settings = {**feature_settings(config), "test_ratio": config.test_ratio}
    write_json(folder / "manifest.json", {"settings": settings})
    work = joblib.Parallel(n_jobs=config.jobs or -1, return_as="generator_unordered")
    records = work(joblib.delayed(process_speaker)(name, source, folder, config) for name, source in sources.items())
    totals, losses = collections.Counter(), []
    try:
        for record in progress(records, total=len(sources), desc=str(folder), unit="speaker"):
            totals.update(count(record))
            losses += [record["kept"]] if "kept" in record else []
            losses += [f"{record['source']}/{entry['file']} {entry['dropped']}"
                       for entry in record["utterances"] if entry["dropped"]]
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt("stopped by the keyboard; run the same command to go on") from stop
    except TerminatedWorkerError as error:
        raise InputError("a worker process was killed, most likely for lack of memory: lower --jobs, and run again to "
                         "go on") from error
    write_json(folder / "manifest.json", {"settings": settings, "totals": folder_totals(folder)})
    return totals, sorted(losses)


def folder_totals(folder):
    """Return the counts of all speakers in a feature folder, those of earlier runs too."""
    totals = collections.Counter()
    for path in folder.glob("*.json"):
        if path.name != "manifest.json":
            totals.update(count(read_json(path)))
    return totals


def count(record):
    """Return the numbers of one speaker's record, named as the summary shows them."""
    numbers = collections.Counter(speakers=1, utterances=len(record["utterances"]), segments=record["segments"])
    numbers.update({"speakers without speech": int(not record["segments"]), "seconds kept": 0.0,
                    "seconds in too short utterances": 0.0})
    for entry in record["utterances"]:
        numbers["seconds heard"] += entry["seconds"]
        numbers["seconds of pauses"] += entry["seconds"] - entry["speech_seconds"]
        numbers["seconds kept" if entry["count"] else "seconds in too short utterances"] += entry["speech_seconds"]
        if entry["dropped"]:
            numbers[f"dropped: {entry['dropped'].partition(':')[0]}"] += 1
    for suffix, number in record["ignored"].items():
        numbers[f"ignored: {suffix}"] += number
    return numbers


def summary(totals):
    """Return the table of counts: a row per kind, a column per part."""
    first = ["speakers", "speakers without speech", "utterances", "segments", "seconds heard", "seconds of pauses",
             "seconds in too short utterances", "seconds kept"]
    rows = first + sorted({row for numbers in totals.values() for row in numbers} - set(first))
    lines = [f"{'':40}" + "".join(f"{part:>12}" for part in totals)]
    lines += [f"{row:40}" + "".join(f"{numbers[row]:12,.0f}" for numbers in totals.values()) for row in rows]
    return "\n".join(lines)


def cached_features(config):
    """Make the features of the audio in config.raw_path, or of its test part, in a folder of ./cache.

    A later call with the same audio and settings finds them there. Returns that folder and the speakers' names.
    """
    raw_path = pathlib.Path(config.raw_path).resolve()
    key = json.dumps([str(raw_path), feature_settings(config)])
    folder = pathlib.Path("cache", f"{raw_path.name}-{digest(key)}")
    sources = find_speakers(raw_path, test_ratio=1.0)["test"]
    _, losses = preprocess(sources, folder, config)
    report_losses(losses)
    return folder, set(sources)


def report_losses(losses):
    """Name the first 20 files that gave nothing on standard error, and the number of the others."""
    for loss in losses[:20]:
        print("skipped:", loss, file=sys.stderr)
    if len(losses) > 20:
        print(f"skipped: {len(losses) - 20} more; the .json beside each speaker's features names them", file=sys.stderr)


def work(config):
    """Preprocess --raw_path into --train_path and --test_path and print what was kept and what was not."""
    folders = {"train": config.train_path, "test": config.test_path}
    if len({pathlib.Path(folder).resolve() for folder in folders.values()}) == 1:
        raise InputError(f"--train_path and --test_path are both {config.train_path}: test speakers must be apart")
    for folder in folders.values():
        claim(folder, config)
    configuration.check_relations(config)
    parts = find_speakers(config.raw_path, config.test_ratio)
    known = {part: {path.stem for path in pathlib.Path(folder).glob("*.json")} for part, folder in folders.items()}
    both = (parts["train"].keys() | known["train"]) & (parts["test"].keys() | known["test"]) - {"manifest"}
    if both:
        raise InputError(f"speaker {min(both)} is in train and test: a test needs speakers of its own; rename one")
    results = {part: preprocess(sources, folders[part], config) for part, sources in parts.items() if sources}
    stray = [path for path in sorted(pathlib.Path(config.raw_path).iterdir()) if path.suffix.lower() in SUFFIXES]
    report_losses([f"{path} lies in no speaker's folder" for path in stray]
                  + [loss for _, lines in results.values() for loss in lines])
    totals = {part: numbers for part, (numbers, _) in results.items()}
    print(summary(totals))
    if not sum(numbers["segments"] for numbers in totals.values()):
        raise InputError(f"--raw_path is {config.raw_path}: no recording of a speaker's folder there can be used")
    return 0


def main(argv=None):
    """Run the command line; return the exit code."""
    return configuration.run(work, argv)


if __name__ == "__main__":
    from data_preprocess import main as importable_main  # the worker processes find its functions by module name
    sys.exit(importable_main())
