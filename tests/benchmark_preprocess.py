"""Preprocessing beside a plain loop, and beside the limit that reading and resampling set.

    python tests/benchmark_preprocess.py            synthetic voices, written as 16 kHz FLAC
    python tests/benchmark_preprocess.py DIR        own audio, one folder per speaker

The plain loop, in one process, does for each file what the ancestors did: load, split into voiced stretches, and for
each stretch one STFT and one mel basis. The limit reads and resamples every file on all cores and does nothing else.
Throughput counts seconds of audio; both include the start of the worker processes.
"""
import os
import pathlib
import statistics
import sys
import tempfile
import time

import joblib
import librosa
import numpy as np
import soundfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import voices

import configuration
import data_preprocess

BAR = 2.5
ROUNDS = 3
SR = 8000


def plain_loop(files):
    """Compute the log-mel spectrogram of every voiced stretch of every file, one after the other."""
    for path in files:
        wave, _ = librosa.load(path, sr=SR)
        for start, end in librosa.effects.split(wave, top_db=30, frame_length=200, hop_length=80):
            stft = librosa.stft(wave[start:end], n_fft=512, win_length=200, hop_length=80)
            mel = librosa.filters.mel(sr=SR, n_fft=512, n_mels=40)
            np.log10(mel @ np.abs(stft) ** 2 + 1e-6)


def only_read(paths):
    """Read and resample files."""
    for path in paths:
        data_preprocess.load_audio(path, SR)


def limit(files):
    """Read and resample all files on all cores, a folder at a time."""
    folders = {}
    for path in files:
        folders.setdefault(path.parent, []).append(path)
    joblib.Parallel(n_jobs=-1)(joblib.delayed(only_read)(paths) for paths in folders.values())


def ours(raw):
    """Preprocess the corpus to a new folder."""
    with tempfile.TemporaryDirectory() as out:
        config = configuration.get_config(["--sr", str(SR)])
        parts = data_preprocess.find_speakers(raw, test_ratio=0)
        sources = parts["train"] | parts["test"]
        data_preprocess.preprocess(sources, pathlib.Path(out, "train"), config)


def seconds(work, argument):
    """Return how long a call takes, with no worker process alive before it."""
    joblib.externals.loky.get_reusable_executor().shutdown(wait=True)
    start = time.perf_counter()
    work(argument)
    return time.perf_counter() - start


def synthesise(folder):
    """Write 40 voices of 12 utterances as FLAC."""
    for number in range(40):
        voice = voices.make_voice(np.random.default_rng([0, number]))
        home = pathlib.Path(folder, f"voice{number:02}")
        home.mkdir()
        for take in range(12):
            rng = np.random.default_rng([0, number, take])
            soundfile.write(home / f"{take}.flac", voices.utterance(voice, 4.0, rng), voices.SR)


def main():
    """Print the table; exit code 1 if the bar is missed."""
    with tempfile.TemporaryDirectory() as made:
        raw = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else made)
        if len(sys.argv) == 1:
            synthesise(raw)
        files = sorted(path for path in raw.rglob("*") if path.suffix.lower() in data_preprocess.SUFFIXES)
        heard = sum(soundfile.info(path).duration for path in files)
        plain_loop(files[:20])                                   # numba compiles on first use
        times = {"plain loop": [], "data_preprocess.py": [], "limit: read and resample": []}
        for _ in range(ROUNDS):
            times["plain loop"].append(seconds(plain_loop, files))
            times["data_preprocess.py"].append(seconds(ours, raw))
            times["limit: read and resample"].append(seconds(limit, files))
    medians = {name: statistics.median(found) for name, found in times.items()}
    print(f"{len(files)} files, {heard:.0f} s of audio, {joblib.cpu_count()} cores, to {SR} Hz")
    for name, median in medians.items():
        print(f"{name:>26}{median:8.1f} s{heard / median:8.0f} x real time")
    ratio = medians["plain loop"] / medians["data_preprocess.py"]
    reach = medians["limit: read and resample"] / medians["data_preprocess.py"]
    print(f"{ratio:.2f} x the plain loop (bar {BAR}), {reach:.0%} of the limit's throughput")
    return int(ratio < BAR)


if __name__ == "__main__":
    sys.exit(main())
