"""Which threshold vectors are kept of a grid of any size.

All of a small one; the frontier of a large one; of one that is too large to go through, a frontier found by local
search, with a limit to what it misses.

Shapes: G_n thresholds tried at exit n, K kinds of cost, N exits, V vectors.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from branchynet.errors import UserError
from branchynet.exits.local import local_frontier
from branchynet.exits.relaxation import Limit, limits
from branchynet.exits.search import frontier_of_grid
from branchynet.exits.sweep import OperatingPoints, evaluate, evaluate_grid, threshold_grid
from branchynet.exits.trace import Trace

# A grid of at most so many vectors is kept whole.
WHOLE = 200_000
# One is gone through if it has at most so many, each combination of all but the last two thresholds counting TABLE
# more: about a minute.
THROUGH, TABLE = 20_000_000_000, 50_000


@dataclass(frozen=True, eq=False)
class Found:
    """The vectors that a search kept of a grid.

    Args:
        grid: N-1 tensors (G_n,).
        frontier: (V, N-1), or None: every vector of the grid is kept.
        limits: K, of what the frontier may miss; none where it is the true one.
        gap: how much more accurate than the best one kept that costs no more a vector may be: a fraction.
    """

    grid: Sequence[Tensor]
    frontier: Tensor | None = None
    limits: Sequence[Limit] = ()
    gap: float = 0.0

    @property
    def vectors(self) -> int:
        """How many the grid has."""
        return math.prod(len(values) for values in self.grid)

    def on(self, trace: Trace) -> OperatingPoints:
        """The same vectors on any trace."""
        return evaluate_grid(trace, self.grid) if self.frontier is None else evaluate(trace, self.frontier)


def _quiet(share: float) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Search:
    """Which thresholds are tried, whatever the trace.

    Args:
        costs: K kinds, each of what leaving costs at each of N exits: of a large grid, the points that no other
            beats in accuracy and one of them are kept.
        max_vectors, values, candidates: see `threshold_grid`.
        progress: is told which share of a search is done.
    """

    costs: Sequence[Sequence[float]]
    max_vectors: int = 40_000
    values: Sequence[float] | None = None
    candidates: int | None = None
    progress: Callable[[float], None] = field(default=_quiet, compare=False)

    def find(self, trace: Trace) -> Found:
        """The vectors for this trace, from it alone.

        Raises:
            UserError: more than WHOLE of them, for a trace of answers that are partly right.
        """
        grid = threshold_grid(trace, self.max_vectors, self.values, self.candidates)
        vectors, tables = (math.prod(len(values) for values in part) for part in (grid, grid[:-2]))
        if vectors <= WHOLE:
            return Found(grid)
        if trace.partly:  # what goes through larger grids counts right answers
            raise UserError(
                f"the thresholds make {vectors:,} vectors, and of answers that are partly right at most {WHOLE:,} "
                "are swept: lower sweep.candidates or sweep.max_vectors, or take fewer exits"
            )
        if vectors + TABLE * tables <= THROUGH:
            return Found(grid, frontier_of_grid(trace, grid, self.costs, self.progress))
        frontier = local_frontier(trace, grid, self.costs, lambda share: self.progress(share / 2))
        points = evaluate(trace, frontier)
        above = limits(trace, grid, self.costs, points, lambda share: self.progress((1 + share) / 2))
        return Found(grid, frontier, above, max(limit.gap(points) for limit in above))

    def __call__(self, trace: Trace) -> OperatingPoints:
        """What they give on it."""
        return self.find(trace).on(trace)
