"""Settings that would only be found wrong after minutes of training, looked at before it."""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch.optim import Optimizer

from branchynet.errors import UserError, check_whole, is_number, not_allowed, settings_of
from branchynet.training.schedules import build_schedule


def check_init(init: Any) -> None:
    """`baseline`, `scratch` or an existing checkpoint."""
    if init not in ("baseline", "scratch") and not Path(str(init)).is_file():
        raise UserError(
            f"init={init}: it is baseline, scratch or the path of a checkpoint, and there is no such file"
        )


def check_freeze(freeze: Any, init: Any) -> bool:
    """Whether the trunk is frozen in the joint stage: `none`, or `trunk` where there is a trained one."""
    if freeze not in ("none", "trunk"):
        raise not_allowed("freeze", freeze, "none or trunk")
    if freeze == "trunk" and init == "scratch":
        raise UserError(
            "freeze=trunk with init=scratch would leave the trunk untrained: take init=baseline or freeze=none"
        )
    return freeze == "trunk"


def check_epochs(epochs: Mapping[str, Any]) -> None:
    """A whole number above 0 for each stage."""
    for stage, count in epochs.items():
        check_whole(f"epochs.{stage}", count)


def check_optimizer(
    optimizer: Callable[[Iterable[Any]], Optimizer],
    schedule: Mapping[str, Any],
    epochs: Mapping[str, int],
    images: int,
    batch_size: int,
) -> None:
    """Build the optimiser and each stage's schedule once, for one parameter, and throw them away."""
    steps = math.ceil(images / batch_size)
    for count in epochs.values():
        try:
            built = optimizer([torch.nn.Parameter(torch.zeros(1))])
        except (TypeError, ValueError) as error:
            raise UserError(f"the optimizer's settings are refused: {error}; see conf/optimizer") from error
        with settings_of("schedule"):
            build_schedule(schedule, built, count * steps)


def check_trainer(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Build a Trainer once and throw it away: it says what this machine does not have.

    Returns:
        The same arguments; where several processes train, with a strategy that starts them for training alone.
        Lightning's own choice runs the whole command once more in each: composed anew, in a folder of its own.
    """
    clip = trainer.get("gradient_clip_val")
    # Lightning takes 0 and less for "not clipped", and nan for a number.
    if clip is not None and not (is_number(clip) and 0 < clip < math.inf):
        raise not_allowed("trainer.gradient_clip_val", clip, "a number above 0, or null for no clipping")
    built = _trainer(trainer)
    if built.world_size == 1 or not isinstance(built.strategy.launcher, _SubprocessScriptLauncher):
        return dict(trainer)
    strategy = trainer.get("strategy", "auto")
    if strategy not in SPAWNED:
        raise not_allowed(
            "trainer.strategy", strategy, f"with several processes one of {', '.join(SPAWNED)} or ddp_spawn"
        )
    spawned = {**trainer, "strategy": SPAWNED[strategy]}
    _trainer(spawned)
    return spawned


# Lightning's strategies that run the command again, and the same with processes for training alone.
SPAWNED = {
    "auto": "ddp_spawn",
    "ddp": "ddp_spawn",
    "ddp_find_unused_parameters_true": "ddp_spawn_find_unused_parameters_true",
}


def _trainer(trainer: Mapping[str, Any]) -> L.Trainer:
    try:
        return L.Trainer(**trainer, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    except (MisconfigurationException, TypeError, ValueError) as error:
        if trainer.get("accelerator") in ("gpu", "cuda") and not torch.cuda.is_available():
            raise UserError(
                "trainer=gpu: there is no GPU here that PyTorch can use; take trainer=cpu"
            ) from error
        raise UserError(f"the trainer's settings are refused: {error}; see conf/trainer") from error
