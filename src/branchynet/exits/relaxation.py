"""How far the true frontier of a grid may be above one that was found: an upper bound by Lagrangian decomposition.

With a price per cost, a vector of thresholds is worth its right answers less the price of its cost. Let every
sample choose freely, against the thresholds, which exits take it, and every exit its threshold, against the
samples; where the two disagree, a multiplier of this sample and exit is paid from one to the other. Whatever the
multipliers, what all gain together bounds the worth of every vector in the grid: the true choice is a free choice
without disagreement. They are moved by Adam to where the bound is least. (Of integer programmes: Fisher, 1981.)

Shapes: K kinds of cost, N exits, S samples, V points.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from branchynet.exits.local import ranks
from branchynet.exits.point import OperatingPoint
from branchynet.exits.search import ROUNDING, Floats
from branchynet.exits.sweep import OperatingPoints
from branchynet.exits.trace import Trace

# Prices that the bound is worked out for, by kind of cost, and steps of Adam for each.
PRICES, STEPS = 7, 300
# Adam's; the first falls to 0.
RATE, DECAYS = 0.03, (0.9, 0.99)


@dataclass(frozen=True)
class Limit:
    """Of one kind of cost: what no threshold vector of a grid is above.

    Args:
        exits: N, what leaving costs.
        lines: pairs of a price and a worth: the right answers less price times the cost are at most the worth.
    """

    exits: Floats
    lines: Sequence[tuple[float, float]]

    def right(self, cost: Floats) -> Floats:
        """The most right answers that any vector can give at these costs of all samples (V,), or at less."""
        # Of whole numbers, with room for rounding.
        return np.floor(np.min([worth + price * cost for price, worth in self.lines], axis=0) + 1e-6)

    def gap(self, found: OperatingPoints) -> float:
        """How much more accurate than the best found that costs no more a vector may be, at most: a fraction.

        Of vectors that are cheaper than all that were found nothing is said.
        """
        right, cost = found.right.numpy(), found.left.numpy() @ self.exits
        order = np.argsort(cost, kind="stable")
        most = np.maximum.accumulate(right[order])
        # Between a point and the next dearer one the limit is highest at the latter.
        samples = int(found.left[0].sum())
        ends = np.append(cost[order][1:], samples * self.exits.max())
        return max(0.0, float((self.right(ends) - most).max()) / samples)

    def gap_at(self, point: OperatingPoint) -> float:
        """The same of vectors that cost no more than this point, on the same samples."""
        cost = point.mean_cost(tuple(self.exits)) * point.samples
        return max(0.0, (float(self.right(np.array([cost]))[0]) - point.right) / point.samples)


def limits(
    trace: Trace,
    grid: Sequence[Tensor],
    costs: Sequence[Sequence[float]],
    found: OperatingPoints,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Limit]:
    """By kind of cost; `found`, points on the trace, say where the bound has to be good.

    Arguments as of `frontier_of_grid`.
    """
    bound, limits = _Bound(trace, grid), []
    for kind, exits in enumerate(np.array(costs, dtype=np.float64)):

        def told(share: float, kind: int = kind) -> None:
            progress((kind + share) / len(costs))

        prices = _prices(found.right.numpy(), found.left.numpy() @ exits)
        limits.append(Limit(exits, bound.lines(exits, prices, told)))
    return limits


def _prices(right: NDArray[np.int64], cost: Floats) -> Floats:
    """Falling, (P,): how many more right answers the frontier's concave hull gives for a cost, and 0."""
    hull: list[tuple[float, float]] = []
    for at in np.lexsort((-right, cost)):
        x, y = float(cost[at]), float(right[at])
        if hull and y <= hull[-1][1]:
            continue
        while len(hull) > 1 and _slope(hull[-2], (x, y)) >= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append((x, y))
    slopes = np.array([_slope(*pair) for pair in itertools.pairwise(hull)])
    chosen = np.linspace(0, len(slopes) - 1, min(PRICES, len(slopes))).round().astype(int)
    return np.append(slopes[chosen], 0.0)


def _slope(one: tuple[float, float], other: tuple[float, float]) -> float:
    return (other[1] - one[1]) / max(other[0] - one[0], ROUNDING)


class _Bound:
    """Of one trace and grid; arrays have exits as rows."""

    def __init__(self, trace: Trace, grid: Sequence[Tensor]) -> None:
        self.right = np.ascontiguousarray(trace.correct.numpy(), dtype=np.float64)
        self.ranks = np.ascontiguousarray(ranks(trace, grid).T)
        self.sizes = [len(values) for values in grid]

    def lines(
        self, exits: Floats, prices: Floats, progress: Callable[[float], None]
    ) -> list[tuple[float, float]]:
        """For each price, what no vector's right answers less its cost at that price are above."""
        found, start = [], np.zeros(self.ranks.shape)
        for number, price in enumerate(prices):
            worth = (self.right - price * exits).T.copy()

            def told(share: float, number: int = number) -> None:
                progress((number + share) / len(prices))

            value, start = self.least(worth, start, told)
            found.append((float(price), value))
        return found

    def least(self, worth: Floats, start: Floats, progress: Callable[[float], None]) -> tuple[float, Floats]:
        """The lowest bound met on the way down from the multipliers `start` (N-1, S), and where it was.

        Args:
            worth: (N, S), of leaving at each exit.
        """
        at, best, where = start.copy(), math.inf, start
        mean, square = np.zeros_like(at), np.zeros_like(at)
        for step in range(1, STEPS + 1):
            value, slope = self.value(worth, at)
            if value < best:
                best, where = value, at.copy()
            mean += (1 - DECAYS[0]) * (slope - mean)
            square += (1 - DECAYS[1]) * (slope * slope - square)
            size = np.sqrt(square / (1 - DECAYS[1] ** step)) + 1e-3
            at -= RATE * (1 - (step - 1) / STEPS) / (1 - DECAYS[0] ** step) * mean / size
            progress(step / STEPS)
        return best, where

    def value(self, worth: Floats, paid: Floats) -> tuple[float, Floats]:
        """The bound at multipliers (N-1, S), and a subgradient of it."""
        # A sample's own choice, from the last exit on: leave here, and behind it be taken where that is paid for.
        taken, best = np.full(paid.shape[1], len(paid)), worth[-1]
        behind = np.zeros_like(best)
        for n in reversed(range(len(paid))):
            leaving = worth[n] - paid[n] + behind
            better = leaving > best
            taken, best = np.where(better, n, taken), np.where(better, leaving, best)
            behind = behind + np.maximum(-paid[n], 0)
        total = float(best.sum())
        slope = np.empty_like(paid)
        for n, (rank, size) in enumerate(zip(self.ranks, self.sizes, strict=True)):
            sums = np.bincount(rank, weights=paid[n], minlength=size + 1)[:size].cumsum()
            position = int(sums.argmax())
            total += float(sums[position])
            slope[n] = rank <= position
            slope[n] -= (taken == n) | ((taken < n) & (paid[n] < 0))
        return total, slope
