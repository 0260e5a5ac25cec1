"""The frontier of large grids of thresholds, against evaluating every vector.

    python benchmarks/frontier.py

Traces are drawn: samples differ in difficulty, later exits are right more often and surer. One torch thread. Every
measurement runs in a process of its own, whose peak memory is measured (on Linux), without the trace and what
importing takes. The rivals: a plain loop over vectors, which compares all samples with one vector's thresholds at
once, and `evaluate_grid`, which counts all vectors at once and keeps them; both with `pareto`. Both are run on as
many vectors as they can take and extrapolated by their number.

Shapes: N exits, S samples, V threshold vectors.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import torch
from sweep import clocked, megabytes
from torch import Tensor

from branchynet.exits.frontier import pareto
from branchynet.exits.local import local_frontier
from branchynet.exits.relaxation import limits
from branchynet.exits.search import frontier_of_grid
from branchynet.exits.sweep import OperatingPoints, evaluate, evaluate_grid, exit_taken, threshold_grid
from branchynet.exits.trace import Trace
from branchynet.runtime.costs import describe_machine

LOOP = 200  # vectors of the plain loop
LARGEST = 170  # per exit: 170**3 vectors are what `evaluate_grid` can take


def main() -> None:
    machine, versions = describe_machine()
    print(f"{machine}, 1 torch thread, load average {os.getloadavg()[0]:.1f} at the start;")
    print(", ".join(f"{name} {number}" for name, number in versions.items()))

    print("\n125,000,000 vectors, 50,000 samples, 4 exits (aim: 1 second, 1 GB):\n")
    print("| | vectors run | seconds | CPU seconds | peak, MB | for all: CPU seconds | times as long |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    vectors = 500**3
    own = run("search", 50_000, 4, 500)
    for name, found in (
        ("search", own),
        ("evaluate_grid and pareto", run("grid", 50_000, 4, LARGEST)),
        ("plain loop", run("loop", 50_000, 4, LARGEST)),
    ):
        whole = found["cpu"] * vectors / found["vectors"]
        print(
            f"| {name} | {found['vectors']:,.0f} | {found['seconds']:.2f} | {found['cpu']:.2f} | "
            f"{found['mb']:.0f} | {whole:,.2f} | {whole / own['cpu']:,.1f} |"
        )

    print(
        "\nThe same grid by samples (linear, and less):\n\n| samples | seconds | peak, MB |\n|---:|---:|---:|"
    )
    for samples in (12_500, 25_000, 50_000, 100_000):
        found = run("search", samples, 4, 500)
        print(f"| {samples:,} | {found['seconds']:.2f} | {found['mb']:.0f} |")

    print("\nMore exits, 5,000 samples; `missed` against the true frontier, where it can be known:\n")
    print(
        "| exits | per exit | vectors | how | seconds | peak, MB | missed, points | proven: largest | median |"
    )
    print("|---:|---:|---:|---|---:|---:|---:|---:|---:|")
    for exits, per_exit, how in (
        (5, 100, "search"),
        (5, 100, "local"),
        (7, 14, "search"),
        (7, 14, "local"),
        (20, 14, "local"),
        (20, 100, "local"),
    ):
        found = run(how, 5_000, exits, per_exit)
        last = "| 0 | 0 | 0 |"
        if how == "local":
            missed = "–" if math.isnan(found["missed"]) else f"{found['missed']:.2f}"
            last = f"| {missed} | {found['gap']:.2f} | {found['median']:.2f} |"
        print(
            f"| {exits} | {per_exit} | {float(per_exit) ** (exits - 1):.1e} | {how} | {found['seconds']:.1f} | "
            f"{found['mb']:.0f} {last}"
        )


def run(*case: object) -> dict[str, float]:
    child = subprocess.run(
        [sys.executable, __file__, *map(str, case)], check=True, capture_output=True, text=True
    )
    return {name: float(value) for name, value in (pair.split("=") for pair in child.stdout.split())}


def measure(how: str, samples: int, exits: int, per_exit: int) -> None:
    torch.set_num_threads(1)
    trace = drawn(samples, exits)
    grid = threshold_grid(trace, 1, candidates=per_exit)
    cost = [1 + 0.9 * n + 0.02 * n * n for n in range(exits)]
    prices, number = torch.tensor(cost, dtype=torch.float64), math.prod(map(len, grid))
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of importing torch
    before = megabytes("VmRSS")
    found: dict[str, float] = {}

    def of_points(points: OperatingPoints) -> OperatingPoints:
        return points.subset(pareto(points.mean_cost(prices), points.accuracy))

    def work() -> OperatingPoints:
        if how == "search":
            return evaluate(trace, frontier_of_grid(trace, grid, [cost]))
        if how == "grid":
            return of_points(evaluate_grid(trace, grid))
        if how == "loop":
            some = torch.randint(len(grid[0]), (LOOP, exits - 1))
            vectors = torch.stack([values[at] for values, at in zip(grid, some.T, strict=True)], dim=1)
            return of_points(plain_loop(trace, vectors))
        points = evaluate(trace, local_frontier(trace, grid, [cost]))
        (limit,) = limits(trace, grid, [cost], points)
        gaps = torch.tensor([limit.gap_at(point) for point in points])
        found.update(gap=100 * limit.gap(points), median=100 * float(gaps.median()))
        return points

    start = os.times()
    points, seconds = clocked(work)
    end = os.times()
    found |= {"vectors": LOOP if how == "loop" else number, "seconds": seconds, "cpu": end[0] - start[0]}
    found["mb"] = megabytes("VmHWM") - before
    if how == "local":
        found["missed"] = missed(points, trace, grid, cost) if exits < 8 else math.nan
    print(*(f"{name}={value}" for name, value in found.items()))


def missed(points: OperatingPoints, trace: Trace, grid: list[Tensor], cost: list[float]) -> float:
    """The most points of accuracy by which the true frontier is above what was found at its cost."""
    prices = torch.tensor(cost, dtype=torch.float64)
    true = evaluate(trace, frontier_of_grid(trace, grid, [cost]))
    own = points.mean_cost(prices)
    best = torch.stack(
        [points.accuracy[own <= price * (1 + 1e-12)].max() for price in true.mean_cost(prices)]
    )
    return 100 * float((true.accuracy - best).max())


def plain_loop(trace: Trace, vectors: Tensor) -> OperatingPoints:
    right, left = [], []
    for vector in vectors:
        taken = exit_taken(trace.uncertainty, vector)
        right.append(trace.correct.gather(1, taken[:, None]).sum())
        left.append(taken.bincount(minlength=trace.num_exits))
    return OperatingPoints(vectors, torch.stack(right), torch.stack(left))


def drawn(samples: int, exits: int) -> Trace:
    generator = torch.Generator().manual_seed(0)
    difficulty, luck = torch.randn(2, samples, 1, generator=generator)
    margin = torch.linspace(0.3, 1.6, exits) - 0.9 * difficulty
    margin = margin + 0.36 * torch.randn(samples, exits, generator=generator)
    seen = margin + 0.5 * torch.randn(samples, exits, generator=generator)
    # What is right at one exit is mostly right at the next.
    chance = torch.sigmoid(2.5 * margin + 0.5)
    own = torch.rand(samples, exits, generator=generator)
    right = 0.7 * torch.special.ndtr(luck) + 0.3 * own < chance
    return Trace(2.3 * torch.sigmoid(-2.2 * seen), right.long(), torch.ones(samples, dtype=torch.int64))


if __name__ == "__main__":
    measure(sys.argv[1], *map(int, sys.argv[2:])) if sys.argv[1:] else main()
