"""Training on features that do not fit into memory: start, memory, open files and steps, beside data in the cache.

    python tests/benchmark_data.py                  20,000 speakers, five utterances with four copies each
    python tests/benchmark_data.py 1000 FOLDER      fewer; FOLDER keeps the features for another run

Features of 20,000 speakers take 29 GB. Training runs on all speakers from a cold cache, and on 100 of them, which are
in memory after a few steps, before and after it. All take batches of 24 x 5 with copies; steps are compared after the
first hundred. Needs Linux; the cache is emptied where the user may (as root).

Then how the cost grows: the start with the speakers, a step with N, M and T.
"""
import contextlib
import csv
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import termios
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import benchmark_training

import configuration
import features
from common import write_json

SPEAKERS, FEW, UTTERANCES, COPIES, SEGMENTS, STEPS = 20000, 100, 5, 4, 2, 600
START_SECONDS, MEMORY_MB, MORE_FILES, SLOWER = 20, 1500, 20, 1.1          # the bars; 16 files are read ahead


def entry_of(file, first):
    """Return what a description says of an utterance or a copy of SEGMENTS rows."""
    return {"file": file, "first": first, "count": SEGMENTS, "seconds": 4.5, "speech_seconds": 3.9, "snr": 20.0,
            "bandwidth": 8000, "dropped": ""}


def make_features(folder, number):
    """Write the features of that many speakers, and what describes them, as preprocessing does."""
    config = configuration.get_config(["--sr", "16000"])
    settings, rng = features.feature_settings(config), np.random.default_rng(0)
    rows = UTTERANCES * (1 + COPIES) * SEGMENTS
    for index in range(number):
        utterances = [entry_of(f"{take}.flac", SEGMENTS * take) for take in range(UTTERANCES)]
        for take, entry in enumerate(utterances):
            entry["copies"] = [entry_of(f"{take}.flac", SEGMENTS * (UTTERANCES + COPIES * take + copy))
                               for copy in range(COPIES)]
        record = {"speaker": f"s{index:05}", "utterances": utterances, "settings": settings, "segments": rows,
                  "source": f"/raw/{index // 5000}/s{index:05}"}
        voice = rng.standard_normal((rows, 40, 1), np.float32) + rng.standard_normal(180, np.float32)
        features.write_features(folder, record, [voice])
    write_json(folder / "manifest.json", {"settings": settings})


def link_speakers(source, target, number):
    """Make a folder of the first speakers of another one."""
    target.mkdir()
    for path in (*sorted(source.glob("s*"))[:2 * number], source / "manifest.json"):
        (target / path.name).symlink_to(path)


def empty_cache():
    """Let the system forget the files that it holds in memory, where we may."""
    os.sync()
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")


def observe(process):
    """Return the memory of a process that files do not back, in MB, and how many files it has open."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    anonymous = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(anonymous.split()[1]) / 1024, len(os.listdir(f"/proc/{process.pid}/fd"))


def train(data, target):
    """Train; return the seconds to the first step, the most memory and open files, and the milliseconds of a step."""
    empty_cache()
    begun, memory, files, first = time.perf_counter(), 0.0, 0, None
    command = [sys.executable, str(ROOT / "model.py"), "--train", "True", "--train_path", str(data), "--model_path",
               str(target), "--N", "24", "--M", "5", "--weigh", "True", "--one_corpus", "True", "--valid_ratio", "0",
               "--iteration", str(STEPS), "--valid_every", str(STEPS)]
    terminal, theirs = os.openpty()                            # where a bar shows each step
    termios.tcsetwinsize(theirs, (24, 100))
    os.set_blocking(terminal, False)
    process, shown = subprocess.Popen(command, stdout=theirs, stderr=theirs, cwd=ROOT), ""
    os.close(theirs)
    while process.poll() is None:
        with contextlib.suppress(OSError, StopIteration):
            now = observe(process)
            memory, files = max(memory, now[0]), max(files, now[1])
        with contextlib.suppress(OSError):                     # nothing new, or the end
            shown += os.read(terminal, 65536).decode(errors="replace")
        if first is None and re.search(rf"[1-9]\d*/{STEPS} ", shown):
            first = time.perf_counter() - begun
        time.sleep(0.05)
    os.close(terminal)
    if process.returncode:
        sys.exit(shown)
    with open(target / "history.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[1:]                  # the first one holds the compilation
    return first, memory, files, statistics.median(1e3 * 24 * 5 / float(row["utterances_per_second"]) for row in rows)


def compare(data, few, models):
    """Print the table; return whether a bar is missed."""
    runs = {name: train(folder, models / str(number)) for number, (name, folder) in enumerate((
        (f"{FEW} speakers", few), ("all", data), (f"{FEW} speakers again", few)))}
    print(f"{'':>20}{'start s':>10}{'memory MB':>12}{'files':>8}{'step ms':>10}")
    for name, (first, memory, files, step) in runs.items():
        print(f"{name:>20}{first:10.1f}{memory:12.0f}{files:8}{step:10.1f}")
    (before, (first, memory, files, step), after) = runs.values()
    slower = step / statistics.mean((before[3], after[3]))
    print(f"steps {slower:.2f} x those on data in memory (bar {SLOWER}), start bar {START_SECONDS} s, memory bar "
          f"{MEMORY_MB} MB, files bar {MORE_FILES} more than on {FEW} speakers")
    return slower > SLOWER or first > START_SECONDS or memory > MEMORY_MB or files > before[2] + MORE_FILES


def show_growth(data, folder, number):
    """Print how long speakers take to be listed, from a warm cache, and how long a step takes."""
    for part in (number // 4, number // 2, number):
        link_speakers(data, folder / f"part{part}", part)
        begun = time.perf_counter()
        features.load_features(folder / f"part{part}")
        print(f"{part:8} speakers are listed in {time.perf_counter() - begun:6.1f} s")
    for n, m, frames in ((24, 5, 160), (48, 5, 160), (24, 10, 160), (24, 5, 80), (24, 5, 320)):
        step = benchmark_training.tensorflow_step(n, m, frames)
        print(f"{n:4} x {m:2}, T = {frames:3}: {benchmark_training.milliseconds(step, 15):6.1f} ms a step")


def main():
    """Measure; exit code 1 if a bar is missed."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else SPEAKERS
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        data = pathlib.Path(sys.argv[2]).absolute() if len(sys.argv) > 2 else folder / "data"
        if not (data / "manifest.json").exists():
            make_features(data, number)
        link_speakers(data, folder / "few", FEW)
        missed = compare(data, folder / "few", folder)
        show_growth(data, folder, number)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
