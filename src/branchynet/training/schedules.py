"""Learning-rate schedules by name, over the steps of one stage."""

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from branchynet.errors import UserError

SCHEDULES = ("none", "one_cycle", "cosine")


def build_schedule(spec: Mapping[str, Any], optimizer: Optimizer, total_steps: int) -> LRScheduler | None:
    """The schedule that `spec` describes; it steps once per optimiser step.

    Args:
        spec: `name`: none | one_cycle (`warmup`: the rising share of the steps, 0 … 1; peak = the optimiser's
            learning rate) | cosine (from the optimiser's learning rate to zero).
        total_steps: optimiser steps in the whole stage.
    """
    name = spec["name"]
    if name == "none":
        return None
    if name == "cosine":
        return CosineAnnealingLR(optimizer, T_max=total_steps)
    if name == "one_cycle":
        warmup = float(spec["warmup"])
        if not 0 < warmup < 1:
            raise UserError(f"schedule.warmup={warmup}: the rising share of the steps lies between 0 and 1")
        # At least two steps on either side of the peak, or OneCycleLR divides by zero.
        if total_steps * min(warmup, 1 - warmup) < 2:
            raise UserError(
                f"schedule=one_cycle: {total_steps} steps are too few; take more epochs, smaller batches "
                f"or schedule=none"
            )
        peaks = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, max_lr=peaks, total_steps=total_steps, pct_start=warmup)
    raise UserError(f"schedule.name={name}: known are {', '.join(SCHEDULES)}")
