"""An epoch of B-LeNet's joint training against a bare PyTorch loop on the same tensors.

    python benchmarks/training.py

Both train the same network from the same weights with the same optimiser and schedule on the same 20,480
images in batches of 512, on as many threads as PyTorch takes by itself. Ours: Lightning, our LightningModule
with its metrics, our loader with the normalisation of every batch. The bare loop: images normalised
beforehand, an index, forward, weighted loss, backward, step, and nothing else. They take turns, round after
round; a round of ours is the time from the epoch's first hook to its last. No validation, no checkpoints.

Real MNIST is taken from BRANCHYNET_DATA; without it, random images of the same shape.
"""

from __future__ import annotations

import logging
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from branchynet.data.datasets import load_dataset
from branchynet.data.module import ImageData
from branchynet.errors import UserError
from branchynet.networks.attach import attach
from branchynet.networks.branched import BranchedNetwork
from branchynet.networks.lenet import lenet5
from branchynet.runtime.costs import describe_machine
from branchynet.training.module import BranchyClassifier

IMAGES, BATCH, ROUNDS = 20_480, 512, 7
STEPS = IMAGES // BATCH
LR = 0.004
WEIGHTS = (1.0, 1.0)


class EpochClock(Callback):
    """Seconds from an epoch's first hook to its last."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds = time.perf_counter() - self.start


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        kind, path = images_file(Path(folder))
        data = ImageData("arrays", path=str(path), batch_size=BATCH, validation_size=BATCH)
        data.setup()
        machine, versions = describe_machine()
        print(f"{kind}, {IMAGES:,} images in batches of {BATCH}, {ROUNDS} rounds in turns.")
        print(
            f"{machine}, {torch.get_num_threads()} threads, load average {os.getloadavg()[0]:.1f} at the start;"
        )
        print(", ".join(f"{name} {number}" for name, number in versions.items()))
        x, y = data.split("train")
        ours(data), bare(x, y)  # warm-up
        times = [(ours(data), bare(x, y)) for _ in range(ROUNDS)]
    first, second = (statistics.median(seconds) for seconds in zip(*times, strict=True))
    ratios = sorted(a / b for a, b in times)
    print("\nOne epoch of B-LeNet, joint training (aim: at most 1.15 of the bare loop):\n")
    print("| | seconds | images a second | ratio |\n|---|---:|---:|---:|")
    print(f"| bare PyTorch loop | {second:.2f} | {IMAGES / second:,.0f} | 1 |")
    print(f"| branchynet | {first:.2f} | {IMAGES / first:,.0f} | {statistics.median(ratios):.3f} |")
    print(f"\nThe ratio is the median over the rounds; they gave {ratios[0]:.3f} … {ratios[-1]:.3f}.")


def images_file(folder: Path) -> tuple[str, Path]:
    """IMAGES + BATCH training images (the latter for validation, unused) as an .npz file."""
    path = folder / "images.npz"
    try:
        mnist = load_dataset("mnist")
        kind, x, y = "Real MNIST", mnist.train.x.numpy(), mnist.train.y.numpy()
    except UserError:
        rng = np.random.default_rng(0)
        kind = "Random images of the shape of MNIST"
        x = rng.integers(0, 256, (IMAGES + BATCH, 1, 28, 28), np.uint8)
        y = rng.integers(0, 10, IMAGES + BATCH)
    count = IMAGES + BATCH
    np.savez(path, x_train=x[:count], y_train=y[:count], x_test=x[:10], y_test=y[:10])
    return kind, path


def network() -> BranchedNetwork:
    torch.manual_seed(0)
    spec = {"after": "conv1", "before": ["pool2", "relu"], "convs": [10], "pool": 2}
    return attach(lenet5(), [spec], (1, 28, 28), 10)


def ours(data: ImageData) -> float:
    module = BranchyClassifier(
        network(),
        WEIGHTS,
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=LR, weight_decay=0.01),
        schedule=lambda optimizer, steps: OneCycleLR(optimizer, LR, total_steps=steps),
    )
    clock = EpochClock()
    L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=[clock],
    ).fit(module, datamodule=data)
    return clock.seconds


def bare(x: torch.Tensor, y: torch.Tensor) -> float:
    model = network().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01)
    schedule = OneCycleLR(optimizer, LR, total_steps=STEPS)
    start = time.perf_counter()
    for index in torch.randperm(len(x)).split(BATCH):
        target = y[index]
        logits = model(x[index])
        loss = sum(w * F.cross_entropy(out, target) for w, out in zip(WEIGHTS, logits, strict=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
