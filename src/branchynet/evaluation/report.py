"""Everything that is reported about one run, and the numbers derived from it.

Shapes: K classes, N exits, S samples, V threshold vectors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from branchynet.evaluation.fitting import Fitting
from branchynet.evaluation.noise import Noise
from branchynet.evaluation.outside import Outside
from branchynet.evaluation.rivals import Rival
from branchynet.evaluation.settings import PROTOCOLS, SPLITS
from branchynet.exits.combining import Shares
from branchynet.exits.found import Found
from branchynet.exits.frontier import pareto
from branchynet.exits.maps import MapTrace
from branchynet.exits.point import OperatingPoint
from branchynet.exits.rules import Selection, View
from branchynet.exits.sweep import OperatingPoints, exit_taken, point_at
from branchynet.exits.task import CLASSIFICATION, Task
from branchynet.exits.trace import Trace
from branchynet.runtime.adapt import Adapted
from branchynet.runtime.costs import Latencies, Latency, Macs


@dataclass(frozen=True)
class Verified:
    """What running the operating point for real over the reported split gave on one engine, sample by sample.

    `differences` counts the samples that left elsewhere or were answered otherwise than the sweep says,
    `near_threshold` those whose uncertainty lies within rounding (1e-5) of a threshold, whether they differ
    or not, and `unexplained` the differences that are not near one. `latency_us` is the mean over the
    samples, `latency_iqr_us` the interquartile range of the means of blocks of 100 samples in a row.
    """

    accuracy: float
    exit_rates: tuple[float, ...]
    latency_us: float
    latency_iqr_us: float
    baseline_latency_us: float
    differences: int
    near_threshold: int
    unexplained: int


@dataclass(frozen=True, eq=False)
class Report:
    """The results of one run.

    Accuracies and rates are fractions, latencies microseconds per sample at batch 1.

    Args:
        experiment, seed, machine, versions, classes: what was run where.
        protocol: `validation`, or `paper`: then the choice was made on test.
        split: what is reported: `test`, or `val` where the test split is not to be looked at.
        engine: the one whose latencies the choice was made with; `latencies` and `verified` have it, and may
            have more.
        threads: of computation.
        criterion, unit, rule: their names.
        traces: by split: `val`, and `test` where that may be looked at.
        baseline_correct: by the same splits: (S,), which samples the baseline is right about, as `Trace.correct`.
        macs, latencies: what leaving costs; latencies by engine.
        view: what the choice was made from.
        selection: the choice.
        verified: by engine; empty where the point was not run for real, but chosen from stored traces and from
            latencies that were measured before.
        inexact_test: (I,) int64, the numbers of the test images that differ from the published ones, where the
            data says so.
        inexact_training: counts such images among those of training and validation.
        shares: N, how much of each exit's answer is the answer before it; None: nothing is averaged.
        noise: why the timings are doubted; empty where they are not.
        rivals: small networks of others for the same images, as published.
        fitting: the images that shares or criteria were fitted on, none of the traces'; None: nothing was fitted.
        outside: what the exits make of images that the network should not know, where that was asked for.
        adapted: the operating point's thresholds, adapted to the reported images, where that was asked for.
        of_probability: of the criterion, see `Criterion`.
        found: which threshold vectors were kept of which grid; None: the view has all that were tried.
        task: what the network is asked for.
        baseline_maps: by the splits: what the baseline's maps have in common with the truth, as if it were the one
            exit; empty where answers are no maps.

    Raises:
        ValueError: they do not fit each other.
    """

    experiment: str
    seed: int
    protocol: str
    split: str
    engine: str
    threads: int
    machine: str
    versions: Mapping[str, str]
    criterion: str
    unit: str
    rule: str
    classes: tuple[str, ...]
    traces: Mapping[str, Trace]
    baseline_correct: Mapping[str, Tensor]
    macs: Macs
    latencies: Mapping[str, Latencies]
    view: View
    selection: Selection
    verified: Mapping[str, Verified]
    inexact_test: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    inexact_training: int = 0
    shares: Shares | None = None
    noise: tuple[Noise, ...] = ()
    rivals: tuple[Rival, ...] = ()
    fitting: Fitting | None = None
    outside: tuple[Outside, ...] = ()
    adapted: Adapted | None = None
    of_probability: bool = False
    found: Found | None = None
    task: Task = CLASSIFICATION
    baseline_maps: Mapping[str, MapTrace] = field(default_factory=dict)

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
        for split in ("val", self.split):
            right, samples = self.baseline_correct[split], self.traces[split].num_samples
            if right.shape != (samples,) or (right.dtype != torch.bool) != self.task.partly:
                raise ValueError(f"baseline_correct is not of the {samples} samples of {split}")
            if (self.traces[split].alone is None) != (self.shares is None):
                raise ValueError(
                    "what heads alone predict belongs to traces of averaged exits, and to no others"
                )
        if len(self.inexact_test) and not (
            0 <= int(self.inexact_test.min()) <= int(self.inexact_test.max()) < self.trace.num_samples
        ):
            raise ValueError("inexact_test names images that are not there")

    @property
    def num_exits(self) -> int:
        """N."""
        return self.trace.num_exits

    @property
    def trace(self) -> Trace:
        """Of the reported split."""
        return self.traces[self.split]

    @property
    def chosen_on(self) -> str:
        """The split that thresholds are chosen on: `validation`, under the protocol `paper` `test`."""
        return "test" if self.protocol == "paper" else "validation"

    @property
    def reported_on(self) -> str:
        """The split that accuracies and rates are of: `test`, or `validation`."""
        return "test" if self.split == "test" else "validation"

    @property
    def baseline_accuracy(self) -> float:
        """On the reported split."""
        right = self.baseline_correct[self.split]
        return right.sum().item() / len(right)

    @cached_property
    def points(self) -> OperatingPoints:
        """The view's V threshold vectors, in its order, on the reported split."""
        return self.swept_on(self.split)

    def swept_on(self, split: str) -> OperatingPoints:
        """The same on another split of `traces`."""
        trace = self.traces[split]
        return self.view.points if trace is self.view.trace else self.view.sweep(trace)

    @cached_property
    def frontier(self) -> Tensor:
        """Numbers (int64) of the points that no other one beats in accuracy and latency, on the choice's split."""
        return pareto(self.view.mean("latency_us"), self.view.points.accuracy)

    @cached_property
    def point(self) -> OperatingPoint:
        """The operating point, on the reported split."""
        return self.reported(self.selection.point)

    def reported(self, point: OperatingPoint) -> OperatingPoint:
        """The same thresholds on the reported split."""
        return point_at(self.trace, point.thresholds)

    @property
    def index(self) -> int | None:
        """Where the operating point stands among the points; None where its thresholds are none of those swept."""
        wanted = torch.tensor([self.point.thresholds], dtype=torch.float32).reshape(1, -1)
        found = (self.points.thresholds == wanted).all(dim=1).nonzero()[:, 0]
        return int(found[0]) if len(found) else None


@dataclass(frozen=True)
class Savings:
    """What an operating point costs on one engine, per sample of the reported split, and what it saves.

    All heads on the way are counted, but in `gain_trunk_only`: there the trunk's segments alone are on the clock,
    without side heads, criterion and decision: no gain that anyone gets, but the one that the paper's Table I
    gives (Teerapittayanon et al., 2016). `best_static` is the cheapest single exit (0-based) whose head by itself
    is at least as accurate, `gain_over_static` its latency alone over the point's; both are None where none is.
    """

    macs: float
    latency_us: float
    gain_macs: float
    gain_latency: float
    gain_trunk_only: float
    best_static: int | None
    gain_over_static: float | None


def savings(report: Report, point: OperatingPoint, engine: str | None = None) -> Savings:
    """Of any point on the reported split, on the engine of the choice or on another that was measured."""
    timed = report.latencies[engine or report.engine]
    baseline_us = timed.baseline.median_us
    macs, latency_us = point.mean_cost(report.macs.exits), point.mean_cost(medians(timed.exits))
    # In counts of right answers, so that no rounding of fractions decides.
    counts = report.trace.correct_alone.sum(0).tolist()
    enough = [n for n, count in enumerate(counts) if count >= point.right]
    best = min(enough, key=medians(timed.static).__getitem__, default=None)
    return Savings(
        macs=macs,
        latency_us=latency_us,
        gain_macs=report.macs.baseline / macs,
        gain_latency=baseline_us / latency_us,
        gain_trunk_only=baseline_us / point.mean_cost(medians(timed.trunk_only)),
        best_static=best,
        gain_over_static=None if best is None else timed.static[best].median_us / latency_us,
    )


def gap_at_point(report: Report) -> float:
    """How much more accurate a vector tried that costs no more than the chosen one may be: a fraction.

    On the split of the choice, in the kind of cost in which least can be said.
    """
    limits = () if report.found is None else report.found.limits
    return max((limit.gap_at(report.selection.point) for limit in limits), default=0.0)


@dataclass(frozen=True)
class Overhead:
    """What going to the last exit through all side heads costs beyond the baseline, as a share of that."""

    macs: float
    latency: float


def overhead_to_the_end(report: Report) -> Overhead:
    """On the engine of the choice; of latencies also what the cut into segments costs, so that is measured."""
    timed = report.latencies[report.engine]
    return Overhead(
        macs=report.macs.exits[-1] / report.macs.baseline - 1,
        latency=timed.exits[-1].median_us / timed.baseline.median_us - 1,
    )


def exit_accuracies(report: Report) -> tuple[float, ...]:
    """N accuracies on the reported split, exit n+1 taken by every sample."""
    return _shares(report.trace.correct)


def static_accuracies(report: Report) -> tuple[float, ...]:
    """N accuracies on the reported split of the trunk up to exit n+1 with its own head: no other exit is there."""
    return _shares(report.trace.correct_alone)


def _shares(correct: Tensor) -> tuple[float, ...]:
    """Of (S, N) answers, the share of each exit's that are right: of counts, so that no rounding adds up."""
    return tuple(count / len(correct) for count in correct.sum(0).tolist())


@dataclass(frozen=True)
class Balanced:
    """Balanced accuracies on the reported split: the mean of the shares of each class that are right.

    Of a rare class it says what the accuracy does not. Classes without samples do not count.
    """

    baseline: float
    exits: tuple[float, ...]  # N, exit n+1 taken by every sample
    point: float


def balanced_accuracies(report: Report) -> Balanced:
    """Of the baseline, of every exit with all samples leaving there, and of the operating point."""
    label, correct = report.trace.label, report.trace.correct
    taken = taken_at_point(report)
    return Balanced(
        baseline=_balanced(report.baseline_correct[report.split], label),
        exits=tuple(_balanced(right, label) for right in correct.T),
        point=_balanced(correct.gather(1, taken[:, None])[:, 0], label),
    )


def _balanced(right: Tensor, label: Tensor) -> float:
    """Args: right: (S,) bool; label: (S,) int64."""
    count = label.bincount()
    shares = label.bincount(weights=right.double()) / count
    return float(shares[count > 0].mean())


def medians(latencies: Sequence[Latency]) -> tuple[float, ...]:
    """The medians, in microseconds."""
    return tuple(latency.median_us for latency in latencies)


def gain_measured(report: Report, engine: str | None = None) -> float:
    """Baseline latency / the operating point's latency, both from the run for real."""
    verified = report.verified[engine or report.engine]
    return verified.baseline_latency_us / verified.latency_us


def without_inexact(report: Report) -> tuple[float, float] | None:
    """The baseline's and the operating point's accuracy on the test images that are the published ones.

    None where the data names no others, or no image is left.
    """
    if not len(report.inexact_test):
        return None
    exact = torch.ones(report.trace.num_samples, dtype=torch.bool)
    exact[report.inexact_test] = False
    count = int(exact.sum())
    if not count:
        return None
    point = point_at(report.trace.at(exact), report.point.thresholds)
    return report.baseline_correct[report.split][exact].sum().item() / count, point.accuracy


def taken_at_point(report: Report) -> Tensor:
    """(S,) int64, 0-based: where each sample of the reported split leaves at the operating point."""
    return taken_at(report, report.point)


def taken_at(report: Report, point: OperatingPoint, split: str | None = None) -> Tensor:
    """The same at any thresholds, on the reported split or on another one."""
    uncertainty = report.traces[split or report.split].uncertainty
    return exit_taken(uncertainty, torch.tensor(point.thresholds, dtype=torch.float32))


def exits_beating_trunk(report: Report) -> list[int]:
    """Side exits (0-based) that alone are at least as accurate as the baseline, and faster."""
    timed = report.latencies[report.engine]
    alone, needed = report.trace.correct_alone, report.baseline_correct[report.split].sum().item()
    right = alone.sum(0).tolist()
    return [
        n
        for n in range(report.num_exits - 1)
        if right[n] >= needed and timed.static[n].median_us < timed.baseline.median_us
    ]


def better_rivals(report: Report) -> list[Rival]:
    """Those of no more MACs than the operating point that are more accurate, the most accurate first."""
    macs, accuracy = savings(report, report.point).macs, report.point.accuracy
    better = [rival for rival in report.rivals if rival.macs <= macs and rival.accuracy > accuracy]
    return sorted(better, key=lambda rival: -rival.accuracy)
