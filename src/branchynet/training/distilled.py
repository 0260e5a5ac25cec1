"""Exits that also learn from a teacher: the last exit, the exits' average, or another network.

Shapes: B batch, K classes, N exits.
Sources: Hinton, Vinyals and Dean, 2015, section 2 (softened distributions); Phuong and Lampert, 2019 (exits that
learn from the last one).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from branchynet.errors import ArgumentError, is_number, not_allowed
from branchynet.training.objective import Joint, Logits, exit_losses, image_weights, weighted

TEACHERS = ("last", "average")  # all else is a path, of another network


@dataclass(frozen=True)
class Distilled:
    """`Σ_n w_n · loss(exit n)`, with `loss = (1-α) · cross-entropy + α τ² · KL(teacher ‖ exit)`.

    Both distributions are softened, `softmax(logits / τ)`; τ² keeps the gradient's size. The teacher gets no
    gradient. An exit's own loss is all of this. The last exit, where it is the teacher, learns from the labels
    alone: its loss is its cross-entropy. From another network all exits learn. With weights of classes an image
    counts by its class's in all of this, in what the teacher says of it, too.

    Args:
        weights: w_1 … w_N.
        share: α, 0 … 1; 0 is `Joint`.
        temperature: τ, above 0; the higher, the more the teacher says of the classes that it takes for wrong.
        teacher: last (exit N) | average (mean probabilities of the exits that have a weight, and of exit N) | a
            finished run's folder or a checkpoint: another network.
        label_smoothing: of every exit's cross-entropy, 0 … 1, 1 excluded.
        teacher_model: the settings of a checkpoint's network, `trunk` and `exits`.
        class_weights: as of `Joint`.

    Raises:
        ArgumentError: one of them that is not allowed.
    """

    weights: tuple[float, ...]
    share: float = 0.5
    temperature: float = 3.0
    teacher: str = "last"
    label_smoothing: float = 0.0
    teacher_model: Mapping[str, Any] | None = None
    class_weights: tuple[float, ...] | None = None

    of_features: ClassVar[bool] = False

    def __post_init__(self) -> None:
        joint = Joint(self.weights, self.label_smoothing, self.class_weights)
        object.__setattr__(self, "weights", joint.weights)
        object.__setattr__(self, "class_weights", joint.class_weights)
        if not is_number(self.share) or not 0 <= self.share <= 1:
            raise not_allowed("share", self.share, "the teacher's share of the loss, 0 … 1")
        if not is_number(self.temperature) or not 0 < self.temperature < math.inf:
            raise not_allowed("temperature", self.temperature, "a number above 0, such as 3")
        if not isinstance(self.teacher, str) or not self.teacher:
            allowed = (
                f"one of {', '.join(TEACHERS)}, or the path of a finished run's folder or of a checkpoint"
            )
            raise not_allowed("teacher", self.teacher, allowed)
        if self.teacher_model is None:
            return
        if self.teacher in TEACHERS:
            raise ArgumentError(
                "teacher_model",
                f": it is for the network of a checkpoint; leave it out with teacher={self.teacher}",
            )
        if not isinstance(self.teacher_model, Mapping) or not {"trunk", "exits"} <= self.teacher_model.keys():
            allowed = "the name of an option of conf/model, or a mapping with trunk and exits"
            raise not_allowed("teacher_model", self.teacher_model, allowed)

    @property
    def of_teacher(self) -> bool:
        """Whether it learns from another network, see `asks_a_teacher`."""
        return self.share > 0 and self.teacher not in TEACHERS

    @property
    def needs(self) -> tuple[bool, ...]:
        """Those that it weights, and the last one, if it teaches."""
        *sides, last = (weight > 0 for weight in self.weights)
        return (*sides, last or (self.share > 0 and not self.of_teacher))

    def __call__(
        self,
        logits: Logits,
        target: Tensor,
        features: Sequence[Tensor | None] | None = None,
        taught: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `Objective`; `taught` are the logits (B, K) of another network that teaches."""
        losses = exit_losses(logits, target, self.label_smoothing, self.class_weights)
        if not self.share:
            return weighted(losses, self.weights)
        softened = [None if out is None else self._softened(out) for out in logits]
        teacher = self._teacher(softened) if taught is None else self._softened(taught)
        learning = len(logits) - 1 if self.teacher == "last" else len(logits)
        for n, (said, loss) in enumerate(zip(softened[:learning], losses[:learning], strict=True)):
            if said is not None and loss is not None:
                divergence = self._divergence(said, teacher, target)
                losses[n] = (1 - self.share) * loss + self.share * self.temperature**2 * divergence
        return weighted(losses, self.weights)

    def _divergence(self, said: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        if self.class_weights is None:
            # Of maps a mean over their pixels, too.
            pixels = said[0, 0].numel()
            return F.kl_div(said, teacher, reduction="batchmean", log_target=True) / pixels
        each = F.kl_div(said, teacher, reduction="none", log_target=True).sum(dim=1)
        return (image_weights(self.class_weights, target) * each).mean()

    def _softened(self, logits: Tensor) -> Tensor:
        return (logits.float() / self.temperature).log_softmax(dim=1)

    def _teacher(self, softened: Logits) -> Tensor:
        """Log-probabilities (B, K), detached, of N softened ones."""
        given = [each.detach() for each in softened if each is not None]
        if self.teacher == "last":
            return given[-1]
        return torch.stack(given).logsumexp(dim=0) - math.log(len(given))
