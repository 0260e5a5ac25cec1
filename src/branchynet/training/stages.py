"""The two stages of training: the baseline, then all exits jointly (Teerapittayanon et al., 2016, section IV)."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.loggers import Logger
from torch import nn

from branchynet.errors import UserError, reason_of
from branchynet.networks.weights import load_network, most_bytes, network_state, read_checkpoint
from branchynet.training.averaging import Ema
from branchynet.training.checkpoints import MovableCheckpoint, WholeCheckpointIO
from branchynet.training.failures import Phase, may_be_the_checkpoints, user_error
from branchynet.training.module import BranchyClassifier

BEGIN_AGAIN = "delete it, and the stage begins again"

# Warnings of the libraries about their own code, or about what is meant here.
_NOISE = (
    r".*isinstance\(treespec, LeafSpec\).*",  # Lightning 2.6.6 on torch 2.15
    r".*module\(s\) in eval mode at the start of training.*",  # a frozen trunk's are
    r".*recommended to use `self.log\(.*, sync_dist=True\)`.*",  # torchmetrics has reduced them over the ranks
    r"TensorFloat32 tensor cores for float32.*",  # small networks train in float32, and exactly
    r".*Checkpoint directory .* exists and is not empty.*",  # a resumed run's is not
)


def fit(
    module: BranchyClassifier,
    data: L.LightningDataModule,
    epochs: int,
    folder: Path,
    trainer: Mapping[str, Any],
    logger: Logger | Sequence[Logger] | None = None,
    callbacks: Sequence[Callback] = (),
    ema: float | None = None,
) -> dict[str, float]:
    """Train one stage, or go on with it where `folder/last.ckpt` lies.

    Afterwards `folder` holds `best.ckpt` (the highest validation accuracy; of equals the first) and
    `last.ckpt`, and the network has the weights of the best.

    Args:
        module: what to train; its `stage` prefixes the logged tags.
        data: train and validation batches.
        epochs: how many in the whole stage, those before a resume included.
        folder: the stage's checkpoints.
        trainer: further arguments of `lightning.pytorch.Trainer`.
        logger: one or several; None logs nothing.
        callbacks: run besides the checkpointing; they see the best weights from `on_fit_end` on.
        ema: the decay per step of an average of the weights that is validated and kept in their place.

    Returns:
        What was logged last, by tag; and the `step` that it stands at.

    Raises:
        UserError: no epochs, a `last.ckpt` that is damaged or no checkpoint of a stage, a loss that is not
            finite, or memory that does not suffice.
    """
    if epochs < 1:
        raise UserError(f"epochs.{module.stage}={epochs}: a stage has at least one epoch")
    # At the epoch's very end; saved after validation, a resumed run would end that epoch a second time.
    # Two callbacks, because Lightning's save_last writes only when there is a new best.
    options: dict[str, Any] = {
        # Absolute: Lightning's file system takes a name that begins with `http` for an address.
        "dirpath": folder.absolute(),
        "enable_version_counter": False,
        "save_on_train_epoch_end": True,
    }
    keep_best = MovableCheckpoint(
        filename="best", monitor=f"{module.stage}/val_accuracy", mode="max", **options
    )
    keep_last = MovableCheckpoint(filename="last", **options)
    phase = Phase()
    averaging = [] if ema is None else [Ema(ema)]
    last = folder.absolute() / "last.ckpt"
    with warnings.catch_warnings():
        quieten()
        runner = L.Trainer(
            max_epochs=epochs,
            default_root_dir=folder,
            logger=logger or False,
            # LoadBest comes first, so that the other callbacks' on_fit_end sees the best weights.
            callbacks=[
                *(Quiet(), keep_best, keep_last, phase, *averaging, LoadBest(), StayStopped()),
                *callbacks,
            ],
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
            plugins=[WholeCheckpointIO()],
            use_distributed_sampler=False,  # the loader takes a rank's share itself
            **{"log_every_n_steps": 1, **trainer},
        )
        best = last.with_name("best.ckpt")
        resume = last if last.exists() and best.exists() else None
        if resume is not None:
            for checkpoint in (last, best):
                check_resumable(checkpoint, module.network)
        try:
            runner.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
        except Exception as error:
            if (mistake := user_error(error, phase.name, data)) is not None:
                raise mistake from error
            alone = runner.world_size == 1  # else it may be that the processes do not find each other
            if resume is not None and alone and phase.restoring and may_be_the_checkpoints(error):
                reason = reason_of(error)
                raise UserError(f"{last} cannot be gone on from ({reason}): {BEGIN_AGAIN}") from error
            raise
        make_contiguous(module.network)  # where other processes have trained, LoadBest was called there
    metrics = runner.callback_metrics.items()
    logged = {tag: float(value) for tag, value in metrics if module.stage in tag.split("/")}
    return {**logged, "step": runner.global_step - 1}


def quieten() -> None:
    """Ignore what the libraries say about their own code."""
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)


def quieten_logs() -> None:
    """Of Lightning's messages show those that somebody asked for: what profilers and callbacks have to say."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for name in ("profilers", "callbacks"):
        logging.getLogger(f"lightning.pytorch.{name}").setLevel(logging.INFO)
    if logging.getLogger().handlers:
        logging.getLogger("lightning").handlers.clear()  # its own would say everything a second time


class Quiet(Callback):
    """The same in processes that Lightning starts, which do not take over the filters of their parent."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if trainer.world_size > 1:
            quieten()
            quieten_logs()


class LoadBest(Callback):
    """After fitting, put the best checkpoint's weights into the network, channel by channel in memory."""

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        best = Path(trainer.checkpoint_callback.dirpath) / "best.ckpt"  # type: ignore[union-attr]
        if not best.exists():
            raise UserError(
                f"the {pl_module.stage} stage was stopped before its first epoch had ended: look at what stops it "
                "among `callbacks` and `trainer`, such as trainer.max_time"
            )
        load_network(pl_module.network, best)  # type: ignore[arg-type]
        make_contiguous(pl_module.network)  # type: ignore[arg-type]


class StayStopped(Callback):
    """A stage that was stopped early, and killed before the run was finished, is not trained further."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        stopped = [getattr(callback, "stopped_epoch", 0) for callback in trainer.callbacks]  # type: ignore[attr-defined]
        trainer.should_stop = any(stopped)


def make_contiguous(network: nn.Module) -> None:
    """Lay every tensor out as a new network's: what runs it later does not depend on how it was trained.

    Copies all: `contiguous()` would leave the strides of a 1×1 kernel, which count for both layouts.
    """
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)


def check_resumable(path: Path, network: nn.Module) -> None:
    """A UserError if training cannot go on from a checkpoint; Lightning would show a traceback."""
    content = read_checkpoint(path, BEGIN_AGAIN, most_bytes(network))
    if not isinstance(content, dict) or not {"state_dict", "optimizer_states", "loops"} <= content.keys():
        raise UserError(f"{path} is not a checkpoint of a stage: {BEGIN_AGAIN}")
    states = content["optimizer_states"]
    if not isinstance(states, list) or len(states) != 1:  # Lightning would begin with a new optimiser
        raise UserError(
            f"{path} is not a checkpoint of a stage, its optimizer_states are not one: {BEGIN_AGAIN}"
        )
    network_state(network, content, path, BEGIN_AGAIN)
