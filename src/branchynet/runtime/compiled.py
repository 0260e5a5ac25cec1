"""Early exit in PyTorch, compiled: `torch.compile` on each segment with its head and criterion.

Shapes: B batch, C channels, H, W, K classes, N exits, R rows.
"""

from __future__ import annotations

import os
import shutil
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from branchynet.errors import UserError
from branchynet.exits.criteria import Criterion
from branchynet.networks.branched import BranchedNetwork
from branchynet.runtime.base import Chain, Classifier, Outcome
from branchynet.runtime.early_exit import EagerTorch, TorchEngine, chain, classifier
from branchynet.runtime.for_inference import for_inference


class CompiledTorch(EagerTorch):
    """`torch.compile`, on the CPU or a GPU. Compiling takes a minute and more."""

    library = "torch_compile"

    def check(self) -> None:
        super().check()
        compiler = os.environ.get("CXX", "c++")
        if self.device == "cpu" and shutil.which(compiler) is None:
            raise UserError(
                f"engine={self.name} needs a C++ compiler, and there is no {compiler}; or take engine=torch"
            )

    def engine(
        self,
        network: BranchedNetwork,
        criteria: Sequence[Criterion],
        thresholds: Sequence[float],
        input_shape: tuple[int, int, int],
        threads: int,
    ) -> CompiledEngine:
        return CompiledEngine(network, criteria, thresholds, self.device)

    def classifier(self, module: nn.Module, input_shape: tuple[int, int, int], threads: int) -> Classifier:
        module = for_inference(module, self.device)
        return classifier(self._compiled(lambda x: module(x).argmax(dim=1)), self.device)

    def chain(self, modules: Sequence[nn.Module], input_shape: tuple[int, int, int], threads: int) -> Chain:
        calls = [_call(for_inference(module, self.device)) for module in modules]
        return chain([self._compiled(call) for call in calls], self.device)

    def _compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return _compiled(function, one_row=True, cuda_graphs=self.device == "cuda")


class CompiledEngine(TorchEngine):
    """`TorchEngine` with compiled steps. See `branchynet.runtime.base.Engine`.

    Every step is compiled when it is first run: once for one row and once for any number of them above one, or
    twice, because PyTorch may take another algorithm for a convolution from 16 rows on. On a GPU one row runs as a
    CUDA graph. The code is for as many threads as PyTorch had at that time.

    Args:
        device: where it computes; images and results lie in the host's memory.
        backend: of `torch.compile`.
    """

    def __init__(
        self,
        network: BranchedNetwork,
        criteria: Sequence[Criterion],
        thresholds: Sequence[float],
        device: str | torch.device = "cpu",
        backend: str | Callable[..., Any] = "inductor",
    ) -> None:
        super().__init__(network, criteria, thresholds, device)
        self._graphs = self.device.type == "cuda" and backend == "inductor"
        self._for_one = [_compiled(step, backend, True, self._graphs) for step in self.steps]
        self._for_many = [_compiled(step, backend) for step in self.steps]

    def form(self, module: nn.Module) -> nn.Module:
        return module  # a compiler looks into modules

    def run(self, x: np.ndarray) -> Outcome:
        if self._graphs:
            torch.compiler.cudagraph_mark_step_begin()
        return super().run(x)

    def step(self, n: int, x: Tensor, *handed: Tensor) -> tuple[Tensor, ...]:
        if len(x) == 1:
            return self._for_one[n](x, *handed)
        for each in (x, *handed):
            torch._dynamo.mark_dynamic(each, 0)
        return self._for_many[n](x, *handed)


def _call(module: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: module(x)


def _compiled(
    function: Callable[..., Any],
    backend: str | Callable[..., Any] = "inductor",
    one_row: bool = False,
    cuda_graphs: bool = False,
) -> Callable[..., Any]:
    # PyTorch's advice, on a GPU, to multiply less exactly than thresholds were chosen with.
    warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
    options: dict[str, Any] = {}
    if one_row:
        # The weights are frozen, so the input alone has to be looked at before a call.
        options["guard_filter_fn"] = torch.compiler.keep_tensor_guards_unsafe
    if cuda_graphs:
        options["triton.cudagraphs"] = True
    # Nothing is dynamic but a batch that is marked so. Else PyTorch takes sizes that differ from one segment to the
    # next, or from one engine to another, as dynamic ones: leaving B-LeNet early took 1.4 times as long.
    return torch.compile(_with_own_code(function), backend=backend, dynamic=False, options=options or None)


def _with_own_code(function: Callable[..., Any]) -> types.FunctionType:
    """The same function on a code object of its own.

    What is compiled is kept by code object, and more than 8 versions are not: then PyTorch falls back to eager.
    All segments of all engines would be versions of one.
    """
    assert isinstance(function, types.FunctionType)
    code = function.__code__.replace()
    return types.FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
