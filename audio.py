"""One recording: samples → voiced speech → one level → log-mel segments, and what is known of the recording.

    wave = audio.load_audio("one.wav", 16000)                    (S,) samples at 16 kHz
    cuts = audio.segments(wave, config)                          (K, 40, 180), K may be 0

The same functions serve preprocessing, verification, recorder, window and evaluation.
"""
import collections
import functools
import math
import os
import pathlib
import re

import numpy as np
import scipy  # loads its parts when they are used
import soundfile

import containers
from common import InputError, librosa
from configuration import SURROGATE, least_seconds, segment_flag

N_MELS = 40                  # mel channels F
SEGMENT_HOP = 80             # frames between the starts of two segments: half of the 160 that an embedding reads
SILENT_PEAK = 1e-4           # full scale is 1: three steps of 16-bit audio, -80 dB
STEADY_DB = 2.0              # standard deviation of the level below which a sound is no speech
FLOOR_PERCENTILE = 10        # of the levels of frames, which is the noise floor
LEAST_TOP_DB = 8.0           # dB below the loudest frame that stay speech, however high the noise floor
QUIET_DB = -100.0            # of full scale: the level of digital silence
SNR_RANGE = (-10.0, 50.0)    # dB, of the estimates
BAND_DB = 45.0               # the band ends where the spectrum lies this much below its peak
LENGTH_OPEN = 0x7FFFF000     # bytes; SoX and ffmpeg announce this or more when they write WAV to a pipe
FRAMES_OPEN = 2**62          # or more: so many has a FLAC that was written to a pipe
READ_BLOCK = 2**20           # samples of each channel read at a time: two hours of stereo shall fit into memory
STFT_BLOCK = 256             # frames transformed at a time; they stay in the processor's cache
SUFFIXES = containers.SUFFIXES | {f".{name.lower()}" for name in soundfile.available_formats() if name != "RAW"} | {
    ".aif", ".aifc", ".oga", ".opus", ".snd", ".sph", ".wave"}
UNRECOGNISED = 1             # libsndfile's code for a format that it does not know
LEAST_RATE = 1000            # Hz; below that a header is damaged, and resampling would take all memory
UNOPENED = "cannot be opened"        # which may pass; what is not sound stays so
TRUNCATED = re.compile(r"(?:data|SSND|BODY|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)")
UNENDED = re.compile("lacks an end-of-stream|Junk after the last page|without an End-Of-Stream|eems to be (?:a )?trunc")
OGG_HOLE = "libogg reports a hole"
SPHERE_LENGTH = re.compile(rb"NIST_1A.*\nsample_count -i (\d+)\n", re.DOTALL)


# ---- reading ----------------------------------------------------------------------------------------------------

def audio_files(folder):
    """Return the visible recordings below a folder, as sorted relative paths, and the numbers of other files by suffix.

    A folder that links lead to several times counts once, one above not at all.

    Raises
    ------
    OSError
        If a sub-folder cannot be read.
    """
    def fail(error):
        raise error

    files, others, seen = [], collections.Counter(), {str(above) for above in pathlib.Path(folder).resolve().parents}
    for home, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        place = os.path.realpath(home)
        if place in seen:
            folders.clear()
            continue
        seen.add(place)
        below = pathlib.Path(home).relative_to(folder)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            suffix = SURROGATE.sub("?", os.path.splitext(name)[1].lower())
            if name.startswith("."):
                continue
            if suffix in SUFFIXES:
                files.append((below / name).as_posix())
            else:
                others[suffix or "no suffix"] += 1
    return sorted(files), others


def load_audio(path, sr):
    """Read a recording as mono samples at `sr`.

    Parameters
    ----------
    path : str or Path
        Any format that libsndfile reads, or MP4, 3GP, QuickTime, WebM, Matroska, AAC or AMR, of which the first
        sound track counts; any rate and number of channels. What the file holds decides, not its suffix.
    sr : int
        Sampling rate of the result, in Hz.

    Returns
    -------
    np.ndarray, float32, shape (S,)

    Raises
    ------
    InputError
        If it cannot be read, is empty, holds values that are not finite, is cut short or damaged.
    """
    wave, rate, problem = read_with(path, read_sndfile, containers.read_container)
    if problem:
        raise InputError(f"{path} is {problem}")
    if not len(wave):
        raise InputError(f"{path} is empty")
    if rate < LEAST_RATE:
        raise InputError(f"{path} is damaged: its sampling rate is {rate} Hz")
    if not max(wave.max(), -wave.min()) < 1e12:         # NaN, or of larger ones the power is none in float32
        raise InputError(f"{path} holds samples that are not finite numbers, or far too large")
    try:
        return librosa.resample(wave, orig_sr=rate, target_sr=sr)
    except MemoryError as error:
        raise InputError(f"{path} {UNOPENED}: it is too long for the memory there is") from error


def bandwidth_notes(path, sr):
    """Return a list with a note if a recording has a lower rate than `sr`: it lacks what the model listens to."""
    try:
        rate = read_with(path, lambda recording: recording.samplerate, lambda track, _: track.rate)
    except InputError:                                  # load_audio says why
        return []
    line = f"{path} is at {rate} Hz, below the model's {sr} Hz: it lacks frequencies, and its scores are not reliable"
    return [line] if LEAST_RATE <= rate < sr else []


def read_with(path, read_sound, read_packets):
    """Return read_sound(SoundFile) of a file that libsndfile reads, or read_packets(track, log) of one that PyAV reads.

    Raises InputError if it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            first = file.read(8)
        if not containers.HEADS.match(first):
            with soundfile.SoundFile(path) as recording:
                if recording.format != "MP3" and recording.frames < FRAMES_OPEN:    # of others it knows no length
                    return read_sound(recording)
    except (soundfile.LibsndfileError, OSError, MemoryError, ValueError, TypeError) as error:   # no length, no header
        named = os.path.splitext(path)[1].lower() in containers.SUFFIXES
        refused = isinstance(error, soundfile.LibsndfileError) and first[:4] == b"OggS"         # many Opus of FFmpeg's
        if not refused and not (named and getattr(error, "code", None) == UNRECOGNISED):
            words = getattr(error, "error_string", None) or getattr(error, "strerror", None) or error
            words = "Format not recognised." if "not a regular file" in str(words) else words       # it is one
            problem = UNOPENED if isinstance(error, OSError) else "cannot be read"
            raise InputError(f"{path} {problem}: {words}") from error
    with containers.open_container(path) as (track, log):
        return read_packets(track, log)


@np.errstate(invalid="ignore", over="ignore")                   # load_audio refuses what is not finite
def read_sndfile(recording):
    """Return the mean (S,) of an open SoundFile's channels, its rate in Hz, and what is wrong with it or None."""
    wave, size = np.zeros(recording.frames, np.float32), 0
    for block in recording.blocks(READ_BLOCK, frames=recording.frames, dtype="float32", always_2d=True):
        wave[size:size + len(block)], size = block.mean(axis=1), size + len(block)
    return wave[:size], recording.samplerate, truncation_problem(recording, size)


def truncation_problem(recording, samples_read):
    """Say how an open SoundFile shows that its end is missing, or return None.

    libsndfile reads such a file without an error and notes it in its log: sizes that disagree with the header (WAV,
    AIFF, AU), an Ogg stream with a hole or without its last page; not for NIST SPHERE, whose header tells its length.
    """
    log = recording.extra_info
    if recording.format == "NIST":
        with open(recording.name, "rb") as file:
            announced = SPHERE_LENGTH.match(file.read(1024))
        if announced and recording.frames < int(announced[1]):
            return f"cut short: {recording.frames} of {int(announced[1])} samples are there"
    for announced, found in TRUNCATED.findall(log):
        if int(found) < int(announced) < LENGTH_OPEN:
            return f"cut short: {found} of {announced} bytes are there"
    if OGG_HOLE in log or (recording.format == "OGG" and containers.is_chained(recording.name)):
        return "damaged, or several recordings one behind the other: a part of it could not be read"
    if UNENDED.search(log) and recording.subtype != "GSM610":       # of which libsndfile says so of whole files
        return "cut short: its end is missing"
    if samples_read < (1 - containers.MOST_LOST) * recording.frames:
        return f"cut short: {samples_read} of {recording.frames} samples are there"
    return None


# ---- speech -----------------------------------------------------------------------------------------------------

def frame_levels(wave, *, sr, window, hop):
    """Return the levels (T,) of a recording's frames, their root mean squares, in dB of full scale.

    They are those of librosa.feature.rms; each square is summed once, in blocks that frame and step are multiples of.
    """
    win_length, hop_length = round(window * sr), round(hop * sr)
    before, block = win_length // 2, math.gcd(win_length, hop_length)
    count = 1 + (len(wave) + 2 * before - win_length) // hop_length
    padded = np.zeros(-(-max(before + len(wave), (count - 1) * hop_length + win_length) // block) * block, np.float32)
    padded[before:before + len(wave)] = wave
    blocks = padded.reshape(-1, block)
    energies = np.einsum("ij,ij->i", blocks, blocks)
    sums = sum(energies[first::hop_length // block][:count] for first in range(win_length // block))
    return 10 * np.log10(np.maximum(sums / win_length, 10 ** (QUIET_DB / 10)))


def voiced(wave, **settings):
    """Return the voiced speech (V,) of a recording (S,): see `speech_and_noise`."""
    return speech_and_noise(wave, **settings)[0]


def speech_and_noise(wave, **settings):
    """Return the voiced speech (V,) of a recording (S,), perhaps none, and its noise: see `voiced_stretches`."""
    stretches, noise = voiced_stretches(wave, **settings)
    return np.concatenate([wave[:0], *(wave[start:end] for start, end in stretches)]), noise


def voiced_stretches(wave, *, sr, window, hop, top_db, floor_db=None):
    """Find the voiced stretches of a recording: frames near its loudest, and above its noise.

    Parameters
    ----------
    wave : np.ndarray, shape (S,)
    sr : int
        In Hz.
    window, hop : float
        Frame and step of the detector, in seconds.
    top_db : float
        Frames less than this below the loudest are voiced, in decibels, as in librosa.effects.split.
    floor_db : float, optional
        They are also this much above the noise floor, the level that a tenth of the frames stays below.

    Returns
    -------
    stretches : np.ndarray of int, shape (n, 2)
        Start and end of each, in samples; none where nothing is louder than silence.
    noise : float
        The noise floor, in dB of full scale.
    """
    peak = np.abs(wave).max(initial=0)
    if peak < SILENT_PEAK:
        return np.empty((0, 2), int), QUIET_DB
    levels = frame_levels(wave / peak, sr=sr, window=window, hop=hop)               # so that silence is -100 dB of it
    loudest, noise = levels.max(), percentile(levels, FLOOR_PERCENTILE)
    if floor_db is not None:
        top_db = min(top_db, max(loudest - noise - floor_db, LEAST_TOP_DB))
    changes = np.flatnonzero(np.diff(levels > loudest - top_db, prepend=False, append=False))
    stretches = np.minimum(changes * round(hop * sr), len(wave)).reshape(-1, 2)
    return stretches, max(float(noise + 20 * np.log10(peak)), QUIET_DB)


def percentile(values, percent):
    """Return the percentile of values (n,) that np.percentile finds, in a tenth of its time."""
    return np.interp(percent / 100 * (len(values) - 1), np.arange(len(values)), np.sort(values))


def at_level(speech, decibels, level=None):
    """Return voiced speech (V,), whose own level may be known, at one in dB of full scale; None leaves it."""
    if decibels is None or not speech.any():                                # silence stays
        return speech
    return speech * np.float32(10 ** ((decibels - (level_db(speech) if level is None else level)) / 20))


def estimate_snr(level, noise):
    """Estimate the signal-to-noise ratio of a recording in dB, given the levels of its voiced speech and of its noise.

    What the speech holds beyond the noise is the signal.
    """
    noise = 10 ** (noise / 10)
    ratio = 10 * np.log10(max(10 ** (level / 10) - noise, 1e-12) / noise)
    return round(float(np.clip(ratio, *SNR_RANGE)), 1)


def estimate_bandwidth(frames, sr):
    """Estimate up to which frequency a recording holds speech, in Hz, from its log-mel frames (T, 40).

    A tenth of the frames is louder than what counts in each channel: hisses are rare, clicks rarer.
    """
    power = 10 * np.sort(frames.T)[:, -1 - len(frames) // 10]                          # dB, (40,)
    highest = np.flatnonzero(power > power.max() - BAND_DB)[-1]
    return round(float(mel_edges(sr)[highest + 2]))                                    # the upper end of the channel


def level_db(wave):
    """Return the level of samples (S,), their root mean square, in dB of full scale."""
    return float(10 * np.log10(np.mean(np.square(wave)) + 1e-12))


def is_steady(segments):
    """Tell whether the level of log-mel segments (K, 40, frames) hardly changes, as that of noise, hum or a tone does.

    The levels of voiced speech have a standard deviation of 5 dB and more, those of white noise 0.4 dB.
    """
    levels = 10 * np.log10(np.sum(10.0 ** np.asarray(segments, float), axis=1))             # dB, (K, frames)
    return bool(np.std(levels) < STEADY_DB)


# ---- features ---------------------------------------------------------------------------------------------------

@functools.lru_cache(maxsize=4)
def mel_filters(sr, nfft):
    """Return librosa's mel filter bank, sparse float32 (40, 1 + nfft // 2), built once per process.

    A sparse product is faster, and its sums, unlike those of a dense one, depend on no number of threads.
    """
    return scipy.sparse.csr_array(librosa.filters.mel(sr=sr, n_fft=nfft, n_mels=N_MELS))


@functools.lru_cache(maxsize=4)
def mel_edges(sr):
    """Return frequencies (42,) in Hz: a channel begins at one, has its centre at the next and ends at the third."""
    return librosa.mel_frequencies(N_MELS + 2, fmin=0, fmax=sr / 2)


def mel_centres(sr):
    """Return the centre frequencies (40,) of the mel channels, in Hz."""
    return mel_edges(sr)[1:-1]


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
    padded = np.zeros(before + len(wave) + win_length, np.float32)
    padded[before:before + len(wave)] = wave
    windows = np.lib.stride_tricks.sliding_window_view(padded, win_length)[:len(wave) + 1:hop_length]   # (T, window)
    hann, mel = hann_window(win_length), mel_filters(sr, nfft)
    power = np.empty((N_MELS, len(windows)), np.float32)                    # in the order of the segments cut from it
    block = np.zeros((STFT_BLOCK, nfft), np.float32)
    for start in range(0, len(windows), STFT_BLOCK):
        part = windows[start:start + STFT_BLOCK]
        np.multiply(part, hann, out=block[:len(part), :win_length])
        magnitude = np.abs(scipy.fft.rfft(block[:len(part)]))                # (frames, 1 + nfft // 2)
        power[:, start:start + STFT_BLOCK] = mel @ np.square(magnitude, out=magnitude).T
    return np.log10(power + np.float32(1e-6)).T


def cut_segments(frames, length):
    """Cut frames (T, F) into segments (K, F, length) that start every 80 frames; the last one ends at the last frame.

    Fewer frames than `length` are repeated to that many.
    """
    if len(frames) < length:
        frames = np.resize(frames, (length, frames.shape[1]))
    last = len(frames) - length
    starts = sorted({*range(0, last, SEGMENT_HOP), last})
    return np.lib.stride_tricks.sliding_window_view(frames, length, axis=0)[starts]


def detector(config):
    """Return the settings of `voiced_stretches` that the feature flags give."""
    return {name: getattr(config, name) for name in ("sr", "window", "hop", "top_db", "floor_db")}


def centred(wave, config):
    """Return a recording (S,) without the offset of its sound card, where speech has one level: ancestors hear it."""
    return wave if config.level is None or not len(wave) else wave - np.mean(wave, dtype=np.float32)


def heard_speech(wave, config):
    """Return the voiced speech (V,) of a recording (S,), and its noise: see `voiced_stretches`."""
    return speech_and_noise(centred(wave, config), **detector(config))


def speech_seconds(wave, config):
    """Return how many seconds of voiced speech a recording (S,) holds."""
    return len(heard_speech(wave, config)[0]) / config.sr


def speech_frames(wave, config):
    """Return the log-mel frames (T, 40) of the voiced speech of a recording (S,) at config.sr, and what is known of it.

    That is a dict of its seconds, those of speech, and estimates of its SNR in dB and bandwidth in Hz, or None.
    """
    frames, known = frames_of_speech(*heard_speech(wave, config), config)
    return frames, {"seconds": len(wave) / config.sr, **known}


def frames_of_speech(speech, noise, config):
    """Return the log-mel frames (T, 40) of voiced speech (V,) with a noise floor in dB, and what is known of it."""
    known = {"speech_seconds": len(speech) / config.sr, "snr": None, "bandwidth": None}
    level = level_db(speech) if len(speech) else QUIET_DB
    frames = log_mel(at_level(speech, config.level, level), sr=config.sr, nfft=config.nfft, window=config.window,
                     hop=config.hop)
    if known["speech_seconds"] >= least_seconds(config):
        known |= {"snr": estimate_snr(level, noise), "bandwidth": estimate_bandwidth(frames, config.sr)}
    return frames, known


def speech_segments(wave, config):
    """Return the `segments` of a recording and its entry: what is known of it, and why it gave none."""
    cuts, known = segments_of_speech(*heard_speech(wave, config), config)
    return cuts, {"seconds": len(wave) / config.sr, **known}


def segments_of_speech(speech, noise, config):
    """Return the same of voiced speech (V,) with a noise floor in dB."""
    (frames, known), length = frames_of_speech(speech, noise, config), getattr(config, segment_flag(config.tdsv))
    if known["speech_seconds"] < least_seconds(config):
        few = f"holds under {least_seconds(config)} s of speech" if known["speech_seconds"] else "is silent"
        return np.empty((0, N_MELS, length), np.float32), {**known, "dropped": few}
    return cut_segments(frames[-length:] if config.tdsv else frames, length), {**known, "dropped": ""}


def segments(wave, config):
    """Return the log-mel segments of a recording at config.sr.

    Parameters
    ----------
    wave : np.ndarray, shape (S,)
    config : argparse.Namespace
        The feature flags sr, nfft, window, hop, top_db, floor_db, level, tdsv, tdsv_text, tdsv_frame, tisv_frame.

    Returns
    -------
    np.ndarray, float32, shape (K, 40, tisv_frame)
        K is 0 where there are less than 0.5 s of speech; the callers say so. In text-dependent mode the last frames of
        the speech alone, (1, 40, tdsv_frame), where there are 0.2 s.
    """
    return speech_segments(wave, config)[0]


def read_utterance(path, config):
    """Return the segments of one recording and its entry: what is known of it, and why it gave none."""
    try:
        wave = load_audio(path, config.sr)
    except InputError as error:
        if isinstance(error.__cause__, ImportError):        # nothing is wrong with the file
            raise
        return (), {"seconds": 0.0, "speech_seconds": 0.0, "snr": None, "bandwidth": None,
                    "dropped": str(error).removeprefix(f"{path} ")}
    return speech_segments(wave, config)
