"""An exponential moving average of the weights (EMA), which is what is validated and kept."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from branchynet.errors import is_number, not_allowed


class Ema(WeightAveraging):
    """After every step `average = decay · average + (1 - decay) · weights`; the first step's weights start it.

    Lightning's callback puts the average in the weights' place for validation and into the checkpoints, and
    keeps both for a resume. Batch norm's statistics are averaged, too, so that they go with the weights.

    Args:
        decay: 0 … 1; the average reaches back some 1 / (1 - decay) steps.

    Raises:
        ArgumentError: a decay out of its range.
    """

    def __init__(self, decay: float) -> None:
        check_decay(decay)
        super().__init__(multi_avg_fn=ema_update(decay))

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # The module is not there yet, and the average would stay on the CPU.
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)


def ema_update(decay: float) -> Callable[[Any, Any, Any], None]:
    """An update for `torch.optim.swa_utils.AveragedModel` that takes counters as they are.

    torch's own rounds the average of a whole number down: batch norm's count would fall behind. What does not
    change, like a frozen trunk, stays bit for bit.
    """
    interpolate = get_ema_multi_avg_fn(decay)

    def update(average: list[Tensor], current: list[Tensor], number: Any) -> None:
        if torch.is_floating_point(average[0]):
            interpolate(average, current, number)
        else:
            for counter, value in zip(average, current, strict=True):
                counter.copy_(value)

    return update


def check_decay(decay: Any) -> None:
    """An ArgumentError unless `decay` lies between 0 and 1, both excluded."""
    if not is_number(decay) or not 0 < decay < 1:
        raise not_allowed(
            "ema", decay, "the decay per step, between 0 and 1, such as 0.999, or null for none"
        )
