"""What training minimises: an objective says which exits it needs and weights, and makes a loss of their logits.

Shapes: B batch, K classes, N exits.
Source: Teerapittayanon, McDanel and Kung, 2016, section III-B.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from branchynet.errors import ArgumentError, UserError, is_number, not_allowed
from branchynet.training.class_weights import check_class_weights

Logits = Sequence[Tensor | None]
IGNORED = -100  # a label that cross_entropy leaves out


@runtime_checkable
class Objective(Protocol):
    """What every objective is. Its constructor takes `weights`, N numbers ≥ 0, and its own settings.

    An objective that is a `torch.nn.Module` moves to the training device with the network.

    Attributes:
        weights: w_1 … w_N: an exit of weight zero is not trained. With a frozen trunk the last one is 0.
        needs: N flags: the exits whose logits it looks at; those that it weights, and teachers.
        of_features: whether it also takes the features (B, …) that the heads got.

    One that learns from another network has more, see `asks_a_teacher`.
    """

    of_features: bool

    @property
    def weights(self) -> tuple[float, ...]: ...

    @property
    def needs(self) -> tuple[bool, ...]: ...

    def __call__(
        self, logits: Logits, target: Tensor, features: Sequence[Tensor | None] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The loss of a batch.

        Args:
            logits: N tensors (B, K), None where the exit is not needed.
            target: (B,) int64 class indices.
            features: N tensors (B, …), where it is `of_features`, else None.

        Returns:
            The loss, a scalar, and each exit's own loss (N,), detached, nan where it was not run.
        """


def asks_a_teacher(objective: Objective) -> bool:
    """Whether an objective learns from another network.

    Such a one has `of_teacher`, True; `teacher`, a run's folder or a checkpoint; and `teacher_model`, the settings
    of a checkpoint's network, or None. It is called with `taught=` the network's logits (B, K), too. One that does
    not know of all this asks for none.
    """
    return bool(getattr(objective, "of_teacher", False))


@dataclass(frozen=True)
class Joint:
    """`Σ_n w_n · mean cross-entropy(exit n)` (section III-B, without its constant factor 1/|C|).

    Args:
        weights: w_1 … w_N.
        label_smoothing: of every exit's cross-entropy, 0 … 1, 1 excluded.
        class_weights: how much an image of each of the K classes counts, see `class_weights`; None: all alike.

    Raises:
        ArgumentError: one of them that is not allowed.
    """

    weights: tuple[float, ...]
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None

    of_features: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", check_weights(self.weights, len(self.weights)))
        if not is_number(self.label_smoothing) or not 0 <= self.label_smoothing < 1:
            raise not_allowed("label_smoothing", self.label_smoothing, "between 0 and 1, 1 excluded")
        if self.class_weights is not None:
            object.__setattr__(self, "class_weights", tuple(check_class_weights(self.class_weights)))

    @property
    def needs(self) -> tuple[bool, ...]:
        """Those that it weights."""
        return tuple(weight > 0 for weight in self.weights)

    def __call__(
        self, logits: Logits, target: Tensor, features: Sequence[Tensor | None] | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Objective`."""
        losses = exit_losses(logits, target, self.label_smoothing, self.class_weights)
        return weighted(losses, self.weights)


def exit_weights(spec: Mapping[str, Any], num_exits: int) -> tuple[float, ...]:
    """The weights w_1 … w_N of the joint loss, shallow to deep.

    Args:
        spec: `values` (N numbers ≥ 0), or, where `values` is missing or None, `first` and `last`: w_1 and
            w_N, with the exits between them on a straight line, which fits any number of exits.
        num_exits: N.

    Raises:
        UserError: a wrong number of weights, a negative or non-finite one, or all of them zero.
    """
    values = spec.get("values")
    if values is None:
        for name in ("first", "last"):
            if not is_number(spec[name]) or not abs(spec[name]) <= sys.float_info.max:
                raise not_allowed(name, spec[name], "a number, 0 or more, and finite")
        first, last = float(spec["first"]), float(spec["last"])
        values = [first + (last - first) * n / max(num_exits - 1, 1) for n in range(num_exits)]
    return check_weights(values, num_exits)


def check_weights(values: Sequence[float], num_exits: int) -> tuple[float, ...]:
    """`values` as a tuple of N floats, or an ArgumentError (`values`) that says what is wrong with them."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise not_allowed("values", values, "a list with one weight per exit, such as [1.0,0.3]")
    if len(values) != num_exits:
        raise ArgumentError(
            "values",
            f"={list(values)} has {len(values)} weights, the network has {num_exits} exits: give one weight per "
            f"exit, shallow to deep, the trunk's own last",
        )
    if not all(is_number(value) for value in values):
        raise ArgumentError("values", f"={list(values)}: every weight is a number, such as [1.0,0.3]")
    weights = tuple(float(value) for value in values)
    for n, weight in enumerate(weights, start=1):
        if not math.isfinite(weight) or weight < 0:
            raise UserError(f"the weight of exit {n} is {weight}: weights are finite numbers, 0 or more")
    if not any(weights):
        raise ArgumentError("values", f"={list(values)}: at least one exit needs a weight above 0")
    return weights


def side_weights(weights: Sequence[float]) -> tuple[float, ...]:
    """N weights for a frozen trunk: the last exit has nothing to train, so its weight counts as 0.

    Raises:
        UserError: the weights of all side exits are 0.
    """
    if not any(weights[:-1]):
        raise UserError(
            "freeze=trunk trains the side exits alone, and all their weights are 0: give one of them a weight "
            "above 0, or take freeze=none"
        )
    return (*weights[:-1], 0.0)


def exit_losses(
    logits: Logits,
    target: Tensor,
    label_smoothing: float = 0.0,
    class_weights: tuple[float, ...] | None = None,
) -> list[Tensor | None]:
    """Each exit's mean cross-entropy, None where it was not run. Arguments as of `Objective.__call__`.

    With weights of classes (K) the mean is still over the number of images, and not over their weights: what an
    image counts does not depend on which others are in its batch. A pixel of a map whose label is no class, K or
    more, does not count.
    """
    if target.ndim > 1:
        classes = next(out.shape[1] for out in logits if out is not None)
        target = target.masked_fill(target >= classes, IGNORED)
    if class_weights is None:
        return [
            None if out is None else F.cross_entropy(out.float(), target, label_smoothing=label_smoothing)
            for out in logits
        ]
    counts = image_weights(class_weights, target)
    each = [
        None
        if out is None
        else F.cross_entropy(out.float(), target, reduction="none", label_smoothing=label_smoothing)
        for out in logits
    ]
    if target.ndim == 1:
        return [None if losses is None else (counts * losses).mean() for losses in each]
    counting = (target != IGNORED).sum()
    return [None if losses is None else (counts * losses).sum() / counting for losses in each]


def image_weights(class_weights: tuple[float, ...], target: Tensor) -> Tensor:
    """(B, …): how much each image, or pixel, counts, from the weights of the K classes and the labels (B, …)."""
    if target.ndim == 1:
        return _on(class_weights, target.device)[target]
    counting = (target >= 0) & (target < len(class_weights))
    return _on(class_weights, target.device)[target.where(counting, 0)] * counting


@lru_cache(maxsize=16)
def _on(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device)


def weighted(losses: Sequence[Tensor | None], weights: Sequence[float]) -> tuple[Tensor, Tensor]:
    """`Σ_n w_n · loss_n`, and the losses (N,), detached, nan for None.

    Raises:
        ValueError: the loss of an exit with a weight above zero is None.
    """
    given = next(loss for loss in losses if loss is not None)
    total = torch.zeros((), device=given.device)
    for weight, loss in zip(weights, losses, strict=True):
        if loss is not None:
            total = total + weight * loss
        elif weight:
            raise ValueError("an exit with a weight above zero was not run")
    nan = total.new_full((), math.nan)
    return total, torch.stack([nan if loss is None else loss.detach() for loss in losses])
