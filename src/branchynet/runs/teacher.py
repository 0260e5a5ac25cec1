"""Another network as teacher: from a finished run, or from a checkpoint and a model's settings.

Its files are read as tensors and plain values, and of a run's settings the model's alone are used.
Shapes: B batch, C channels, H, W, K classes.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from branchynet.errors import UserError, printable
from branchynet.networks.branched import BranchedNetwork
from branchynet.runs.build import build_network, check_size, load_weights
from branchynet.runs.finished_run import FinishedRun
from branchynet.runs.image_facts import NAME as FACTS
from branchynet.runs.image_facts import ImageFacts, read_facts
from branchynet.runs.result_schema import read_result
from branchynet.runs.run_config import check_places, check_targets, plain, read_config
from branchynet.runs.stored import read_baseline, read_trace
from branchynet.training.objective import Objective, asks_a_teacher

log = logging.getLogger(__name__)

# A checkpoint's network is named by whoever starts the run.
_BY_HAND = "name its checkpoint, such as checkpoints/joint/best.ckpt, and objective.teacher_model instead"


def build_teacher(objective: Objective, facts: ImageFacts) -> nn.Module | None:
    """The network that an objective learns from, None where it asks for none.

    Args:
        objective: what it asks for, see `asks_a_teacher`.
        facts: of the images that the student is trained on.

    Returns:
        A module from these images (B, C, H, W), as they are normalised for the student, to logits (B, K).

    Raises:
        UserError: there is no such network, its files are damaged, or it is for other images or classes.
    """
    if not asks_a_teacher(objective):
        return None
    path, model = objective.teacher, objective.teacher_model  # type: ignore[attr-defined]
    try:
        if os.path.isdir(path):
            if model is not None:
                raise UserError("a run has its own model; leave out objective.teacher_model")
            return of_run(Path(path), facts)
        if not os.path.exists(path):
            raise UserError(
                "it is last, average, a finished run's folder or a checkpoint, and there is no such folder or file"
            )
        if model is None:
            raise UserError("a checkpoint wants objective.teacher_model, the name of one of conf/model")
        return of_checkpoint(Path(path), model, facts)
    except UserError as error:
        raise UserError(f"objective.teacher={path}: {error}") from error


def of_run(folder: Path, facts: ImageFacts) -> nn.Module:
    """A finished run's network: its last exit or its baseline, whichever is the more accurate on validation."""
    config = read_config(folder, trust=True)  # of which the model's settings are looked at here
    settings = {"model": plain(config.model)}
    for check in (check_targets, check_places):
        check(settings, folder / ".hydra" / "config.yaml", _BY_HAND)
    run = FinishedRun(folder, config, read_result(folder))
    own = read_facts(folder)
    if own is None:
        raise UserError(f"this run has no {FACTS}: {_BY_HAND}")
    _check_fits(own, facts)
    better = _is_baseline_better(folder)
    log.info("the teacher is the %s of %s", "baseline" if better else "last exit", folder)
    if None not in (own.fingerprint, facts.fingerprint) and own.fingerprint != facts.fingerprint:
        log.warning(
            "the teacher was trained on other images or another split of them: if it has seen those of this run's "
            "validation, accuracies there flatter the exits"
        )
    parts = _to_the_end(run.baseline if better else run.network)
    if (own.mean, own.std) != (facts.mean, facts.std):
        parts = [Renormalised((facts.mean, facts.std), (own.mean, own.std)), *parts]
    return nn.Sequential(*parts)


def of_checkpoint(path: Path, model: Any, facts: ImageFacts) -> nn.Module:
    """The last exit of the network of these settings and weights; its images are normalised as these."""
    settings = OmegaConf.create(dict(model))

    def build() -> BranchedNetwork:
        return build_network(
            settings, facts.input_shape, facts.num_classes, 0, setting="objective.teacher_model"
        )

    check_size(build, path, trunk_alone=True)
    network = build()
    load_weights(network, path)
    return nn.Sequential(*_to_the_end(network))


class Renormalised(nn.Module):
    """Images (B, C, H, W) as they are after (x / 255 - mean) / std, with another mean and std.

    Args:
        given: mean and std, C each, of what comes in.
        wanted: those of what goes out.
    """

    factor: Tensor
    offset: Tensor

    def __init__(
        self,
        given: tuple[Sequence[float], Sequence[float]],
        wanted: tuple[Sequence[float], Sequence[float]],
    ) -> None:
        super().__init__()
        (mean, std), (to_mean, to_std) = (torch.tensor(each, dtype=torch.float64) for each in (given, wanted))
        for name, value in (("factor", std / to_std), ("offset", (mean - to_mean) / to_std)):
            self.register_buffer(name, value.float()[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor + self.offset


def _to_the_end(network: BranchedNetwork) -> list[nn.Module]:
    return [*network.segments, network.heads[-1]]


def _is_baseline_better(folder: Path) -> bool:
    """On validation; an older run, which does not tell, has its last exit taken."""
    trace, baseline = folder / "trace-val.npz", folder / "baseline.npz"
    if not (trace.exists() and baseline.exists()):
        return False
    try:
        last = read_trace(trace).correct_alone[:, -1].double().mean()
        return bool(read_baseline(baseline).correct["val"].double().mean() > last)
    except UserError as error:
        raise UserError(f"its {trace.name} or {baseline.name} is damaged: {_BY_HAND}") from error


def _check_fits(own: ImageFacts, facts: ImageFacts) -> None:
    """A UserError for a run on images of another shape, or of other classes."""
    if own.input_shape != facts.input_shape:
        shapes = ["×".join(map(str, each.input_shape)) for each in (own, facts)]
        raise UserError(f"it takes images of {shapes[0]}, the data's are {shapes[1]}")
    if own.num_classes != facts.num_classes:
        raise UserError(f"it knows {own.num_classes} classes, the data has {facts.num_classes}")
    for number, (its, name) in enumerate(zip(own.classes, facts.classes, strict=True), start=1):
        if its != name:
            raise UserError(
                f"its class {number} is {printable(its)}, the data's {printable(name)}; if only the names differ, "
                f"{_BY_HAND}"
            )
