"""Exits that also learn from a teacher: the last exit, or the exits' average.

Shapes: B batch, K classes, N exits.
Sources: Hinton, Vinyals and Dean, 2015, section 2 (softened distributions); Phuong and Lampert, 2019 (exits that
learn from the last one).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from branchynet.errors import check_choice, is_number, not_allowed
from branchynet.training.objective import Joint, Logits, exit_losses, weighted

TEACHERS = ("last", "average")


@dataclass(frozen=True)
class Distilled:
    """`Σ_n w_n · loss(exit n)`, with `loss = (1-α) · cross-entropy + α τ² · KL(teacher ‖ exit)`.

    Both distributions are softened, `softmax(logits / τ)`; τ² keeps the gradient's size. The teacher gets no
    gradient. An exit's own loss is all of this. The last exit, where it is the teacher, learns from the labels
    alone: its loss is its cross-entropy.

    Args:
        weights: w_1 … w_N.
        share: α, 0 … 1; 0 is `Joint`.
        temperature: τ, above 0; the higher, the more the teacher says of the classes that it takes for wrong.
        teacher: last (exit N) | average (mean probabilities of the exits that have a weight, and of exit N).
        label_smoothing: of every exit's cross-entropy, 0 … 1, 1 excluded.

    Raises:
        ArgumentError: one of them that is not allowed.
    """

    weights: tuple[float, ...]
    share: float = 0.5
    temperature: float = 3.0
    teacher: str = "last"
    label_smoothing: float = 0.0

    of_features: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", Joint(self.weights, self.label_smoothing).weights)
        if not is_number(self.share) or not 0 <= self.share <= 1:
            raise not_allowed("share", self.share, "the teacher's share of the loss, 0 … 1")
        if not is_number(self.temperature) or not 0 < self.temperature < math.inf:
            raise not_allowed("temperature", self.temperature, "a number above 0, such as 3")
        check_choice("teacher", self.teacher, TEACHERS)

    @property
    def needs(self) -> tuple[bool, ...]:
        """Those that it weights, and the last one, if there is a teacher."""
        *sides, last = (weight > 0 for weight in self.weights)
        return (*sides, last or self.share > 0)

    def __call__(
        self, logits: Logits, target: Tensor, features: Sequence[Tensor | None] | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Objective`."""
        losses = exit_losses(logits, target, self.label_smoothing)
        if not self.share:
            return weighted(losses, self.weights)
        softened = [
            None if out is None else (out.float() / self.temperature).log_softmax(dim=1) for out in logits
        ]
        teacher = self._teacher(softened)
        learning = len(logits) - 1 if self.teacher == "last" else len(logits)
        for n, (said, loss) in enumerate(zip(softened[:learning], losses[:learning], strict=True)):
            if said is not None and loss is not None:
                divergence = F.kl_div(said, teacher, reduction="batchmean", log_target=True)
                losses[n] = (1 - self.share) * loss + self.share * self.temperature**2 * divergence
        return weighted(losses, self.weights)

    def _teacher(self, softened: Logits) -> Tensor:
        """Log-probabilities (B, K), detached, of N softened ones."""
        given = [each.detach() for each in softened if each is not None]
        if self.teacher == "last":
            return given[-1]
        return torch.stack(given).logsumexp(dim=0) - math.log(len(given))
