"""Batches alone: our loader against torchvision's MNIST with a DataLoader and per-image transforms.

    python benchmarks/batches.py

Everyone delivers the same: batches of 512 shuffled images, normalised, as float32, with or without a random
shift by up to 2 pixels. All take turns, round after round, in one process on one torch thread; the table has
medians over the rounds. The rivals' workers are started before the clock and stay; ours start in each epoch.

Real MNIST is taken from BRANCHYNET_DATA; without it, random images of the same shape.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch.utils.data import DataLoader, Subset
from torchvision import transforms as v1
from torchvision.transforms import v2

from branchynet.data.module import ImageData
from branchynet.data.published import MNIST_FILES
from branchynet.runtime.costs import describe_machine

IMAGES = 10_240  # per round: 20 batches, so that a rival's round takes a second or two
BATCH = 512
SHIFT = 2  # pixels
ROUNDS = 5
WORKERS = (0, 2)


def main() -> None:
    torch.set_num_threads(1)
    root = os.environ.get("BRANCHYNET_DATA", "data")
    with tempfile.TemporaryDirectory() as folder:
        real = all(Path(root, "MNIST", "raw", name).is_file() for name in MNIST_FILES)
        if not real:
            root = folder
            write_random_mnist(Path(root))
        print(
            f"{'Real MNIST' if real else 'Random images of the shape of MNIST'}, {IMAGES:,} images a round,"
        )
        print(f"batches of {BATCH}, medians of {ROUNDS} interleaved rounds, 1 torch thread in each process.")
        machine, versions = describe_machine()
        print(f"{machine}, load average {os.getloadavg()[0]:.1f} at the start;")
        print(f"Python {versions['python']}, torch {torch.__version__},", end=" ")
        print(f"torchvision {torchvision.__version__}")
        for pixels in (SHIFT, 0):
            print_table(pixels, compare(root, pixels))


def compare(root: str, pixels: int) -> dict[str, list[float]]:
    """Images per second of everyone, a number per round; ours come first."""
    data = ImageData(
        "mnist", root, batch_size=BATCH, validation_size=60_000 - IMAGES, augment={"shift": pixels}
    )
    data.setup()
    loader = data.train_dataloader()
    runners: dict[str, Callable[[int], int]] = {"ours, set on the device": lambda e: ours(loader, e)}
    data.loader = "dataloader"
    for workers in WORKERS:
        data.num_workers = workers
        other = data.train_dataloader()
        name = f"ours, loader=dataloader, {workers} workers"
        runners[name] = lambda e, other=other: ours(other, e)
    for version, transform in per_image_transforms(pixels, data.mean, data.std).items():
        images = Subset(torchvision.datasets.MNIST(root, transform=transform), range(IMAGES))
        for workers in WORKERS:
            rival = DataLoader(
                images, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
            )
            runners[f"torchvision {version}, {workers} workers"] = lambda _, rival=rival: count(rival)
    speeds: dict[str, list[float]] = {name: [] for name in runners}
    for epoch in range(ROUNDS + 1):
        for name, run in runners.items():
            start = time.perf_counter()
            images_seen = run(epoch)
            seconds = time.perf_counter() - start
            assert images_seen == IMAGES
            if epoch:  # the first round warms up
                speeds[name].append(images_seen / seconds)
    return speeds


def ours(loader, epoch: int) -> int:
    loader.set_epoch(epoch)
    return count(loader)


def count(batches) -> int:
    return sum(len(labels) for _, labels in batches)


def per_image_transforms(pixels: int, mean, std) -> dict[str, Callable]:
    """The same meaning in torchvision's words: a crop of the padded image is a shift."""
    return {
        "v1": v1.Compose(
            [v1.RandomCrop(28, padding=pixels)] * (pixels > 0) + [v1.ToTensor(), v1.Normalize(mean, std)]
        ),
        "v2": v2.Compose(
            [v2.ToImage()]
            + [v2.RandomCrop(28, padding=pixels)] * (pixels > 0)
            + [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
        ),
    }


def print_table(pixels: int, speeds: dict[str, list[float]]) -> None:
    """Speeds with the range over the rounds, and how many times as fast as each of the others we are."""
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    first = next(iter(medians.values()))
    print(f"\n{f'Shifts of ±{pixels} pixels' if pixels else 'No augmentation'}:\n")
    print("| loader | images/s | lowest … highest | ours is … times as fast |")
    print("|---|---:|---:|---:|")
    for name, values in speeds.items():
        span = f"{min(values):,.0f} … {max(values):,.0f}"
        print(f"| {name} | {medians[name]:,.0f} | {span} | {first / medians[name]:.1f} |")
    best = max(speed for name, speed in medians.items() if name.startswith("torchvision"))
    print(
        f"\nOurs delivers {first / best:.1f} times as many images a second as the fastest torchvision loader."
    )


def write_random_mnist(root: Path) -> None:
    """60,000 and 10,000 random images and labels, in torchvision's layout."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in MNIST_FILES:
        samples = 60_000 if name.startswith("train") else 10_000
        shape, top = ((samples, 28, 28), 256) if "images" in name else ((samples,), 10)
        sizes = b"".join(size.to_bytes(4, "big") for size in shape)
        values = rng.integers(0, top, shape, dtype=np.uint8).tobytes()
        (raw / name).write_bytes(bytes((0, 0, 8, len(shape))) + sizes + values)


if __name__ == "__main__":
    main()
