"""Local response normalisation in training: ours against `torch.nn.LocalResponseNorm`.

    python benchmarks/lrn.py

Forward and backward of AlexNet's two, on what they get from batches of 16 images of 32×32 pixels, in float32 and
as bf16 autocast with channels_last has it; and of all of AlexNet with its loss, in float32, with ours and with
PyTorch's. One thread; all take turns in one run, see `branchynet.runtime.costs.in_turns`.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from branchynet.networks.alexnet import alexnet_cifar
from branchynet.networks.lrn import LocalResponseNorm, released_lrn
from branchynet.runtime.costs import describe_machine, in_turns

BATCH = 16
SHAPES = ((32, 16, 16), (64, 8, 8))
SECONDS = 0.1  # for each candidate, at least
MODES = {
    "float32": (torch.float32, torch.contiguous_format),
    "bf16, channels_last": (torch.bfloat16, torch.channels_last),
}


def main() -> None:
    torch.manual_seed(0)
    candidates: dict[str, Callable[[], object]] = {}
    for whose, make in {"ours": released_lrn, "theirs": torchs_lrn}.items():
        for mode in MODES:
            candidates[f"both layers, {mode} {whose}"] = layers(make, *MODES[mode])
        candidates[f"all of AlexNet, float32 {whose}"] = network(make)
    times = in_turns(candidates, threads=1, seconds=SECONDS)

    machine, versions = describe_machine()
    print(f"{machine}, 1 thread, load average {os.getloadavg()[0]:.1f} at the end;")
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    print(f"\nForward and backward in training, batches of {BATCH}:\n")
    print("| | PyTorch's, ms | ours, ms | times as fast |\n|---|---:|---:|---:|")
    for what in (name.removesuffix(" ours") for name in candidates if name.endswith(" ours")):
        ours, theirs = (times[f"{what} {whose}"].median_us / 1e3 for whose in ("ours", "theirs"))
        print(f"| {what} | {theirs:.1f} | {ours:.1f} | {theirs / ours:.2f} |")


def torchs_lrn() -> nn.LocalResponseNorm:
    ours = released_lrn()
    return nn.LocalResponseNorm(ours.size, ours.alpha, ours.beta, ours.k)


def layers(
    make: Callable[[], nn.Module], dtype: torch.dtype, layout: torch.memory_format
) -> Callable[[], None]:
    """Forward and backward of both layers, each on an input of its own."""
    layer = make().train()
    inputs = [torch.randn(BATCH, *shape).to(dtype).to(memory_format=layout) for shape in SHAPES]

    def run() -> None:
        for x in inputs:
            x.requires_grad_()
            x.grad = None
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                y = layer(x)
            y.backward(x.detach().to(y.dtype))

    return run


def network(make: Callable[[], nn.Module]) -> Callable[[], None]:
    """Forward, loss and backward of AlexNet."""
    trunk = alexnet_cifar()
    for name, module in trunk.named_children():
        if isinstance(module, LocalResponseNorm):
            setattr(trunk, name, make())
    trunk.train()
    x = torch.randn(BATCH, 3, 32, 32)
    target = torch.arange(BATCH) % 10

    def run() -> None:
        trunk.zero_grad()
        F.cross_entropy(trunk(x), target).backward()

    return run


if __name__ == "__main__":
    main()
