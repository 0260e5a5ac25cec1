"""Accuracy and loss of every exit, as one torchmetrics metric (so that ranks are reduced for us)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

# From predictions (B, …), labels (B, …) and K to how right each answer is, (B,): bool, or 0 … 1.
Right = Callable[[Tensor, Tensor, int], Tensor]


def equal(prediction: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """(B,) bool, of classes (B,)."""
    return prediction == target


class PerExit(Metric):
    """Accuracy and mean loss per exit over an epoch.

    One metric for all exits: N separate ones would cost N times the bookkeeping in every step.
    `compute` gives `{"accuracy": (N,), "loss": (N,)}`; an exit that was not run has accuracy 0 and loss nan.
    """

    full_state_update = False

    correct: Tensor
    loss: Tensor
    total: Tensor

    def __init__(self, num_exits: int, right: Right = equal) -> None:
        super().__init__()
        self.right = right
        self.add_state("correct", torch.zeros(num_exits, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("loss", torch.zeros(num_exits, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Sequence[Tensor | None], losses: Tensor, target: Tensor) -> None:
        """Add a batch: N logits (B, K, …) or None, their mean losses (N,), the target (B, …)."""
        correct = [
            self.right(exit_logits.argmax(1), target, exit_logits.shape[1]).sum()
            if exit_logits is not None
            else target.new_zeros(())
            for exit_logits in logits
        ]
        self.correct += torch.stack([each.double() for each in correct])
        self.loss += losses.double() * len(target)
        self.total += len(target)

    def compute(self) -> dict[str, Tensor]:
        """`accuracy` and `loss`, (N,) float32 each."""
        total = self.total.clamp(min=1)
        return {"accuracy": self.correct.float() / total, "loss": (self.loss / total).float()}
