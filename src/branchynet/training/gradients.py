"""What reaches the trunk of the exits' gradients, and how much the side exits' count early in training.

Both change gradients alone: logits, losses and what is logged stay those of the exits' weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from branchynet.errors import check_choice, is_number, not_allowed
from branchynet.networks.gradient import scale_gradient


@dataclass(frozen=True)
class Gradients:
    """How the exits' gradients are added up, whatever the objective.

    Args:
        trunk_gradient: sum | mean: what a segment gets of the exits at its end and behind it that have a weight
            (mean: Li et al., 2019, "Improved Techniques for Training Adaptive Deep Networks").
        start: 0 … 1: the share of their weights that the side exits begin with; it grows on a straight line to 1 at
            the stage's last step (Kaya, Hong and Dumitras, 2019, "Shallow-Deep Networks"). 1: they are constant.

    Raises:
        ArgumentError: one of them that is not allowed.
    """

    trunk_gradient: str = "sum"
    start: float = 1.0

    def __post_init__(self) -> None:
        check_choice("trunk_gradient", self.trunk_gradient, ("sum", "mean"))
        if not is_number(self.start) or not 0 <= self.start <= 1:
            raise not_allowed(
                "start", self.start, "the share of their weights that side exits begin with, 0 … 1"
            )

    def sharing(self, weights: Sequence[float]) -> tuple[int, ...] | None:
        """For `BranchedNetwork.with_features`, by the exits' N weights."""
        if self.trunk_gradient == "sum":
            return None
        return tuple(sum(weight > 0 for weight in weights[n:]) for n in range(len(weights)))

    def share(self, step: int, steps: int) -> float:
        """Of the side exits' weights in step 0 … `steps` - 1."""
        return self.start + (1 - self.start) * step / max(steps - 1, 1)

    def ramped(self, logits: Sequence[Tensor | None], step: int, steps: int) -> list[Tensor | None]:
        """N logits whose gradients, the last exit's excepted, are multiplied by this step's share."""
        share = self.share(step, steps)
        *sides, last = logits
        return [*(None if out is None else scale_gradient(out, share) for out in sides), last]
