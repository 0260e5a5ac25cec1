"""Early exit in PyTorch on the CPU.

Shapes: B batch, C channels, H, W, K classes, N exits.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from branchynet.exits.criteria import Criterion
from branchynet.networks.branched import BranchedNetwork
from branchynet.runtime.engine import Classifier, Outcome, by_compaction, check_thresholds

M = TypeVar("M", bound=nn.Module)


class TorchEngine:
    """Eager PyTorch: `BranchedNetwork.forward` with a break. See `branchynet.runtime.engine.Engine`.

    PyTorch's threads are the process's own, so they are not this engine's to set: put `torch_threads` around
    the runs that are to be timed.
    """

    name = "torch"

    def __init__(self, network: BranchedNetwork, criterion: Criterion, thresholds: Sequence[float]) -> None:
        network = frozen(network)
        self._exits = list(zip(network.segments, network.heads, strict=True))
        self._criterion = criterion
        self.thresholds = thresholds

    @property
    def thresholds(self) -> tuple[float, ...]:
        return self._thresholds

    @thresholds.setter
    def thresholds(self, values: Sequence[float]) -> None:
        self._thresholds = check_thresholds(values, len(self._exits))

    @torch.inference_mode()
    def run(self, x: np.ndarray) -> Outcome:
        if len(x) > 1:
            return by_compaction(x, self._thresholds, self._step)
        features = torch.from_numpy(x)
        last = len(self._exits) - 1
        for n, (segment, head) in enumerate(self._exits):
            features = segment(features)
            logits = head(features)
            uncertainty = self._criterion(logits)
            # Both float32 values, so the comparison is one of float32.
            if n == last or uncertainty.item() < self._thresholds[n]:
                break
        return Outcome(logits.argmax(dim=1).numpy(), np.full(1, n), uncertainty.numpy())

    def _step(self, n: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        segment, head = self._exits[n]
        features = segment(torch.from_numpy(x))
        logits = head(features)
        return features.numpy(), logits.argmax(dim=1).numpy(), self._criterion(logits).numpy()


def torch_classifier(module: nn.Module) -> Classifier:
    """An undivided module (B, C, H, W) → (B, K) as a function of one image (1, C, H, W)."""
    module = frozen(module)

    @torch.inference_mode()
    def classify(x: np.ndarray) -> int:
        return int(module(torch.from_numpy(x)).argmax(dim=1).item())

    return classify


def frozen(module: M) -> M:
    """A copy on the CPU in eval mode; the original keeps its own mode."""
    return copy.deepcopy(module).cpu().eval().requires_grad_(False)


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """PyTorch computes on so many threads inside, and on as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
