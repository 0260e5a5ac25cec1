"""Early exit in PyTorch, on the CPU or a GPU.

Shapes: B batch, C channels, H, W, K classes, N exits, R rows.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from branchynet.errors import UserError
from branchynet.exits.criteria import Criterion
from branchynet.networks.branched import BranchedNetwork
from branchynet.runtime.base import Backend, Chain, Classifier, Outcome, check_thresholds
from branchynet.runtime.compaction import by_compaction
from branchynet.runtime.flat import flat
from branchynet.runtime.for_inference import for_inference
from branchynet.runtime.steps import steps_for_inference


class EagerTorch(Backend):
    """PyTorch as it is, on the CPU or a GPU."""

    library: ClassVar[str] = "torch"

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.name = on_device(self.library, device)
        # A GPU computes convolutions in TF32, and rounds otherwise.
        self.exact = device == "cpu"

    def check(self) -> None:
        super().check()
        check_device(self.name, self.device)

    def engine(
        self,
        network: BranchedNetwork,
        criteria: Sequence[Criterion],
        thresholds: Sequence[float],
        input_shape: tuple[int, int, int],
        threads: int,
    ) -> "TorchEngine":
        return TorchEngine(network, criteria, thresholds, self.device)

    def classifier(self, module: nn.Module, input_shape: tuple[int, int, int], threads: int) -> Classifier:
        call = flat(for_inference(module, self.device))
        return classifier(lambda x: call(x).argmax(dim=1), self.device)

    def chain(self, modules: Sequence[nn.Module], input_shape: tuple[int, int, int], threads: int) -> Chain:
        return chain([flat(for_inference(module, self.device)) for module in modules], self.device)


def on_device(name: str, device: str) -> str:
    """The name of PyTorch's engine on a device: its own on the CPU, `<name>_<device>` elsewhere."""
    return name if device == "cpu" else f"{name}_{device}"


def check_device(name: str, device: str) -> None:
    """A UserError if the engine of that name computes on a GPU, and there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"engine={name} needs a GPU that PyTorch can use, and sees none; or take engine=torch"
        )


class TorchEngine:
    """Eager PyTorch: `BranchedNetwork.forward` with a break. See `branchynet.runtime.base.Engine`.

    Every exit makes the host wait for the device once, to learn which rows go on; nothing else does but the
    results at the end.

    PyTorch's threads are the process's own, so they are not this engine's to set: put `torch_threads` around
    the runs that are to be timed.

    Args:
        device: where it computes; images and results lie in the host's memory.
    """

    def __init__(
        self,
        network: BranchedNetwork,
        criteria: Sequence[Criterion],
        thresholds: Sequence[float],
        device: str | torch.device = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.steps = [
            step.function(self.form) for step in steps_for_inference(network, criteria, self.device)
        ]
        self.thresholds = thresholds

    def form(self, module: nn.Module) -> Callable[[Tensor], Tensor]:
        """What segments and heads are called as."""
        return flat(module)

    @property
    def thresholds(self) -> tuple[float, ...]:
        return self._thresholds

    @thresholds.setter
    def thresholds(self, values: Sequence[float]) -> None:
        self._thresholds = check_thresholds(values, len(self.steps))

    @torch.inference_mode()
    def run(self, x: np.ndarray) -> Outcome:
        features = torch.from_numpy(x).to(self.device, non_blocking=True)
        if len(x) > 1:
            return self._run_batch(features)
        handed: Sequence[Tensor] = ()
        last = len(self._thresholds)
        for n in range(last + 1):
            features, answer, uncertainty, *handed = self.step(n, features, *handed)
            # Both float32 values, so the comparison is one of float32.
            if n == last or uncertainty.item() < self._thresholds[n]:
                break
        return Outcome(answer.argmax(dim=1).cpu().numpy(), np.full(1, n + 1), uncertainty.cpu().numpy())

    def _run_batch(self, x: Tensor) -> Outcome:
        found = by_compaction(x, self._thresholds, self._answer, _rows, _numbers)
        results = [t.to("cpu", non_blocking=True) for t in found]
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
        return Outcome(*(t.numpy() for t in results))

    def _answer(self, n: int, handed: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        x, answer, uncertainty, *behind = self.step(n, *handed)
        return (x, *behind), answer.argmax(dim=1), uncertainty

    def step(self, n: int, x: Tensor, *handed: Tensor) -> tuple[Tensor, ...]:
        """From features (R, …) to those after segment n (0-based), the answer (R, K, …) and the uncertainty (R,).

        Args:
            handed: what else the step before gives, after its uncertainty.
        """
        return self.steps[n](x, *handed)


def _rows(x: Tensor, at: Tensor) -> Tensor:
    """x[at], in x's memory layout: to take channels_last apart would take a CPU four times as long."""
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1).index_select(0, at).permute(0, 3, 1, 2)
    return x.index_select(0, at)


def _numbers(mask: Tensor) -> Tensor:
    return mask.nonzero()[:, 0]


def classifier(predict: Callable[[Tensor], Tensor], device: str | torch.device = "cpu") -> Classifier:
    """From images (B, C, H, W) → classes (B, …) on tensors of a device to a function of one image (1, C, H, W)."""

    @torch.inference_mode()
    def classify(x: np.ndarray) -> int | np.ndarray:
        found = predict(torch.from_numpy(x).to(device))
        return int(found.item()) if found.ndim == 1 else found[0].cpu().numpy()

    return classify


def chain(functions: Sequence[Callable[[Tensor], Any]], device: str | torch.device = "cpu") -> Chain:
    """Functions of a device's tensors one after the other, for one image (1, C, H, W)."""
    device = torch.device(device)

    @torch.inference_mode()
    def run(x: np.ndarray) -> None:
        features = torch.from_numpy(x).to(device)
        for function in functions:
            features = function(features)
        if device.type == "cuda":
            torch.cuda.current_stream(device).synchronize()

    return run


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """PyTorch computes on `threads` threads inside, and on as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
