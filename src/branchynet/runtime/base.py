"""What an engine is. No PyTorch here: exported models run without it.

Shapes: B batch, C channels, H, W, K classes, N exits.
"""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np

from branchynet.errors import UserError, check_processors

if TYPE_CHECKING:
    from torch import nn

    from branchynet.exits.criteria import Criterion
    from branchynet.networks.branched import BranchedNetwork


class Outcome(NamedTuple):
    """What a batch gave, in the order of its input."""

    prediction: np.ndarray  # (B,) int64; of maps (B, H, W)
    exit: np.ndarray  # (B,) int64, 1 … N
    uncertainty: np.ndarray  # (B,) float32, of the exit that was taken

    @property
    def exit_index(self) -> np.ndarray:
        """(B,) int64, from 0: the exit's place in a list of all exits."""
        return self.exit - 1


class Engine(Protocol):
    """Inference that leaves at the first exit that is sure enough (Teerapittayanon et al., 2016, Figure 2).

    Exit n is taken if its uncertainty is strictly below threshold n, compared in float32; the last exit
    takes the rest. Layers after the exit that was taken are not run, except for a few rows of a batch that it
    would cost more to leave behind (`branchynet.runtime.compaction`): nobody reads what they give. The last
    exit's uncertainty is computed and reported, too, although nothing depends on it: users ask for it, and so
    its time is counted.

    A shallow copy (`copy.copy`) shares all but the thresholds.
    """

    @property
    def thresholds(self) -> tuple[float, ...]:
        """N-1 thresholds, as float32 holds them; may be set again between any two runs."""

    @thresholds.setter
    def thresholds(self, values: Sequence[float]) -> None: ...

    def run(self, x: np.ndarray) -> Outcome:
        """Run a batch (B, C, H, W) float32, B ≥ 1."""


# An undivided model: from one image (1, C, H, W) to the predicted class, or (H, W) of them.
Classifier = Callable[[np.ndarray], int | np.ndarray]
# Modules one after the other, on one image (1, C, H, W); what it gives is not read.
Chain = Callable[[np.ndarray], Any]


class Backend(ABC):
    """A kind of engine: a library on a device. One object holds all that is to be known of it.

    Attributes:
        name: in settings, results and tables.
        exact: whether it gives PyTorch's own numbers on a CPU, but for rounding. Then PyTorch's trace serves for
            it; else thresholds are swept with the engine's own outputs.
        packages: what it needs besides PyTorch: each package's name for `import`, and how to get it.
    """

    name: str
    exact: bool = True
    packages: ClassVar[Mapping[str, str]] = {}

    def check(self) -> None:
        """A UserError if this machine does not have what the engine needs."""
        for package, cure in self.packages.items():
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise UserError(f"engine={self.name} needs {cure}, or take engine=torch") from error

    @abstractmethod
    def engine(
        self,
        network: BranchedNetwork,
        criteria: Sequence[Criterion],
        thresholds: Sequence[float],
        input_shape: tuple[int, int, int],
        threads: int,
    ) -> Engine:
        """A network with its exits; it is copied.

        Args:
            network: N exits.
            criteria: N.
            thresholds: N-1.
            input_shape: (C, H, W).
            threads: of computation. PyTorch's are the process's own: see `torch_threads`.
        """

    @abstractmethod
    def classifier(self, module: nn.Module, input_shape: tuple[int, int, int], threads: int) -> Classifier:
        """One undivided model, from images (B, C, H, W) to logits (B, K, …): what exits have to beat."""

    @abstractmethod
    def chain(self, modules: Sequence[nn.Module], input_shape: tuple[int, int, int], threads: int) -> Chain:
        """Modules one after the other, as the engine runs segments. The last may give several tensors."""


def check_threads(threads: Any) -> None:
    """An ArgumentError unless `threads` is a number of threads that this machine can be asked for."""
    check_processors("threads", threads)


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
    with np.errstate(over="ignore"):  # beyond float32 is infinite: it takes every sample, or none
        return tuple(float(np.float32(value)) for value in values)


def forced(exit_index: int, num_exits: int) -> tuple[float, ...]:
    """The thresholds that send every sample out at exit `exit_index` + 1."""
    return tuple(math.inf if n == exit_index else -math.inf for n in range(num_exits - 1))
