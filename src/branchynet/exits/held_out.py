"""Learn then test (Angelopoulos et al., 2021): some samples order operating points, the others certify them.

The order and its thresholds come from the first samples alone, so that for the others they are fixed beforehand. No
loss or cost has to rise from point to point, and a point may have any number of thresholds.

Shapes: J points in their order, N exits, S samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from branchynet.errors import is_number, not_allowed
from branchynet.exits.frontier import pareto
from branchynet.exits.sweep import OperatingPoints, evaluate
from branchynet.exits.trace import Trace

if TYPE_CHECKING:
    from branchynet.exits.rules import View

# The share of the samples that order. On CIFAR-10 fewer order badly, and more leave too few to certify.
ORDERING = 0.3
# The most points of the frontier that are tested: neighbours are so alike that more find nothing cheaper.
STEPS = 100
# A gap wider than this part of the cheaper of its two points is filled: what counts is the gain, a ratio.
FILLED = 50


class Parts(NamedTuple):
    """A view's samples, in two."""

    ordering: View
    certifying: View


def split(view: View, share: float, seed: int) -> Parts | None:
    """Draw `share` of the samples to order, the rest certifies; None where one of them would have none."""
    samples = view.trace.num_samples
    count = round(share * samples)
    if not 0 < count < samples:
        return None
    drawn = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
    return Parts(view.at(drawn[:count].sort().values), view.at(drawn[count:].sort().values))


def counting(trace: Trace, right: Tensor) -> Trace:
    """The same trace, where the samples that count as right are those of `right` (S, N) bool."""
    return Trace(trace.uncertainty, right.long(), torch.ones_like(trace.label))


def frontier(trace: Trace, search: Callable[[Trace], OperatingPoints], cost: Tensor) -> Tensor:
    """(J, N-1) thresholds of the points that none beats in accuracy and cost, from cheap to dear, at most STEPS.

    Thinned evenly in cost.

    Args:
        trace: of the samples that order.
        search: from it to points.
        cost: (N,) float64, of leaving at each exit.
    """
    points = search(trace)
    mean = points.mean_cost(cost)
    best = pareto(mean, points.accuracy)
    if len(best) > STEPS:
        wanted = torch.linspace(float(mean[best[0]]), float(mean[best[-1]]), STEPS, dtype=torch.float64)
        # At most what is wanted, but for the first: the ends stay.
        best = best[(torch.searchsorted(mean[best], wanted, right=True) - 1).clamp(min=0).unique()]
    return points.thresholds[best]


def careful(trace: Trace, thresholds: Tensor, parts: int = 8) -> Tensor:
    """(parts - 1, N-1): thresholds below those given, (N-1,): 1/8, 2/8 … of their samples are below them.

    Args:
        trace: of the samples that order.
        thresholds: of the most careful point of a frontier. Few of its samples may be harmful by chance alone.
        parts: 8.
    """
    ordered = trace.uncertainty[:, :-1].sort(dim=0).values
    below = (trace.uncertainty[:, :-1] < thresholds).sum(dim=0)
    ranks = torch.arange(1, parts)[:, None] * below // parts
    return ordered.gather(0, ranks.clamp(max=len(ordered) - 1))


def check_share(name: str, value: float) -> None:
    """An ArgumentError unless this is between 0 and 1, and neither of them."""
    if not is_number(value) or not math.isfinite(value) or not 0 < value < 1:
        raise not_allowed(name, value, "a number between 0 and 1, and neither of them, such as 0.1")


def filled(trace: Trace, thresholds: Tensor, cost: Tensor) -> Tensor:
    """The same points, and more of them between two neighbours whose costs are far apart.

    A frontier of few samples has gaps; past one, a test would go from what is surely certified to what is not. So
    from one point to the next all thresholds go step by step, in the ranks of the samples. Such a point is on no
    frontier, but the order is free, and a promise is one of the point that is taken.

    Args:
        trace: of the samples that order.
        thresholds: (J, N-1), in their order.
        cost: (N,) float64, of leaving at each exit.
    """
    ordered = trace.uncertainty[:, :-1].sort(dim=0).values
    # How many are below each threshold: (J, N-1).
    ranks = torch.searchsorted(ordered.T.contiguous(), thresholds.T.contiguous()).T
    mean = evaluate(trace, thresholds).mean_cost(cost)
    found = [thresholds[:1]]
    for n, (one, other) in enumerate(pairwise(mean.tolist())):
        parts = int(FILLED * abs(other - one) / min(one, other))
        if parts > 1:
            between = torch.arange(1, parts)[:, None]
            inner = ranks[n] + (ranks[n + 1] - ranks[n]) * between // parts
            points = ordered.gather(0, inner.clamp(max=len(ordered) - 1))
            # Where one threshold rises while another falls, the cost may go astray: only onwards.
            sign = 1 if one > other else -1
            costs = sign * evaluate(trace, points).mean_cost(cost)
            onwards = (costs == costs.cummin(0).values) & (costs <= sign * one) & (costs >= sign * other)
            found.append(points[onwards])
        found.append(thresholds[n + 1 : n + 2])
    return torch.cat(found)


def confidence(delta: float) -> str:
    """The beginning of a promise."""
    return f"With a probability of at least {100 * (1 - delta):g} % over the draw of the samples"
