"""What a teacher costs: an epoch of distillation over an epoch of joint training, in one run.

    python benchmarks/distillation.py            # some ten minutes on one core
    python benchmarks/distillation.py --steps 1 --rounds 1        # to see that it works

B-LeNet and B-AlexNet of conf/model on random images that are not augmented, with `fit`, AdamW and all exits, each
epoch from the same initial weights. The variants take turns, round after round, each starting with another one; a
ratio is the median over the rounds of the ratio within each. Beside the time on the clock stands the processor's:
with one thread (the default here) it does not count what others compute meanwhile.

joint              the weighted sum of all exits' cross-entropies: 1
last, average      exits that learn from the last exit, or from their average
network            another network teaches, the same trunk: asked about every batch
network, known     the same after the first epoch: its answers are known
frozen …           the same with `freeze=trunk`, over frozen joint training
frozen one pass    the same images through the trunk alone, forward, in eval mode, over that, too. Below stands what
                   the last exit costs as a teacher, in such passes.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as L
import numpy as np
import torch
from _cases import ratio
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf
from torch import Tensor, nn

from branchynet.commands.app import conf_folder
from branchynet.data.module import ImageData
from branchynet.networks.branched import BranchedNetwork
from branchynet.runs.build import build_network
from branchynet.runtime.costs import count_macs, describe_machine
from branchynet.training.distilled import Distilled
from branchynet.training.hardware import resolve_precision
from branchynet.training.module import BranchyClassifier
from branchynet.training.objective import Joint, Objective, side_weights
from branchynet.training.stages import fit
from branchynet.training.teacher import Teacher

VALIDATION = 10  # images: `fit` wants some


class Case(NamedTuple):
    """A network, and how much it is trained in an epoch."""

    model: str
    shape: tuple[int, int, int]
    batch: int
    steps: int


CASES = (Case("b_lenet", (1, 28, 28), 512, 10), Case("b_alexnet", (3, 32, 32), 128, 4))


class Time(NamedTuple):
    """Seconds."""

    clock: float
    processor: float


Epoch = Callable[[], Time]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="after one that warms up")
    parser.add_argument("--steps", type=int, help="of an epoch; default: the case's own")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", nargs="*", default=[case.model for case in CASES])
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(arguments.threads)
    machine, versions = describe_machine()
    print(f"{machine}, {arguments.threads} thread{'s' * (arguments.threads > 1)};")
    print(", ".join(f"{name} {number}" for name, number in versions.items()), end="; ")
    print(f"load average {os.getloadavg()[0]:.1f} at the start")
    for case in CASES:
        if case.model in arguments.models:
            compare(case._replace(steps=arguments.steps or case.steps), arguments.rounds)


def compare(case: Case, rounds: int) -> None:
    """All variants in turns; prints a table."""
    with tempfile.TemporaryDirectory() as folder:
        variants = variants_of(case, Path(folder))
        times: dict[str, list[Time]] = {name: [] for name in variants}
        names = list(variants)
        for turn in range(rounds + 1):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                taken = variants[name]()
                if turn:  # the first round warms up, and lets a teacher get to know the images
                    times[name].append(taken)
    print(f"\n{case.model}: epochs of {case.steps} steps of {case.batch} images, {rounds} rounds in turns.\n")
    print("| | over joint, clock | over the rounds | over joint, processor |")
    print("|---|---:|---:|---:|")
    for name, own in times.items():
        joint = times["frozen joint" if name.startswith("frozen") else "joint"]
        within = sorted(a.clock / b.clock for a, b in zip(own, joint, strict=True))
        both = [ratio([each[n] for each in own], [each[n] for each in joint]) for n in (0, 1)]
        print(f"| {name} | {both[0]:.3f} | {within[0]:.3f} … {within[-1]:.3f} | {both[1]:.3f} |")
    frozen = [times[f"frozen {name}"] for name in ("last", "joint", "one pass")]
    clock, processor = (
        statistics.median((a[n] - b[n]) / c[n] for a, b, c in zip(*frozen, strict=True)) for n in (0, 1)
    )
    print(f"\nfrozen last costs {clock:.2f} passes of the trunk more (clock), {processor:.2f} (processor)")


def variants_of(case: Case, folder: Path) -> dict[str, Epoch]:
    """By name."""
    path = write_images(case, folder)
    weights = (1.0,) * network(case).num_exits
    sides = side_weights(weights)
    taught = partial(Distilled, weights, teacher="another")
    images = {"train": case.steps * case.batch, "val": VALIDATION}
    teachers = [Teacher(Trunk(network(case, seed=1)), images) for _ in range(2)]
    run = partial(epoch, case, path, folder)
    return {
        "joint": partial(run, Joint(weights)),
        "last": partial(run, Distilled(weights)),
        "average": partial(run, Distilled(weights, teacher="average")),
        "network": partial(run, taught(), teachers[0]),
        "network, known": partial(run, taught(), teachers[1], numbered=True),
        "frozen joint": partial(run, Joint(sides), frozen=True),
        "frozen last": partial(run, Distilled(sides), frozen=True),
        "frozen one pass": partial(one_pass, case, path),
    }


class Trunk(nn.Module):
    """A network's last exit."""

    def __init__(self, network: BranchedNetwork) -> None:
        super().__init__()
        self.layers = nn.Sequential(*network.segments, network.heads[-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Clock(Callback):
    """From an epoch's first hook to the end of its last step; validation comes after."""

    time: Time

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.start = now()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.is_last_batch:
            self.time = since(self.start)


def now() -> Time:
    return Time(time.perf_counter(), time.process_time())


def since(start: Time) -> Time:
    end = now()
    return Time(end.clock - start.clock, end.processor - start.processor)


def epoch(
    case: Case,
    path: Path,
    folder: Path,
    objective: Objective,
    teacher: Teacher | None = None,
    numbered: bool = False,
    frozen: bool = False,
) -> Time:
    """An epoch of joint training, from new weights."""
    clock = Clock()
    module = BranchyClassifier(
        network(case),
        objective,
        partial(torch.optim.AdamW, lr=0.001, weight_decay=0.01),
        channels_last=True,
        freeze_trunk=frozen,
        teacher=teacher,
    )
    trainer = {"accelerator": "cpu", "devices": 1, "precision": precision(case)}
    data = images_of(case, path)
    data.numbered = numbered
    with tempfile.TemporaryDirectory(dir=folder) as kept:
        fit(module, data, 1, Path(kept), trainer, callbacks=[clock])
    return clock.time


def one_pass(case: Case, path: Path) -> Time:
    """The same images through the trunk and nothing else."""
    trunk = Trunk(network(case)).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    batches = [
        batch[0].contiguous(memory_format=torch.channels_last)
        for batch in images_of(case, path).train_dataloader()
    ]
    mixed = precision(case) == "bf16-mixed"
    start = now()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        for x in batches:
            trunk(x)
    return since(start)


def images_of(case: Case, path: Path) -> ImageData:
    data = ImageData("arrays", path=str(path), batch_size=case.batch, validation_size=VALIDATION)
    data.setup()
    return data


def network(case: Case, seed: int = 0) -> BranchedNetwork:
    config = OmegaConf.load(conf_folder() / "model" / f"{case.model}.yaml")
    return build_network(config, case.shape, 10, seed)


def precision(case: Case) -> str:
    """What `trainer.precision=auto` stands for."""
    return resolve_precision("auto", "cpu", count_macs(network(case), case.shape).baseline)


def write_images(case: Case, folder: Path) -> Path:
    """Random ones, in an .npz file."""
    rng = np.random.default_rng(0)
    count = case.steps * case.batch + VALIDATION
    x = rng.integers(0, 256, (count, *case.shape), np.uint8)
    y = rng.integers(0, 10, count)
    path = folder / "images.npz"
    np.savez(path, x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    return path


if __name__ == "__main__":
    main()
