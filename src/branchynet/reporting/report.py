"""Everything that is reported about one run, and the numbers derived from it.

Shapes: K classes, N exits, S samples, V threshold vectors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from branchynet.exits.sweep import exit_taken

if TYPE_CHECKING:
    from torch import Tensor

    from branchynet.exits.select import Selection
    from branchynet.exits.sweep import OperatingPoints
    from branchynet.exits.trace import Trace
    from branchynet.runtime.costs import Latencies, Latency, Macs

PROTOCOLS = ("validation", "paper")
SPLITS = ("test", "val")


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
    have more. `verified` is empty where the point was not run for real, but chosen anew from stored traces and
    from latencies that were measured before.

    `inexact_test` (I,) int64 are the numbers of the test images that differ from the published ones, where the
    data says so, and `baseline_correct` (S,) bool, needed if there are any, says which test samples the
    baseline is right about, `baseline_val_correct` the same of validation. `inexact_training` counts such images
    among those of training and validation.

    `split` is what is reported: `test`, or `val` where the test split is not to be looked at. Then all that is
    said here of test, and all names with test in them, are of validation.
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
    baseline_correct: "Tensor | None" = None
    baseline_val_correct: "Tensor | None" = None
    inexact_test: "Tensor" = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    inexact_training: int = 0
    split: str = "test"

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"protocol={self.protocol!r} is none of {PROTOCOLS}")
        if self.split not in SPLITS or (self.split != "test" and self.protocol == "paper"):
            raise ValueError(
                f"split={self.split!r} is none of {SPLITS}, or not for the protocol {self.protocol}"
            )
        for name, engines in (("latencies", self.latencies), ("verified", self.verified)):
            if self.engine not in engines and (engines or name == "latencies"):
                raise ValueError(f"{name} has {sorted(engines)}, but not the engine {self.engine!r}")
        if not torch.equal(self.points_val.thresholds, self.points_test.thresholds):
            raise ValueError("points_val and points_test are not of the same thresholds")
        samples = self.trace_test.num_samples
        if self.baseline_correct is not None:
            right = int(self.baseline_correct.sum())
            if self.baseline_correct.shape != (samples,) or right != round(self.baseline_accuracy * samples):
                raise ValueError("baseline_correct is not of the test samples, or not of baseline_accuracy")
        if len(self.inexact_test):
            if self.baseline_correct is None:
                raise ValueError("inexact_test needs baseline_correct")
            if not 0 <= int(self.inexact_test.min()) <= int(self.inexact_test.max()) < samples:
                raise ValueError("inexact_test names images that are not there")

    @property
    def num_exits(self) -> int:
        """N."""
        return self.trace_test.num_exits

    @property
    def index(self) -> int:
        """Where the operating point stands among the points."""
        return self.selection.index

    @property
    def chosen_on(self) -> str:
        """The split that thresholds are chosen on: `validation`, under the protocol `paper` `test`."""
        return "test" if self.protocol == "paper" else "validation"

    @property
    def reported_on(self) -> str:
        """The split that accuracies and rates are of: `test`, or `validation`."""
        return "test" if self.split == "test" else "validation"


def decimal(value: float) -> float:
    """The shortest decimal number that is `value` in float32: 0.3 instead of 0.30000001192092896.

    Thresholds are float32; rounding this to float32 gives the very same threshold back.
    """
    return float(str(np.float32(value)))


# The functions below are of the operating point, or of the point number `index`.


def thresholds(report: Report, index: int | None = None) -> tuple[float, ...]:
    """The point's N-1 thresholds."""
    return tuple(decimal(value) for value in report.points_test.thresholds[_at(report, index)].tolist())


def accuracy(report: Report, index: int | None = None) -> float:
    """The point's accuracy on test, as the sweep predicts it."""
    return float(report.points_test.accuracy[_at(report, index)])


def exit_rates(report: Report, index: int | None = None) -> tuple[float, ...]:
    """The point's N exit rates on test."""
    return tuple(report.points_test.exit_rates[_at(report, index)].tolist())


def exit_accuracies(report: Report) -> tuple[float, ...]:
    """N accuracies on test, exit n+1 taken by every sample."""
    correct = report.trace_test.correct.sum(0).tolist()
    return tuple(count / report.trace_test.num_samples for count in correct)


def medians(latencies: Sequence["Latency"]) -> tuple[float, ...]:
    """The medians, in microseconds."""
    return tuple(latency.median_us for latency in latencies)


def mean_macs(report: Report, index: int | None = None) -> float:
    """MACs per test sample at the point, all heads on the way counted."""
    return _mean(report, report.macs.exits, index)


def mean_latency_us(report: Report, engine: str | None = None, index: int | None = None) -> float:
    """Predicted latency per test sample at the point, all heads on the way counted."""
    return _mean(report, medians(_latencies(report, engine).exits), index)


def gain_macs(report: Report, index: int | None = None) -> float:
    """Baseline MACs / the point's."""
    return report.macs.baseline / mean_macs(report, index)


def gain_latency(report: Report, engine: str | None = None, index: int | None = None) -> float:
    """Baseline latency / the point's predicted one."""
    return _latencies(report, engine).baseline.median_us / mean_latency_us(report, engine, index)


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


def best_static(report: Report, engine: str | None = None, index: int | None = None) -> int | None:
    """The cheapest single exit at least as accurate on test as the point (0-based), or None."""
    # In counts of right answers, so that no rounding of fractions decides.
    needed = round(accuracy(report, index) * report.trace_test.num_samples)
    correct = report.trace_test.correct.sum(0).tolist()
    latency = medians(_latencies(report, engine).static)
    enough = [n for n, count in enumerate(correct) if count >= needed]
    return min(enough, key=latency.__getitem__, default=None)


def gain_over_static(report: Report, engine: str | None = None, index: int | None = None) -> float | None:
    """Latency of the best single exit alone / the point's; None where no single exit is enough."""
    best = best_static(report, engine, index)
    if best is None:
        return None
    return _latencies(report, engine).static[best].median_us / mean_latency_us(report, engine, index)


def without_inexact(report: Report) -> tuple[float, float] | None:
    """The baseline's and the operating point's accuracy on the test images that are the published ones.

    None where the data names no others, or no image is left.
    """
    trace = report.trace_test
    if not len(report.inexact_test) or report.baseline_correct is None:
        return None
    exact = torch.ones(trace.num_samples, dtype=torch.bool)
    exact[report.inexact_test] = False
    count = int(exact.sum())
    if not count:
        return None
    taken = exit_taken(trace.uncertainty, report.points_test.thresholds[report.index])
    correct = trace.correct.gather(1, taken[:, None])[:, 0]
    return int(report.baseline_correct[exact].sum()) / count, int(correct[exact].sum()) / count


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


def _at(report: Report, index: int | None) -> int:
    return report.index if index is None else index


def _mean(report: Report, cost: Sequence[float], index: int | None = None) -> float:
    return sum(rate * value for rate, value in zip(exit_rates(report, index), cost, strict=True))
