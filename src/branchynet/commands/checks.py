"""Settings that would only be found wrong after minutes of training, looked at before it."""

import copy
import math
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from omegaconf import DictConfig
from torch.optim import Optimizer

from branchynet.commands.observers import check_types
from branchynet.commands.paths import INITS
from branchynet.data.loader import shares
from branchynet.data.memory import available_memory, gib
from branchynet.errors import (
    ArgumentError,
    UserError,
    check_choice,
    check_whole,
    counted,
    is_number,
    is_whole,
    not_allowed,
    reason_of,
    settings_of,
)
from branchynet.exits.task import Task
from branchynet.networks.branched import BranchedNetwork
from branchynet.networks.size import activation_bytes, weights_bytes
from branchynet.runs.build import build_network
from branchynet.training.hardware import trains_on_gpu
from branchynet.training.parts import batch_norms
from branchynet.training.schedules import build_schedule


def check_init(init: Any, weights: Any = None) -> None:
    """`baseline`, `pretrained`, `scratch` or an existing checkpoint; `pretrained` with `model.weights` alone."""
    if init == "pretrained" and weights is None:
        raise UserError("init=pretrained takes the trunk as model.weights=<file> has it: name that file")
    if init not in INITS and not Path(str(init)).is_file():
        raise UserError(
            f"init={init}: it is baseline, pretrained, scratch or the path of a checkpoint, and there is no "
            "such file"
        )


def check_task(
    task: Task, network: BranchedNetwork, input_shape: tuple[int, int, int], num_classes: int
) -> None:
    """A UserError unless the network's answers are what the task asks for."""
    with torch.device("meta"), torch.no_grad():
        trunk = copy.deepcopy(network.trunk()).to("meta").eval()
        given = tuple(trunk(torch.zeros(2, *input_shape)).shape[1:])
    wanted = task.answer(num_classes, input_shape)
    if given != wanted:
        raise UserError(
            f"task={task.name} asks for {wanted} an image, and model.trunk gives {given}: take another model or "
            "another task"
        )


def check_memory(
    model: DictConfig, input_shape: tuple[int, int, int], num_classes: int, batch: int, gpu: bool
) -> None:
    """A UserError for a network that cannot be trained here for its size, before anything of it is laid out.

    What is counted is the least that training takes: the weights, their gradient, and what the layers give.

    Args:
        model: the network's settings.
        input_shape, num_classes: of the images.
        batch: images in a step.
        gpu: whether it is trained on one.
    """
    cure = "make model.trunk, model.exits or data.batch_size smaller"
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as: weights that are loaded go nowhere
            network = build_network(model, input_shape, num_classes, 0)
            needed = 2 * weights_bytes(network) + batch * activation_bytes(network, input_shape)
    except UserError:
        raise
    except Exception as error:
        if "overflow" in str(error):
            raise UserError(f"the network has more weights than can be counted: {cure}") from error
        return  # a trunk of somebody's own need not know the meta device
    memory = torch.cuda.get_device_properties("cuda").total_memory if gpu else available_memory()
    if needed > memory:
        raise UserError(
            f"training takes at least {gib(needed)} of memory, for weights, gradients and "
            f"{counted(batch, 'image')} a step, and {gib(memory)} are "
            f"{'on the GPU' if gpu else 'free here'}: {cure}"
        )


def check_freeze(freeze: Any, init: Any, network: BranchedNetwork) -> tuple[bool, bool]:
    """Whether the trunk is frozen in the joint stage, and whether the batch norms of a trained one are.

    Args:
        freeze: none, trunk or batch_norms.
        init: where joint training starts.
        network: whose trunk it is.
    """
    if freeze not in ("none", *WORDS):
        raise not_allowed("freeze", freeze, "none, trunk or batch_norms")
    if freeze != "none" and init == "scratch":
        raise UserError(
            f"freeze={freeze} with init=scratch would leave the {WORDS[freeze]} untrained: take init=baseline or "
            "freeze=none"
        )
    if freeze == "batch_norms" and not batch_norms(network):
        raise UserError("freeze=batch_norms: the trunk has none, take freeze=none or freeze=trunk")
    return freeze == "trunk", freeze == "batch_norms"


WORDS = {"trunk": "trunk", "batch_norms": "trunk's batch norms"}


def check_trunk_lr(value: Any, freeze: Any, init: Any) -> None:
    """A learning rate, or None, of a trunk that is trained in one of the stages."""
    if value is not None and (not is_number(value) or not 0 < value < math.inf):
        allowed = "a learning rate above 0, or null for the heads' (freeze=trunk trains those alone)"
        raise not_allowed("optimizer.trunk_lr", value, allowed)
    if value is not None and freeze == "trunk" and init == "pretrained":
        raise UserError(
            f"optimizer.trunk_lr={value}: with init=pretrained and freeze=trunk the trunk is not trained at all; "
            "leave one of them out"
        )


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
    steps = len(shares(images, batch_size))
    for count in epochs.values():
        try:
            built = optimizer([torch.nn.Parameter(torch.zeros(1))])
        except (TypeError, ValueError) as error:
            raise UserError(f"the optimizer's settings are refused: {error}; see conf/optimizer") from error
        if not isinstance(built, Optimizer):
            raise UserError(
                f"optimizer._target_ makes a {type(built).__name__} and no optimizer: see conf/optimizer"
            )
        with settings_of("schedule"):
            build_schedule(schedule, built, count * steps)


_EPOCHS = "set epochs.baseline and epochs.joint"
_ONCE = "a stage is validated once, at the end of every epoch"
# What a stage sets itself, and what to do instead.
RESERVED = {
    "max_epochs": _EPOCHS,
    "max_steps": _EPOCHS,
    "default_root_dir": "set hydra.run.dir",
    "callbacks": "choose callbacks=<option>, such as callbacks=[early_stopping,model_summary]",
    "logger": "choose logger=<option>, such as logger=[tensorboard,csv] or logger=none",
    "enable_checkpointing": "a stage keeps its best and its last epoch",
    "enable_progress_bar": "choose callbacks=rich_progress for another progress bar",
    "enable_model_summary": "choose callbacks=model_summary",
    "plugins": "a stage has its own, which writes whole checkpoints",
    "use_distributed_sampler": "the loader takes a process's share itself",
    "num_sanity_val_steps": _ONCE,
    "check_val_every_n_epoch": _ONCE,
    "val_check_interval": _ONCE,
    "fast_dev_run": "take debug=fast, which passes through all stages",
    "barebones": "take logger=none",
    "overfit_batches": "take +trainer.limit_train_batches=<number of batches>",
    "model_registry": "there is none",
}
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")


def check_trainer(
    trainer: Mapping[str, Any], callbacks: Sequence[Callback] = (), outside: int = 1
) -> dict[str, Any]:
    """Build a Trainer once and throw it away: it says what this machine does not have.

    Args:
        trainer: its settings.
        callbacks: a stage's.
        outside: processes that somebody else has started to train together.

    Returns:
        The same arguments; where several processes train, with a strategy that starts them for training alone.
        Lightning's own choice runs the whole command once more in each: composed anew, in a folder of its own.
    """
    for name, value in trainer.items():
        if name in RESERVED:
            raise ArgumentError(f"trainer.{name}", f"={value}: it is not for `trainer`; {RESERVED[name]}")
        if isinstance(value, Mapping) and name != "max_time":
            raise not_allowed(f"trainer.{name}", value, "a plain value, such as a number or a text")
    for name in ("limit_train_batches", "limit_val_batches"):
        limit = trainer.get(name)
        if limit is not None and not (is_number(limit) and 0 < limit < math.inf):
            raise not_allowed(
                f"trainer.{name}", limit, "a number of batches above 0, or a share of them such as 0.5"
            )
    devices, most = trainer.get("devices", "auto"), max(4, os.cpu_count() or 1)
    if is_whole(devices) and devices > most and not trains_on_gpu(trainer.get("accelerator", "auto")):
        raise not_allowed("trainer.devices", devices, f"at most {most} processes on this machine's CPU")
    longest = trainer.get("max_time")
    if longest is not None and not isinstance(longest, str | Mapping):
        raise not_allowed("trainer.max_time", longest, "a time such as 00:01:30:00, days to seconds")
    check_whole("trainer.accumulate_grad_batches", trainer.get("accumulate_grad_batches", 1))
    check_choice("trainer.precision", trainer.get("precision", "auto"), PRECISIONS)
    clip = trainer.get("gradient_clip_val")
    # Lightning takes 0 and less for "not clipped", and nan for a number.
    if clip is not None and not (is_number(clip) and 0 < clip < math.inf):
        raise not_allowed("trainer.gradient_clip_val", clip, "a number above 0, or null for no clipping")
    for name in ("min_epochs", "min_steps"):
        if trainer.get(name) is not None:
            check_whole(f"trainer.{name}", trainer[name], 0)
    check_types("trainer", trainer, L.Trainer)
    built = _trainer(trainer, callbacks)
    launcher, strategy = built.strategy.launcher, trainer.get("strategy", "auto")
    scripts = isinstance(launcher, _SubprocessScriptLauncher)
    if outside > 1:
        if built.world_size != outside or not scripts or strategy not in SPAWNED:
            raise UserError(
                f"{outside} processes were started to train together, and the trainer's settings are for "
                f"{built.world_size} (strategy {strategy}): take trainer=nodes, with trainer.devices processes on "
                "each of trainer.num_nodes machines"
            )
        return dict(trainer)
    if built.num_nodes > 1:  # it would wait for the others' processes, and nobody starts them
        raise not_allowed(
            "trainer.num_nodes",
            built.num_nodes,
            "1 where neither torchrun nor srun has started this command on every machine, see docs/multiruns.md",
        )
    if built.world_size == 1 or not scripts:
        return dict(trainer)
    if strategy not in SPAWNED:
        raise not_allowed(
            "trainer.strategy", strategy, f"with several processes one of {', '.join(SPAWNED)} or ddp_spawn"
        )
    spawned = {**trainer, "strategy": SPAWNED[strategy]}
    _trainer(spawned, callbacks)
    return spawned


# Lightning's strategies that run the command again, and the same with processes for training alone.
SPAWNED = {
    "auto": "ddp_spawn",
    "ddp": "ddp_spawn",
    "ddp_find_unused_parameters_true": "ddp_spawn_find_unused_parameters_true",
}


def _trainer(trainer: Mapping[str, Any], callbacks: Sequence[Callback]) -> L.Trainer:
    try:
        return L.Trainer(
            **trainer,
            callbacks=list(callbacks),
            logger=False,
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
            enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
            enable_model_summary=False,
        )
    except (
        MisconfigurationException,
        TypeError,
        ValueError,
        RuntimeError,
        ImportError,
        AttributeError,
    ) as error:
        if trainer.get("accelerator") in ("gpu", "cuda") and not torch.cuda.is_available():
            raise UserError(
                "trainer=gpu: there is no GPU here that PyTorch can use; take trainer=cpu"
            ) from error
        reason = reason_of(error, 500)
        raise UserError(f"the trainer's settings are refused: {reason}; see conf/trainer") from error
