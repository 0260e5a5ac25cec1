"""An engine: Figure 2 of the paper as it stands, one sample after the other, in PyTorch."""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from branchynet.networks.branched import BranchedNetwork
from branchynet.runtime.base import Backend, Outcome, check_thresholds
from branchynet.runtime.steps import exit_steps


class AsWritten(Backend):
    """A loop over samples and exits."""

    name = "as_written"

    def __init__(self, note: str = "") -> None:
        self.note = note

    def engine(self, network: BranchedNetwork, criteria, thresholds, input_shape, threads) -> "Loop":
        return Loop(exit_steps(copy.deepcopy(network).eval(), criteria), thresholds)

    def classifier(self, module: nn.Module, input_shape, threads) -> Callable[[np.ndarray], int]:
        module = copy.deepcopy(module).eval()

        @torch.no_grad()
        def classify(x: np.ndarray) -> int:
            return int(module(torch.from_numpy(x)).argmax())

        return classify

    def chain(self, modules: Sequence[nn.Module], input_shape, threads) -> Callable[[np.ndarray], object]:
        chained = nn.Sequential(*copy.deepcopy(list(modules))).eval()

        @torch.no_grad()
        def run(x: np.ndarray) -> object:
            return chained(torch.from_numpy(x))

        return run


class Loop:
    """See `branchynet.runtime.base.Engine`."""

    def __init__(self, steps, thresholds: Sequence[float]) -> None:
        self.steps = steps
        self.thresholds = thresholds

    @property
    def thresholds(self) -> tuple[float, ...]:
        return self._thresholds

    @thresholds.setter
    def thresholds(self, values: Sequence[float]) -> None:
        self._thresholds = check_thresholds(values, len(self.steps))

    @torch.no_grad()
    def run(self, x: np.ndarray) -> Outcome:
        answers = []
        for sample in torch.from_numpy(x):
            features, handed = sample[None], []
            for n, step in enumerate(self.steps):
                # What a step gives after its uncertainty, the next one takes after the features.
                features, answer, uncertainty, *handed = step(features, *handed)
                if n == len(self.thresholds) or uncertainty.item() < self.thresholds[n]:
                    break
            answers.append((int(answer.argmax()), n + 1, uncertainty.item()))
        prediction, exits, uncertainty = zip(*answers, strict=True)
        return Outcome(np.array(prediction), np.array(exits), np.array(uncertainty, np.float32))
