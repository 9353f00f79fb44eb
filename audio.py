"""One recording: samples → voiced speech → one level → log-mel segments, and what is known of the recording.

    wave = audio.load_audio("one.wav", 16000)                    (S,) samples at 16 kHz
    cuts = audio.segments(wave, config)                          (K, 40, 180), K may be 0

The same functions serve preprocessing, verification, recorder, window and evaluation.
"""
import collections
import functools
import importlib
import math
import os
import pathlib
import re
import sys

import numpy as np
import scipy  # loads its parts when they are used
import soundfile

from common import InputError, LazyModule

N_MELS = 40                  # mel channels F
SEGMENT_HOP = 80             # frames between the starts of two segments: half of the 160 that an embedding reads
MIN_SPEECH_SECONDS = 0.5     # an utterance with less gives no segment
SILENT_PEAK = 1e-4           # full scale is 1: three steps of 16-bit audio, -80 dB
STEADY_DB = 2.0              # standard deviation of the level below which a sound is no speech
FLOOR_PERCENTILE = 10        # of the levels of frames, which is the noise floor
LEAST_TOP_DB = 8.0           # dB below the loudest frame that stay speech, however high the noise floor
QUIET_DB = -100.0            # of full scale: the level of digital silence
SNR_RANGE = (-10.0, 50.0)    # dB, of the estimates
BAND_DB = 45.0               # the band ends where the spectrum lies this much below its peak
LENGTH_OPEN = 0x7FFFF000     # bytes; SoX and ffmpeg announce this or more when they write WAV to a pipe
STFT_BLOCK = 128             # frames transformed at a time; they stay in the processor's cache
SUFFIXES = {f".{name.lower()}" for name in soundfile.available_formats() if name != "RAW"} | {
    ".aif", ".aifc", ".oga", ".opus", ".snd", ".sph", ".wave"}
TRUNCATED = re.compile(r"(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)")
# What librosa imports and nothing here uses: 1.3 s and 240 MB of its 1.6 s and 310 MB.
DEFERRED = ("numba", "sklearn", "sklearn.cluster", "sklearn.decomposition", "sklearn.feature_extraction",
            "sklearn.neighbors", "scipy.interpolate", "scipy.ndimage", "scipy.optimize", "scipy.signal", "scipy.sparse",
            "scipy.spatial", "scipy.spatial.distance", "scipy.stats")


# ---- librosa without what it does not need here -----------------------------------------------------------------

class Deferred:
    """A module, or what is taken from it or decorated with it while librosa loads; it is made when it is called."""

    loading = False

    def __init__(self, make):
        self.make = functools.cache(make)

    def __getattr__(self, name):
        """Return an attribute, deferred as well."""
        if name.startswith("__"):
            raise AttributeError(name)
        return Deferred(lambda: getattr(self.make(), name))

    def __call__(self, *arguments, **options):
        """Decorate later, while librosa loads; afterwards, put the real things into librosa's modules and call."""
        if Deferred.loading:
            return Deferred(lambda: self.make()(*arguments, **options))
        for name in [name for name in sys.modules if name.partition(".")[0] == "librosa"]:
            for attribute, value in list(vars(sys.modules[name]).items()):
                if isinstance(value, Deferred):
                    setattr(sys.modules[name], attribute, value.make())
        return self.make()(*arguments, **options)


def import_librosa():
    """Return librosa, whole, but for what it imports and only some of its functions use: that loads when they do."""
    absent = [name for name in DEFERRED if name not in sys.modules]
    sys.modules.update({name: Deferred(functools.partial(importlib.import_module, name)) for name in absent})
    Deferred.loading = True
    try:
        import librosa
        _ = librosa.filters.mel, librosa.resample, librosa.mel_frequencies
    finally:
        Deferred.loading = False
        for name in absent:
            sys.modules.pop(name, None)
    return librosa


librosa = LazyModule(import_librosa)


# ---- reading ----------------------------------------------------------------------------------------------------

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
        with soundfile.SoundFile(path) as recording:
            channels = recording.read(dtype="float32", always_2d=True).T
            rate, problem = recording.samplerate, truncation_problem(recording, channels.shape[1])
    except (soundfile.LibsndfileError, OSError, MemoryError, ValueError) as error:  # ValueError: a length left open
        raise InputError(f"{path} cannot be read: {getattr(error, 'error_string', error)}") from error
    if problem:
        raise InputError(f"{path} is cut short: {problem}")
    if not channels.size:
        raise InputError(f"{path} is empty")
    if not np.isfinite(channels).all():
        raise InputError(f"{path} holds samples that are not finite numbers")
    return librosa.resample(librosa.to_mono(channels), orig_sr=rate, target_sr=sr)


def bandwidth_notes(path, sr):
    """Return a list with a note if a recording has a lower rate than `sr`: it lacks what the model listens to."""
    try:
        rate = soundfile.info(path).samplerate
    except (soundfile.LibsndfileError, OSError):        # load_audio says why
        return []
    line = f"{path} is at {rate} Hz, below the model's {sr} Hz: it lacks frequencies, and its scores are not reliable"
    return [line] if rate < sr else []


def truncation_problem(recording, samples_read):
    """Say how an open SoundFile shows that its end is missing, or return None.

    libsndfile reads such a file without an error and notes it in its log: sizes that disagree with the header (WAV,
    AIFF, AU), an Ogg stream without its last page. An MP3 announces its length in its first frame.
    """
    log = recording.extra_info
    for announced, found in TRUNCATED.findall(log):
        if int(found) < int(announced) < LENGTH_OPEN:
            return f"{found} of {announced} bytes are there"
    if recording.format == "OGG" and ("lacks an end-of-stream" in log or "Junk after the last page" in log
                                      or "without an End-Of-Stream" in log):
        return "its last Ogg page is missing"
    if samples_read < 0.98 * recording.frames:
        return f"{samples_read} of {recording.frames} samples are there"
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
    energies = np.square(padded).reshape(-1, block).sum(axis=1)
    sums = sum(energies[first::hop_length // block][:count] for first in range(win_length // block))
    return 10 * np.log10(np.maximum(sums / win_length, 10 ** (QUIET_DB / 10)))


def voiced(wave, **settings):
    """Return the voiced speech (V,) of a recording (S,): see `speech_and_noise`."""
    return speech_and_noise(wave, **settings)[0]


def speech_and_noise(wave, **settings):
    """Return the voiced speech (V,) of a recording (S,), empty where nothing is louder than silence, and its noise.

    The settings, and what the noise is: see `voiced_stretches`.
    """
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
    loudest, noise = levels.max(), np.percentile(levels, FLOOR_PERCENTILE)
    if floor_db is not None:
        top_db = min(top_db, max(loudest - noise - floor_db, LEAST_TOP_DB))
    changes = np.flatnonzero(np.diff(levels > loudest - top_db, prepend=False, append=False))
    stretches = np.minimum(changes * round(hop * sr), len(wave)).reshape(-1, 2)
    return stretches, max(float(noise + 20 * np.log10(peak)), QUIET_DB)


def at_level(speech, decibels):
    """Return voiced speech (V,) at a level in dB of full scale; None leaves it, and silence stays."""
    if decibels is None or not speech.any():
        return speech
    return speech * np.float32(10 ** ((decibels - level_db(speech)) / 20))


def estimate_snr(speech, noise):
    """Estimate the signal-to-noise ratio of a recording in dB, given its voiced speech (V,) and noise floor in dB.

    What the speech holds beyond the noise is the signal.
    """
    noise = 10 ** (noise / 10)
    ratio = 10 * np.log10(max(10 ** (level_db(speech) / 10) - noise, 1e-12) / noise)
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
    """Return librosa's mel filter bank, float32 (40, 1 + nfft // 2), built once per process."""
    return librosa.filters.mel(sr=sr, n_fft=nfft, n_mels=N_MELS)


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
    hann, mel = hann_window(win_length), mel_filters(sr, nfft).T
    power = np.empty((len(windows), N_MELS), np.float32)
    block = np.zeros((STFT_BLOCK, nfft), np.float32)
    for start in range(0, len(windows), STFT_BLOCK):
        part = windows[start:start + STFT_BLOCK]
        np.multiply(part, hann, out=block[:len(part), :win_length])
        spectrum = scipy.fft.rfft(block[:len(part)])                         # (frames, 1 + nfft // 2)
        np.matmul(spectrum.real**2 + spectrum.imag**2, mel, out=power[start:start + STFT_BLOCK])
    return np.log10(power + np.float32(1e-6))


def cut_segments(frames, length):
    """Cut frames (T, F) into segments (K, F, length) that start every 80 frames; the last one ends at the last frame.

    Fewer frames than `length` are repeated to that many.
    """
    if len(frames) < length:
        frames = np.resize(frames, (length, frames.shape[1]))
    last = len(frames) - length
    starts = sorted({*range(0, last, SEGMENT_HOP), last})
    return np.lib.stride_tricks.sliding_window_view(frames, length, axis=0)[starts]


def frames_of(segments, total):
    """Return the `total` frames (T, F) that `cut_segments` made segments (K, F, length) of."""
    length = segments.shape[2]
    frames = np.empty((max(total, length), segments.shape[1]), segments.dtype)
    for number, segment in enumerate(segments):
        start = min(number * SEGMENT_HOP, len(frames) - length)
        frames[start:start + length] = segment.T
    return frames[:total]


def detector(config):
    """Return the settings of `voiced_stretches` that the feature flags give."""
    return {name: getattr(config, name) for name in ("sr", "window", "hop", "top_db", "floor_db")}


def speech_frames(wave, config):
    """Return the log-mel frames (T, 40) of the voiced speech of a recording at config.sr, and what is known of it.

    Returns
    -------
    frames : np.ndarray, float32, shape (T, 40)
    known : dict
        Its seconds, those of speech, and estimates of its signal-to-noise ratio in dB and its bandwidth in Hz, None
        where there is too little speech.
    """
    frames, known = frames_of_speech(*speech_and_noise(wave, **detector(config)), config)
    return frames, {"seconds": len(wave) / config.sr, **known}


def frames_of_speech(speech, noise, config):
    """Return the log-mel frames (T, 40) of voiced speech (V,) with a noise floor in dB, and what is known of it."""
    known = {"speech_seconds": len(speech) / config.sr, "snr": None, "bandwidth": None}
    frames = log_mel(at_level(speech, config.level), sr=config.sr, nfft=config.nfft, window=config.window,
                     hop=config.hop)
    if known["speech_seconds"] >= MIN_SPEECH_SECONDS:
        known |= {"snr": estimate_snr(speech, noise), "bandwidth": estimate_bandwidth(frames, config.sr)}
    return frames, known


def speech_segments(wave, config):
    """Return segments (K, 40, tisv_frame) of a recording and what is known of it; K is 0 below 0.5 s of speech."""
    cuts, known = segments_of_speech(*speech_and_noise(wave, **detector(config)), config)
    return cuts, {"seconds": len(wave) / config.sr, **known}


def segments_of_speech(speech, noise, config):
    """Return the same of voiced speech (V,) with a noise floor in dB."""
    frames, known = frames_of_speech(speech, noise, config)
    if known["speech_seconds"] < MIN_SPEECH_SECONDS:
        return np.empty((0, N_MELS, config.tisv_frame), np.float32), known
    return cut_segments(frames, config.tisv_frame), known


def segments(wave, config):
    """Return the log-mel segments of a recording at config.sr.

    Parameters
    ----------
    wave : np.ndarray, shape (S,)
    config : argparse.Namespace
        The feature flags sr, nfft, window, hop, top_db, floor_db, level, tisv_frame.

    Returns
    -------
    np.ndarray, float32, shape (K, 40, tisv_frame)
        K is 0 where there are less than 0.5 s of speech; the callers say so.
    """
    return speech_segments(wave, config)[0]


def read_utterance(path, config):
    """Return the segments of one recording and its entry: what is known of it, and why it gave none."""
    try:
        wave = load_audio(path, config.sr)
    except InputError as error:
        return (), {"seconds": 0.0, "speech_seconds": 0.0, "snr": None, "bandwidth": None,
                    "dropped": str(error).removeprefix(f"{path} ")}
    return segments_and_entry(wave, config)


def segments_and_entry(wave, config):
    """Return the segments of samples (S,) at config.sr and their entry."""
    return with_entry(*speech_segments(wave, config))


def with_entry(cuts, known):
    """Return segments and their entry: what is known of a recording, and why it gave none."""
    few = f"holds under {MIN_SPEECH_SECONDS} s of speech" if known["speech_seconds"] else "is silent"
    return cuts, {**known, "dropped": "" if len(cuts) else few}
