"""What a controller costs an image, beside running the image.

    python benchmarks/controller.py

A controller that is told of images one by one, as numbers and as arrays, and in batches of 16, all of its work
included: costs, the test for drift, new thresholds every 16 images. Beside it the fastest that an image can be:
B-LeNet with random weights on ONNX Runtime, one thread, batch 1, leaving at exit 1. In the processor's time, which
other programs do not change much; of ten rounds the shortest. Some ten seconds.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable

import numpy as np
from omegaconf import OmegaConf

from branchynet.commands.app import conf_folder
from branchynet.exits.criteria import Entropy
from branchynet.runs.build import build_network
from branchynet.runtime.base import forced
from branchynet.runtime.catalogue import make_engine
from branchynet.runtime.controller import Controller
from branchynet.runtime.costs import describe_machine
from branchynet.runtime.profile import Profile, validation_of

SHAPE = (1, 28, 28)
IMAGES, ROUNDS = 4000, 10


def main() -> None:
    unsure = np.float32(np.random.default_rng(1).beta(0.5, 2, (IMAGES, 2)) * math.log(10))
    answers = np.zeros(unsure.shape, np.int64)
    costs = {"latency_us": (20.0, 60.0), "macs": (1.0, 3.0)}
    profile = Profile((0.5,), costs, validation_of(unsure, answers, answers == 0, (0.5,)), math.log(10))
    exits = np.where(unsure[:, 0] < 0.5, 1, 2)
    values = unsure[np.arange(IMAGES), exits - 1]
    numbers = list(zip(exits.tolist(), values.tolist(), strict=True))
    model = OmegaConf.load(conf_folder() / "model" / "b_lenet.yaml")
    network = build_network(model, SHAPE, 10, seed=0).eval()
    engine = make_engine("onnxruntime", network, Entropy(), forced(0, 2), SHAPE)
    image = np.zeros((1, *SHAPE), np.float32)

    def told_numbers() -> None:
        controller = Controller(profile)
        for exit, value in numbers:
            controller.observe(exit, value)

    def told_arrays(batch: int) -> None:
        controller = Controller(profile)
        for start in range(0, IMAGES, batch):
            controller.observe(exits[start : start + batch], values[start : start + batch])

    def run() -> None:
        for _ in range(IMAGES):
            engine.run(image)

    machine, versions = describe_machine()
    rows: dict[str, Callable[[], None]] = {
        "the image itself, at exit 1": run,
        "the controller, told numbers": told_numbers,
        "… told arrays of one": lambda: told_arrays(1),
        "… told batches of 16": lambda: told_arrays(16),
    }
    print(f"{machine}, 1 thread, load average {os.getloadavg()[0]:.1f} at the beginning;")
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    print("\n| what | µs an image, the processor's |\n|---|---:|")
    for name, function in rows.items():
        print(f"| {name} | {shortest(function):.1f} |")


def shortest(function: Callable[[], None]) -> float:
    """Microseconds an image."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times) / IMAGES * 1e6


if __name__ == "__main__":
    main()
