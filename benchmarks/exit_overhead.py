"""Leaving at exit 1 in an engine against a bare call of the same layers.

    python benchmarks/exit_overhead.py

B-LeNet with random weights, every sample leaves at exit 1, batch 1, one thread. The engine's `run` takes an
image and gives prediction, exit and uncertainty: criterion, decision and the host's loop are inside. The bare
call of ONNX Runtime is `session.run(None, {"x": x})` on a model of segment 1 and head 1; in the second row that
model holds the criterion and the argmax, too. In PyTorch the bare call is the layers in inference mode. All take
turns in one run, see `branchynet.runtime.costs.in_turns`.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from branchynet.exits.criteria import entropy
from branchynet.networks.attach import attach
from branchynet.networks.lenet import lenet5
from branchynet.runtime.costs import describe_machine, in_turns
from branchynet.runtime.engine import forced, make_engine
from branchynet.runtime.onnx import make_session

SHAPE = (1, 28, 28)
SECONDS = 2.0


class WithCriterion(nn.Module):
    """The layers, the argmax and the criterion."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.layers(x)
        return logits.argmax(dim=1), entropy(logits)


def main() -> None:
    torch.manual_seed(0)
    exit_1 = {"after": "conv1", "before": ["pool2", "relu"], "convs": [10], "pool": 2}
    network = attach(lenet5(), [exit_1], SHAPE, 10).eval()
    layers = nn.Sequential(network.segments[0], network.heads[0])
    x = np.random.default_rng(0).standard_normal((1, *SHAPE)).astype(np.float32)

    candidates: dict[str, Callable[[], object]] = {}
    for name in ("onnxruntime", "torch"):
        engine = make_engine(name, network, entropy, forced(0, 2), SHAPE)
        candidates[f"{name} engine"] = lambda engine=engine: engine.run(x)
    for name, module in {"layers": layers, "layers and criterion": WithCriterion(layers)}.items():
        session = make_session(module, SHAPE, threads=1)
        candidates[f"onnxruntime {name}"] = lambda session=session: session.run(None, {"x": x})
        candidates[f"torch {name}"] = lambda module=module: in_torch(module, x)
    times = in_turns(candidates, threads=1, seconds=SECONDS)

    machine, versions = describe_machine()
    print(f"{machine}, 1 thread, load average {os.getloadavg()[0]:.1f} at the end;")
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    print("\nEverything leaves B-LeNet at exit 1 (aim on ONNX Runtime: at most 1.15 of the layers):\n")
    print("| | bare call, µs | engine, µs | ratio |\n|---|---:|---:|---:|")
    for name in ("onnxruntime", "torch"):
        engine_us = times[f"{name} engine"].median_us
        for rival in ("layers", "layers and criterion"):
            bare_us = times[f"{name} {rival}"].median_us
            print(f"| {name}, {rival} | {bare_us:.1f} | {engine_us:.1f} | {engine_us / bare_us:.2f} |")


@torch.inference_mode()
def in_torch(module: nn.Module, x: np.ndarray) -> object:
    return module(torch.from_numpy(x))


if __name__ == "__main__":
    main()
