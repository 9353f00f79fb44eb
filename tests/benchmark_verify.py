"""Speed and memory of verification: whole processes beside one that only loads TensorFlow and librosa; a loaded model.

    python tests/benchmark_verify.py [model folder]

The folder is ./pretrained where none is given. Bars: a cold verdict on two recordings of 5 s in at most 0.33 x the time
of a process that imports tensorflow and librosa and calls `librosa.effects.split` once, and with at most 250 MB; warm
under 15 ms for a probe of 5 s; `record.py --verify True` prints its verdict within 0.3 s of the last sample (it needs
PulseAudio and PortAudio). What the imports cost: python -X importtime model.py --verify True ...
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
import verification

RUNS = 7
PEER = "import tensorflow, librosa, sys; librosa.effects.split(librosa.load(sys.argv[1], sr=None)[0])"


def cost_of(*command):
    """Return the wall-clock seconds and the peak memory (MB) of a process; exit codes 0 and 1 are verdicts."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 1):
        sys.exit(f"{command} failed")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def warm_seconds(folder, files):
    """Return the seconds that a loaded model takes from a 5 s file to the verdict, after two probes before."""
    verifier = verification.Verifier(configuration.get_config(["--model_path", str(folder), "--threshold", "0"]))
    enrolled, times = verifier.voices(files[0]), []
    for _ in range(20 * RUNS + 2):
        started = time.perf_counter()
        probe, = verifier.probes(files[1])
        verifier.compare(probe, enrolled)
        times.append(time.perf_counter() - started)
    return times[2:]


def seconds_after_the_last_sample(folder, files, temporary):
    """Return the seconds from the last sample that record.py --verify True takes to its verdict, one per run."""
    from conftest import Microphone

    enrol = (sys.executable, ROOT / "record.py", "--model_path", folder, "--enroll_path", temporary / "enroll")
    subprocess.run([*map(str, enrol), "--input", str(files[0])], check=True, capture_output=True)
    probe = (*enrol, "--verify", "--verify_path", temporary / "verify", "--device", "pulse", "--seconds", "3")
    wave, sr = soundfile.read(files[0], dtype="int16")
    microphone = Microphone(temporary)
    microphone.start(sr)
    microphone.play(wave, sr)
    found = []
    try:
        for _ in range(RUNS):
            process = subprocess.Popen(list(map(str, probe)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                       env=microphone.environment)
            while "speak now" not in process.stderr.readline():     # printed when the first 0.05 s are there
                pass
            ended = time.perf_counter() + 3 - 0.05
            process.stdout.readline()
            found.append(time.perf_counter() - ended)
            process.communicate()
    finally:
        microphone.stop()
    return found


def main():
    """Measure in turns and print the medians."""
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "pretrained"
    with tempfile.TemporaryDirectory(prefix="mic") as temporary:
        temporary = pathlib.Path(temporary)
        voices.write_corpus(temporary / "probes", range(2), 1, seconds=(5.5, 6.0))
        files = sorted((temporary / "probes").rglob("*.wav"))
        for file in files:
            wave, sr = soundfile.read(file)
            soundfile.write(file, np.resize(wave, 5 * sr), sr)
        verify = (ROOT / "model.py", "--verify", "--model_path", folder, "--enroll_path", files[0], "--verify_path",
                  files[1], "--threshold", 0)
        cost_of(*verify)                                                        # its export is made once, if it is not
        cold = [(*cost_of("-c", PEER, files[0]), *cost_of(*verify)) for _ in range(RUNS)]
        peer, peer_memory, ours, memory = map(statistics.median, zip(*cold, strict=True))
        warm = statistics.median(warm_seconds(folder, files))
        spoken = statistics.median(seconds_after_the_last_sample(folder, files, temporary))
    print(f"cold: {ours:.2f} s, libraries alone {peer:.2f} s: {ours / peer:.2f} x (bar 0.33 x)")
    print(f"memory: {memory:.0f} MB, libraries alone {peer_memory:.0f} MB (bar 250 MB)")
    print(f"warm: {1000 * warm:.1f} ms for a probe of 5 s (bar 15 ms)")
    print(f"record.py: verdict {spoken:.2f} s after the last sample (bar 0.3 s)")


if __name__ == "__main__":
    main()
