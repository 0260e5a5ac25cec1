"""Networks, images and turns that the benchmarks of inference share; no benchmark itself."""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from branchynet.commands.app import conf_folder
from branchynet.exits.criteria import Criterion, Entropy
from branchynet.exits.trace import Trace, compute_trace
from branchynet.networks.branched import BranchedNetwork
from branchynet.runs.auto import resolved, wants_images
from branchynet.runs.build import build_network
from branchynet.runs.run_config import plain
from branchynet.runtime.base import Backend, Engine, forced
from branchynet.runtime.catalogue import get_backend
from branchynet.runtime.costs import describe_machine
from branchynet.runtime.early_exit import torch_threads
from branchynet.runtime.for_inference import frozen
from branchynet.runtime.onnx import OnnxRuntime
from branchynet.runtime.session import load_session
from branchynet.runtime.steps import exit_steps
from branchynet.runtime.to_onnx import export

# Exit rates of the networks with random weights: the paper's (Table I), and for the efficient B-ResNet-110, which
# has other exits, those of docs/results/b_resnet110_cifar10_short.
RATES = {
    "b_lenet": (0.943,),
    "b_alexnet": (0.656, 0.252),
    "b_resnet110_efficient": (0.186, 0.112, 0.179, 0.054),
}
PHOTOGRAPH, PHOTOGRAPHS = (3, 224, 224), 8
CHUNK = 256  # images per forward pass of a trace


class Layers(nn.Module):
    """From images to the logits of the first exits, and to nothing else."""

    def __init__(self, network: BranchedNetwork, exits: int) -> None:
        super().__init__()
        self.segments, self.heads = network.segments[:exits], network.heads[:exits]

    def forward(self, x: Tensor) -> list[Tensor]:
        logits = []
        for segment, head in zip(self.segments, self.heads, strict=True):
            x = segment(x)
            logits.append(head(x))
        return logits


class Case(NamedTuple):
    """A network at an operating point, and images."""

    name: str
    network: BranchedNetwork
    baseline: nn.Module  # undivided, (B, C, H, W) → (B, K)
    criteria: tuple[Criterion, ...]  # N
    thresholds: tuple[float, ...]  # N-1
    images: np.ndarray  # (S, C, H, W) float32

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.images.shape[1:]

    @property
    def last_criterion(self) -> Criterion:
        """For the baseline as a network of one exit; entropy where the last exit's looks at features there."""
        return Entropy() if self.criteria[-1].of_features else self.criteria[-1]


def parser(description: str | None, images: int, rounds: int) -> argparse.ArgumentParser:
    """The options that the benchmarks share."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--models", nargs="*", default=list(RATES), help="of conf/model, with random weights")
    made.add_argument("--run", nargs="*", default=[], help="folders of finished runs, instead of --models")
    made.add_argument("--engines", nargs="*", default=["onnxruntime", "torch"])
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--images", type=int, default=images)
    made.add_argument("--rounds", type=int, default=rounds, help="after one that warms up")
    return made


def for_every(
    compare: Callable[[Case, Backend, argparse.Namespace], None], arguments: argparse.Namespace
) -> None:
    """Call `compare(case, backend, arguments)` for every case on every engine, on the threads asked for."""
    backends = [get_backend(name) for name in arguments.engines]
    for backend in backends:
        backend.check()
    with torch_threads(arguments.threads):
        for case in cases(arguments):
            for backend in backends:
                compare(case, backend, arguments)


def cases(arguments: argparse.Namespace) -> list[Case]:
    """The finished runs that were asked for, else the models with random weights."""
    if arguments.run:
        return [of_run(folder, arguments.images) for folder in arguments.run]
    return [at_random(model, arguments.images) for model in arguments.models]


def at_random(model: str, count: int) -> Case:
    """A model of conf/model with random weights on random images, leaving as in RATES, or in equal shares.

    Those that take their settings from the images get some few of 224 pixels.
    """
    config = OmegaConf.load(conf_folder() / "model" / f"{model}.yaml")
    if wants_images(plain(config)):
        shape, count = PHOTOGRAPH, min(count, PHOTOGRAPHS)
        config = OmegaConf.create(resolved(plain(config), shape, 10))
    else:
        side = 28 if config.trunk.in_channels == 1 else 32
        shape = (config.trunk.in_channels, side, side)
    network = build_network(config, shape, 10, seed=0).eval()
    images = np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)
    with torch.no_grad():
        for head, logits in zip(network.heads, network(torch.from_numpy(images[:CHUNK])), strict=True):
            # So that uncertainties spread, as they do after training: logits of mean 0 and deviation 2.
            last = [m for m in head.modules() if isinstance(m, nn.Linear)][-1]
            scale = 2 / (logits - logits.mean(dim=0)).std()
            last.weight.mul_(scale)
            last.bias.sub_(logits.mean(dim=0)).mul_(scale)
    criteria = (Entropy(),) * network.num_exits
    equal = (1 / network.num_exits,) * (network.num_exits - 1)
    thresholds = at_rates(trace(network, images, criteria), RATES.get(model, equal))
    return Case(f"{model}, random weights", network, network.trunk(), criteria, thresholds, images)


def of_run(folder: str, count: int) -> Case:
    """A finished run with its own thresholds, on test images."""
    from branchynet.runs.finished_run import open_run

    run = open_run(folder)
    images = next(run.data.batches("test", count))[0].numpy()
    name = run.result["experiment"]
    return Case(name, run.network, run.baseline.trunk(), run.criteria, run.thresholds, images)


def trace(network: BranchedNetwork, images: np.ndarray, criteria: Sequence[Criterion]) -> Trace:
    """Every exit's uncertainty and prediction; the labels are all 0."""
    batches = torch.from_numpy(images).split(CHUNK)
    return compute_trace(exit_steps(network, criteria), batches, torch.zeros(len(images), dtype=torch.int64))


def at_rates(trace: Trace, rates: Sequence[float]) -> tuple[float, ...]:
    """The thresholds at which these shares of the samples leave at all exits but the last."""
    staying = torch.ones(trace.num_samples, dtype=torch.bool)
    thresholds = []
    for n, rate in enumerate(rates):
        rising = trace.uncertainty[staying, n].sort().values
        index = min(round(rate * trace.num_samples), len(rising) - 1)
        # Midway between two samples: none lies on the threshold, where rounding would decide.
        thresholds.append(float(rising[max(index - 1, 0)] + rising[index]) / 2)
        staying &= ~(trace.uncertainty[:, n] < thresholds[-1])
    return tuple(thresholds)


def in_rounds(candidates: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every candidate, a number per round; they take turns, each starting with another one."""
    names = list(candidates)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            begin = time.perf_counter()
            candidates[name]()
            if turn:  # the first round warms up
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median over the rounds of the ratio within each."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def print_machine(arguments: argparse.Namespace) -> None:
    """Where this was measured."""
    machine, versions = describe_machine([get_backend(name) for name in arguments.engines])
    print(f"{machine}, {arguments.threads} thread{'s' * (arguments.threads > 1)}, ", end="")
    print(f"load average {os.getloadavg()[0]:.1f} at the start;")
    print(", ".join(f"{name} {number}" for name, number in versions.items()))


def bare(backend: Backend, case: Case, exits: int, threads: int) -> dict[str, Callable[[], object]]:
    """The layers of the first exits, on the first image, by the ways of calling them."""
    layers, x = Layers(case.network, exits), case.images[:1]
    ways: dict[str, Callable[[], object]] = {}
    if isinstance(backend, OnnxRuntime):
        session = load_session(export(frozen(layers), case.shape), threads)
        ways["session.run"] = lambda: session.run(None, {"x": x})
    return {**ways, "as the engine does": partial(backend.chain([layers], case.shape, threads), x)}


def engine_at(engine: Engine, n: int, count: int) -> Engine:
    """A copy of the engine that sends everything out at exit n."""
    engine = copy.copy(engine)
    engine.thresholds = forced(n, count)
    return engine
