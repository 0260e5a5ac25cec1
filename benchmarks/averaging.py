"""What looking at earlier exits costs: everything leaves at exit n, exits that do so against exits that do not.

    python benchmarks/averaging.py                        # B-AlexNet on ONNX Runtime, random weights
    python benchmarks/averaging.py --run <run folder>     # a trained one
    python benchmarks/averaging.py --rounds 5             # to see that it works

Batch 1. The same network on the same engine: as it is, its criterion entropy; with the share 0.5 at every exit but
the first, which then take the answer before as a second input and hand theirs on; and with criteria that hand a
state on. All take turns in one run, a few calls at a stretch. The first ratio is the median over the rounds of the
ratio within each, the second that of the fastest stretches, which says more on a machine that computes other
things, too. Behind them stands how far chance goes: the same of a second engine of the network as it is.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial

from _cases import Case, engine_at, for_every, in_rounds, parser, print_machine, ratio

from branchynet.exits.beem import Beem
from branchynet.exits.criteria import Entropy
from branchynet.exits.patience import Patience
from branchynet.runtime.base import Backend, Engine, forced
from branchynet.runtime.catalogue import make_engine

CALLS = 5  # in a row
AIM = 1.03


def main() -> None:
    options = parser(__doc__, images=64, rounds=300)
    options.set_defaults(models=["b_alexnet"], engines=["onnxruntime"])
    arguments = options.parse_args()
    print_machine(arguments)
    for_every(compare, arguments)


def compare(case: Case, backend: Backend, arguments: argparse.Namespace) -> None:
    """Prints a table: a row for every exit."""
    count, x = case.network.num_exits, case.images[:1]
    plain = case.network.with_shares(None)
    averaged = case.network.with_shares([0.0, *[0.5] * (count - 1)])
    engines: dict[str, Engine] = {
        name: make_engine(backend, network, criterion, forced(0, count), case.shape, arguments.threads)
        for name, network, criterion in (
            ("plain", plain, Entropy()),
            ("averaged", averaged, Entropy()),
            ("patience", plain, Patience()),
            ("beem", plain, Beem()),
            ("plain again", plain, Entropy()),
        )
    }
    candidates: dict[str, Callable[[], object]] = {}
    for n in range(count):
        for name, engine in engines.items():
            candidates[f"{name} {n}"] = partial(repeated, engine_at(engine, n, count).run, x)
    seconds = in_rounds(candidates, arguments.rounds)
    print(f"\n{case.name}, {backend.name}; aim: at most {AIM}.\n")
    others = [name for name in engines if name != "plain"]
    print(f"| everything leaves at exit | µs |{''.join(f' {name} | fastest |' for name in others)}")
    print("|---:|---:|" + "---:|---:|" * len(others))
    for n in range(count):
        base = seconds[f"plain {n}"]
        ratios = []
        for name in others:
            other = seconds[f"{name} {n}"]
            ratios += [f"{ratio(other, base):.3f}", f"{min(other) / min(base):.3f}"]
        print(f"| {n + 1} | {1e6 * statistics.median(base) / CALLS:.1f} | {' | '.join(ratios)} |", flush=True)


def repeated(run: Callable[..., object], x: object) -> None:
    """Some calls in a row."""
    for _ in range(CALLS):
        run(x)


if __name__ == "__main__":
    main()
