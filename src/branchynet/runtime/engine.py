"""What every engine offers, and how to get one by name.

Shapes: B batch, C channels, H, W, K classes, N exits.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from torch import nn

from branchynet.errors import UserError
from branchynet.exits.criteria import Criterion
from branchynet.networks.branched import BranchedNetwork

ENGINES = ("torch", "onnxruntime")


class Outcome(NamedTuple):
    """What a batch gave, in the order of its input."""

    prediction: np.ndarray  # (B,) int64
    exit: np.ndarray  # (B,) int64, 0-based
    uncertainty: np.ndarray  # (B,) float32, of the exit that was taken


class Engine(Protocol):
    """Inference that leaves at the first exit that is sure enough (Teerapittayanon et al., 2016, Figure 2).

    Exit n is taken if its uncertainty is strictly below threshold n, compared in float32; the last exit
    takes the rest. Layers behind the exit that was taken are not run. The last exit's uncertainty is computed
    and reported, too, although nothing depends on it: users ask for it, and so its time is counted.
    """

    name: str

    @property
    def thresholds(self) -> tuple[float, ...]:
        """N-1 thresholds, as float32 holds them; may be set anew between any two runs."""

    @thresholds.setter
    def thresholds(self, values: Sequence[float]) -> None: ...

    def run(self, x: np.ndarray) -> Outcome:
        """Run a batch (B, C, H, W) float32, B ≥ 1."""


# An undivided model: from one image (1, C, H, W) to the predicted class.
Classifier = Callable[[np.ndarray], int]


def make_engine(
    name: str,
    network: BranchedNetwork,
    criterion: Criterion,
    thresholds: Sequence[float],
    input_shape: tuple[int, int, int],
    threads: int = 1,
) -> Engine:
    """The engine of that name for a network; the network itself is neither changed nor kept.

    Args:
        name: torch | onnxruntime.
        criterion: from logits (B, K) to uncertainty (B,).
        thresholds: N-1.
        input_shape: (C, H, W).
        threads: of computation. The torch engine's are the process's own: see `torch_threads`.

    Raises:
        UserError: an unknown name, a wrong number of thresholds, or ONNX Runtime is missing.
    """
    check_engine(name, threads)
    if name == "torch":
        from branchynet.runtime.early_exit import TorchEngine

        return TorchEngine(network, criterion, thresholds)
    from branchynet.runtime.onnx import OnnxEngine

    return OnnxEngine(network, criterion, thresholds, input_shape, threads)


def make_classifier(
    name: str, module: nn.Module, input_shape: tuple[int, int, int], threads: int
) -> Classifier:
    """One undivided model on the engine of that name: what a network with exits has to beat.

    Args:
        module: from (B, C, H, W) to logits (B, K); it is copied.
    """
    check_engine(name, threads)
    if name == "torch":
        from branchynet.runtime.early_exit import torch_classifier

        return torch_classifier(module)
    from branchynet.runtime.onnx import OnnxClassifier

    return OnnxClassifier(module, input_shape, threads)


def check_engine(name: str, threads: int) -> None:
    """A UserError if there is no such engine, or it is not installed, or threads is no number above 0."""
    if name not in ENGINES:
        raise UserError(f"engine={name}: known are {', '.join(ENGINES)}")
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise UserError(f"engine.threads={threads}: it is a whole number above 0")
    if name == "onnxruntime":
        try:
            import onnxruntime  # noqa: F401
        except ImportError as error:
            raise UserError(
                "engine=onnxruntime needs the packages onnxruntime, onnx and onnxscript: install them, "
                "or take engine=torch"
            ) from error


def check_thresholds(values: Sequence[float], num_exits: int) -> tuple[float, ...]:
    """`values` as float32 holds them; a UserError for a wrong number of them or one that is nan."""
    values = [float(value) for value in values]
    if len(values) != num_exits - 1:
        raise UserError(
            f"{len(values)} thresholds for a network of {num_exits} exits: give {num_exits - 1}, one for each "
            f"exit but the last"
        )
    if any(math.isnan(value) for value in values):
        raise UserError(f"the thresholds are {values}: nan is none")
    return tuple(float(np.float32(value)) for value in values)


def forced(exit: int, num_exits: int) -> tuple[float, ...]:
    """The thresholds that send every sample out at `exit` (0-based)."""
    return tuple(math.inf if n == exit else -math.inf for n in range(num_exits - 1))


def by_compaction(
    x: np.ndarray,
    thresholds: Sequence[float],
    step: Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> Outcome:
    """Run a batch exit by exit; after each, the remaining rows alone go on.

    Args:
        x: (B, …).
        thresholds: N-1.
        step: from n and the rows' features to their features behind segment n, predictions and uncertainties.
    """
    batch = len(x)
    prediction, exits = np.empty(batch, np.int64), np.empty(batch, np.int64)
    uncertainty = np.empty(batch, np.float32)
    rows = np.arange(batch)
    for n in range(len(thresholds) + 1):
        x, predicted, unsure = step(n, x)
        last = n == len(thresholds)
        leaving = np.ones(len(rows), bool) if last else unsure < np.float32(thresholds[n])
        gone = rows[leaving]
        prediction[gone], uncertainty[gone], exits[gone] = predicted[leaving], unsure[leaving], n
        if leaving.all():
            break
        x, rows = x[~leaving], rows[~leaving]
    return Outcome(prediction, exits, uncertainty)
