"""One training step beside PyTorch's, in medians of one run.

    python tests/benchmark_training.py

Both train 3 x LSTM (128, 64) on the same random log-mel crops (T = 160) with the same loss (GE2E softmax), clipping and
SGD, on two threads, each in a process of its own, in turns. PyTorch flushes denormal numbers, as TensorFlow always
does: without that it is several times slower on these gradients. The last row is the paper's size, (768, 256). The
floor of a step is its matrix work, forward and backward, at the rate of NumPy's product of 4096 x 4096 float32 in this
run.

What was tried for the step, in ms at 32 x 5 and 64 x 10, where it took 224 and 776: a custom gradient layer by layer
453, 1796; the batch split in two 315, 1305; a custom gradient of the cell 241, 850; XLA on the cell 235, 714; oneDNN's
bf16 230, 782; oneDNN off 243, 980. A processor that computes in bf16 (AVX512_BF16), two processes each, at 4 x 5, 64 x
10 and of the paper's size at 4 x 5: as it is 34 to 44, 507 to 523, 534 to 889; with oneDNN's bf16 38 to 43, 471 to
501, 541 to 616; oneDNN off 53 to 55, 540 to 636, 1330 to 1533. XLA on the whole step, in another run, at 4 x 5 and 64
x 10, where it took 74 and 763: 103, 1445; the same with a loop per layer whose input product is taken out of it: 99,
3565. None of them is shorter or clearly faster, and XLA compiles anew, 2 to 10 s, for each length of crops.

What it does since: the graph knows the size of its batch, so that no gradient looks for it at every frame, and the
biases are a row of the kernel. Five pairs of processes in turns, before and since, medians of their medians (of their
fastest steps): at 4 x 5 98.5, 89.4 (82.7, 71.2), at 64 x 10 1210, 1154 (974, 967), of the paper's size at 4 x 5 1220,
963 (947, 901).

Tried beside it, one to five processes each, the range of their fastest steps at 4 x 5, 64 x 10 and of the paper's size
at 4 x 5: as it was before 74 to 96, 844 to 941, 827 to 838; the batch's size alone 58 to 67, 970; with the biases added
at once 61 to 74, 860 to 961, 751 to 779; as a row of the kernel 59 to 69, 810 to 891, 717 to 817; that, and a product
for each gate, 61 to 74, 729 to 833, 685 to 824; that, and the sequences as columns, so that parting the gates copies
nothing, 64 to 80, 718 to 799, 1018 to 1107; one tanh for all gates, with rows 63 to 78, 1037, with columns 65 to 71,
760. TensorFlow's own BlockLSTM, with the projections folded into its kernels, had medians of 156 and 2553.

The gates' gradients kept, and one product for the gradient of each kernel over all frames, on the EPYC, medians of two
processes at 4 x 5, 32 x 5, 64 x 10 and of the paper's size: 58 to 59, 160 to 189, 586 to 629, 426 to 461, and 1.4 GB
more at 64 x 10, where the step as it is took 34 to 49, 133 to 154, 476 to 517, 499 to 529.
"""
import os
import statistics
import subprocess
import sys
import time

import numpy as np

OURS, PAPERS = (128, 64), (768, 256)                   # hidden, proj
# (N, M, size): the most of PyTorch's time that we may take.
SIZES = {(4, 5, OURS): 0.5, (32, 5, OURS): 0.7, (64, 10, OURS): 0.6, (4, 5, PAPERS): 1.0}
FLOOR = 1.8                                            # the most of the floor's time that 64 x 10 may take
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


def tensorflow_step(n, m, frames=160, size=OURS):
    """Return the project's own training step as a function without arguments."""
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    import common
    import configuration
    import encoder
    import model
    import utils

    encoder.use_cores()
    config = configuration.get_config(["--train", "--hidden", str(size[0]), "--proj", str(size[1]),
                                       "--N", str(n), "--M", str(m)])
    step = model.build_step(encoder.build_encoder(config), utils.build_optimizer(config), config)
    batch = common.tf.constant(crops(n, m, frames))
    return lambda: float(step(batch, 0.0)[0])


def torch_step(n, m, size):
    """Return PyTorch's training step as a function without arguments."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(2)
    torch.set_flush_denormal(True)
    lstm = torch.nn.LSTM(40, size[0], 3, batch_first=True, proj_size=size[1])
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


def floor_milliseconds(n, m, size, frames=160):
    """Return how long a step's products would take at the rate of a large one: forward, and twice that backward."""
    hidden, proj = size
    inputs = 40 + 5 * proj                                 # of three layers, from below and from their own last frame
    work = 3 * 2 * n * m * frames * (inputs * 4 * hidden + 3 * hidden * proj)
    square = np.random.default_rng(0).standard_normal((4096, 4096), np.float32)
    return work / (2 * 4096**3 / milliseconds(lambda: square @ square, 5))


def measure(peer, n, m, size):
    """Return the milliseconds per step of one peer, measured in a fresh process."""
    numbers = map(str, (n, m, *size))
    done = subprocess.run([sys.executable, __file__, peer, *numbers], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main():
    """Print the table; exit code 1 if a bar is missed."""
    missed = False
    print(f"{'size':>12}{'N x M':>9}{'TensorFlow ms':>16}{'PyTorch ms':>13}{'ratio':>8}{'bar':>6}{'floor ms':>11}"
          f"{'x floor':>9}")
    for (n, m, size), bar in SIZES.items():
        times = {peer: [] for peer in ("tensorflow", "torch")}
        for _ in range(ROUNDS):
            for peer, found in times.items():
                found.append(measure(peer, n, m, size))
        ours, theirs = (statistics.median(found) for found in times.values())
        floor = floor_milliseconds(n, m, size)
        missed |= ours / theirs > bar or (n == 64 and ours / floor > FLOOR)
        print(f"{f'{size[0]}, {size[1]}':>12}{f'{n} x {m}':>9}{ours:16.1f}{theirs:13.1f}{ours / theirs:8.2f}{bar:6.1f}"
              f"{floor:11.1f}{ours / floor:9.2f}", flush=True)
    print(f"(bar of 64 x 10: {FLOOR} x its floor)")
    return int(missed)


if __name__ == "__main__":
    if len(sys.argv) == 6:
        n, m, *size = map(int, sys.argv[2:])
        step = tensorflow_step(n, m, size=size) if sys.argv[1] == "tensorflow" else torch_step(n, m, size)
        print(milliseconds(step, 5 if n > 32 else 15))
    else:
        sys.exit(main())
