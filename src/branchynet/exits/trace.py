"""What every exit says of every sample: all that a sweep needs.

Shapes: B batch, K classes, N exits, S samples.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from branchynet.exits.criteria import Criterion


@dataclass(frozen=True, eq=False)
class Trace:
    """Every exit's uncertainty and prediction for every sample, and the labels, in the data set's order.

    Raises:
        ValueError: shapes or types that do not fit, or an uncertainty that is negative or not finite.
    """

    uncertainty: Tensor  # (S, N) float32, ≥ 0
    prediction: Tensor  # (S, N) int64
    label: Tensor  # (S,) int64

    def __post_init__(self) -> None:
        shape = tuple(self.uncertainty.shape)
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"uncertainty is {shape}, not (S, N) with at least one sample and exit")
        for name, expected, dtype in (
            ("uncertainty", shape, torch.float32),
            ("prediction", shape, torch.int64),
            ("label", shape[:1], torch.int64),
        ):
            value = getattr(self, name)
            if tuple(value.shape) != expected or value.dtype != dtype:
                raise ValueError(f"{name} is {tuple(value.shape)} {value.dtype}, not {expected} {dtype}")
        if not torch.isfinite(self.uncertainty).all():
            raise ValueError("an uncertainty is not finite: the network's outputs are not")
        if (self.uncertainty < 0).any():
            raise ValueError("an uncertainty is negative: a threshold of 0 could not keep everybody")

    @property
    def num_samples(self) -> int:
        """S."""
        return self.uncertainty.shape[0]

    @property
    def num_exits(self) -> int:
        """N."""
        return self.uncertainty.shape[1]

    @property
    def correct(self) -> Tensor:
        """(S, N) bool: whether exit n is right about sample s."""
        return self.prediction == self.label[:, None]


def compute_trace(
    network: Callable[[Tensor], Sequence[Tensor]],
    batches: Iterable[tuple[Tensor, Tensor]],
    criterion: Criterion,
) -> Trace:
    """One pass over the data; every exit is run for every sample, so that any thresholds can be tried after.

    Args:
        network: from images (B, …) to N logits (B, K); in eval mode, if it has one.
        batches: (images, labels), on the network's device and in the data set's order.
        criterion: from logits (B, K) to uncertainty (B,).

    Returns:
        The trace, on the CPU.
    """
    uncertainties, predictions, labels = [], [], []
    with torch.inference_mode():
        for x, y in batches:
            logits = network(x)
            uncertainties.append(torch.stack([criterion(out) for out in logits], dim=1).cpu())
            predictions.append(torch.stack([out.argmax(dim=1) for out in logits], dim=1).cpu())
            labels.append(y.cpu())
    # Joined outside of inference mode: the trace is made of plain tensors, usable anywhere.
    return Trace(torch.cat(uncertainties), torch.cat(predictions), torch.cat(labels))
