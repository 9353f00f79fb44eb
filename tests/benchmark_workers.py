"""Two training workers of one core each beside one, in one run: steps per second and what the exchange costs.

    python tests/benchmark_workers.py

Batches of 24 x 5 on synthetic features. Two workers see twice the utterances per step; a step takes as long as that of
one worker, and the exchange of the gradients (210,434 numbers, 0.8 MB) on top. Needs Linux and two cores.
"""
import csv
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
STEPS = 300
FLAGS = ("--train", "--N", "24", "--M", "5", "--iteration", str(STEPS), "--valid_ratio", "0", "--valid_every",
         str(STEPS))


def make_features(folder):
    """Write features of 32 speakers with 10 segments each, as the ancestors did: no description beside them."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(32):
        np.save(folder / f"s{number:02}.npy", rng.standard_normal((10, 40, 180)).astype(np.float32))


def free_port():
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def milliseconds_per_step(data, folder, workers):
    """Train with that many workers, each on a core of its own; return the median time of a step."""
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(workers)]
    flags = [*FLAGS, "--train_path", str(data), "--model_path", str(folder)]
    processes = []
    for number in range(workers):
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": number}}
        processes.append(subprocess.Popen(
            ["taskset", "-c", str(number), sys.executable, str(ROOT / "model.py"), *flags,
             *(["--strategy", "multi_worker"] if workers > 1 else [])], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env=os.environ | {"TF_CONFIG": json.dumps(cluster)}))
    if any(process.wait(600) for process in processes):
        sys.exit("a worker failed")
    with open(folder / "history.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[1:]                  # the first one holds the compilation
    return float(np.median([1e3 * 24 * 5 / float(row["utterances_per_second"]) for row in rows]))


def main():
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        make_features(folder / "train")
        one, two = (milliseconds_per_step(folder / "train", folder / str(workers), workers) for workers in (1, 2))
    print(f"one worker:  {one:6.1f} ms per step, {120e3 / one:5.0f} utterances/s")
    print(f"two workers: {two:6.1f} ms per step, {240e3 / two:5.0f} utterances/s, {2 * one / two:.2f} x")
    print(f"the exchange costs {two - one:.1f} ms per step")


if __name__ == "__main__":
    main()
