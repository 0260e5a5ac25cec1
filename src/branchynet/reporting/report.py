"""Everything that is reported about one run, and the numbers derived from it.

Shapes: K classes, N exits, S samples, V threshold vectors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

    from branchynet.exits.select import Selection
    from branchynet.exits.sweep import OperatingPoints
    from branchynet.exits.trace import Trace
    from branchynet.runtime.costs import Latencies, Latency, Macs

PROTOCOLS = ("validation", "paper")


@dataclass(frozen=True)
class Verified:
    """What running the operating point for real over the test split gave on one engine, sample by sample.

    `differences` counts the samples that left elsewhere or were answered otherwise than the sweep says,
    `near_threshold` those whose uncertainty lies within rounding (1e-5) of a threshold, whether they differ
    or not, and `unexplained` the differences that are not near one. `latency_us` is the mean over the
    samples, `latency_iqr_us` the spread of the single samples about it.
    """

    accuracy: float
    exit_rates: tuple[float, ...]
    latency_us: float
    latency_iqr_us: float
    baseline_latency_us: float
    differences: int
    near_threshold: int
    unexplained: int


@dataclass(frozen=True)
class Report:
    """The results of one run.

    Accuracies and rates are fractions, latencies microseconds per sample at batch 1. `points_val` and
    `points_test` hold the same V threshold vectors, evaluated on either split; `frontier` (int64 indices) and
    `selection.index` point into both and were found on validation, under the protocol `paper` on test.
    `engine` is the one whose latencies the choice was made with; `latencies` and `verified` have it, and may
    have more.
    """

    experiment: str
    seed: int
    protocol: str
    engine: str
    threads: int
    machine: str
    versions: Mapping[str, str]
    criterion: str
    num_classes: int
    classes: tuple[str, ...]
    trace_val: "Trace"
    trace_test: "Trace"
    baseline_accuracy: float
    baseline_val_accuracy: float
    macs: "Macs"
    latencies: Mapping[str, "Latencies"]
    points_val: "OperatingPoints"
    points_test: "OperatingPoints"
    frontier: "Tensor"
    selection: "Selection"
    rule: Mapping[str, Any]
    verified: Mapping[str, Verified]

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"protocol={self.protocol!r} is none of {PROTOCOLS}")
        for name, engines in (("latencies", self.latencies), ("verified", self.verified)):
            if self.engine not in engines:
                raise ValueError(f"{name} has {sorted(engines)}, but not the engine {self.engine!r}")
        if not torch.equal(self.points_val.thresholds, self.points_test.thresholds):
            raise ValueError("points_val and points_test are not of the same thresholds")

    @property
    def num_exits(self) -> int:
        """N."""
        return self.trace_test.num_exits

    @property
    def index(self) -> int:
        """Where the operating point stands among the points."""
        return self.selection.index


def decimal(value: float) -> float:
    """The shortest decimal number that is `value` in float32: 0.3 instead of 0.30000001192092896.

    Thresholds are float32; rounding this to float32 gives the very same threshold back.
    """
    return float(str(np.float32(value)))


def thresholds(report: Report) -> tuple[float, ...]:
    """The operating point's N-1 thresholds."""
    return tuple(decimal(value) for value in report.points_test.thresholds[report.index].tolist())


def accuracy(report: Report) -> float:
    """The operating point's accuracy on test, as the sweep predicts it."""
    return float(report.points_test.accuracy[report.index])


def exit_rates(report: Report) -> tuple[float, ...]:
    """The operating point's N exit rates on test."""
    return tuple(report.points_test.exit_rates[report.index].tolist())


def exit_accuracies(report: Report) -> tuple[float, ...]:
    """N accuracies on test, exit n+1 taken by every sample."""
    correct = report.trace_test.correct.sum(0).tolist()
    return tuple(count / report.trace_test.num_samples for count in correct)


def medians(latencies: Sequence["Latency"]) -> tuple[float, ...]:
    """The medians, in microseconds."""
    return tuple(latency.median_us for latency in latencies)


def mean_macs(report: Report) -> float:
    """MACs per test sample at the operating point, all heads on the way counted."""
    return _mean(report, report.macs.exits)


def mean_latency_us(report: Report, engine: str | None = None) -> float:
    """Predicted latency per test sample at the operating point, all heads on the way counted."""
    return _mean(report, medians(_latencies(report, engine).exits))


def gain_macs(report: Report) -> float:
    """Baseline MACs / the operating point's."""
    return report.macs.baseline / mean_macs(report)


def gain_latency(report: Report, engine: str | None = None) -> float:
    """Baseline latency / the operating point's predicted one."""
    return _latencies(report, engine).baseline.median_us / mean_latency_us(report, engine)


def gain_measured(report: Report, engine: str | None = None) -> float:
    """Baseline latency / the operating point's latency, both from the run for real."""
    verified = report.verified[engine or report.engine]
    return verified.baseline_latency_us / verified.latency_us


def gain_trunk_only(report: Report, engine: str | None = None) -> float:
    """Baseline latency / the operating point's with the trunk's segments alone on the clock.

    Leaves out side heads, criterion and decision: no gain that anyone gets, but the one that the paper's
    Table I gives (Teerapittayanon et al., 2016).
    """
    latencies = _latencies(report, engine)
    return latencies.baseline.median_us / _mean(report, medians(latencies.trunk_only))


def gain_macs_trunk_only(report: Report) -> float:
    """Baseline MACs / the operating point's with the trunk's segments alone counted."""
    return report.macs.baseline / _mean(report, report.macs.trunk_only)


def best_static(report: Report, engine: str | None = None) -> int | None:
    """The cheapest single exit at least as accurate on test as the operating point (0-based), or None."""
    # In counts of right answers, so that no rounding of fractions decides.
    needed = round(accuracy(report) * report.trace_test.num_samples)
    correct = report.trace_test.correct.sum(0).tolist()
    latency = medians(_latencies(report, engine).static)
    enough = [n for n, count in enumerate(correct) if count >= needed]
    return min(enough, key=latency.__getitem__, default=None)


def gain_over_static(report: Report, engine: str | None = None) -> float | None:
    """Latency of the best single exit alone / the operating point's; None where no single exit is enough."""
    best = best_static(report, engine)
    if best is None:
        return None
    return _latencies(report, engine).static[best].median_us / mean_latency_us(report, engine)


def exits_beating_trunk(report: Report) -> list[int]:
    """Side exits (0-based) that alone are at least as accurate on test as the baseline, and faster."""
    latencies = _latencies(report, None)
    accuracies = exit_accuracies(report)
    return [
        n
        for n in range(report.num_exits - 1)
        # Half a sample of slack, so that no rounding of fractions decides.
        if accuracies[n] > report.baseline_accuracy - 0.5 / report.trace_test.num_samples
        and latencies.static[n].median_us < latencies.baseline.median_us
    ]


def _latencies(report: Report, engine: str | None) -> "Latencies":
    return report.latencies[engine or report.engine]


def _mean(report: Report, cost: Sequence[float]) -> float:
    return sum(rate * value for rate, value in zip(exit_rates(report), cost, strict=True))
