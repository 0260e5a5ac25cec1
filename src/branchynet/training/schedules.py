"""Learning-rate schedules by name, over the steps of one stage."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, OneCycleLR

from branchynet.errors import ArgumentError, UserError, check_choice, is_number, not_allowed

# By name, with the settings that each takes.
SCHEDULES: dict[str, tuple[str, ...]] = {
    "none": (),
    "one_cycle": ("warmup",),
    "cosine": (),
    "multi_step": ("milestones", "factor"),
}


def build_schedule(spec: Mapping[str, Any], optimizer: Optimizer, total_steps: int) -> LRScheduler | None:
    """The schedule that `spec` describes; it steps once per optimiser step.

    Args:
        spec: `name`: none | one_cycle (`warmup`: the rising share of the steps, 0 … 1; peak = the optimiser's
            learning rate) | cosine (from the optimiser's learning rate to zero) | multi_step (multiplied by
            `factor` at each of `milestones`, shares of the steps, 0 … 1).
        total_steps: optimiser steps in the whole stage.
    """
    name = spec["name"]
    check_choice("name", name, tuple(SCHEDULES))
    own = SCHEDULES[name]
    # `none` switches any of them off, as debug=fast does, and leaves that one's settings where they are.
    known = own if name != "none" else {setting for settings in SCHEDULES.values() for setting in settings}
    for setting in spec:
        if setting not in ("name", *known):
            raise ArgumentError(
                setting, f"={spec[setting]}: there is no such setting; {name} has {', '.join(own) or 'none'}"
            )
    for setting in own:
        if setting not in spec:
            raise ArgumentError(setting, f": it is missing, and name={name} needs it; choose schedule={name}")
    if name == "none":
        return None
    if name == "cosine":
        return CosineAnnealingLR(optimizer, T_max=total_steps)
    if name == "one_cycle":
        warmup = spec["warmup"]
        if not _is_share(warmup):
            raise not_allowed("warmup", warmup, "the rising share of the steps, between 0 and 1")
        # At least two steps on either side of the peak, or OneCycleLR divides by zero.
        if total_steps * min(warmup, 1 - warmup) < 2:
            raise UserError(
                f"schedule=one_cycle: {total_steps} steps are too few; take more epochs, smaller batches "
                f"or schedule=none"
            )
        peaks = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, max_lr=peaks, total_steps=total_steps, pct_start=warmup)
    steps = [max(round(share * total_steps), 1) for share in _milestones(spec["milestones"])]
    return MultiStepLR(optimizer, steps, gamma=_factor(spec["factor"]))


def _milestones(values: Any) -> list[float]:
    rising = (
        isinstance(values, Sequence)
        and not isinstance(values, str)
        and all(_is_share(value) for value in values)
        and all(first < second for first, second in pairwise(values))
    )
    if not rising or not values:
        allowed = "a list of shares of the stage's steps, between 0 and 1 and rising, such as [0.5,0.75]"
        raise not_allowed("milestones", values, allowed)
    return list(values)


def _factor(value: Any) -> float:
    if not _is_share(value):
        raise not_allowed("factor", value, "what the learning rate is multiplied by, between 0 and 1")
    return value


def _is_share(value: Any) -> bool:
    return is_number(value) and 0 < value < 1
