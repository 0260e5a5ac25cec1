"""How long the gradients of a trunk's lower layers are, over training: longer with side exits, says the paper."""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim import Optimizer

from branchynet.errors import check_whole
from branchynet.networks.branched import BranchedNetwork

TRUNK = "trunk"  # beside the layers: all of the trunk's parameters together


class GradientNorms(Callback):
    """Logs `<stage>/gradient_norm/<layer>` once an epoch: the mean over its steps of the Euclidean norm.

    Of the gradient as backward leaves it, before clipping, and of all exits that a stage trains together. A layer
    that a stage leaves as it is has none.

    Args:
        first: layers with a matrix of weights, from the image on, each by itself; None: all. The whole trunk,
            `gradient_norm/trunk`, is always there.
    """

    def __init__(self, first: int | None = 4) -> None:
        if first is not None:
            check_whole("first", first, hint=", of layers from the image on; null: all")
        self.first = first
        self.sums: dict[str, Tensor] = {}
        self.steps = 0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.sums, self.steps = {}, 0

    @torch.no_grad()
    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer
    ) -> None:
        network: Any = pl_module.network
        for name, norm in norms(trunk_parameters(network), self.first).items():
            self.sums[name] = self.sums.get(name, 0) + norm
        self.steps += 1

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for name, total in self.sums.items():
            pl_module.log(f"{pl_module.stage}/gradient_norm/{name}", total / self.steps, sync_dist=True)


def trunk_parameters(network: BranchedNetwork) -> dict[str, nn.Parameter]:
    """The trunk's parameters, from the image on, by their names on the trunk: `conv1.weight`."""
    segments = dict(network.segments.named_parameters())
    inner = {
        name.partition(".")[2]: value for name, value in segments.items()
    }  # without the segment's number
    return inner | dict(network.heads[-1].named_parameters())


def norms(parameters: Mapping[str, Tensor], first: int | None) -> dict[str, Tensor]:
    """By layer, the norm of its weights' gradient, and that of all `parameters` together, of those with one."""
    found = {name: value.grad for name, value in parameters.items() if value.grad is not None}
    matrices = {
        name.removesuffix(".weight"): grad for name, grad in found.items() if parameters[name].ndim > 1
    }
    wanted = list(matrices.items())[:first]
    each = {name: grad.float().norm() for name, grad in wanted}
    if found:
        each[TRUNK] = torch.stack([grad.float().norm() for grad in found.values()]).norm()
    return each
