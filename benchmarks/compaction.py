"""From which share of leaving rows on it pays to copy the others together: what `COMPACT_FROM` stands on.

    python benchmarks/compaction.py                       # three networks with random weights
    python benchmarks/compaction.py --run <run folder>    # a trained one
    python benchmarks/compaction.py --images 64 --rounds 1 --models b_lenet --shares 0.1    # to see that it works

One batch of all images; a small share of them leaves at exit 1 and the rest at the last. The engine runs it once
with the rows copied together at exit 1, whatever their number, and once with all rows carried to the end, in turns.
Where the ratio falls below 1, copying is faster.

It takes half a minute for B-LeNet and B-AlexNet each on both engines, several minutes for B-ResNet-110.
"""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Iterator
from functools import partial
from unittest.mock import patch

import numpy as np
from _cases import Case, at_rates, for_every, in_rounds, parser, print_machine, ratio, trace

from branchynet.runtime import compaction
from branchynet.runtime.base import Backend, Engine
from branchynet.runtime.catalogue import make_engine

SHARES = (0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12)


def main() -> None:
    options = parser(__doc__, images=256, rounds=15)
    options.add_argument("--shares", type=float, nargs="*", default=SHARES)
    arguments = options.parse_args()
    print_machine(arguments)
    print(f"COMPACT_FROM is {compaction.COMPACT_FROM}.")
    for_every(compare, arguments)


def compare(case: Case, backend: Backend, arguments: argparse.Namespace) -> None:
    """Prints a table: a row for every share."""
    engine = make_engine(backend, case.network, case.criteria, case.thresholds, case.shape, arguments.threads)
    said = trace(case.network, case.images, case.criteria)
    print(f"\n{case.name}, {backend.name}, a batch of {len(case.images)}.\n")
    print("| leave at exit 1, % | copied, ms | carried, ms | copied / carried |\n|---:|---:|---:|---:|")
    for share in arguments.shares:
        (threshold,) = at_rates(said, [share])
        engine.thresholds = (threshold, *[-math.inf] * (case.network.num_exits - 2))
        seconds = in_rounds(
            {
                way: partial(run, engine, case.images, limit)
                for way, limit in {"copied": 0.0, "carried": math.inf}.items()
            },
            arguments.rounds,
        )
        left = (engine.run(case.images).exit == 1).mean()
        copied, carried = (1000 * np.median(seconds[way]) for way in ("copied", "carried"))
        print(
            f"| {100 * left:.1f} | {copied:.2f} | {carried:.2f} "
            f"| {ratio(seconds['copied'], seconds['carried']):.3f} |",
            flush=True,
        )


def run(engine: Engine, x: np.ndarray, limit: float) -> None:
    with compact_from(limit):
        engine.run(x)


@contextlib.contextmanager
def compact_from(share: float) -> Iterator[None]:
    with patch.object(compaction, "COMPACT_FROM", share):
        yield


if __name__ == "__main__":
    main()
