"""The Pareto frontier of a grid of thresholds, in memory that does not grow with the number of vectors.

The very points that `evaluate_grid` and `pareto` find together. The thresholds of the first exits are gone through
one combination after another. Those of the last two side exits are counted at once, as `evaluate_grid` does it: by
a histogram of the samples' ranks and cumulative sums. From one threshold of the exit before them to the next, the
samples that leave between the two are taken out of the histogram. Of a table, only the blocks are looked at in
which a point may beat the frontier that is known so far.

Shapes: G_n thresholds tried at exit n, K kinds of cost, N exits, S samples, V points of the frontier. A table has
a threshold of the last side exit per row, and one of the exit before it per column, these from high to low.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from branchynet.exits.sweep import evaluate
from branchynet.exits.trace import Trace

# Cells of a table, 4 bytes each; there are two, and some of their size beside them for a moment.
TABLE = 2**21
# Rows of a table that are bounded together.
BLOCK = 16
# The frontier of every 16th threshold is looked for first.
STRIDE = 16
# Costs are sums of a few products: what differs by less, relatively, differs by rounding only.
ROUNDING = 1e-12

Array = NDArray[np.int64]
Floats = NDArray[np.float64]


class Frontier:
    """For every number of right answers, the cheapest point found, by each of K kinds of cost."""

    def __init__(self, samples: int, kinds: int) -> None:
        self.cost = np.full((kinds, samples + 1), np.inf)
        self.index = np.full((kinds, samples + 1), -1, dtype=np.int64)
        # The least cost of all points with at least so many right answers; less is better.
        self.to_beat = np.full((kinds, samples + 1), np.inf)

    def add(self, right: Array, costs: Floats, index: Array) -> None:
        """Points by right answers (P,), costs (K, P) and the numbers of their vectors (P,)."""
        for kind, cost in enumerate(costs):
            better = np.flatnonzero(cost < self.to_beat[kind, right])
            if not len(better):
                continue
            # Of equals the last one written stays: the cheapest, of those the first.
            order = better[np.lexsort((-index[better], -cost[better]))]
            self.cost[kind, right[order]] = cost[order]
            self.index[kind, right[order]] = index[order]
            low, high = right[order].min(), right[order].max() + 1
            to_beat, found = self.to_beat[kind], self.cost[kind, low:high] * (1 - ROUNDING)
            np.minimum(to_beat[low:high], found, out=to_beat[low:high])
            to_beat[low:high] = np.minimum.accumulate(to_beat[low:high][::-1])[::-1]
            np.minimum(to_beat[:low], to_beat[low], out=to_beat[:low])

    def indices(self) -> Array:
        """The vectors of the points that no other beats in any kind of cost, rising."""
        nothing = np.full((len(self.cost), 1), np.inf)
        stays = self.cost < np.concatenate([self.to_beat[:, 1:], nothing], axis=1)
        return np.unique(self.index[stays])


def frontier_of_grid(
    trace: Trace,
    grid: Sequence[Tensor],
    costs: Sequence[Sequence[float]],
    progress: Callable[[float], None] = lambda share: None,
) -> Tensor:
    """The threshold vectors (V, N-1) that no other of the grid beats, in the grid's order.

    A vector is beaten by one that answers as many samples rightly, costs no more, and is better in one of the two,
    in every kind of cost; of equal ones one stays.

    Args:
        trace: of S samples.
        grid: N-1 rising tensors (G_n,).
        costs: K kinds, each of what leaving costs at each of N exits.
        progress: is told which share of the work is done.
    """
    if len(grid) != trace.num_exits - 1:
        raise ValueError(f"the grid has {len(grid)} sets of thresholds, not {trace.num_exits - 1}")
    grid = [values.float() for values in grid]
    if not grid:
        return torch.empty(1, 0)
    walk = _Walk(trace, grid, np.array(costs, dtype=np.float64), progress)
    sizes = [len(values) for values in grid]
    coarse = [torch.cat([values[:-1:STRIDE], values[-1:]]) for values in grid]
    if math.prod(sizes) > STRIDE * math.prod(map(len, coarse)):
        # What is known of the frontier from the start need not be looked at.
        points = evaluate(trace, frontier_of_grid(trace, coarse, costs))
        at = [
            torch.searchsorted(values, points.thresholds[:, n].contiguous()) for n, values in enumerate(grid)
        ]
        index = np.ravel_multi_index([positions.numpy() for positions in at], sizes)
        known = [(points.left * torch.tensor(kind, dtype=torch.float64)).sum(dim=1) for kind in costs]
        walk.frontier.add(points.right.numpy(), torch.stack(known).numpy(), index)
    walk.run()
    positions = np.unravel_index(walk.frontier.indices(), sizes)
    return torch.stack([values[at] for values, at in zip(grid, positions, strict=True)], dim=1)


class _Walk:
    """Through the thresholds of the first exits, with a table of the last two side exits at each combination.

    Where there are fewer than three side exits, or the table would be too large, exits that nobody takes stand in.
    """

    def __init__(
        self, trace: Trace, grid: Sequence[Tensor], costs: Floats, progress: Callable[[float], None]
    ) -> None:
        self.frontier = Frontier(trace.num_samples, len(costs))
        self.progress = progress
        # How many thresholds do not take a sample; the one at position p does from p = rank on.
        self.ranks = [
            torch.searchsorted(values, trace.uncertainty[:, n].contiguous(), right=True).numpy()
            for n, values in enumerate(grid)
        ]
        self.sizes, self.right, self.costs = (
            [len(values) for values in grid],
            list(trace.correct.numpy().T),
            costs,
        )
        large = len(grid) > 1 and math.prod(self.sizes[-2:]) > TABLE
        for at in [len(grid) - 1] * large + [0] * max(0, 3 - large - len(grid)):
            self.ranks.insert(at, np.ones(trace.num_samples, dtype=np.int64))
            self.sizes.insert(at, 1)
            self.right.insert(at, np.zeros(trace.num_samples, dtype=bool))
            self.costs = np.insert(self.costs, at, self.costs[:, at], axis=1)
        # At exit n: is any exit from n on right, and the least cost of leaving at one of them, (K,)?
        self.any_right = list(np.logical_or.accumulate(self.right[::-1])[::-1])
        self.cheapest = np.minimum.accumulate(self.costs[:, ::-1], axis=1)[:, ::-1].T

    def run(self) -> None:
        everybody = np.arange(len(self.right[0]))
        self._enter(0, everybody, 0, np.zeros(len(self.costs)), 0, (0.0, 1.0))

    def _enter(
        self, n: int, samples: Array, right: int, cost: Floats, index: int, part: tuple[float, float]
    ) -> None:
        """All vectors with the thresholds before exit n that let `samples` pass.

        Args:
            n: 0-based.
            samples: their numbers.
            right, cost: of those that have left.
            index: of the combination of thresholds before n.
            part: where the work on these vectors begins and ends, as shares of all.
        """
        if self.hopeless(n, samples, right, cost):
            return
        order = samples[np.argsort(self.ranks[n][samples], kind="stable")]
        ends = np.searchsorted(self.ranks[n][order], np.arange(self.sizes[n]), side="right")
        rights = right + np.concatenate([[0], np.cumsum(self.right[n][order])])[ends]
        table = _Table(self, order) if n == len(self.sizes) - 3 else None
        begin, gone = part[0], 0
        step = (part[1] - part[0]) / self.sizes[n]
        for position, end in enumerate(ends.tolist()):
            if position and end == gone:
                continue  # as the threshold before
            costs = cost + end * self.costs[:, n]
            at, left = index * self.sizes[n] + position, int(rights[position])
            if table:
                table.remove(order[gone:end])
                table.look(left, costs, at, order[end:])
            else:
                self._enter(
                    n + 1,
                    order[end:],
                    left,
                    costs,
                    at,
                    (begin + position * step, begin + (position + 1) * step),
                )
            self.progress(begin + (position + 1) * step)
            gone = end

    def hopeless(self, n: int, samples: Array, right: int, cost: Floats) -> bool:
        """Whether even perfect knowledge from exit n on, at the price of the cheapest exit, beats nothing."""
        most = right + np.count_nonzero(self.any_right[n][samples])
        least = cost + len(samples) * self.cheapest[n]
        return bool((least >= self.frontier.to_beat[:, most]).all())


class _Table:
    """What all thresholds of the last two side exits give for some samples, those that pass the exits before.

    A cell counts the samples that leave at the last side exit, in its lower bits, and how many right answers that
    gains over going to the end, in its upper ones: so one table is accumulated, and compared, instead of two.
    """

    def __init__(self, walk: _Walk, samples: Array) -> None:
        self.walk = walk
        first, second = walk.ranks[-2:]
        self.columns, self.rows = walk.sizes[-2:]
        cells = -(-self.rows // BLOCK) * BLOCK * self.columns
        at_first, at_second, at_last = (right.astype(np.int64) for right in walk.right[-3:])
        self.bits = len(samples).bit_length()
        gains = int(np.count_nonzero((at_second != at_last)[samples]))
        self.dtype: type[np.signedinteger] = np.int32 if self.bits + gains.bit_length() < 31 else np.int64
        # The first is passed by the thresholds below a sample's rank: the last columns, for they fall.
        passing = np.where(first > 0, self.columns - first, self.columns)
        # What counts nowhere does so in the cell behind all.
        self.cell = np.where((first > 0) & (second < self.rows), second * self.columns + passing, cells)
        self.weight = (((at_second - at_last) << self.bits) + 1).astype(self.dtype)
        self.taken = np.zeros(cells + 1, dtype=self.dtype)
        self.lines = np.zeros((4, self.columns + 1), dtype=np.int64)
        self.places = (first, passing)
        self.rights = (at_first, at_last)
        self._count(samples, 1)

    def remove(self, samples: Array) -> None:
        """These leave before."""
        self._count(samples, -1)

    def _count(self, samples: Array, sign: int) -> None:
        np.add.at(self.taken, self.cell[samples], sign * self.weight[samples])
        for n, (place, right) in enumerate(zip(self.places, self.rights, strict=True)):
            np.add.at(self.lines[2 * n], place[samples], sign)
            np.add.at(self.lines[2 * n + 1], place[samples], sign * right[samples])

    def look(self, right: int, cost: Floats, index: int, samples: Array) -> None:
        """Put what beats the frontier into it.

        Args:
            right, cost: of the samples that left before.
            index: of the combination of thresholds before.
            samples: in the table.
        """
        walk, to_beat = self.walk, self.walk.frontier.to_beat
        if walk.hopeless(len(walk.sizes) - 2, samples, right, cost):
            return
        left, right_at_first, passed, right_at_last = self.lines[:, : self.columns].cumsum(axis=1)
        first, second, last = walk.costs[:, -3:, None].transpose(1, 0, 2)
        # By column: where all that pass the first of the two go to the end.
        rights = right + right_at_first[::-1] + right_at_last
        costs = cost[:, None] + first * left[::-1] + last * passed
        saving = last - second

        table = self._cumulated()
        most = rights + (table.max(axis=1) >> self.bits)
        # From row to row costs fall, or rise where the last exit is the cheaper one.
        ends = [costs[:, None] - saving[:, None] * self._counts(table[:, row]) for row in (0, -1)]
        block, column = (np.minimum(*ends) < to_beat[:, most]).any(axis=0).nonzero()
        cells = table[block, :, column]
        found = rights[column, None] + (cells >> self.bits)
        price = costs[:, column, None] - saving[:, None] * self._counts(cells)
        one, row = (price < to_beat[:, found]).any(axis=0).nonzero()
        if len(one):
            rows = np.minimum(block[one] * BLOCK + row, self.rows - 1)
            at = (index * self.columns + self.columns - 1 - column[one]) * self.rows + rows
            walk.frontier.add(found[one, row], price[:, one, row], at)

    def _counts(self, cells: NDArray[np.signedinteger]) -> NDArray[np.signedinteger]:
        """How many samples leave at the last side exit."""
        return cells & ((1 << self.bits) - 1)

    def _cumulated(self) -> NDArray[np.signedinteger]:
        """(blocks, BLOCK, columns)."""
        blocks = np.cumsum(self.taken[:-1].reshape(-1, BLOCK, self.columns), axis=2, dtype=self.dtype)
        for row in range(1, BLOCK):
            np.add(blocks[:, row], blocks[:, row - 1], out=blocks[:, row])
        for block in range(1, len(blocks)):
            np.add(blocks[block], blocks[block - 1, -1], out=blocks[block])
        return blocks
