"""Everything leaves at exit n, against the bare layers up to exit n in the same engine.

    python benchmarks/overhead.py                         # three networks with random weights
    python benchmarks/overhead.py --run <run folder>      # a trained one
    python benchmarks/overhead.py --models resnet18 --engines onnxruntime    # at 224 pixels, exits placed by MACs
    python benchmarks/overhead.py --seconds 0.02 --models b_lenet    # to see that it works

Batch 1. The engine's `run` takes an image and gives prediction, exit and uncertainty: criteria, decisions and the
host's loop are inside. The bare layers are one undivided model from the image to the logits of the exits 1 to n,
all heads on the way included: they are what has to be computed. They run as the engine runs layers
(`branchynet.runtime.base.Backend.chain`): in PyTorch the modules in inference mode, compiled where the engine
compiles; on ONNX Runtime and OpenVINO one exported model with its memory bound once, into which the image is
copied. On ONNX Runtime another row has them called by `session.run(None, {"x": x})`, as one does. All take turns
in one run, see `branchynet.runtime.costs.in_turns`.

It takes a quarter of a minute an engine for B-LeNet and B-AlexNet each, a minute and a half for B-ResNet-110, and
half a minute for ResNet-18 at 224 pixels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

from _cases import Case, bare, engine_at, for_every, parser, print_machine

from branchynet.runtime.base import Backend, forced
from branchynet.runtime.catalogue import make_engine
from branchynet.runtime.costs import in_turns

AIMS = {"b_lenet": 1.15, "resnet18": 1.05}  # and 1.10 from B-AlexNet upward


def main() -> None:
    options = parser(__doc__, images=256, rounds=0)
    options.add_argument("--seconds", type=float, default=2.0, help="of measuring, for each candidate")
    arguments = options.parse_args()
    print_machine(arguments)
    for_every(compare, arguments)


def compare(case: Case, backend: Backend, arguments: argparse.Namespace) -> None:
    """Prints a table: a row for every exit and way of calling the layers."""
    count = case.network.num_exits
    x = case.images[:1]
    candidates: dict[str, Callable[[], object]] = {}
    engine = make_engine(
        backend, case.network, case.criteria, forced(0, count), case.shape, arguments.threads
    )
    ways: list[str] = []
    for n in range(count):
        engine = engine_at(engine, n, count)
        candidates[f"engine {n}"] = partial(engine.run, x)
        for way, call in bare(backend, case, n + 1, arguments.threads).items():
            candidates[f"{way} {n}"] = call
            ways = list(dict.fromkeys([*ways, way]))
    times = in_turns(candidates, arguments.threads, arguments.seconds)
    aim = next((aim for model, aim in AIMS.items() if case.name.startswith(model)), 1.10)
    print(f"\n{case.name}, {backend.name}; aim: at most {aim}.\n")
    print("| everything leaves at exit | bare layers | µs | engine, µs | ratio |\n|---:|---|---:|---:|---:|")
    for n in range(count):
        ours = times[f"engine {n}"].median_us
        for way in ways:
            theirs = times[f"{way} {n}"].median_us
            print(f"| {n + 1} | {way} | {theirs:.1f} | {ours:.1f} | {ours / theirs:.2f} |", flush=True)


if __name__ == "__main__":
    main()
