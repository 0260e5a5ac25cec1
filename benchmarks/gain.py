"""The gain at the operating point, batch 1: in MACs, of the bare layers, predicted and measured.

    python benchmarks/gain.py                         # three networks with random weights
    python benchmarks/gain.py --run <run folder>      # a trained one at its operating point, on test images
    python benchmarks/gain.py --images 20 --seconds 0.02 --models b_lenet    # to see that it works

A gain is the baseline's cost over the mean cost at the exit rates that the engine really had on these images:

MACs        multiply-accumulates
bare        the time of the bare layers up to each exit, all heads on the way included, without criterion, decision
            and host's loop: one undivided model for each exit, run as the engine runs layers, see overhead.py
predicted   the time of the engine's `run` when everything leaves at exit n, in turns with the baseline
measured    the mean time of the engine over the images, each in its turn with the baseline

So what lies between MACs and bare is the layers' own: those before the exits take more time for a MAC than the
others do (layers.py says which). What lies between bare and predicted is what leaving costs.

It takes a quarter of a minute an engine for B-LeNet and B-AlexNet each, two minutes for B-ResNet-110; more
where an engine compiles.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
from _cases import Case, Layers, engine_at, for_every, parser, print_machine

from branchynet.runtime.base import Backend
from branchynet.runtime.catalogue import make_engine
from branchynet.runtime.costs import count_macs, in_turns
from branchynet.runtime.verify import run_for_real


def main() -> None:
    options = parser(__doc__, images=1000, rounds=0)
    options.add_argument("--seconds", type=float, default=1.0, help="of measuring, for each candidate")
    arguments = options.parse_args()
    print_machine(arguments)
    print(f"Batch 1, {arguments.images:,} images.\n")
    print("| network | engine | left at each exit, % | baseline, µs | MACs | bare | predicted | measured |")
    print("|---|---|---|---:|---:|---:|---:|---:|")
    for_every(compare, arguments)


def compare(case: Case, backend: Backend, arguments: argparse.Namespace) -> None:
    """Prints a row."""
    count = case.network.num_exits
    engine = make_engine(backend, case.network, case.criteria, case.thresholds, case.shape, arguments.threads)
    baseline = backend.classifier(case.baseline, case.shape, arguments.threads)
    real = run_for_real(engine, baseline, lambda: [case.images], arguments.threads)
    rates = np.bincount(real.outcome.exit_index, minlength=count) / len(case.images)

    x = case.images[:1]
    candidates: dict[str, Callable[[], object]] = {"baseline": partial(baseline, x)}
    for n in range(count):
        candidates[f"predicted {n}"] = partial(engine_at(engine, n, count).run, x)
        layers = backend.chain([Layers(case.network, n + 1)], case.shape, arguments.threads)
        candidates[f"bare {n}"] = partial(layers, x)
    times = {
        key: t.median_us for key, t in in_turns(candidates, arguments.threads, arguments.seconds).items()
    }
    mean = {
        kind: sum(rates[n] * times[f"{kind} {n}"] for n in range(count)) for kind in ("bare", "predicted")
    }
    macs = count_macs(case.network, case.shape, case.criteria)
    gains = [
        macs.baseline / float(rates @ np.array(macs.exits)),
        times["baseline"] / mean["bare"],
        times["baseline"] / mean["predicted"],
        real.baseline_latency_us / real.latency_us,
    ]
    left = ", ".join(f"{100 * rate:.1f}" for rate in rates)
    columns = [case.name, backend.name, left, f"{times['baseline']:,.1f}", *(f"{gain:.2f}" for gain in gains)]
    print(f"| {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main()
