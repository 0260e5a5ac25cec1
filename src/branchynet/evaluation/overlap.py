"""How well maps fit the truth over the whole data set: the IoU of each class, and their mean, with intervals.

Of a class it is the pixels of all images that map and truth both give to it over those that one of them does: what
segmentation is compared by. Thresholds are chosen by the images' own IoU, which can be added up; this one is worked
out from the pixels by class at the exits that the images take, and is exact for any mix of exits.

Intervals are the bootstrap's of `branchynet.evaluation.intervals`. Shapes: K classes, N exits, R draws, S samples.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from branchynet.evaluation.intervals import DRAWS, Interval, interval, often
from branchynet.evaluation.report import Report, taken_at_point
from branchynet.exits.maps import MapTrace, by_class, mean_iou


@dataclass(frozen=True)
class Overlap:
    """Of one way to answer, on the reported split."""

    mean: float  # of the classes that are there
    interval: Interval
    classes: tuple[float | None, ...]  # K; None: the class is nowhere


@dataclass(frozen=True)
class Overlaps:
    """Of the baseline, of every exit with all samples leaving there (N), and of the operating point."""

    pixels: tuple[int, ...]  # K, of the truth
    baseline: Overlap
    exits: tuple[Overlap, ...]
    point: Overlap


def overlaps(report: Report) -> Overlaps | None:
    """On the reported split; None where answers are no maps."""
    trace = report.trace
    if not isinstance(trace, MapTrace):
        return None
    first = torch.zeros(trace.num_samples, dtype=torch.int64)
    return Overlaps(
        pixels=tuple(trace.label.sum(dim=0).tolist()),
        baseline=overlap(*report.baseline_maps[report.split].class_iou(first)),
        exits=tuple(overlap(*trace.class_iou(first + n)) for n in range(trace.num_exits)),
        point=overlap(*trace.class_iou(taken_at_point(report))),
    )


def overlap(both: Tensor, either: Tensor) -> Overlap:
    """From the pixels of each image and class that map and truth have both, or one of them, (S, K) int64 each."""
    drawn = often(len(both), DRAWS)
    with np.errstate(invalid="ignore"):
        shares = (drawn @ both.numpy()) / (drawn @ either.numpy())  # (R, K), nan where a class is in no image
    means = np.nanmean(shares[:, (either.sum(dim=0) > 0).numpy()], axis=1)
    return Overlap(mean_iou(both, either), interval(means), tuple(by_class(both, either)))
