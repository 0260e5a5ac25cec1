"""Early exit in PyTorch, compiled: `torch.compile` on each segment with its head and criterion.

Shapes: B batch, C channels, H, W, K classes, N exits, R rows.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from branchynet.exits.criteria import Criterion
from branchynet.networks.branched import BranchedNetwork
from branchynet.runtime.early_exit import TorchEngine, chain, classifier
from branchynet.runtime.engine import Classifier, Outcome
from branchynet.runtime.for_inference import for_inference


class CompiledEngine(TorchEngine):
    """`TorchEngine` with compiled steps. See `branchynet.runtime.engine.Engine`.

    Every step is compiled when it is first run: once for one row and once for any number of them above one, or
    twice, for PyTorch may take another algorithm for a convolution from 16 rows on. On a GPU one row runs as a
    CUDA graph. The code is for as many threads as PyTorch had at that time.

    Args:
        device: where it computes; images and results lie in the host's memory.
        backend: of `torch.compile`.
    """

    name = "torch_compile"

    def __init__(
        self,
        network: BranchedNetwork,
        criterion: Criterion,
        thresholds: Sequence[float],
        device: str | torch.device = "cpu",
        backend: str | Callable[..., Any] = "inductor",
    ) -> None:
        super().__init__(network, criterion, thresholds, device)
        self._graphs = self._device.type == "cuda" and backend == "inductor"
        self._for_one = [_compiled(step, backend, True, self._graphs) for step in self._steps]
        self._for_many = [_compiled(step, backend) for step in self._steps]

    def run(self, x: np.ndarray) -> Outcome:
        if self._graphs:
            torch.compiler.cudagraph_mark_step_begin()
        return super().run(x)

    def _step(self, n: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if len(x) == 1:
            return self._for_one[n](x)
        torch._dynamo.mark_dynamic(x, 0)
        return self._for_many[n](x)


def compiled_classifier(module: nn.Module, device: str | torch.device = "cpu") -> Classifier:
    """An undivided module (B, C, H, W) → (B, K) as a function of one image (1, C, H, W)."""
    module = for_inference(module, device)
    graphs = torch.device(device).type == "cuda"
    return classifier(_compiled(lambda x: module(x).argmax(dim=1), one_row=True, cuda_graphs=graphs), device)


def compiled_chain(
    modules: Sequence[nn.Module], device: str | torch.device = "cpu"
) -> Callable[[np.ndarray], object]:
    """Modules one after the other, for one image (1, C, H, W)."""
    graphs = torch.device(device).type == "cuda"
    calls = [_call(for_inference(module, device)) for module in modules]
    return chain([_compiled(call, one_row=True, cuda_graphs=graphs) for call in calls], device)


def _call(module: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: module(x)


def _compiled(
    function: Callable[..., Any],
    backend: str | Callable[..., Any] = "inductor",
    one_row: bool = False,
    cuda_graphs: bool = False,
) -> Callable[..., Any]:
    options: dict[str, Any] = {}
    if one_row:
        # The weights are frozen, so the input alone has to be looked at before a call.
        options["guard_filter_fn"] = torch.compiler.keep_tensor_guards_unsafe
    if cuda_graphs:
        options["triton.cudagraphs"] = True
    # Nothing is dynamic but a batch that is marked so. Else PyTorch takes sizes that differ from one segment to the
    # next, or from one engine to another, for dynamic ones: leaving B-LeNet early took 1.4 times as long.
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
