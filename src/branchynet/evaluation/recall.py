"""How well each class is known: its recall, the share of its samples that are answered rightly, with intervals.

Where classes have unlike numbers of samples, accuracy says little of the small ones; the mean of the recalls,
balanced accuracy, counts all classes alike. Intervals are the bootstrap's of `branchynet.evaluation.intervals`:
samples are drawn with replacement, so a class has now more of them and now fewer; a draw without any of a class
does not count for it.

Shapes: K classes, N exits, R draws, S samples.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from branchynet.evaluation.intervals import DRAWS, SEED, Interval, interval
from branchynet.evaluation.report import Report, taken_at_point


@dataclass(frozen=True)
class Recall:
    """Of one way to answer, on the reported split; None for a class without samples."""

    balanced: float  # the mean of those that there are
    balanced_interval: Interval
    classes: tuple[float | None, ...]  # K
    intervals: tuple[Interval | None, ...]  # K

    @property
    def lowest(self) -> float:
        """Of the class that is known least."""
        return min(value for value in self.classes if value is not None)


@dataclass(frozen=True)
class Recalls:
    """Of the baseline, of every exit with all samples leaving there (N), and of the operating point."""

    samples: tuple[int, ...]  # K
    baseline: Recall
    exits: tuple[Recall, ...]
    point: Recall


def recalls(report: Report) -> Recalls:
    """On the reported split."""
    label, correct, count = report.trace.label, report.trace.correct, len(report.classes)
    taken = taken_at_point(report)
    return Recalls(
        samples=tuple(label.bincount(minlength=count).tolist()),
        baseline=recall(report.baseline_correct[report.split], label, count),
        exits=tuple(recall(right, label, count) for right in correct.T),
        point=recall(correct.gather(1, taken[:, None])[:, 0], label, count),
    )


def recall(right: Tensor, label: Tensor, classes: int) -> Recall:
    """From which samples are answered rightly (S,) bool, and their labels (S,) int64, 0 … K-1.

    >>> recall(torch.tensor([True, False, True]), torch.tensor([0, 0, 2]), 3).classes
    (0.5, None, 1.0)
    """
    kinds = torch.bincount(2 * label + right.long(), minlength=2 * classes)
    return _of(tuple(kinds.tolist()))


@lru_cache(maxsize=32)  # tables, curves and result.json speak of the same
def _of(counts: tuple[int, ...]) -> Recall:
    """From how many samples of each class are answered wrongly and rightly, in turn: 2·K numbers."""
    wrong, right = np.array(counts).reshape(-1, 2).T
    samples = wrong + right
    there = samples.nonzero()[0]
    shares = np.stack([wrong, right], axis=1)[there].reshape(-1) / samples.sum()
    drawn = np.random.default_rng(SEED).multinomial(int(samples.sum()), shares, size=DRAWS)
    drawn = drawn.reshape(DRAWS, len(there), 2)
    with np.errstate(invalid="ignore"):
        each = drawn[:, :, 1] / drawn.sum(axis=2)  # (R, classes that there are), nan without samples
    balanced = np.nanmean(each, axis=1)
    found: list[float | None] = [None] * len(samples)
    intervals: list[Interval | None] = [None] * len(samples)
    for number, values in zip(there.tolist(), each.T, strict=True):
        found[number] = int(right[number]) / int(samples[number])
        intervals[number] = interval(values[~np.isnan(values)])
    mean = sum(value for value in found if value is not None) / len(there)
    return Recall(mean, interval(balanced), tuple(found), tuple(intervals))
