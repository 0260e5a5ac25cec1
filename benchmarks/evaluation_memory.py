"""Peak memory of an evaluation on 20,000 images of 64 pixels against one on 2,000.

    python benchmarks/evaluation_memory.py
    python benchmarks/evaluation_memory.py --images 60 --rounds 1   # to see that it works

ResNet-18 of torchvision with random weights and an exit after its second stage. The images, noise in colour, lie in
a file that is mapped into memory, as those of a folder do that does not fit: as many of validation as of test. What
is measured is all of `sweep`: traces of both splits, costs, the choice, and the operating point for real. Each
engine and number of images gets processes of its own, in turns. A peak is the highest resident memory from where
the evaluation begins, libraries, network and interpreter included, as Linux counts it; beside it what was before.
Medians over the processes. Aim: ten times the images, at most 1.1 times the peak. With fewer than 333 a batch is
smaller, and so is the first peak.

It takes an hour; the larger evaluation is most of it, and a first pass over its images at batch 1 most of that.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from _cases import parser, print_machine
from memory import forget_peak, peak_megabytes, print_peaks
from torchvision.models import resnet18

from branchynet.data.mapped import map_images
from branchynet.data.module import ImageData
from branchynet.evaluation.settings import Measuring, SweepSettings
from branchynet.evaluation.study import sweep
from branchynet.exits.criteria import Entropy
from branchynet.exits.rules import AccuracyFloor
from branchynet.networks.attach import attach
from branchynet.runtime.catalogue import ENGINES

TIMES, SIDE, CLASSES = 10, 64, 10
TRAINING = 100  # images: for their mean and deviation


def main() -> None:
    options = parser(__doc__, images=2_000, rounds=3)
    options.set_defaults(
        engines=["torch"]
    )  # the export for another one has a peak of its own, which hides others
    options.add_argument("--child", help=argparse.SUPPRESS)  # engine
    arguments = options.parse_args()
    if arguments.child:
        evaluate(arguments.child, arguments)
        return
    print_machine(arguments)
    print("| engine | images | before, MB | peak, MB | lowest … highest | times the first peak |")
    print("|---|---:|---:|---:|---:|---:|")
    for engine in arguments.engines:
        numbers = (arguments.images, TIMES * arguments.images)
        print_peaks(
            engine,
            numbers,
            arguments.rounds,
            lambda images, engine=engine: in_a_process(engine, images, arguments.threads),
        )


def in_a_process(engine: str, images: int, threads: int) -> list[float]:
    """Megabytes before the evaluation, and at the peak after that."""
    command = [
        sys.executable,
        __file__,
        "--child",
        engine,
        "--images",
        str(images),
        "--threads",
        str(threads),
    ]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [float(value) for value in printed.split()[-2:]]


def evaluate(engine: str, arguments: argparse.Namespace) -> None:
    """What a child does; its last line is what it has measured."""
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    exits = [{"after": "layer2", "fc": []}]
    network = attach(resnet18(num_classes=CLASSES), exits, (3, SIDE, SIDE), CLASSES).eval()
    measuring = Measuring((ENGINES[engine],), arguments.threads, seconds=0.1)
    settings = SweepSettings("a benchmark", 0, Entropy(), AccuracyFloor(), measuring)
    with tempfile.TemporaryDirectory() as folder:
        counts = {"train": TRAINING, "val": arguments.images, "test": arguments.images}
        parts = {part: noise(Path(folder, part), count) for part, count in counts.items()}
        data = ImageData("noise", source=(parts, None), validation_size=None, batch_size=TRAINING)
        data.setup()
        before = forget_peak()
        sweep(settings, network, [Entropy()] * 2, network, data)
        print(before, peak_megabytes())


def noise(path: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images in a file, and labels."""
    rng = np.random.default_rng(count)
    with path.open("wb") as file:
        for _ in range(count):
            file.write(rng.bytes(3 * SIDE**2))
    with path.open("rb") as file:
        return map_images(file, path.parent, (count, 3, SIDE, SIDE)), np.arange(count) % CLASSES


if __name__ == "__main__":
    main()
