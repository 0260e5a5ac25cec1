"""Early exit in PyTorch, on the CPU or a GPU.

Shapes: B batch, C channels, H, W, K classes, N exits, R rows.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from branchynet.exits.criteria import Criterion
from branchynet.networks.branched import BranchedNetwork
from branchynet.runtime.compaction import Outcome, pays
from branchynet.runtime.engine import Classifier, check_thresholds
from branchynet.runtime.for_inference import for_inference, network_for_inference

# From features (R, …) to those behind the segment, logits (R, K) and uncertainty (R,).
TensorStep = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


class TorchEngine:
    """Eager PyTorch: `BranchedNetwork.forward` with a break. See `branchynet.runtime.engine.Engine`.

    Every exit makes the host wait for the device once, to learn which rows go on; nothing else does but the
    results at the end.

    PyTorch's threads are the process's own, so they are not this engine's to set: put `torch_threads` around
    the runs that are to be timed.

    Args:
        device: where it computes; images and results lie in the host's memory.
    """

    name = "torch"

    def __init__(
        self,
        network: BranchedNetwork,
        criterion: Criterion,
        thresholds: Sequence[float],
        device: str | torch.device = "cpu",
    ) -> None:
        self._device = torch.device(device)
        if self._device.type != "cpu":
            self.name = f"{self.name}_{self._device.type}"
        network = network_for_inference(network, self._device)
        self._steps = [
            make_step(segment, head, criterion)
            for segment, head in zip(network.segments, network.heads, strict=True)
        ]
        self.thresholds = thresholds

    @property
    def thresholds(self) -> tuple[float, ...]:
        return self._thresholds

    @thresholds.setter
    def thresholds(self, values: Sequence[float]) -> None:
        self._thresholds = check_thresholds(values, len(self._steps))

    @torch.inference_mode()
    def run(self, x: np.ndarray) -> Outcome:
        features = torch.from_numpy(x).to(self._device, non_blocking=True)
        if len(x) > 1:
            return self._run_batch(features)
        last = len(self._thresholds)
        for n in range(last + 1):
            features, logits, uncertainty = self._step(n, features)
            # Both float32 values, so the comparison is one of float32.
            if n == last or uncertainty.item() < self._thresholds[n]:
                break
        return Outcome(logits.argmax(dim=1).cpu().numpy(), np.full(1, n), uncertainty.cpu().numpy())

    def _run_batch(self, x: Tensor) -> Outcome:
        """As `branchynet.runtime.compaction.by_compaction`, on the device."""
        x, logits, unsure = self._step(0, x)
        prediction, uncertainty, exits = (
            logits.argmax(dim=1),
            unsure,
            torch.zeros_like(unsure, dtype=torch.int64),
        )
        rows: Tensor | None = None  # of the input, that have not left yet; None: all
        at: Tensor | None = None  # where they are in x; None: they are all there is
        for n, threshold in enumerate(self._thresholds, start=1):
            # The host waits here, for it has to know how many they are.
            staying = (unsure < threshold).logical_not_().nonzero()[:, 0]
            if not len(staying):
                break
            if len(staying) < len(unsure):
                rows = staying if rows is None else rows[staying]
                at = staying if at is None else at[staying]
                if pays(len(rows), len(x)):
                    x, at = _rows(x, at), None
            x, logits, unsure = self._step(n, x)
            answers = logits.argmax(dim=1)
            if at is not None:
                answers, unsure = answers[at], unsure[at]
            if rows is None:
                prediction, uncertainty = answers, unsure
                exits.fill_(n)
                continue
            # Over what an earlier exit gave.
            prediction.index_copy_(0, rows, answers)
            uncertainty.index_copy_(0, rows, unsure)
            exits.index_fill_(0, rows, n)
        results = [t.to("cpu", non_blocking=True) for t in (prediction, exits, uncertainty)]
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        return Outcome(*(t.numpy() for t in results))

    def _step(self, n: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._steps[n](x)


def make_step(segment: nn.Module, head: nn.Module, criterion: Criterion) -> TensorStep:
    """Segment, head and criterion as one function."""

    def step(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = segment(x)
        logits = head(features)
        return features, logits, criterion(logits)

    return step


def _rows(x: Tensor, at: Tensor) -> Tensor:
    """x[at], in x's memory layout: to take channels_last apart would take a CPU four times as long."""
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1).index_select(0, at).permute(0, 3, 1, 2)
    return x.index_select(0, at)


def undivided(module: nn.Module) -> BranchedNetwork:
    """A network of one exit: a baseline that runs through the same protocol, batches included.

    Args:
        module: from (B, C, H, W) to logits (B, K); it is shared, not copied.
    """
    return BranchedNetwork([nn.Identity()], [module], [])


def torch_classifier(module: nn.Module, device: str | torch.device = "cpu") -> Classifier:
    """An undivided module (B, C, H, W) → (B, K) as a function of one image (1, C, H, W)."""
    module = for_inference(module, device)
    return classifier(lambda x: module(x).argmax(dim=1), device)


def classifier(predict: Callable[[Tensor], Tensor], device: str | torch.device = "cpu") -> Classifier:
    """From images (B, C, H, W) → classes (B,) on tensors of a device to a function of one image (1, C, H, W)."""

    @torch.inference_mode()
    def classify(x: np.ndarray) -> int:
        return int(predict(torch.from_numpy(x).to(device)).item())

    return classify


def torch_chain(
    modules: Sequence[nn.Module], device: str | torch.device = "cpu"
) -> Callable[[np.ndarray], object]:
    """Modules one after the other, for one image (1, C, H, W)."""
    return chain([for_inference(module, device) for module in modules], device)


def chain(
    functions: Sequence[Callable[[Tensor], Tensor]], device: str | torch.device = "cpu"
) -> Callable[[np.ndarray], object]:
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
    """PyTorch computes on so many threads inside, and on as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
