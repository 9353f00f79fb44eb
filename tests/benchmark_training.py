"""One training step beside PyTorch's, in medians of one run.

    python tests/benchmark_training.py

Both train 3 x LSTM (128, 64) on the same random log-mel crops (T = 160) with the same loss (GE2E softmax), clipping and
SGD, on two threads, each in a process of its own, in turns. PyTorch flushes denormal numbers, as TensorFlow always
does: without that it is several times slower on these gradients.
"""
import os
import statistics
import subprocess
import sys
import time

import numpy as np

SIZES = {(4, 5): 0.8, (32, 5): 0.7, (64, 10): 0.6}     # (N, M): the most of PyTorch's time that we may take
ROUNDS = 3


def milliseconds(step, repeats):
    """Return the median duration of a call, after two to warm up."""
    durations = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        step()
        durations.append(1e3 * (time.perf_counter() - start))
    return statistics.median(durations[2:])


def crops(n, m, frames=160):
    """Return a batch (N * M, T, 40)."""
    return np.random.default_rng(0).standard_normal((n * m, frames, 40)).astype(np.float32)


def tensorflow_step(n, m, frames=160):
    """Return the project's own training step as a function without arguments."""
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    import common
    import configuration
    import encoder
    import model

    encoder.use_cores()
    config = configuration.get_config(["--train"])
    step = model.build_step(encoder.build_encoder(config), model.build_optimizer(config), n, m, "softmax")
    batch = common.tf.constant(crops(n, m, frames))
    return lambda: float(step(batch, 0.0)[0])


def torch_step(n, m):
    """Return PyTorch's training step as a function without arguments."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(2)
    torch.set_flush_denormal(True)
    lstm = torch.nn.LSTM(40, 128, 3, batch_first=True, proj_size=64)
    w, b = torch.nn.Parameter(torch.tensor(10.0)), torch.nn.Parameter(torch.tensor(-5.0))
    parameters = [*lstm.parameters(), w, b]
    optimizer = torch.optim.SGD(parameters, lr=0.01)
    frames, own = torch.from_numpy(crops(n, m)), torch.eye(n, dtype=torch.bool)[:, None]

    def step():
        optimizer.zero_grad()
        embedded = functional.normalize(lstm(frames)[0][:, -1], dim=-1).view(n, m, -1)
        total = embedded.sum(1)
        cosine = torch.einsum("jid,kd->jik", embedded, functional.normalize(total, dim=-1))
        others = functional.normalize(total[:, None] - embedded, dim=-1)
        cosine = torch.where(own, (embedded * others).sum(-1, keepdim=True), cosine)
        matrix = w.abs() * cosine + b
        loss = (matrix.logsumexp(-1) - torch.where(own, matrix, 0).sum(-1)).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 3.0)
        optimizer.step()
        return float(loss)

    return step


def measure(peer, n, m):
    """Return the milliseconds per step of one peer, measured in a fresh process."""
    done = subprocess.run([sys.executable, __file__, peer, str(n), str(m)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main():
    """Print the table; exit code 1 if a bar is missed."""
    missed = False
    print(f"{'N x M':>8}{'TensorFlow ms':>16}{'PyTorch ms':>14}{'ratio':>8}{'bar':>6}")
    for (n, m), bar in SIZES.items():
        times = {peer: [] for peer in ("tensorflow", "torch")}
        for _ in range(ROUNDS):
            for peer, found in times.items():
                found.append(measure(peer, n, m))
        ours, theirs = (statistics.median(found) for found in times.values())
        missed |= ours / theirs > bar
        print(f"{f'{n} x {m}':>8}{ours:16.1f}{theirs:14.1f}{ours / theirs:8.2f}{bar:6.1f}")
    return int(missed)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        rows = (int(sys.argv[2]), int(sys.argv[3]))
        step = {"tensorflow": tensorflow_step, "torch": torch_step}[sys.argv[1]](*rows)
        print(milliseconds(step, 5 if rows[0] > 32 else 15))
    else:
        sys.exit(main())
