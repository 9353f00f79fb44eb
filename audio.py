"""One recording: samples → voiced speech → log-mel segments.

    wave = audio.load_audio("one.wav", 16000)                    (S,) samples at 16 kHz
    cuts = audio.segments(wave, config)                          (K, 40, 180), K may be 0

The same functions serve preprocessing, verification, recorder, window and evaluation.
"""
import collections
import functools
import importlib
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
LENGTH_OPEN = 0x7FFFF000     # bytes; SoX and ffmpeg announce this or more when they write WAV to a pipe
STFT_BLOCK = 1024            # frames transformed at a time; they stay in the processor's cache
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
        _ = librosa.effects.split, librosa.feature.rms, librosa.filters.mel, librosa.resample, librosa.mel_frequencies
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
        frames[part] = np.log10((spectrum.real**2 + spectrum.imag**2) @ mel + 1e-6)
    return frames


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


def speech_frames(wave, config):
    """Return the log-mel frames (T, 40) of the voiced speech of a recording at config.sr, and its seconds of speech."""
    speech = voiced(wave, sr=config.sr, window=config.window, hop=config.hop, top_db=config.top_db)
    frames = log_mel(speech, sr=config.sr, nfft=config.nfft, window=config.window, hop=config.hop)
    return frames, len(speech) / config.sr


def speech_segments(wave, config):
    """Return segments (K, 40, tisv_frame) of a recording and its seconds of speech; K is 0 below 0.5 s of speech."""
    frames, seconds = speech_frames(wave, config)
    if seconds < MIN_SPEECH_SECONDS:
        return np.empty((0, N_MELS, config.tisv_frame), np.float32), seconds
    return cut_segments(frames, config.tisv_frame), seconds


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


def read_utterance(path, config):
    """Return the segments of one recording and what is recorded of it: seconds heard, of speech, why it gave none."""
    try:
        wave = load_audio(path, config.sr)
    except InputError as error:
        return (), {"seconds": 0.0, "speech_seconds": 0.0, "dropped": str(error).removeprefix(f"{path} ")}
    cuts, speech = speech_segments(wave, config)
    dropped = "" if len(cuts) else f"holds under {MIN_SPEECH_SECONDS} s of speech" if speech else "is silent"
    return cuts, {"seconds": len(wave) / config.sr, "speech_seconds": speech, "dropped": dropped}
