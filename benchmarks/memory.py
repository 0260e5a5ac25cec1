"""Peak memory while 10,000 and 20,000 images are streamed through an engine.

    python benchmarks/memory.py                           # B-AlexNet with random weights
    python benchmarks/memory.py --images 500 --batch 32 --rounds 1   # to see that it works

Every engine and number of images gets processes of its own, in turns, each of which makes each batch as it is
wanted, runs it and forgets it, as one who reads files does. Its peak is the highest resident memory from the first
image to the last, as Linux counts it; what was resident before (libraries, network, engine) stands beside it.
Medians over the processes, with the lowest and the highest peak. Aim: twice the images, the same peak.

It takes three minutes and a half.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from _cases import at_random, of_run, parser, print_machine

from branchynet.runtime.catalogue import make_engine
from branchynet.runtime.early_exit import torch_threads


def main() -> None:
    options = parser(__doc__, images=10_000, rounds=5)
    options.set_defaults(models=["b_alexnet"])
    options.add_argument("--batch", type=int, default=256)
    options.add_argument("--child", nargs=3, help=argparse.SUPPRESS)  # kind, name, engine
    arguments = options.parse_args()
    if arguments.child:
        stream(*arguments.child, arguments)
        return
    print_machine(arguments)
    wanted = [("run", folder) for folder in arguments.run] or [("model", name) for name in arguments.models]
    print(f"Batches of {arguments.batch}.\n")
    print("| network | engine | images | before, MB | peak, MB | lowest … highest | times the first peak |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for kind, name in wanted:
        for engine in arguments.engines:
            numbers = (arguments.images, 2 * arguments.images)
            print_peaks(
                f"{name} | {engine}",
                numbers,
                arguments.rounds,
                lambda images, kind=kind, name=name, engine=engine: in_a_process(
                    kind, name, engine, images, arguments
                ),
            )


def print_peaks(
    label: str, numbers: Sequence[int], rounds: int, measure: Callable[[int], Sequence[float]]
) -> None:
    """Rows of a table, one for each number of images, measured in turns; the first one is what others are held to.

    Args:
        label: the row's first columns.
        numbers: of images.
        rounds: how often each is measured.
        measure: megabytes before and at the peak, for so many images.
    """
    found: dict[int, list[Sequence[float]]] = {images: [] for images in numbers}
    for _ in range(rounds):
        for images in numbers:
            found[images].append(measure(images))
    first = statistics.median(peak for _, peak in found[numbers[0]])
    for images in numbers:
        before, peaks = zip(*found[images], strict=True)
        peak = statistics.median(peaks)
        print(
            f"| {label} | {images:,} | {statistics.median(before):,.0f} | {peak:,.0f} "
            f"| {min(peaks):,.0f} … {max(peaks):,.0f} | {peak / first:.3f} |",
            flush=True,
        )


def in_a_process(
    kind: str, name: str, engine: str, images: int, arguments: argparse.Namespace
) -> tuple[float, float]:
    """Megabytes before the first image, and at the peak after that."""
    options = {"--images": images, "--batch": arguments.batch, "--threads": arguments.threads}
    command = [sys.executable, __file__, "--child", kind, name, engine]
    for option, value in options.items():
        command += [option, str(value)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    before, peak = printed.split()[-2:]
    return float(before), float(peak)


def stream(kind: str, name: str, engine_name: str, arguments: argparse.Namespace) -> None:
    """What a child does; its last line is what it has measured."""
    case = (of_run if kind == "run" else at_random)(name, 256)
    with torch_threads(arguments.threads):
        engine = make_engine(
            engine_name, case.network, case.criteria, case.thresholds, case.shape, arguments.threads
        )
        before = forget_peak()
        rng = np.random.default_rng(1)
        seen = 0
        while seen < arguments.images:
            size = min(arguments.batch, arguments.images - seen)
            seen += len(engine.run(rng.standard_normal((size, *case.shape), np.float32)).exit)
    print(before, peak_megabytes())


def forget_peak() -> float:
    """From here on a new peak counts; the memory that is resident now, in megabytes."""
    Path("/proc/self/clear_refs").write_text("5")  # Linux, proc_pid_clear_refs(5)
    return peak_megabytes()


def peak_megabytes() -> float:
    """The highest resident memory of this process since the peak was last forgotten."""
    status = Path("/proc/self/status")
    if not status.exists():
        sys.exit("this benchmark reads /proc, which this machine has not: run it on Linux")
    (peak,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) / 1024


if __name__ == "__main__":
    main()
