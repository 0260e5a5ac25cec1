"""95 % intervals: how far another set of as many samples of the same kind would move accuracies, rates and gains.

By the bootstrap (Efron, 1979): the samples are drawn with replacement, many times over, and an interval is what the
middle 95 % of the draws give. Two accuracies are compared on the same draws, for both are of the same samples. The
networks, the thresholds and the costs are held: neither another training nor another timing is in it.

Samples that are alike in all that counts are counted together, and how often each kind is drawn is multinomial: a
draw costs the number of kinds and not of samples.

Shapes: N exits, R draws, S samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from branchynet.evaluation.report import Report, Savings, medians

DRAWS = 4000
SEED = 0
MIDDLE = (0.025, 0.975)  # 95 %

Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Draws:
    """Counts of R draws of S samples each."""

    right: np.ndarray  # (R,) int64: samples that are answered rightly; float64 where they may be partly right
    baseline: np.ndarray  # (R,): the same of the baseline
    left: np.ndarray  # (R, N) int64: samples that leave at each exit
    samples: int

    def accuracy(self) -> Interval:
        """Of the answers."""
        return interval(self.right / self.samples)

    def accuracy_minus_baseline(self) -> Interval:
        """Paired."""
        return interval((self.right - self.baseline) / self.samples)

    def exit_rates(self) -> tuple[Interval, ...]:
        """N."""
        return tuple(interval(left / self.samples) for left in self.left.T)

    def gain(self, baseline: float, exits: Sequence[float]) -> Interval:
        """The baseline's cost over the mean cost, from what leaving at each of the N exits costs."""
        return interval(baseline * self.samples / (self.left @ np.array(exits, dtype=np.float64)))


def draw(right: Tensor, baseline: Tensor, taken: Tensor, exits: int, draws: int = DRAWS) -> Draws:
    """Draw the samples with replacement, the same at every call.

    Args:
        right: (S,) bool, which samples are answered rightly; or how rightly, 0 … 1.
        baseline: (S,), the same of the baseline.
        taken: (S,) int64, 0-based: where each sample leaves.
        exits: N.
        draws: R.
    """
    if right.dtype != torch.bool:
        weights = often(len(right), draws)
        left = np.eye(exits)[taken.numpy()]
        return Draws(weights @ right.numpy(), weights @ baseline.numpy(), weights @ left, len(right))
    kind = 4 * taken + 2 * right.long() + baseline.long()
    return _drawn(tuple(torch.bincount(kind, minlength=4 * exits).tolist()), draws)


@lru_cache(maxsize=2)
def often(samples: int, draws: int) -> np.ndarray:
    """(R, S) float64: how often each sample is in each of R draws, where no two are alike."""
    shares = np.full(samples, 1 / samples)
    return np.random.default_rng(SEED).multinomial(samples, shares, size=draws).astype(np.float64)


@lru_cache(maxsize=32)  # tables, sentences and result.json speak of the same points
def _drawn(counts: tuple[int, ...], draws: int) -> Draws:
    """From how many samples there are of each of the 4·N kinds."""
    samples, exits = sum(counts), len(counts) // 4
    drawn = np.zeros((draws, len(counts)), dtype=np.int64)
    # Only kinds that there are: then two points that are alike have the same draws.
    there = np.array(counts).nonzero()[0]
    shares = np.array(counts)[there] / samples
    drawn[:, there] = np.random.default_rng(SEED).multinomial(samples, shares, size=draws)
    kinds = drawn.reshape(draws, exits, 2, 2)
    found = Draws(
        right=kinds[:, :, 1].sum((1, 2)),
        baseline=kinds[:, :, :, 1].sum((1, 2)),
        left=kinds.sum((2, 3)),
        samples=samples,
    )
    for array in (found.right, found.baseline, found.left):
        array.flags.writeable = False  # whoever asks again gets the same
    return found


def interval(values: np.ndarray) -> Interval:
    """What the middle 95 % of R values lie between; both ends are among the values."""
    low, high = np.quantile(values, MIDDLE, method="inverted_cdf")
    return float(low), float(high)


@dataclass(frozen=True)
class PointIntervals:
    """Of one operating point on one split, against the baseline, on one engine."""

    accuracy: Interval
    accuracy_minus_baseline: Interval
    exit_rates: tuple[Interval, ...]
    gain_macs: Interval
    gain_latency: Interval
    gain_trunk_only: Interval


def point_intervals(
    report: Report, taken: Tensor, engine: str | None = None, split: str | None = None
) -> PointIntervals:
    """Of the samples leaving where `taken` (S,) says, 0-based.

    Args:
        engine: the report's, where no other one is named.
        split: `val` or `test`; the reported one, where none is named.
    """
    split = split or report.split
    right = report.traces[split].correct.gather(1, taken[:, None])[:, 0]
    drawn = draw(right, report.baseline_correct[split], taken, report.num_exits)
    timed = report.latencies[engine or report.engine]
    return PointIntervals(
        accuracy=drawn.accuracy(),
        accuracy_minus_baseline=drawn.accuracy_minus_baseline(),
        exit_rates=drawn.exit_rates(),
        gain_macs=drawn.gain(report.macs.baseline, report.macs.exits),
        gain_latency=drawn.gain(timed.baseline.median_us, medians(timed.exits)),
        gain_trunk_only=drawn.gain(timed.baseline.median_us, medians(timed.trunk_only)),
    )


def answer_intervals(report: Report, right: Tensor) -> tuple[Interval, Interval]:
    """Of accuracy and accuracy less the baseline's, from which samples of the reported split are answered rightly.

    Args:
        right: (S,) bool, or how rightly, 0 … 1.
    """
    drawn = draw(right, report.baseline_correct[report.split], torch.zeros_like(right, dtype=torch.int64), 1)
    return drawn.accuracy(), drawn.accuracy_minus_baseline()


def over_static(saved: Savings, ends: PointIntervals) -> Interval | None:
    """Of the gain over static, which exit is the rival held; None where there is none."""
    if saved.gain_over_static is None:
        return None
    return scaled(ends.gain_latency, saved.gain_over_static / saved.gain_latency)


def scaled(ends: Interval, factor: float) -> Interval:
    """Of a number that is `factor` times another one; a negative factor swaps the ends."""
    low, high = sorted(factor * end for end in ends)
    return low, high
