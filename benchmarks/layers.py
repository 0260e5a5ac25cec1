"""Where a network's time goes at batch 1: layer by layer, and what leaving adds at every exit.

    python benchmarks/layers.py                         # three networks with random weights
    python benchmarks/layers.py --run <run folder>      # a trained one
    python benchmarks/layers.py --seconds 0.02 --models b_lenet --engines onnxruntime    # to see that it works

The baseline's layers: one model for every length of trunk, from the image on, all in turns; a layer's time is what
it adds to the shorter model's. So what an engine makes of a layer together with its neighbours (a normalisation
that it takes into the convolution before it) counts where it happens, and single small numbers may be negative.

The exits: the time of the segment by itself, of the head by itself, and of the engine's `run` with everything
leaving at exit n over that at exit n-1. What the third has beyond the first two is the criterion, the decision and
the host's loop, less a call for the head.

It takes half a minute an engine for B-LeNet and B-AlexNet each; B-ResNet-110 has 59 lengths and takes several
minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from _cases import Case, engine_at, for_every, parser, print_machine
from torch import nn

from branchynet.networks.branched import undivided
from branchynet.networks.graph import clean_cuts, split, traced
from branchynet.runtime.base import Backend
from branchynet.runtime.catalogue import make_engine
from branchynet.runtime.costs import count_macs, in_turns
from branchynet.runtime.for_inference import frozen


def main() -> None:
    options = parser(__doc__, images=256, rounds=0)
    options.add_argument("--seconds", type=float, default=0.5, help="of measuring, for each candidate")
    options.set_defaults(engines=["onnxruntime"])
    arguments = options.parse_args()
    print_machine(arguments)
    for_every(compare, arguments)


def compare(case: Case, backend: Backend, arguments: argparse.Namespace) -> None:
    """Prints two tables."""
    layers(case, backend, arguments)
    exits(case, backend, arguments)


def layers(case: Case, backend: Backend, arguments: argparse.Namespace) -> None:
    """Prints a row for every layer of the baseline that lies between two places where it can be cut."""
    trunk = frozen(case.baseline)
    graph, _ = traced(trunk)
    cuts = [node for node in clean_cuts(graph) if node.op not in ("placeholder", "output")]
    x = case.images[:1]
    candidates, macs = {}, []
    for node in cuts:
        start = split(trunk, graph, [node])[0]
        macs.append(count_macs(undivided(start), case.shape).baseline)
        call = backend.chain([start], case.shape, arguments.threads)
        candidates[str(node.target)] = partial(call, x)
    times = in_turns(candidates, arguments.threads, arguments.seconds)
    total_us, total_macs = list(times.values())[-1].median_us, macs[-1]
    print(
        f"\n{case.name}, {backend.name}: the baseline, {total_us:,.1f} µs and {total_macs / 1e6:.3f} M MACs.\n"
    )
    print("| layer | MACs, % | time, % | µs | ns for 1,000 MACs |\n|---|---:|---:|---:|---:|")
    before_us, before_macs = 0.0, 0
    for (layer, time), until in zip(times.items(), macs, strict=True):
        us, own = time.median_us - before_us, until - before_macs
        rate = f"{1e6 * us / own:.0f}" if own else ""
        print(f"| {layer} | {100 * own / total_macs:.1f} | {100 * us / total_us:.1f} | {us:.1f} | {rate} |")
        before_us, before_macs = time.median_us, until


def exits(case: Case, backend: Backend, arguments: argparse.Namespace) -> None:
    """Prints a row for every exit."""
    network = frozen(case.network)
    count = network.num_exits
    engine = make_engine(backend, network, case.criteria, case.thresholds, case.shape, arguments.threads)
    candidates: dict[str, Callable[[], object]] = {}
    x = torch.from_numpy(case.images[:1])
    for n, (segment, head) in enumerate(zip(network.segments, network.heads, strict=True)):
        candidates[f"run {n}"] = partial(engine_at(engine, n, count).run, case.images[:1])
        for kind, module in (("segment", segment), ("head", head)):
            if not isinstance(module, nn.Identity):
                call = backend.chain([module], tuple(x.shape[1:]), arguments.threads)
                candidates[f"{kind} {n}"] = partial(call, x.numpy())
            if kind == "segment":
                with torch.no_grad():
                    x = segment(x).contiguous()
    times = {
        key: t.median_us for key, t in in_turns(candidates, arguments.threads, arguments.seconds).items()
    }
    macs = count_macs(network, case.shape, case.criteria)
    print(f"\n{case.name}, {backend.name}: the exits.\n")
    print("| exit | MACs so far, M | segment, µs | head, µs | `run` adds, µs | beyond both, µs |")
    print("|---:|---:|---:|---:|---:|---:|")
    before = 0.0
    for n in range(count):
        segment, head = (times.get(f"{kind} {n}", 0.0) for kind in ("segment", "head"))
        adds, before = times[f"run {n}"] - before, times[f"run {n}"]
        print(
            f"| {n + 1} | {macs.exits[n] / 1e6:.3f} | {segment:.1f} | {head:.1f} | {adds:.1f} "
            f"| {adds - segment - head:.1f} |"
        )


if __name__ == "__main__":
    main()
