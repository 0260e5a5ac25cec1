"""What every exit says of every sample: all that a sweep needs.

Shapes: B batch, N exits, S samples.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from branchynet.exits.criteria import Criterion


@dataclass(frozen=True)
class Trace:
    """Every exit's uncertainty and prediction for every sample, and the labels, in the data set's order."""

    uncertainty: Tensor  # (S, N) float32
    prediction: Tensor  # (S, N) int64
    label: Tensor  # (S,) int64

    def __post_init__(self) -> None:
        shape = self.uncertainty.shape
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"uncertainty is {tuple(shape)}, not (S, N) with at least one sample and exit")
        if self.prediction.shape != shape or self.label.shape != shape[:1]:
            raise ValueError(
                f"uncertainty is {tuple(shape)}, prediction {tuple(self.prediction.shape)} and "
                f"label {tuple(self.label.shape)}: they do not fit"
            )
        if torch.isnan(self.uncertainty).any():
            raise ValueError("an uncertainty is nan: the network's outputs are not finite")

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


@torch.inference_mode()
def compute_trace(
    network: Callable[[Tensor], Sequence[Tensor]],
    batches: Iterable[tuple[Tensor, Tensor]],
    criterion: Criterion,
) -> Trace:
    """One pass over `batches` of (images, labels); every exit is run for every sample.

    Args:
        network: from images to N logits (B, K); in eval mode, if it has one.
        batches: in the data set's order.
        criterion: from logits (B, K) to uncertainty (B,).

    Returns:
        The trace, on the CPU.
    """
    uncertainties, predictions, labels = [], [], []
    for x, y in batches:
        logits = network(x)
        uncertainties.append(torch.stack([criterion(out) for out in logits], dim=1).float().cpu())
        predictions.append(torch.stack([out.argmax(dim=1) for out in logits], dim=1).cpu())
        labels.append(y.cpu())
    # Copies outside of inference mode: a trace is a plain value, usable anywhere.
    with torch.inference_mode(False):
        return Trace(*(torch.cat(parts).clone() for parts in (uncertainties, predictions, labels)))
