"""A frontier of a grid that is too large to go through, by local search.

From every point on the frontier that is known, all thresholds of one exit at a time are tried, the others being
kept: all exits at once, by sums over the samples in the order of their ranks. What is better joins the frontier,
and is started from in turn. How far the true frontier may be away says `branchynet.exits.relaxation`.

Shapes: G the most thresholds tried at an exit, K kinds of cost, N exits, S samples, V points of the frontier.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from branchynet.exits.search import Array, Floats, Frontier
from branchynet.exits.trace import Trace

# So many points are started from at a time, spread over the frontier; and so many times, unless none is left.
STARTS, ROUNDS = 40, 15


def local_frontier(
    trace: Trace,
    grid: Sequence[Tensor],
    costs: Sequence[Sequence[float]],
    progress: Callable[[float], None] = lambda share: None,
) -> Tensor:
    """Threshold vectors (V, N-1), of which none beats another. Arguments as of `frontier_of_grid`."""
    lines = Lines(trace, grid, costs)
    lines.start()
    for number in range(ROUNDS):
        left = [index for index in lines.frontier.indices().tolist() if index not in lines.seen]
        if not left:
            break
        chosen = [
            left[at] for at in np.linspace(0, len(left) - 1, min(STARTS, len(left))).round().astype(int)
        ]
        for count, index in enumerate(chosen):
            lines.from_point(index)
            progress((number + count / len(chosen)) / ROUNDS)
    progress(1.0)
    positions = np.stack([lines.points[index] for index in lines.frontier.indices()])
    columns = [values.float()[torch.from_numpy(at)] for values, at in zip(grid, positions.T, strict=True)]
    return torch.stack(columns, dim=1)


class Lines:
    """The points found, by their positions in the grid, and what differs from one in one threshold."""

    def __init__(self, trace: Trace, grid: Sequence[Tensor], costs: Sequence[Sequence[float]]) -> None:
        self.ranks, self.right = ranks(trace, grid), trace.correct.numpy()
        self.costs = np.array(costs, dtype=np.float64)
        self.sizes = np.array([len(values) for values in grid])
        self.width = int(self.sizes.max()) + 1
        self.cell = self.ranks + np.arange(len(grid)) * self.width
        self.frontier = Frontier(trace.num_samples, len(costs))
        self.points: list[Array] = []
        self.seen: set[int] = set()

    def start(self) -> None:
        """Nobody leaves early, all leave at one exit, the same share of all thresholds at every exit."""
        last = self.sizes - 1
        alone = [np.where(np.arange(len(last)) == n, last, 0) for n in range(-1, len(last))]
        alike = [(last * share).astype(np.int64) for share in np.linspace(0.05, 0.95, 19)]
        for positions in [*alone, *alike]:
            right, costs = self.at(positions)
            self.add(np.array([right]), costs[:, None], positions[None])

    def at(self, positions: Array) -> tuple[int, Floats]:
        """Right answers, and costs (K,)."""
        taken = first_taken(self.ranks <= positions)
        return int(np.take_along_axis(self.right, taken[:, None], 1).sum()), self.costs[:, taken].sum(axis=1)

    def from_point(self, index: int) -> None:
        """Try every threshold of every exit, the others as they are at the point of this number."""
        self.seen.add(index)
        positions = self.points[index]
        sure = self.ranks <= positions
        taken = first_taken(sure)
        # Where a sample leaves that is not taken at exit n, but comes there.
        later = np.empty_like(self.ranks)
        following = np.full(len(sure), sure.shape[1])
        for n in reversed(range(sure.shape[1])):
            later[:, n] = following
            following = np.where(sure[:, n], n, following)
        sample, exit = (taken[:, None] >= np.arange(sure.shape[1])).nonzero()
        instead, cell = later[sample, exit], self.cell[sample, exit]
        gained = self.right[sample, exit].astype(np.int64) - self.right[sample, instead]
        rights, cost = self.at(positions)
        here = (np.arange(len(positions)), positions)
        lines = self._along(cell, gained)
        right = np.rint(rights + lines - lines[here][:, None]).astype(np.int64)
        prices = []
        for kind, total in zip(self.costs, cost, strict=True):
            lines = self._along(cell, kind[exit] - kind[instead])
            prices.append(total + lines - lines[here][:, None])
        price = np.stack(prices)
        tried = np.arange(self.width) < self.sizes[:, None]
        at, position = ((price < self.frontier.to_beat[:, right]).any(axis=0) & tried).nonzero()
        if len(at):
            found = np.repeat(positions[None], len(at), axis=0)
            found[np.arange(len(at)), at] = position
            self.add(right[at, position], price[:, at, position], found)

    def _along(self, cell: Array, weight: NDArray[np.generic]) -> Floats:
        """(N-1, G + 1): the sum over the samples that each threshold takes, exit by exit."""
        sums = np.bincount(cell, weights=weight, minlength=len(self.sizes) * self.width)
        return sums.reshape(-1, self.width).cumsum(axis=1)

    def add(self, right: Array, costs: Floats, found: Array) -> None:
        """Points by right answers (P,), costs (K, P) and positions (P, N-1)."""
        self.frontier.add(right, costs, len(self.points) + np.arange(len(found)))
        self.points.extend(found)


def ranks(trace: Trace, grid: Sequence[Tensor]) -> Array:
    """(S, N-1): how many thresholds of each exit do not take each sample."""
    columns = zip(grid, trace.uncertainty[:, :-1].T.contiguous(), strict=True)
    return torch.stack([torch.searchsorted(values, u, right=True) for values, u in columns], dim=1).numpy()


def first_taken(sure: NDArray[np.bool_]) -> Array:
    """(S,): the first exit that takes each sample, 0-based, the last where none of the side exits (S, N-1) does."""
    return np.where(sure.any(axis=1), sure.argmax(axis=1), sure.shape[1])
