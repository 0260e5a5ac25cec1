"""An objective: every exit also learns from what the last one says."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from branchynet.training.objective import exit_losses, weighted


@dataclass(frozen=True)
class FromTheLast:
    """Cross-entropy, and `share` of the divergence (Kullback-Leibler) from the last exit, needed at any weight."""

    weights: tuple[float, ...]
    share: float = 0.5

    of_features: ClassVar[bool] = False

    @property
    def needs(self) -> tuple[bool, ...]:
        """The last one, too."""
        return (*(weight > 0 for weight in self.weights[:-1]), True)

    def __call__(
        self,
        logits: Sequence[Tensor | None],
        target: Tensor,
        features: Sequence[Tensor | None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `branchynet.training.objective.Objective`."""
        teacher = logits[-1].detach().float().log_softmax(dim=1)
        losses = exit_losses(logits, target)
        for n, out in enumerate(logits[:-1]):
            if out is not None:
                said = out.float().log_softmax(dim=1)
                losses[n] += self.share * F.kl_div(said, teacher, reduction="batchmean", log_target=True)
        return weighted(losses, self.weights)
