"""The joint loss: a weighted sum of every exit's mean cross-entropy.

Shapes: B batch, K classes, N exits.
Source: Teerapittayanon, McDanel and Kung, 2016, section III-B.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from branchynet.errors import UserError


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
        first, last = float(spec["first"]), float(spec["last"])
        values = [first + (last - first) * n / max(num_exits - 1, 1) for n in range(num_exits)]
    return check_weights(values, num_exits)


def check_weights(values: Sequence[float], num_exits: int) -> tuple[float, ...]:
    """`values` as a tuple of N floats, or a UserError that says what is wrong with them."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise UserError(
            f"weights.values={values} is not a list: give one weight per exit, such as weights.values=[1.0,0.3]"
        )
    if len(values) != num_exits:
        raise UserError(
            f"weights.values={list(values)} has {len(values)} weights, the network has {num_exits} exits: "
            f"give one weight per exit, shallow to deep, the trunk's own last"
        )
    try:
        weights = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        raise UserError(
            f"weights.values={list(values)}: every weight is a number, such as [1.0,0.3]"
        ) from None
    for n, weight in enumerate(weights, start=1):
        if not math.isfinite(weight) or weight < 0:
            raise UserError(f"the weight of exit {n} is {weight}: weights are finite numbers, 0 or more")
    if not any(weights):
        raise UserError(f"weights.values={list(values)}: at least one exit needs a weight above 0")
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


def joint_loss(
    logits: Sequence[Tensor | None],
    target: Tensor,
    weights: Sequence[float],
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """`Σ_n w_n · mean cross-entropy(exit n)` (section III-B, without its constant factor 1/|C|).

    Args:
        logits: N tensors (B, K), None where an exit was not run; only an exit of weight zero may be None.
        target: (B,) int64 class indices.
        weights: N numbers ≥ 0.
        label_smoothing: 0 … 1.

    Returns:
        The loss, a scalar, and each exit's own mean cross-entropy (N,), detached, nan where it was not run.
    """
    total = target.new_zeros((), dtype=torch.float32)
    losses = []
    for weight, exit_logits in zip(weights, logits, strict=True):
        if exit_logits is None:
            if weight:
                raise ValueError("an exit with a weight above zero was not run")
            losses.append(total.new_full((), math.nan))
            continue
        loss = F.cross_entropy(exit_logits.float(), target, label_smoothing=label_smoothing)
        total = total + weight * loss
        losses.append(loss.detach())
    return total, torch.stack(losses)
