"""What a failed fit means to the user: memory that does not suffice, and mistakes found in another process."""

import errno
from typing import Any

import lightning.pytorch as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from branchynet.errors import ArgumentError, UserError, reason_of

# How torch says on a CPU, in a plain RuntimeError, and the CUDA libraries say that memory is used up.
_SIGNS = ("DefaultCPUAllocator: can't allocate memory", "CUDA out of memory", "STATUS_ALLOC_FAILED")

_CURES = {
    "training": "lower data.batch_size{batch_size}{more}",
    "validation": "lower data.eval_batch_size{eval_batch_size}{more}",
    "the threshold sweep": (
        "lower data.eval_batch_size{eval_batch_size} or sweep.max_vectors, or free some of the host's memory"
    ),
    "one of the processes": "lower data.batch_size{batch_size} or data.eval_batch_size{eval_batch_size}{more}",
}


class Phase(Callback):
    """Knows what was going on when fitting failed: `name` is a key of _CURES."""

    name = "training"
    restoring = False  # a checkpoint, if there is one

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.restoring = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.restoring = False

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.name = "validation"

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.name = "training"

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.name = "the threshold sweep"


def user_error(error: Exception, phase: str, data: Any) -> UserError | None:
    """The user's mistake that `error` stands for, None where it stands for none.

    Args:
        error: what fitting raised.
        phase: what was going on, see `Phase`.
        data: its `batch_size` and `eval_batch_size` are quoted.
    """
    if isinstance(error, ProcessRaisedException):  # holds the other process's traceback, as text
        *_, last = str(error).strip().splitlines()
        kind, _, message = last.partition(": ")
        if kind in [f"{mistake.__module__}.{mistake.__qualname__}" for mistake in (UserError, ArgumentError)]:
            return UserError(message)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            "the disk is full: make room, and `branchynet train resume=<run folder>` goes on from the last whole "
            "checkpoint"
        )
    if isinstance(error, MisconfigurationException):
        return UserError(f"Lightning refuses the settings of {phase}: {reason_of(error, 500)}")
    if not is_out_of_memory(error):
        return None
    if isinstance(error, ProcessRaisedException | ProcessExitedException):
        phase = "one of the processes"
    more = ", or take trainer.precision=bf16-mixed"
    if torch.cuda.is_available():
        more += " or data.loader=dataloader, which leaves the images in the host's memory"
    sizes = {
        name: f" (now {getattr(data, name)})" if hasattr(data, name) else ""
        for name in ("batch_size", "eval_batch_size")
    }
    return UserError(f"the memory does not suffice in {phase}: {_CURES[phase].format(**sizes, more=more)}")


def may_be_the_checkpoints(error: Exception) -> bool:
    """Whether a checkpoint with something else in it would raise such an error as it is taken over."""
    return not isinstance(error, UserError | OSError | ProcessRaisedException | ProcessExitedException)


def is_out_of_memory(error: Exception) -> bool:
    """Whether `error`, raised here or in another process, says that memory is used up."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, ProcessExitedException):
        return error.signal_name == "SIGKILL"  # what Linux ends a process with then
    if isinstance(error, ProcessRaisedException):
        *_, last = str(error).strip().splitlines()
        return "MemoryError" in last.partition(":")[0] or any(sign in last for sign in _SIGNS)
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
