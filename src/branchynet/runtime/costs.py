"""What leaving at each exit costs: MACs, and latency on a named engine and machine.

Shapes: C channels, H, W, K classes, N exits.
"""

import copy
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

import branchynet
from branchynet.exits.criteria import Criterion, judge
from branchynet.networks.branched import BranchedNetwork
from branchynet.runtime.base import Backend, forced
from branchynet.runtime.for_inference import frozen

# Seconds that one candidate runs at a stretch, before the next one's turn: long against the clock, short
# against what disturbs a machine.
BLOCK = 0.005
MIN_ROUNDS = 15

T = TypeVar("T")


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates per image."""

    baseline: int
    exits: tuple[int, ...]  # leaving at exit n, all heads on the way included
    static: tuple[int, ...]  # the trunk up to exit n and its head, nothing else
    trunk_only: tuple[int, ...]  # the trunk up to exit n; at the last one with the classifier
    # Of each exit's criterion and average alone; None: an older record does not say.
    decisions: tuple[int, ...] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Latency:
    """Of one image at batch 1: median and interquartile range over rounds of many runs each."""

    median_us: float
    iqr_us: float


@dataclass(frozen=True)
class Latencies:
    """Measured in turns, in one run; the fields as in `Macs`."""

    baseline: Latency
    exits: tuple[Latency, ...]
    static: tuple[Latency, ...]
    trunk_only: tuple[Latency, ...]


@torch.no_grad()
def count_macs(
    network: BranchedNetwork, input_shape: tuple[int, int, int], criteria: Sequence[Criterion] = ()
) -> Macs:
    """Count on the meta device, segments, heads and criteria apart; nothing is computed.

    Convolutions and matrix products count; element-wise layers, pooling and normalisation do not, as is usual. An
    exit that averages its logits with the answer before costs K more.

    Args:
        network: N exits.
        input_shape: (C, H, W).
        criteria: N, or none: then they cost nothing, as those do that multiply no matrices.
    """
    network = copy.deepcopy(network).to("meta").eval()
    told: list[tuple[torch.Tensor, torch.Tensor]] = []
    of_part = _macs_of_parts(network, torch.zeros(1, *input_shape, device="meta"), told)
    decisions = []
    state: torch.Tensor | None = None
    for n, (logits, features) in enumerate(told):
        decision = 0
        if criteria:
            criterion = copy.deepcopy(criteria[n]).to("meta")
            (_, state), decision = _run_counting(partial(judge, criterion), logits, features, state)
        averages = network.shares is not None and network.shares[n] > 0
        decisions.append(decision + (logits.shape[1] if averages else 0))

    def macs(parts: Iterable[nn.Module]) -> int:
        return sum(of_part[part] for part in dict.fromkeys(parts))  # those that exits share, once

    ways = network.ways()
    passed = [chain.from_iterable([*trunk, *own] for trunk, own in ways[:n]) for n in range(1, len(ways) + 1)]
    static = tuple(macs([*trunk, *own]) for trunk, own in ways)
    return Macs(
        baseline=static[-1],
        exits=tuple(macs(parts) + sum(decisions[:n]) for n, parts in enumerate(passed, start=1)),
        static=static,
        trunk_only=(*(macs(trunk) for trunk, _ in ways[:-1]), static[-1]),
        decisions=tuple(decisions),
    )


def _macs_of_parts(
    network: BranchedNetwork, x: torch.Tensor, told: list[tuple[torch.Tensor, torch.Tensor]]
) -> dict[nn.Module, int]:
    """Of each segment and head, also inside heads; what each exit gives, and is given, is added to `told`."""
    found = {}
    for segment, head in zip(network.segments, network.heads, strict=True):
        x, found[segment] = _run_counting(segment, x)
        if isinstance(head, BranchedNetwork):
            found |= _macs_of_parts(head, x, told)
            continue
        logits, found[head] = _run_counting(head, x)
        told.append((logits, x))
    return found


def measure_latencies(
    backend: Backend,
    network: BranchedNetwork,
    baseline: nn.Module,
    criteria: Sequence[Criterion],
    input_shape: tuple[int, int, int],
    threads: int = 1,
    seconds: float = 0.5,
) -> Latencies:
    """Measure at batch 1, all candidates in turns, so that what disturbs the machine disturbs all of them.

    `exits` is the engine's own `run` with thresholds that send every sample out at exit n: heads on the way,
    criterion, decision and the host's loop included. `baseline` and `static` are undivided models on the same
    engine, argmax included; `trunk_only` runs the segments as the engine would, and no more. Every candidate
    starts from an image in the host's memory.

    Args:
        backend: what runs it.
        network: N exits.
        baseline: the undivided network of stage 1, (B, C, H, W) → (B, K).
        criteria: N.
        input_shape: (C, H, W).
        threads: of computation.
        seconds: of measuring, for each candidate.
    """
    network = frozen(network)
    count = network.num_exits
    candidates: dict[str, Callable[[np.ndarray], object]] = {
        "baseline": backend.classifier(baseline, input_shape, threads)
    }
    made = backend.engine(network, criteria, forced(0, count), input_shape, threads)
    for n in range(count):
        # A copy each, for they are timed in turns and thresholds are the engine's.
        made = copy.copy(made)
        made.thresholds = forced(n, count)
        candidates[f"exits {n}"] = made.run
        trunk, own = network.ways()[n]
        candidates[f"static {n}"] = backend.classifier(nn.Sequential(*trunk, *own), input_shape, threads)
        # As the engine has it: the last segment and the classifier are one model.
        alone = trunk if n < count - 1 else [*trunk[:-1], nn.Sequential(trunk[-1], *own)]
        layers = [part for part in alone if not isinstance(part, nn.Identity)]
        candidates[f"trunk_only {n}"] = backend.chain(layers, input_shape, threads)
    x = np.random.default_rng(0).standard_normal((1, *input_shape)).astype(np.float32)
    measured = in_turns({name: _call(f, x) for name, f in candidates.items()}, threads, seconds)
    return Latencies(
        measured["baseline"],
        *(tuple(measured[f"{kind} {n}"] for n in range(count)) for kind in ("exits", "static", "trunk_only")),
    )


def in_turns(
    candidates: Mapping[str, Callable[[], object]], threads: int, seconds: float
) -> dict[str, Latency]:
    """Time the candidates in rounds, each once a round, starting with another one every time.

    Args:
        candidates: functions without arguments, by name.
        threads: of PyTorch, while they run.
        seconds: of measuring, for each of them.

    Returns:
        Median and interquartile range over the rounds of the time per call.
    """
    timers = {
        name: Timer("f()", globals={"f": function}, num_threads=threads)
        for name, function in candidates.items()
    }
    counts = {}
    for name, timer in timers.items():
        timer.timeit(3)  # warm-up: the first calls allocate and choose kernels
        counts[name] = max(1, round(BLOCK / timer.timeit(10).median))
        timer.timeit(counts[name])
    rounds = max(MIN_ROUNDS, round(seconds / BLOCK))
    times: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    for turn in range(rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            times[name].append(1e6 * timers[name].timeit(counts[name]).median)
    return {name: summary(values) for name, values in times.items()}


def summary(values: list[float]) -> Latency:
    """Median and interquartile range of times in microseconds."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Latency(median, high - low)


def describe_machine(engines: Iterable[Backend] = ()) -> tuple[str, dict[str, str]]:
    """The processor with its number of cores, the GPU if PyTorch sees one, and the versions of what computes.

    Args:
        engines: what they need besides PyTorch is named, too.
    """
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    versions = {"python": platform.python_version(), "branchynet": branchynet.__version__}
    needed = dict.fromkeys(package for engine in engines for package in engine.packages)
    for package in ("torch", "lightning", *needed):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {os.cpu_count()} cores{gpu}", versions


def _run_counting(function: Callable[..., T], *x: torch.Tensor | None) -> tuple[T, int]:
    with FlopCounterMode(display=False) as counter:
        y = function(*x)
    return y, counter.get_total_flops() // 2  # it counts 2 per multiply-accumulate


def _call(function: Callable[[np.ndarray], Any], x: np.ndarray) -> Callable[[], object]:
    return lambda: function(x)
