"""Thresholds found again on the reported images, by what the exits say and without a label, beside the fixed ones.

See `branchynet.runtime.adapt`. Shapes: N exits.
"""

from dataclasses import dataclass

import torch

from branchynet.evaluation.intervals import Interval, draw
from branchynet.evaluation.report import Report, medians, taken_at, taken_at_point
from branchynet.exits.sweep import point_at
from branchynet.runtime.adapt import Adapted, adapt
from branchynet.runtime.profile import Profile, certified_by, validation_of


@dataclass(frozen=True)
class Adaptive:
    """What the operating point's thresholds give once they are adapted to the reported images.

    Args:
        thresholds: N-1.
        accuracy: there.
        accuracy_minus_fixed: less the accuracy at the operating point.
        interval: of that, 95 %, paired.
        exit_rates: N.
        macs, latency_us: mean costs.
        disagreement: share of images whose answer is not the last exit's.
        allowed: the same on validation at the operating point: what the thresholds were adapted to.
        estimated_accuracy: what the accuracy would be guessed to be without labels.
    """

    thresholds: tuple[float, ...]
    accuracy: float
    accuracy_minus_fixed: float
    interval: Interval
    exit_rates: tuple[float, ...]
    macs: float
    latency_us: float
    disagreement: float
    allowed: float
    estimated_accuracy: float


def adapted(report: Report, most: float | None) -> Adapted:
    """Adapt the report's operating point to its reported split, whose labels are not looked at.

    Args:
        most: the largest uncertainty that there can be; None: not known.
    """
    thresholds, known = report.point.thresholds, report.traces["val"]
    profile = Profile(
        thresholds=thresholds,
        costs={"latency_us": medians(report.latencies[report.engine].exits), "macs": report.macs.exits},
        validation=validation_of(known.uncertainty, known.prediction, known.correct, thresholds),
        most=most,
        certified=certified_by(report.selection.certificate, thresholds),
    )
    return adapt(profile, report.trace.uncertainty.numpy(), report.trace.prediction.numpy())


def adaptive(report: Report) -> Adaptive | None:
    """See `Adaptive`; None where the report's thresholds were not adapted."""
    found = report.adapted
    if found is None:
        return None
    point, correct = point_at(report.trace, found.thresholds), report.trace.correct
    taken = taken_at(report, point)
    right, fixed = (correct.gather(1, each[:, None])[:, 0] for each in (taken, taken_at_point(report)))
    # Where all leave the threshold is infinite, which JSON cannot say: one above all that there are does the same.
    beyond = (report.trace.uncertainty[:, :-1].amax(dim=0) + 1).tolist()
    drawn = draw(right, fixed, torch.zeros_like(taken), 1)
    return Adaptive(
        thresholds=tuple(map(min, found.thresholds, beyond)),
        accuracy=point.accuracy,
        accuracy_minus_fixed=point.accuracy - report.point.accuracy,
        interval=drawn.accuracy_minus_baseline(),
        exit_rates=point.exit_rates,
        macs=point.mean_cost(report.macs.exits),
        latency_us=point.mean_cost(medians(report.latencies[report.engine].exits)),
        disagreement=found.disagreement,
        allowed=found.allowed,
        estimated_accuracy=found.accuracy,
    )
