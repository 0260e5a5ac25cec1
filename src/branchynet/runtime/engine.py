"""What every engine offers, and how to get one by name.

Shapes: B batch, C channels, H, W, K classes, N exits.
"""

from __future__ import annotations

import importlib
import math
import os
import shutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from branchynet.errors import UserError
from branchynet.runtime.compaction import Outcome

if TYPE_CHECKING:  # so that exported models run where there is no PyTorch
    from torch import nn

    from branchynet.exits.criteria import Criterion
    from branchynet.networks.branched import BranchedNetwork
    from branchynet.runtime.host import Load

__all__ = ["ENGINES", "Classifier", "Engine", "Outcome", "forced", "make_classifier", "make_engine"]

ENGINES = (
    "torch",
    "torch_compile",
    "torch_cuda",
    "torch_compile_cuda",
    "onnxruntime",
    "openvino",
    "openvino_bf16",
)
# What an engine needs besides PyTorch, and how to get it.
_NEEDS = {
    "onnxruntime": ("onnxruntime", "the packages onnxruntime, onnx and onnxscript: install them"),
    "openvino": ("openvino", "the package openvino: pip install 'branchynet[openvino]'"),
    "openvino_bf16": ("openvino", "the package openvino: pip install 'branchynet[openvino]'"),
}


class Engine(Protocol):
    """Inference that leaves at the first exit that is sure enough (Teerapittayanon et al., 2016, Figure 2).

    Exit n is taken if its uncertainty is strictly below threshold n, compared in float32; the last exit
    takes the rest. Layers behind the exit that was taken are not run, except for a few rows of a batch that it
    would cost more to leave behind (`branchynet.runtime.compaction`): nobody reads what they give. The last
    exit's uncertainty is computed and reported, too, although nothing depends on it: users ask for it, and so
    its time is counted.

    A shallow copy (`copy.copy`) shares all but the thresholds.
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

    A baseline runs through the same protocol as a network with one exit and no thresholds, see
    `branchynet.runtime.early_exit.undivided`.

    Args:
        name: one of `ENGINES`.
        criterion: from logits (B, K) to uncertainty (B,).
        thresholds: N-1.
        input_shape: (C, H, W).
        threads: of computation. PyTorch's are the process's own: see `torch_threads`.

    Raises:
        UserError: an unknown name, a wrong number of thresholds, or the engine is not installed.
    """
    check_engine(name, threads)
    if name in ("torch", "torch_cuda"):
        from branchynet.runtime.early_exit import TorchEngine

        return TorchEngine(network, criterion, thresholds, _device(name))
    if name in ("torch_compile", "torch_compile_cuda"):
        from branchynet.runtime.compiled import CompiledEngine

        return CompiledEngine(network, criterion, thresholds, _device(name))
    from branchynet.runtime.host import HostEngine

    return HostEngine(name, network, criterion, thresholds, input_shape, _load(name, threads))


def make_classifier(
    name: str, module: nn.Module, input_shape: tuple[int, int, int], threads: int
) -> Classifier:
    """One undivided model on the engine of that name: what a network with exits has to beat.

    Args:
        module: from (B, C, H, W) to logits (B, K); it is copied.
    """
    check_engine(name, threads)
    if name in ("torch", "torch_cuda"):
        from branchynet.runtime.early_exit import torch_classifier

        return torch_classifier(module, _device(name))
    if name in ("torch_compile", "torch_compile_cuda"):
        from branchynet.runtime.compiled import compiled_classifier

        return compiled_classifier(module, _device(name))
    from branchynet.runtime.host import HostClassifier

    return HostClassifier(module, input_shape, _load(name, threads))


def make_chain(
    name: str, modules: Sequence[nn.Module], input_shape: tuple[int, int, int], threads: int
) -> Callable[[np.ndarray], object]:
    """Modules one after the other, as the engine of that name runs segments, for one image (1, C, H, W)."""
    check_engine(name, threads)
    if name in ("torch", "torch_cuda"):
        from branchynet.runtime.early_exit import torch_chain

        return torch_chain(modules, _device(name))
    if name in ("torch_compile", "torch_compile_cuda"):
        from branchynet.runtime.compiled import compiled_chain

        return compiled_chain(modules, _device(name))
    from branchynet.runtime.host import HostChain

    return HostChain(modules, input_shape, _load(name, threads))


def check_engine(name: str, threads: int) -> None:
    """A UserError if there is no such engine, or it is not installed, or threads is no number above 0."""
    if name not in ENGINES:
        raise UserError(f"engine={name}: known are {', '.join(ENGINES)}")
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise UserError(f"engine.threads={threads}: it is a whole number above 0")
    if name in _NEEDS:
        package, needs = _NEEDS[name]
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UserError(f"engine={name} needs {needs}, or take engine=torch") from error
    if _device(name) == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UserError(
                f"engine={name} needs a GPU that PyTorch can use, and sees none; or take engine=torch"
            )
    if name == "torch_compile" and shutil.which(compiler := os.environ.get("CXX", "c++")) is None:
        raise UserError(
            f"engine={name} needs a C++ compiler, and there is no {compiler}; or take engine=torch"
        )


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


def _device(name: str) -> str:
    """Where the engine of that name computes."""
    return "cuda" if name.endswith("_cuda") else "cpu"


def _load(name: str, threads: int) -> Load:
    """How the engine of that name loads an ONNX model."""
    if name == "onnxruntime":
        from branchynet.runtime.onnx import OnnxModel

        return lambda model: OnnxModel(model, threads)
    from branchynet.runtime.openvino import OpenVinoModel

    precision = "bf16" if name == "openvino_bf16" else "f32"
    return lambda model: OpenVinoModel(model, threads, precision)
