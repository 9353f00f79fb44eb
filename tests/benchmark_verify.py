"""Speed of verification: the shell command beside a process that only loads its libraries, and a loaded model.

    python tests/benchmark_verify.py [model folder]

Without a folder it makes a model of the paper's size, untrained in one step; the speed is the same. Bars: cold at most
1.0 s over the peer; warm under 150 ms for a probe of 5 s.
"""
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import soundfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import voices

import configuration
import data_preprocess
import model
import verification

RUNS = 7
PEER = "import tensorflow, librosa, sys; librosa.effects.split(librosa.load(sys.argv[1], sr=None)[0])"


def make_model(folder):
    """Train a model of the paper's size for one step on four voices; return its folder."""
    voices.write_corpus(folder / "raw" / "train", range(4), 4, seconds=(2.0, 3.0))
    paths = ["--train_path", str(folder / "train"), "--test_path", str(folder / "test")]
    os.makedirs(folder / "raw" / "test")
    flags = ["--N", "2", "--M", "2", "--iteration", "1", "--valid_ratio", "0.5", "--model_path", str(folder / "model")]
    if data_preprocess.main(["--raw_path", str(folder / "raw"), *paths]) or model.main(["--train", *flags, *paths]):
        sys.exit("the benchmark's model could not be made")
    return folder / "model"


def seconds_of(*command):
    """Return the wall-clock seconds of a process; exit codes 0 and 1 are verdicts."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        sys.exit(done.stderr)
    return time.perf_counter() - started


def warm_seconds(folder, files):
    """Return the seconds that a loaded model takes from a 5 s file to the verdict, after two probes before."""
    verifier = verification.Verifier(configuration.get_config(["--model_path", str(folder), "--threshold", "0"]))
    enrolled, times = verifier.voices(files[0]), []
    for _ in range(RUNS + 2):
        started = time.perf_counter()
        probe, = verifier.probes(files[1])
        verifier.compare(probe, enrolled)
        times.append(time.perf_counter() - started)
    return times[2:]


def main():
    """Measure in turns and print the medians."""
    with tempfile.TemporaryDirectory() as temporary:
        temporary = pathlib.Path(temporary)
        folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else make_model(temporary)
        voices.write_corpus(temporary / "probes", range(2), 1, seconds=(5.5, 6.0))
        files = sorted((temporary / "probes").rglob("*.wav"))
        for file in files:
            wave, sr = soundfile.read(file)
            soundfile.write(file, np.resize(wave, 5 * sr), sr)
        verify = (ROOT / "model.py", "--verify", "--model_path", folder, "--enroll_path", files[0], "--verify_path",
                  files[1], "--threshold", 0)
        cold = [(seconds_of("-c", PEER, files[0]), seconds_of(*verify)) for _ in range(RUNS)]
        peer, ours = map(statistics.median, zip(*cold, strict=True))
        model.use_cores()
        warm = statistics.median(warm_seconds(folder, files))
    print(f"cold: {ours:.2f} s, libraries alone {peer:.2f} s: {ours - peer:.2f} s over them (bar 1.0 s)")
    print(f"warm: {1000 * warm:.0f} ms for a probe of 5 s (bar 150 ms)")


if __name__ == "__main__":
    main()
