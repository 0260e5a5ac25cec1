"""What better exits could still gain: perfect confidence, perfect knowledge, and how good the confidence is.

They say whether the heads, their cost or the confidence holds the gain back. Nobody can run such a point: it
looks at the last exit's answer, or at the label. Shapes: N exits, S samples.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from branchynet.exits.point import OperatingPoint
from branchynet.exits.trace import Trace


@dataclass(frozen=True)
class Perfect(OperatingPoint):
    """A point that no thresholds give: it has none, and says itself where the samples leave.

    Args:
        taken: (S,) int64, 0-based.
    """

    taken: Tensor = field(compare=False, repr=False)


@dataclass(frozen=True)
class Headroom:
    """What perfect exits would give.

    Args:
        confidence: leaving at the first exit that agrees with the last one; so as accurate as the last exit.
        knowledge: leaving at the first exit that is right, where none is at the first one.
        auroc: N-1, of each side exit's uncertainty for "this exit is right", see `auroc`.
    """

    confidence: Perfect
    knowledge: Perfect
    auroc: tuple[float | None, ...]


def headroom(trace: Trace) -> Headroom:
    """Of one set of samples."""
    good = trace.good
    return Headroom(
        confidence=_point(trace, perfect_confidence(trace)),
        knowledge=_point(trace, perfect_knowledge(trace)),
        auroc=tuple(auroc(trace.uncertainty[:, n], good[:, n]) for n in range(trace.num_exits - 1)),
    )


def perfect_confidence(trace: Trace) -> Tensor:
    """(S,) int64, 0-based: the first exit that agrees with the last one; of maps, the first that is no worse."""
    if trace.partly:
        return trace.good.int().argmax(dim=1)
    return (trace.prediction == trace.prediction[:, -1:]).int().argmax(dim=1)


def perfect_knowledge(trace: Trace) -> Tensor:
    """(S,) int64, 0-based: the first exit that is right; where none is, exit 1: nothing is gained later.

    Of answers that are partly right, the first exit with the best one.
    """
    return trace.correct.double().argmax(dim=1)


def auroc(uncertainty: Tensor, right: Tensor) -> float | None:
    """How often a sample that is answered rightly is surer than one that is not; equally sure counts as half.

    0.5 is what guessing gives, 1 perfect. None where all answers are right, or none. By the ranks' sum (Mann and
    Whitney, 1947), exact and with ties.

    Args:
        uncertainty: (S,), lower is surer.
        right: (S,) bool.

    >>> auroc(torch.tensor([0.1, 0.2, 0.2, 0.9]), torch.tensor([True, True, False, False]))
    0.875
    """
    positive = int(right.sum())
    negative = len(right) - positive
    if not positive or not negative:
        return None
    _, index, counts = uncertainty.unique(return_inverse=True, return_counts=True)
    # Twice the mean rank of each value among all, from 1: whole numbers.
    last = counts.cumsum(0)
    ranks = (2 * last - counts + 1)[index]
    # The sum of the wrong answers' ranks, less what it is if all of them stand before all right ones.
    surplus = int(ranks[~right].sum()) - negative * (negative + 1)
    return surplus / (2 * positive * negative)


def _point(trace: Trace, taken: Tensor) -> Perfect:
    right = trace.correct.gather(1, taken[:, None]).sum().item()
    left = torch.bincount(taken, minlength=trace.num_exits).tolist()
    return Perfect((), right, tuple(left), taken)
