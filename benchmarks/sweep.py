"""The offline sweep against running the network for every threshold vector, and its price on a large grid.

    python benchmarks/sweep.py

A network of LeNet's size with three exits, 10,000 random images, one torch thread. Its weights are random, its
logits scaled so that uncertainties spread over 0 … ln K as a trained network's do. First all 289 pairs of the
paper's 17 thresholds: by the sweep, and by really running the network, in batches that shrink as samples
leave. The network is run for a sample of the pairs only, and the total extrapolated from these. Then 40,000
vectors, in a process of their own, whose peak memory is measured (on Linux).

Shapes: B batch, K classes, N exits, S samples, V threshold vectors.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from branchynet.exits.criteria import Entropy
from branchynet.exits.sweep import OperatingPoints, evaluate_grid, exit_taken, threshold_grid
from branchynet.exits.trace import Trace, compute_trace
from branchynet.runtime.costs import describe_machine

PAPER = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2, 3, 5, 10)
SAMPLES = 10_000
BATCH = 1000
EVERY = 12  # the network is run for one pair in 12: 25 of 289
ROUNDS = 7  # of the sweep; its time is their median
LARGE = 40_000  # vectors

T = TypeVar("T")
entropy = Entropy().forward  # without what a module's call costs


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = ThreeExits().eval()
    images, labels = torch.randn(SAMPLES, 1, 28, 28), torch.randint(10, (SAMPLES,))
    network.calibrate(images[:BATCH])

    machine, versions = describe_machine()
    print(f"{machine}, 1 torch thread, load average {os.getloadavg()[0]:.1f} at the start;")
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    compare_with_running(network, images, labels)
    report_large_grid()


def compare_with_running(network: ThreeExits, images: Tensor, labels: Tensor) -> None:
    pairs = list(itertools.product(PAPER, PAPER))
    timed = range(0, len(pairs), EVERY)
    run_for_real(network, images, pairs[0])  # warm-up

    trace, trace_seconds = clocked(lambda: compute_trace(network.steps(), images.split(BATCH), labels))
    grid = [torch.tensor(PAPER)] * 2
    sweeps = [clocked(lambda: evaluate_grid(trace, grid)) for _ in range(ROUNDS + 1)][1:]
    sweep_seconds = statistics.median(seconds for _, seconds in sweeps)
    points = sweeps[0][0]

    runs = [clocked(lambda i=i: run_for_real(network, images, pairs[i])) for i in timed]
    differing = sum(
        difference(trace, points, i, outcome) for i, (outcome, _) in zip(timed, runs, strict=True)
    )
    seconds = [seconds for _, seconds in runs]
    total = statistics.mean(seconds) * len(pairs)

    print(f"\nAll {len(pairs)} pairs of the paper's thresholds, {SAMPLES:,} samples, 3 exits", end=" ")
    print("(aim: 1,000 times faster):\n")
    print("| | seconds | times faster |\n|---|---:|---:|")
    print(f"| running the network for each pair (extrapolated) | {total:.0f} | 1 |")
    print(f"| sweep | {sweep_seconds:.4f} | {total / sweep_seconds:,.0f} |")
    both = trace_seconds + sweep_seconds
    print(f"| sweep and the pass that gives its trace | {both:.2f} | {total / both:,.0f} |")
    print(
        f"\nThe network was run for {len(runs)} of the {len(pairs)} pairs, every {EVERY}th: "
        f"{statistics.mean(seconds):.2f} s a pair on average, {min(seconds):.2f} … {max(seconds):.2f} s, "
        f"{sum(seconds):.0f} s in all. The sweep's time is the median of {ROUNDS} rounds."
    )
    print(
        f"Of {len(runs) * SAMPLES:,} samples run, {differing:,} left elsewhere or with another answer than "
        f"the sweep has it (rounding in batches of another size)."
    )


def run_for_real(network: ThreeExits, images: Tensor, thresholds: Sequence[float]) -> tuple[Tensor, Tensor]:
    """(S,) predictions and (S,) exits taken: after every exit only the rest of the batch goes on."""
    predictions, exits = [], []
    with torch.inference_mode():
        for x in images.split(BATCH):
            rows = torch.arange(len(x))
            prediction, taken = torch.empty_like(rows), torch.empty_like(rows)
            for n in range(3):
                x, logits = network.step(n, x)
                leaving = torch.ones(len(x), dtype=torch.bool)
                if n < 2:
                    leaving = entropy(logits) < thresholds[n]
                gone = rows[leaving]
                prediction[gone], taken[gone] = logits[leaving].argmax(dim=1), n
                x, rows = x[~leaving], rows[~leaving]
                if not len(rows):
                    break
            predictions.append(prediction)
            exits.append(taken)
    return torch.cat(predictions), torch.cat(exits)


def difference(trace: Trace, points: OperatingPoints, index: int, outcome: tuple[Tensor, Tensor]) -> int:
    """How many samples the network treated otherwise than the trace says; the point itself has to agree."""
    taken = exit_taken(trace.uncertainty, points.thresholds[index])
    predicted = trace.prediction.gather(1, taken[:, None])[:, 0]
    assert points.accuracy[index] == (predicted == trace.label).double().mean()
    prediction, exits = outcome
    return int(((exits != taken) | (prediction != predicted)).sum())


def report_large_grid() -> None:
    child = subprocess.run(
        [sys.executable, __file__, "large"], check=True, capture_output=True, text=True, env=os.environ
    )
    vectors, seconds, before, after = (float(number) for number in child.stdout.split())
    print(
        f"\nA grid from the data, {SAMPLES:,} samples, 3 exits, in a process of its own (aim: 1 second, 1 GB):\n"
    )
    print("| vectors | seconds | memory before, MB | peak during the sweep, MB | the sweep's own, MB |")
    print("|---:|---:|---:|---:|---:|")
    print(f"| {vectors:,.0f} | {seconds:.3f} | {before:.0f} | {after:.0f} | {after - before:.0f} |")


def measure_large_grid() -> None:
    """Print vectors, seconds, the process's memory before and its peak during the sweep, in MB."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    uncertainty = 2.3 * torch.rand(SAMPLES, 3) ** 4
    trace = Trace(uncertainty, torch.randint(10, (SAMPLES, 3)), torch.randint(10, (SAMPLES,)))
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of importing torch
    before = megabytes("VmRSS")
    points, seconds = clocked(lambda: evaluate_grid(trace, threshold_grid(trace, LARGE)))
    print(len(points), seconds, before, megabytes("VmHWM"))


def megabytes(field: str) -> float:
    """VmRSS, what the process holds, or VmHWM, the most that it ever held (Linux gives KB).

    Not getrusage's ru_maxrss: a child inherits its parent's peak there.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1000


def clocked(function: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


class ThreeExits(nn.Module):
    """Some 1.2 M multiply-accumulates: LeNet with two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.segments = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(1, 5, 5, padding=3), nn.MaxPool2d(2), nn.ReLU()),
                nn.Sequential(nn.Conv2d(5, 10, 5, padding=3), nn.MaxPool2d(2), nn.ReLU()),
                nn.Sequential(nn.Conv2d(10, 20, 5, padding=3), nn.MaxPool2d(2), nn.ReLU()),
            ]
        )
        self.heads = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Conv2d(5, 10, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(490, 10)
                ),
                nn.Sequential(nn.Flatten(), nn.Linear(640, 10)),
                nn.Sequential(nn.Flatten(), nn.Linear(500, 84), nn.Linear(84, 10)),
            ]
        )
        self.scales = [1.0, 1.0, 1.0]

    def step(self, n: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features after segment n (0-based) and head n's logits (B, K)."""
        x = self.segments[n](x)
        return x, self.heads[n](x) * self.scales[n]

    def steps(self) -> list[Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]]:
        """As a trace wants them: features, logits, uncertainty."""

        def run(n: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            x, logits = self.step(n, x)
            return x, logits, entropy(logits)

        return [partial(run, n) for n in range(3)]

    def forward(self, x: Tensor) -> list[Tensor]:
        logits = []
        for n in range(3):
            x, out = self.step(n, x)
            logits.append(out)
        return logits

    @torch.inference_mode()
    def calibrate(self, x: Tensor) -> None:
        """Scale the logits to a spread with which entropies reach from 1e-4 to 2."""
        self.scales = [10.0 / float(out.std()) for out in self(x)]


if __name__ == "__main__":
    measure_large_grid() if sys.argv[1:] == ["large"] else main()
