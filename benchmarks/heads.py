"""Which kinds of heads serve at batch 1: heads of equal MACs, by their time and against the plain one.

    python benchmarks/heads.py                               # on ONNX Runtime, one thread: two minutes
    python benchmarks/heads.py --engines onnxruntime torch
    python benchmarks/heads.py --turns 20                    # to see that it works

At four places, of B-AlexNet and of a B-ResNet-20: a plain head of 3×3 convolutions, and others that are widened or
narrowed until they have as many MACs, as near as eights of channels allow. Each is a model of its own on the
features of that place, with batch norm, which is folded, and a classifier for 10 classes; all of a place in turns,
so that what disturbs the machine disturbs all alike. Of the five calls of a turn the fastest counts, of the turns
the median, so that the numbers stand on a busy machine, too. What a head's MACs are worth in accuracy is not asked
here.
"""

from __future__ import annotations

import argparse
import bisect
import statistics
import timeit
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from _cases import print_machine
from torch import nn

from branchynet.networks.branched import BranchedNetwork
from branchynet.networks.heads import build_head
from branchynet.runtime.base import Backend
from branchynet.runtime.catalogue import get_backend
from branchynet.runtime.costs import count_macs
from branchynet.runtime.early_exit import torch_threads
from branchynet.runtime.for_inference import frozen

CLASSES = 10
# Kinds of heads by the shape at a place: a description whose widths are multiples of `convs`.
ON_IMAGE: dict[str, dict[str, Any]] = {
    "plain": {"convs": [1, 2, 2, 4, 4], "pool": [2, 2, 0, 2, 0]},
    "residual": {"convs": [1, 2, 2, 4, 4], "pool": [2, 2, 0, 2, 0], "residual": True},
    "depthwise but the first": {
        "convs": [1, 2, 2, 4, 4],
        "pool": [2, 2, 0, 2, 0],
        "depthwise": [False, True, True, True, True],
    },
    "stem 5×5, stride 2": {"convs": [1, 2, 2, 4], "kernel": [5, 3, 3, 3], "stride": [2, 2, 1, 2]},
    "stem 7×7, stride 4": {"convs": [1, 1, 2, 2], "kernel": [7, 3, 3, 3], "stride": [4, 1, 2, 1]},
    "patches 4×4": {"convs": [1, 1, 2, 2], "kernel": [4, 3, 3, 3], "stride": [4, 1, 2, 1]},
}
ON_MAPS: dict[str, dict[str, Any]] = {
    "plain": {"convs": [1, 1, 2, 2], "pool": [2, 0, 2, 0]},
    "residual": {"convs": [1, 1, 2, 2], "pool": [2, 0, 2, 0], "residual": True},
    "depthwise": {"convs": [1, 1, 2, 2], "pool": [2, 0, 2, 0], "depthwise": True},
    "depthwise but the first": {
        "convs": [1, 1, 2, 2],
        "pool": [2, 0, 2, 0],
        "depthwise": [False, True, True, True],
    },
    "strided": {"convs": [1, 1, 2, 2], "stride": [2, 1, 2, 1]},
    "pooled first": {"before": ["pool2"], "convs": [1, 1, 2, 2], "pool": [0, 0, 2, 0]},
    "stem 5×5, stride 4": {"convs": [1, 1, 2], "kernel": [5, 3, 3], "stride": [4, 1, 2]},
}
# (name, shape at the place, kinds, width of the plain head)
PLACES = (
    ("B-AlexNet and B-ResNet-20, input", (3, 32, 32), ON_IMAGE, 16),
    ("B-AlexNet, pool1", (32, 16, 16), ON_MAPS, 32),
    ("B-ResNet-20, stage1", (16, 32, 32), ON_MAPS, 16),
    ("B-ResNet-20, stage2", (32, 16, 16), ON_MAPS, 24),
)
WIDEST = 512
CALLS = 5


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--engines", nargs="*", default=["onnxruntime"])
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--turns", type=int, default=400, help="of every head")
    arguments = options.parse_args()
    print_machine(arguments)
    with torch_threads(arguments.threads):
        for engine in arguments.engines:
            for place in PLACES:
                compare(get_backend(engine), *place, arguments)


def compare(
    backend: Backend,
    name: str,
    shape: tuple[int, int, int],
    kinds: Mapping[str, Mapping[str, Any]],
    width: int,
    arguments: argparse.Namespace,
) -> None:
    """Prints a row for every kind of head at a place."""
    wanted = macs_of(made(kinds["plain"], width, shape), shape)
    widths = {kind: nearest(spec, wanted, shape) for kind, spec in kinds.items()}
    heads = {kind: made(spec, widths[kind], shape) for kind, spec in kinds.items()}
    x = np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)
    calls = {
        kind: partial(backend.chain([frozen(head)], shape, arguments.threads), x)
        for kind, head in heads.items()
    }
    times = turns(calls, arguments.turns)
    plain = statistics.median(times["plain"])
    print(f"\n{name}, {backend.name}: {shape}.\n")
    print("| head | channels | MACs, M | µs (IQR) | µs for a million MACs | of the plain one's time |")
    print("|---|---|---:|---:|---:|---:|")
    for kind, head in heads.items():
        low, time, high = statistics.quantiles(times[kind], n=4)
        macs = macs_of(head, shape)
        channels = "-".join(str(widths[kind] * many) for many in kinds[kind]["convs"])
        print(
            f"| {kind} | {channels} | {macs / 1e6:.2f} | {time:.1f} ({high - low:.1f}) "
            f"| {1e6 * time / macs:.1f} | {time / plain:.2f} |"
        )


def turns(calls: Mapping[str, Callable[[], object]], count: int) -> dict[str, list[float]]:
    """Microseconds of the fastest of a few calls, a number for every turn."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(count):
        for name, call in calls.items():
            call()  # its weights are in the caches again
            found[name].append(1e6 * min(timeit.repeat(call, number=1, repeat=CALLS)))
    return found


def made(spec: Mapping[str, Any], width: int, shape: tuple[int, int, int]) -> nn.Module:
    """A head of this kind, its widths multiplied, with statistics of batch norm that are not the initial ones."""
    convs = [many * width for many in spec["convs"]]
    torch.manual_seed(0)
    head = build_head(
        {**spec, "after": "there", "convs": convs, "norm": "batch", "global_pool": True}, shape, CLASSES
    )
    with torch.no_grad():
        head.train()(torch.randn(16, *shape))
    return head.eval()


def macs_of(head: nn.Module, shape: tuple[int, int, int]) -> int:
    return count_macs(BranchedNetwork([nn.Identity()], [head], []), shape).baseline


def nearest(spec: Mapping[str, Any], wanted: int, shape: tuple[int, int, int]) -> int:
    """The width, in eights, whose MACs are nearest to those wanted."""

    def off(width: int) -> int:
        with torch.device("meta"):
            return macs_of(unset(spec, width, shape), shape) - wanted

    widths = range(8, WIDEST, 8)
    above = bisect.bisect(widths, 0, key=off)
    return min(widths[max(above - 1, 0) : above + 1], key=lambda width: abs(off(width)))


def unset(spec: Mapping[str, Any], width: int, shape: tuple[int, int, int]) -> nn.Module:
    """The same for counting alone."""
    convs = [many * width for many in spec["convs"]]
    return build_head(
        {**spec, "after": "there", "convs": convs, "norm": "batch", "global_pool": True}, shape, CLASSES
    )


if __name__ == "__main__":
    main()
