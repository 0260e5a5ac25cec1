"""Local response normalisation in training: ours against `torch.nn.LocalResponseNorm`.

    python benchmarks/lrn.py

Forward and backward of both of AlexNet's, on what they get from batches of 16 images of 32×32 pixels; and of
all of AlexNet with its loss, with ours and with PyTorch's. In float32, and as `trainer.precision=bf16-mixed` with
channels_last runs it. One thread; all take turns in one run, see `branchynet.runtime.costs.in_turns`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
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
    for mode in MODES:
        for whose, make in {"ours": released_lrn, "theirs": torchs_lrn}.items():
            candidates[f"{mode} layers {whose}"] = layers(make, mode)
            candidates[f"{mode} network {whose}"] = network(make, mode)
    times = in_turns(candidates, threads=1, seconds=SECONDS)

    machine, versions = describe_machine()
    print(f"{machine}, 1 thread, load average {os.getloadavg()[0]:.1f} at the end;")
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    print(f"\nForward and backward in training, batches of {BATCH}:\n")
    print("| | PyTorch's, ms | ours, ms | times as fast |\n|---|---:|---:|---:|")
    for what, title in {"layers": "AlexNet's two layers", "network": "all of AlexNet"}.items():
        for mode in MODES:
            ours, theirs = (times[f"{mode} {what} {whose}"].median_us / 1e3 for whose in ("ours", "theirs"))
            print(f"| {title}, {mode} | {theirs:.1f} | {ours:.1f} | {theirs / ours:.2f} |")


def torchs_lrn() -> nn.LocalResponseNorm:
    ours = released_lrn()
    return nn.LocalResponseNorm(ours.size, ours.alpha, ours.beta, ours.k)


def layers(make: Callable[[], nn.Module], mode: str) -> Callable[[], None]:
    """Forward and backward of both layers, each on an input of its own."""
    dtype, layout = MODES[mode]
    layer = make().train()
    inputs = [torch.randn(BATCH, *shape).to(dtype).to(memory_format=layout) for shape in SHAPES]

    def run() -> None:
        for x in inputs:
            x.requires_grad_()
            x.grad = None
            with autocast(dtype):
                y = layer(x)
            y.backward(x.detach().to(y.dtype))

    return run


def network(make: Callable[[], nn.Module], mode: str) -> Callable[[], None]:
    """Forward, loss and backward of AlexNet."""
    dtype, layout = MODES[mode]
    trunk = alexnet_cifar()
    for name, module in trunk.named_children():
        if isinstance(module, LocalResponseNorm):
            setattr(trunk, name, make())
    trunk.train().to(memory_format=layout)  # type: ignore[call-overload]
    x = torch.randn(BATCH, 3, 32, 32).to(memory_format=layout)
    target = torch.arange(BATCH) % 10

    def run() -> None:
        trunk.zero_grad()
        with autocast(dtype):
            loss: Tensor = F.cross_entropy(trunk(x), target)
        loss.backward()

    return run


def autocast(dtype: torch.dtype) -> AbstractContextManager[object]:
    return torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)


if __name__ == "__main__":
    main()
