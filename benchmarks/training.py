"""Joint training through our `fit` against a bare PyTorch loop, and against the way of the common templates.

    python benchmarks/training.py            # some ten minutes on two cores
    python benchmarks/training.py --steps 1 --rounds 1 --images 2000        # to see that it works

B-LeNet (MNIST, batches of 512), B-AlexNet (CIFAR-10, 256) and B-ResNet-110 (CIFAR-10, 64), the networks of
conf/model, with all exits trained, from the same initial weights, with AdamW and a one-cycle schedule, on as many
threads as PyTorch takes by itself, or on the GPU. Everyone sits in a process of its own, with the whole training
set, and they take turns, round after round; a round is a few steps, from an epoch's first hook to the end of its
last step. No validation, no checkpoints.

branchynet   `fit`: Lightning, our module with its metrics, our loader with crops, flips and normalisation
bare loop    images normalised beforehand and never augmented; an index, forward, weighted loss, backward, step,
             and nothing else; same precision and memory layout
template     torchvision's CIFAR10 with PIL images, per-image crop, flip, ToTensor and Normalize, a DataLoader
             without workers, a LightningModule with an accuracy logged per exit; float32, channels
             first: what one gets by default. (Not for B-LeNet: see batches.py.)

The memory is the highest of the process; what it had after importing the libraries is given beside it.
Real images are taken from BRANCHYNET_DATA; without them, random ones of the same shape.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy
from torchvision import transforms
from torchvision.datasets import CIFAR10

from branchynet.commands.app import conf_folder
from branchynet.data.datasets import load_dataset
from branchynet.data.module import ImageData
from branchynet.errors import UserError
from branchynet.networks.branched import BranchedNetwork
from branchynet.runs.build import build_network
from branchynet.runtime.costs import count_macs, describe_machine
from branchynet.training.hardware import resolve_precision
from branchynet.training.module import BranchyClassifier
from branchynet.training.objective import Joint
from branchynet.training.schedules import build_schedule
from branchynet.training.stages import fit

LR = 0.001
VALIDATION = 10  # images: `fit` wants some
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
AUGMENT = {"shift": 4, "fill": "zero", "flip": True}


class Case(NamedTuple):
    """A network, and what it is trained on."""

    model: str
    data: str
    shape: tuple[int, int, int]
    batch: int
    steps: int  # of a round
    aim: float  # of the bare loop's images a second
    rivals: tuple[str, ...]


CASES = (
    Case("b_lenet", "mnist", (1, 28, 28), 512, 40, 0.87, ("bare loop",)),
    Case("b_alexnet", "cifar10", (3, 32, 32), 256, 40, 0.95, ("bare loop", "template")),
    Case("b_resnet110", "cifar10", (3, 32, 32), 64, 12, 0.95, ("bare loop", "template")),
)

# Trains for one round, and says how many seconds it took.
Round = Callable[[], float]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5, help="after one that warms up")
    parser.add_argument("--steps", type=int, help="of a round; default: the case's own")
    parser.add_argument("--images", type=int, default=50_000, help="in the training set")
    arguments = parser.parse_args()
    machine, versions = describe_machine()
    print(f"{machine}, {torch.get_num_threads()} threads, device {DEVICE.type};")
    print(", ".join(f"{name} {number}" for name, number in versions.items()), end="; ")
    print(f"load average {os.getloadavg()[0]:.1f} at the start")
    with tempfile.TemporaryDirectory() as folder:
        paths: dict[str, Path] = {}
        for case in CASES:
            if case.data not in paths:
                paths[case.data] = write_images(case, arguments.images, Path(folder))
            steps = arguments.steps or case.steps * (20 if DEVICE.type == "cuda" else 1)
            compare(case._replace(steps=steps), paths[case.data], arguments.rounds)


def compare(case: Case, path: Path, rounds: int) -> None:
    """Everyone in turns; prints a table."""
    names = ("branchynet", *case.rivals)
    with contextlib.ExitStack() as stack:
        processes = {name: stack.enter_context(Rival(name, case, path)) for name in names}
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for number in range(rounds + 1):
            for name, process in processes.items():
                taken = process.ask("round")
                if number:  # the first round warms up
                    seconds[name].append(taken)
        memory = {name: process.ask("memory") for name, process in processes.items()}
    images = case.steps * case.batch
    print(
        f"\n{case.model}, {precision(case)}: {case.steps} steps of {case.batch} images, {rounds} rounds in turns.\n"
    )
    print("| | images a second | branchynet is … times as fast | over the rounds | peak memory, MB |")
    print("|---|---:|---:|---:|---:|")
    for name in names:
        ratios = sorted(b / a for a, b in zip(seconds["branchynet"], seconds[name], strict=True))
        aim = {"bare loop": f" (aim: {case.aim})", "template": " (aim: 1.5)"}.get(name, "")
        before, peak = memory[name]
        print(
            f"| {name} | {images / statistics.median(seconds[name]):,.0f} "
            f"| {statistics.median(ratios):.3f}{aim} | {ratios[0]:.3f} … {ratios[-1]:.3f} "
            f"| {peak:,.0f}, of which {before:,.0f} libraries |"
        )


class Rival:
    """One of those that are compared, in a process of its own that waits for its turn."""

    def __init__(self, name: str, case: Case, path: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, name, case, path))
        self.process.start()
        other.close()  # so that a dead process is an end of file here, and not a wait for ever

    def __enter__(self) -> Rival:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self.process.join()

    def ask(self, what: str) -> Any:
        self.connection.send(what)
        return self.connection.recv()


def serve(connection: Connection, name: str, case: Case, path: Path) -> None:
    """What a rival's process does: build, then answer until the other side hangs up."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    libraries = peak_megabytes()
    start: Callable[[Case, Path], Round] = {"branchynet": ours, "bare loop": bare, "template": template}[name]
    run = start(case, path)
    with contextlib.suppress(EOFError):
        while True:
            connection.send(run() if connection.recv() == "round" else (libraries, peak_megabytes()))


def peak_megabytes() -> float:
    """Of the host's memory for this process, and of the GPU's where it trains there."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB
    status = Path("/proc/self/status")
    if status.exists():  # for getrusage may give the peak of the parent that started this process
        (peak,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        host = int(peak.split()[1]) / 1024
    return host + (torch.cuda.max_memory_allocated() / 2**20 if DEVICE.type == "cuda" else 0)


class StepClock(Callback):
    """Seconds from an epoch's first hook to the end of its last step; validation comes after."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.start = now()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.is_last_batch:
            self.seconds = now() - self.start


def now() -> float:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def ours(case: Case, path: Path) -> Round:
    data = ImageData(
        "arrays", path=str(path), batch_size=case.batch, validation_size=VALIDATION, augment=AUGMENT
    )
    data.setup()

    def run() -> float:
        module = BranchyClassifier(
            network(case),
            Joint(weights(case)),
            partial(torch.optim.AdamW, lr=LR, weight_decay=0.01),
            partial(build_schedule, {"name": "one_cycle", "warmup": 0.5}) if case.steps >= 4 else no_schedule,
            channels_last=True,
        )
        clock = StepClock()
        trainer = {
            "accelerator": DEVICE.type,
            "devices": 1,
            "precision": precision(case),
            "limit_train_batches": case.steps,
        }
        with tempfile.TemporaryDirectory() as folder:
            fit(module, data, 1, Path(folder), trainer, callbacks=[clock])
        return clock.seconds

    return run


def bare(case: Case, path: Path) -> Round:
    x, y = training_images(path)
    images = torch.from_numpy(x).to(DEVICE, torch.float32).div_(255).sub_(0.5).div_(0.25)
    # Pixel by pixel; permuted after the index: with one channel `channels_last` alone leaves open which it is.
    images = images.permute(0, 2, 3, 1).contiguous()
    labels = torch.from_numpy(y).to(DEVICE)

    def run() -> float:
        model = network(case).to(DEVICE, memory_format=torch.channels_last).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01)
        schedule = OneCycleLR(optimizer, LR, total_steps=max(case.steps, 4))
        mixed = precision(case) == "bf16-mixed"
        start = now()
        for index in torch.randperm(len(images), device=DEVICE).split(case.batch)[: case.steps]:
            target = labels[index]
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=mixed):
                logits = model(images[index].permute(0, 3, 1, 2))
            loss = joint_loss(case, logits, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return now() - start

    return run


def template(case: Case, path: Path) -> Round:
    x, y = training_images(path)
    dataset = CIFAR10.__new__(CIFAR10)  # as if read from its files: the constructor would want them
    dataset.data, dataset.targets = np.ascontiguousarray(x.transpose(0, 2, 3, 1)), y.tolist()
    steps = [transforms.RandomCrop(case.shape[1:], padding=4), transforms.RandomHorizontalFlip()]
    normalise = transforms.Normalize((0.5,) * 3, (0.25,) * 3)
    dataset.transform = transforms.Compose([*steps, transforms.ToTensor(), normalise])
    dataset.target_transform = None

    def run() -> float:
        clock = StepClock()
        trainer = L.Trainer(
            max_epochs=1,
            accelerator=DEVICE.type,
            devices=1,
            limit_train_batches=case.steps,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[clock],
        )
        trainer.fit(Template(case), DataLoader(dataset, case.batch, shuffle=True))
        return clock.seconds

    return run


class Template(L.LightningModule):
    """As one writes it from the templates: the loss and an accuracy per exit, logged through `self.log`."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case, self.network = case, network(case)
        exits = range(self.network.num_exits)
        self.accuracies = torch.nn.ModuleList([MulticlassAccuracy(num_classes=10) for _ in exits])

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, target = batch
        logits = self.network(x)
        loss = joint_loss(self.case, logits, target)
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        for n, (accuracy, out) in enumerate(zip(self.accuracies, logits, strict=True), start=1):
            accuracy(out, target)
            self.log(f"train/accuracy_exit_{n}", accuracy, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=LR, weight_decay=0.01)
        schedule = OneCycleLR(optimizer, LR, total_steps=max(self.case.steps, 4))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def joint_loss(case: Case, logits: list[Tensor], target: Tensor) -> Tensor:
    pairs = zip(weights(case), logits, strict=True)
    return torch.stack([weight * F.cross_entropy(out.float(), target) for weight, out in pairs]).sum()


def weights(case: Case) -> tuple[float, ...]:
    return (1.0,) * (len(config(case).exits) + 1)


def network(case: Case) -> BranchedNetwork:
    return build_network(config(case), case.shape, 10, seed=0)


def precision(case: Case) -> str:
    """What `trainer.precision=auto` stands for."""
    return resolve_precision("auto", "auto", count_macs(network(case), case.shape).baseline)


def config(case: Case) -> Any:
    return OmegaConf.load(conf_folder() / "model" / f"{case.model}.yaml")


def no_schedule(optimizer: torch.optim.Optimizer, steps: int) -> None:
    """For a smoke run, whose steps are too few for one cycle."""


def write_images(case: Case, count: int, folder: Path) -> Path:
    """`count` training images and some for validation, as an .npz file that everyone reads."""
    path = folder / f"{case.data}.npz"
    count += VALIDATION
    try:
        real = load_dataset(case.data).train
        kind, x, y = f"Real {case.data}", real.x.numpy()[:count], real.y.numpy()[:count]
    except UserError:
        rng = np.random.default_rng(0)
        kind = f"Random images of the shape of {case.data}"
        x = rng.integers(0, 256, (count, *case.shape), np.uint8)
        y = rng.integers(0, 10, count)
    print(f"{kind}: {len(x) - VALIDATION:,} images")
    np.savez(path, x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])
    return path


def training_images(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(S, C, H, W) uint8 and (S,) int64."""
    with np.load(path) as arrays:
        return arrays["x_train"], arrays["y_train"]


if __name__ == "__main__":
    main()
