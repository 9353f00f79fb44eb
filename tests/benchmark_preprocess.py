"""Preprocessing beside a plain loop, and beside the limit that reading and resampling set.

    python tests/benchmark_preprocess.py            synthetic voices, written as 16 kHz FLAC: 6.4 h of audio
    python tests/benchmark_preprocess.py DIR        own audio, one folder per speaker

The plain loop, in one process, does for each file what the ancestors did: load, split into voiced stretches, and for
each stretch one STFT and one mel basis; it writes nothing. The limit reads and resamples every file on all cores and
does nothing else; it loads no more than that takes, as its start counts too, and its processes give memory back to the
system as usual, which ours do not (`common.keep_memory`). Each is timed as a command of its own, from its start to its
end, in turns; medians are compared.
"""
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import joblib
import numpy as np
import soundfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
import audio

BAR, REACH = 2.5, 0.8
ROUNDS = 3
SR = 8000


def recordings(raw):
    """Return all recordings below a folder."""
    return sorted(path for path in pathlib.Path(raw).rglob("*") if path.suffix.lower() in audio.SUFFIXES)


def plain_loop(raw):
    """Compute the log-mel spectrogram of every voiced stretch of every file, one after the other."""
    import librosa

    for path in recordings(raw):
        wave, _ = librosa.load(path, sr=SR)
        for start, end in librosa.effects.split(wave, top_db=30, frame_length=200, hop_length=80):
            stft = librosa.stft(wave[start:end], n_fft=512, win_length=200, hop_length=80)
            mel = librosa.filters.mel(sr=SR, n_fft=512, n_mels=40)
            np.log10(mel @ np.abs(stft) ** 2 + 1e-6)


def read_all(paths):
    """Read and resample files."""
    for path in paths:
        audio.load_audio(path, SR)


def limit(raw):
    """Read and resample all files on all cores, a folder at a time."""
    folders = {}
    for path in recordings(raw):
        folders.setdefault(path.parent, []).append(path)
    joblib.Parallel(n_jobs=-1)(joblib.delayed(read_all)(paths) for paths in folders.values())


def seconds(*command):
    """Return how long a command of this interpreter takes."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *map(str, command)], check=True, capture_output=True, cwd=ROOT,
                   env=os.environ | {"PYTHONWARNINGS": "ignore"})
    return time.perf_counter() - start


def preprocess_seconds(raw):
    """Return how long data_preprocess.py takes, into new folders."""
    with tempfile.TemporaryDirectory() as out:
        return seconds(ROOT / "data_preprocess.py", "--raw_path", raw, "--train_path", f"{out}/train",
                       "--test_path", f"{out}/test")


def synthesise(folder):
    """Write 40 voices of 12 utterances as FLAC, each voice under ten names."""
    import voices

    for number in range(40):
        voice = voices.make_voice(np.random.default_rng([0, number]))
        home = pathlib.Path(folder, f"voice{number:02}-0")
        home.mkdir()
        for take in range(12):
            rng = np.random.default_rng([0, number, take + 1])
            soundfile.write(home / f"{take}.flac", voices.utterance(voice, 4.0, rng), voices.SR)
        for name in range(1, 10):
            shutil.copytree(home, home.with_name(f"voice{number:02}-{name}"))


def compare(raw):
    """Print the table; return 1 if the bar is missed."""
    files = recordings(raw)
    heard = sum(soundfile.info(path).duration for path in files)
    work = {"plain loop": lambda: seconds(__file__, "plain_loop", raw),
            "data_preprocess.py": lambda: preprocess_seconds(raw),
            "limit: read and resample": lambda: seconds(__file__, "limit", raw)}
    times = {name: [] for name in work}
    for _ in range(ROUNDS):
        for name, measure in work.items():
            times[name].append(measure())
    medians = {name: statistics.median(found) for name, found in times.items()}
    print(f"{len(files)} files, {heard:.0f} s of audio, {joblib.cpu_count()} cores, to {SR} Hz")
    for name, median in medians.items():
        print(f"{name:>26}{median:8.1f} s{heard / median:8.0f} x real time")
    ratio = medians["plain loop"] / medians["data_preprocess.py"]
    reach = medians["limit: read and resample"] / medians["data_preprocess.py"]
    print(f"{ratio:.2f} x the plain loop (bar {BAR}), {reach:.0%} of the limit's throughput (bar {REACH:.0%})")
    return int(ratio < BAR or reach < REACH)


def main():
    """Compare on the folder given, else on synthetic voices."""
    if len(sys.argv) > 1:
        return compare(sys.argv[1])
    with tempfile.TemporaryDirectory() as raw:
        synthesise(raw)
        return compare(raw)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        from benchmark_preprocess import limit, plain_loop  # importable by the worker processes

        {"plain_loop": plain_loop, "limit": limit}[sys.argv[1]](sys.argv[2])
    else:
        sys.exit(main())
