"""The LightningModule: a branched network and the weighted loss over its exits.

Shapes: B batch, C channels, H, W, K classes, N exits.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from branchynet.errors import UserError
from branchynet.networks.branched import BranchedNetwork
from branchynet.training.checkpoints import MovableCheckpoint
from branchynet.training.gradients import Gradients
from branchynet.training.hardware import compile_options
from branchynet.training.metrics import PerExit, Right, equal
from branchynet.training.objective import Objective, asks_a_teacher
from branchynet.training.parts import batch_norms, parameter_groups, trained_parts
from branchynet.training.seeds import derive_seed
from branchynet.training.teacher import Teacher

# On a GPU, looking at the loss waits for it; so there it is looked at once in this number of steps.
FINITE_CHECK_EVERY = 50
NOTHING_CHANGED = Gradients()


def constant(optimizer: Optimizer, steps: int) -> None:
    """No schedule. A function with a name, because other processes are to find it."""


class BranchyClassifier(L.LightningModule):
    """Trains all exits of a network together (Teerapittayanon et al., 2016, section III-B).

    The baseline is the same with the weights (0, …, 0, 1). A head of weight zero, and a segment after the last
    head that has one, is not given to the optimiser and stays in eval mode; nor is it run, unless the objective
    needs it.

    Args:
        network: N exits; its parameters are trained in place, and `requires_grad` is set on those alone.
        objective: what is minimised; its weights are N.
        optimizer: from parameter groups to an optimiser, such as `functools.partial(torch.optim.Adam, lr=1e-3)`.
        schedule: from the optimiser and the number of steps to a scheduler or None.
        stage: in every logged tag, `baseline` or `joint`.
        seed: what draws in training (dropout) depends on, besides the epoch and the stage.
        channels_last: whether images and weights lie in memory pixel by pixel instead of channel by channel.
        compile: whether full batches run through `torch.compile`. Others (an epoch's last, validation) do not:
            each size would be compiled for itself.
        freeze_trunk: train the side heads alone: the trunk (segments and last head) stays in eval mode and gets no
            gradient; the last exit's weight has to be 0.
        freeze_batch_norms: leave the trunk's batch norms as they are: in eval mode they normalise by the statistics
            that they came with, and their scales and offsets get no gradient.
        trunk_lr: of the segments, in place of the optimiser's; a schedule scales both.
        gradients: how the exits' gradients are added up.
        teacher: another network, for an objective that learns from one.
        right: how right answers are, which is what accuracy is the mean of.

    Logged once an epoch: `<stage>/train_loss`, `<stage>/val_loss`, `<stage>/val_accuracy` (the weighted mean
    over the exits), and per exit that is trained `…_exit_<n>` of loss and accuracy; `learning_rate/<stage>` as it
    is at the epoch's end, and `learning_rate/<stage>_trunk` where the trunk has its own.
    """

    def __init__(
        self,
        network: BranchedNetwork,
        objective: Objective,
        optimizer: Callable[[Iterable[Any]], Optimizer],
        schedule: Callable[[Optimizer, int], LRScheduler | None] = constant,
        stage: str = "joint",
        seed: int = 0,
        channels_last: bool = False,
        compile: bool = False,
        freeze_trunk: bool = False,
        freeze_batch_norms: bool = False,
        trunk_lr: float | None = None,
        gradients: Gradients = NOTHING_CHANGED,
        teacher: Teacher | None = None,
        right: Right = equal,
    ) -> None:
        super().__init__()
        weights = tuple(objective.weights)
        if len(weights) != network.num_exits or len(objective.needs) != network.num_exits:
            raise ValueError(f"the objective is not for {network.num_exits} exits")
        if freeze_trunk and weights[-1]:
            raise ValueError("with a frozen trunk the last exit has nothing to train: its weight is 0")
        if asks_a_teacher(objective) != (teacher is not None):
            raise ValueError("an objective that learns from another network has a teacher, others have none")
        self.network = network
        self.objective = objective
        self.teacher = teacher
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        network.to(memory_format=self.memory_format)
        self.compile_batches = compile
        self.compiled: Callable[..., tuple[list[Tensor | None], list[Tensor | None]]] | None = None
        self.full_batch = 0  # images in the stage's first batch
        self.weights = weights
        self.freeze_trunk = freeze_trunk
        self.trunk_lr = trunk_lr
        self.gradients = gradients
        self.sharing = gradients.sharing(weights)
        self.steps = 1  # of the optimiser in the whole stage
        self.trained = tuple(weight > 0 for weight in weights)
        self.optimizer_factory = optimizer
        self.schedule_factory = schedule
        self.stage = stage
        self.seed = seed
        self.train_metric = PerExit(network.num_exits, right)
        self.val_metric = PerExit(network.num_exits, right)
        network.requires_grad_(False)
        self.parts = trained_parts(network, self.trained, freeze_trunk)
        for part in self.parts:
            part.requires_grad_(True)
        self.fixed = batch_norms(network) if freeze_batch_norms else []
        for layer in self.fixed:
            layer.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> "BranchyClassifier":
        """What is not trained stays in eval mode: no dropout, and batch norm keeps its statistics."""
        super().train(mode)
        trained = {id(part) for part in self.parts}
        for part in self.network.parts():
            if id(part) not in trained:
                part.eval()
        for layer in self.fixed:
            layer.eval()
        if isinstance(self.objective, nn.Module):
            self.objective.eval()  # a teacher is asked, not trained
        return self

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) to N logits (B, K)."""
        return self.network(x)

    def on_fit_start(self) -> None:
        if self.teacher is not None:
            self.teacher.to(self.device, self.memory_format)

    def on_train_epoch_start(self) -> None:
        # Dropout's draws then depend on the epoch alone, and a resumed run repeats them.
        purpose = f"{self.stage} epoch {self.current_epoch}"
        rank = self.global_rank
        torch.manual_seed(derive_seed(self.seed, f"{purpose} rank {rank}" if rank else purpose))

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        loss = self._loss(batch, self.train_metric)
        if self.device.type == "cpu" or batch_idx % FINITE_CHECK_EVERY == 0 or self.trainer.is_last_batch:
            value = loss.item()
            if not math.isfinite(value):
                raise UserError(self._not_finite(value, batch_idx))
        return loss * self._share(len(batch[1])) if self.trainer.world_size > 1 else loss

    def _share(self, images: int) -> Tensor:
        """This rank's images over the ranks' mean. The ranks' gradients are averaged: weighted so, every image
        of a step counts the same, although an epoch's last batch may not divide evenly."""
        count = torch.tensor(float(images), device=self.device)
        return count / self.trainer.strategy.reduce(count.clone(), reduce_op="mean")

    def validation_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        self._loss(batch, self.val_metric)

    def on_train_epoch_end(self) -> None:
        self._log_epoch("train", self.train_metric)
        groups = self.trainer.optimizers[0].param_groups
        self.log(f"learning_rate/{self.stage}", float(groups[0]["lr"]))
        if self.trunk_lr is not None and not self.freeze_trunk:
            self.log(f"learning_rate/{self.stage}_trunk", float(groups[-1]["lr"]))

    def on_validation_epoch_end(self) -> None:
        self._log_epoch("val", self.val_metric)

    def configure_optimizers(self) -> Any:
        self.steps = int(self.trainer.estimated_stepping_batches)
        optimizer = self.optimizer_factory(parameter_groups(self.parts, self.network.segments, self.trunk_lr))
        scheduler = self.schedule_factory(optimizer, self.steps)
        if scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _loss(self, batch: tuple[Tensor, ...], metric: PerExit) -> Tensor:
        x, target, *numbers = batch  # numbers only where somebody wants them
        x = x.contiguous(memory_format=self.memory_format)
        sharing = self.sharing if self.training else None
        logits, features = self._network(len(x))(x, run=self.objective.needs, sharing=sharing)
        if self.training:
            logits = self.gradients.ramped(logits, self.trainer.global_step, self.steps)
        said = {}
        if self.teacher is not None:
            said["taught"] = self.teacher(x, "train" if self.training else "val", *numbers)
        wanted = features if self.objective.of_features else None
        loss, losses = self.objective(logits, target, wanted, **said)
        with torch.no_grad():
            metric.update(logits, losses, target)
        return loss

    def _network(self, batch: int) -> Callable[..., tuple[list[Tensor | None], list[Tensor | None]]]:
        if not self.compile_batches or not self.training:
            return self.network.with_features
        self.full_batch = max(self.full_batch, batch)
        if batch < self.full_batch:
            return self.network.with_features
        options = compile_options(self.device, self.trainer.world_size)
        if self.compiled is None:  # only now: what is compiled cannot be sent to another process
            self.compiled = torch.compile(self.network.with_features, dynamic=False, options=options)
        if options is not None:
            torch.compiler.cudagraph_mark_step_begin()  # the last step's outputs are not needed any more
        return self.compiled

    def _log_epoch(self, split: str, metric: PerExit) -> None:
        result = metric.compute()
        metric.reset()
        accuracy, loss = result["accuracy"].tolist(), result["loss"].tolist()
        pairs = [(w, a, lo) for w, a, lo in zip(self.weights, accuracy, loss, strict=True) if w > 0]
        values = {
            f"{split}_loss": sum(w * lo for w, _, lo in pairs),
            f"{split}_accuracy": sum(w * a for w, a, _ in pairs) / sum(self.weights),
        }
        for n, trained in enumerate(self.trained):
            if trained:
                values[f"{split}_accuracy_exit_{n + 1}"] = accuracy[n]
                values[f"{split}_loss_exit_{n + 1}"] = loss[n]
        self.log_dict({f"{self.stage}/{name}": value for name, value in values.items()})
        # For callbacks, which are the same in all stages.
        self.log_dict(values, logger=False, prog_bar=True)

    def _not_finite(self, value: float, step: int) -> str:
        where = f"the {self.stage} loss is {value} in epoch {self.current_epoch + 1}, step {step + 1}"
        # The last of ours keeps the last epoch's.
        ours = [
            callback
            for callback in self.trainer.checkpoint_callbacks
            if isinstance(callback, MovableCheckpoint)
        ]
        kept = [callback.best_model_path for callback in ours]
        last = (
            f"the last good checkpoint is {kept[-1]}" if kept and kept[-1] else "there is no checkpoint yet"
        )
        return f"{where}: lower optimizer.lr or the exits' weights; {last}"


def logged_names(weights: Sequence[float]) -> list[str]:
    """What a stage with these weights of the exits logs, for callbacks; loggers have `<stage>/` in front."""
    exits = [f"_exit_{n}" for n, weight in enumerate(weights, 1) if weight > 0]
    kinds = [f"{split}_{kind}" for split in ("val", "train") for kind in ("accuracy", "loss")]
    return [f"{kind}{end}" for end in ("", *exits) for kind in kinds]
