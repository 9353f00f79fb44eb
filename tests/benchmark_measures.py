"""Speed of scoring and measuring trials.

    python tests/benchmark_measures.py

1,000,000 trials of 5,000 d-vectors scored, and all measures of them; 1,000 resamples of 100 speakers and 100,000
trials. Each in a process of its own, with its peak memory. Bars: 5 s, 20 s, 1 GB.
"""
import json
import pathlib
import subprocess
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def draw(n_speakers, n_trials, n_targets, each):
    """Return d-vectors by name, and names and labels of trials."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((n_speakers, 64))
    names = [f"s{speaker}/{number}" for speaker in range(n_speakers) for number in range(each)]
    vectors = np.repeat(centres, each, axis=0) + rng.standard_normal((len(names), 64))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    first, second = rng.integers(len(names), size=(2, n_trials))
    second[:n_targets] = first[:n_targets] // each * each + rng.integers(each, size=n_targets)
    labels = first // each == second // each
    return (dict(zip(names, vectors.astype(np.float32), strict=True)), [names[i] for i in first],
            [names[i] for i in second], labels, np.stack((first, second)) // each)


def measure(kind):
    """Return seconds and peak memory (MB) of one kind."""
    import resource

    import measures
    import test

    if kind == "measures":
        vectors, enrolled, probes, labels, _ = draw(500, 1_000_000, 10_000, 10)
        started = time.perf_counter()
        scores = test.trial_cosines(vectors, vectors, enrolled, probes)
        measures.all_measures(measures.Trials(scores, labels), None, measures.Trials(12 * scores - 3, labels))
    else:
        vectors, enrolled, probes, labels, speakers = draw(100, 100_000, 10_000, 10)
        scores = test.trial_cosines(vectors, vectors, enrolled, probes)
        started = time.perf_counter()
        ratios = measures.Trials(12 * scores - 3, labels)
        measures.bootstrap(measures.Trials(scores, labels), *speakers, ratios=ratios)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main():
    """Measure both and print them beside their bars."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
        return
    for kind, words, bar in (("measures", "1,000,000 trials scored, all measures", 5),
                             ("bootstrap", "1,000 resamples of 100,000 trials", 20)):
        done = subprocess.run([sys.executable, __file__, kind], capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        print(f"{words}: {found['seconds']:.1f} s (bar {bar} s), peak {found['megabytes']:.0f} MB (bar 1000 MB)")


if __name__ == "__main__":
    main()
