"""Batches with exits really taken, against the baseline at the same batch size.

    python benchmarks/throughput.py                       # three networks with random weights
    python benchmarks/throughput.py --run <run folder>    # a trained one at its operating point, on test images
    python benchmarks/throughput.py --images 64 --batches 1 32 --rounds 1 --models b_lenet    # to see that it works

All images go through in batches, one batch size after the other. Three take turns, round after round:

baseline   the undivided network in the same engine's `run`, as a network of one exit
engine     `run` with exits: segments, heads, criterion, decisions, what is copied, results in order
bare       the segments alone, each with its head and criterion, on the very numbers of rows that reach them in
           those batches, from memory that is there already: what the gain would be if leaving cost nothing

The gain is the baseline's time over the engine's, the bare gain its time over the bare segments'; their ratio is
what leaving costs. Beside them stands the gain in MACs at the same exit rates.
With random weights the exit rates are the paper's, by thresholds at quantiles.

It takes half a minute an engine for B-LeNet and B-AlexNet each, five for B-ResNet-110.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from _cases import Case, for_every, in_rounds, parser, print_machine, ratio

from branchynet.networks.branched import undivided
from branchynet.runtime.base import Backend, Engine
from branchynet.runtime.catalogue import make_engine
from branchynet.runtime.costs import count_macs
from branchynet.runtime.host import HostEngine
from branchynet.runtime.onnx import OnnxRuntime
from branchynet.runtime.steps import without_repeats
from branchynet.runtime.verify import run_in_batches

BATCHES = (1, 8, 64, 256, 1024)


def main() -> None:
    options = parser(__doc__, images=1024, rounds=5)
    options.add_argument("--batches", type=int, nargs="*", default=BATCHES)
    arguments = options.parse_args()
    print_machine(arguments)
    print(f"{arguments.images:,} images, medians of {arguments.rounds} rounds in turns.")
    for_every(compare, arguments)


def compare(case: Case, backend: Backend, arguments: argparse.Namespace) -> None:
    """Prints a table: a row for every batch size."""
    threads = arguments.threads
    engine = make_engine(backend, case.network, case.criteria, case.thresholds, case.shape, threads)
    whole = undivided(case.baseline)
    baseline = make_engine(backend, whole, case.last_criterion, (), case.shape, threads)
    exits = run_in_batches(engine, case.images, 256).exit_index
    rates = np.bincount(exits, minlength=case.network.num_exits) / len(exits)
    macs = count_macs(case.network, case.shape, case.criteria)
    gain_macs = macs.baseline / float(rates @ np.array(macs.exits))
    left = ", ".join(f"{100 * rate:.1f}" for rate in rates)
    print(f"\n{case.name}, {backend.name}: leaving {left} %, gain in MACs {gain_macs:.2f}.")
    print("Aims at batch 256: 0.9 of the bare gain; from B-AlexNet upward 0.85 of the gain in MACs.\n")
    print("| batch | baseline, images a second | engine | gain | bare gain | of it | of the gain in MACs |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for batch in arguments.batches:
        size = min(batch, len(case.images))
        batches = [case.images[start : start + size] for start in range(0, len(case.images), size)]
        seconds = in_rounds(
            {
                "baseline": partial(run_all, baseline, batches),
                "engine": partial(run_all, engine, batches),
                "bare": bare(backend, engine, case, size, exits),
            },
            arguments.rounds,
        )
        speeds = [len(case.images) / np.median(seconds[key]) for key in ("baseline", "engine")]
        gain = ratio(seconds["baseline"], seconds["engine"])
        print(
            f"| {size} | {speeds[0]:,.0f} | {speeds[1]:,.0f} | {gain:.2f} "
            f"| {ratio(seconds['baseline'], seconds['bare']):.2f} "
            f"| {ratio(seconds['bare'], seconds['engine']):.2f} | {gain / gain_macs:.2f} |",
            flush=True,
        )


def run_all(engine: Engine, batches: Sequence[np.ndarray]) -> None:
    for batch in batches:
        engine.run(batch)


def bare(backend: Backend, engine: Engine, case: Case, size: int, exits: np.ndarray) -> Callable[[], None]:
    """All that the segments have to compute for these exits, and nothing else."""
    counts = []
    for start in range(0, len(exits), size):
        taken = exits[start : start + size]
        counts.append([int((taken >= n).sum()) for n in range(case.network.num_exits)])
    calls: list[Callable[[], object]] = []
    if isinstance(engine, HostEngine):
        arrays = [np.ascontiguousarray(case.images[:size])]
        with torch.inference_mode():
            for segment in without_repeats(case.network, case.criteria).segments:
                arrays.append(segment(torch.from_numpy(arrays[-1])).contiguous().numpy())
        for row in counts:
            for n, (model, rows) in enumerate(zip(engine.models, row, strict=True)):
                if rows:
                    outputs = [np.empty(rows, np.int64), np.empty(rows, np.float32)]
                    if engine.features[n] is not None:
                        # Written over what the next segment reads, as in the engine.
                        outputs.append(arrays[n + 1][:rows])
                    inputs = [arrays[n][:rows]]
                    before = engine.beside[n - 1] if n else ()
                    inputs += [np.zeros((rows, width), np.float32) for width in before]
                    outputs += [np.empty((rows, width), np.float32) for width in engine.beside[n]]
                    bind = partial(model.bind, inputs, outputs)
                    # OpenVINO has one binding at a time.
                    once = isinstance(backend, OnnxRuntime)
                    calls.append(bind() if once else partial(bind_and_call, bind))
    else:
        with torch.inference_mode():
            handed = [[torch.from_numpy(case.images[:size])]]
            for n in range(case.network.num_exits):
                features, _, _, *beside = engine.step(n, *handed[-1])
                handed.append([features, *beside])  # in the layout that the engine has there
        for row in counts:
            for n, rows in enumerate(row):
                if rows:
                    calls.append(partial(engine.step, n, *(each[:rows] for each in handed[n])))

    @torch.inference_mode()
    def run() -> None:
        for call in calls:
            call()

    return run


def bind_and_call(bind: Callable[[], Callable[[], object]]) -> None:
    bind()()


if __name__ == "__main__":
    main()
