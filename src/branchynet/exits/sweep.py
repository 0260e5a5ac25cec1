"""What threshold vectors give, by arithmetic on a trace; the network is not run again.

A sample leaves at the first exit whose uncertainty is strictly below that exit's threshold, else at the last
(Teerapittayanon, McDanel and Kung, 2016, Figure 2). Thresholds are float32, as uncertainties are, so that an
engine that compares in float32 decides the same.

Shapes: G_n thresholds tried at exit n, N exits, S samples, V threshold vectors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from branchynet.errors import UserError
from branchynet.exits.trace import Trace

# A grid of more vectors than this takes gigabytes.
MAX_VECTORS = 5_000_000
# Comparisons per chunk of `evaluate`, to bound its memory.
CHUNK = 20_000_000


@dataclass(frozen=True)
class OperatingPoints:
    """V threshold vectors and what each gives on one trace."""

    thresholds: Tensor  # (V, N-1) float32
    accuracy: Tensor  # (V,) float64, fraction
    exit_rates: Tensor  # (V, N) float64, fractions that add up to 1

    def mean_cost(self, cost: Tensor) -> Tensor:
        """(V,) float64: the mean cost per sample, from what leaving at each exit costs (N,)."""
        return self.exit_rates @ cost.double()

    def subset(self, index: Tensor) -> "OperatingPoints":
        """The points at `index` (int64)."""
        return OperatingPoints(self.thresholds[index], self.accuracy[index], self.exit_rates[index])

    def __len__(self) -> int:
        return len(self.accuracy)


def exit_taken(uncertainty: Tensor, thresholds: Tensor) -> Tensor:
    """(S,) int64, 0-based: where each sample leaves, from uncertainty (S, N) and thresholds (N-1,)."""
    sure = uncertainty[:, :-1] < thresholds.float()
    # The last exit takes the rest; argmax gives the first True.
    return torch.cat([sure, torch.ones_like(sure[:, :1])], dim=1).int().argmax(dim=1)


def evaluate(trace: Trace, thresholds: Tensor) -> OperatingPoints:
    """Evaluate any V threshold vectors (V, N-1), sample by sample in chunks of bounded memory."""
    thresholds = thresholds.float()
    if thresholds.ndim != 2 or thresholds.shape[1] != trace.num_exits - 1:
        raise ValueError(f"thresholds are {tuple(thresholds.shape)}, not (V, {trace.num_exits - 1})")
    right, left = [], []
    correct = trace.correct
    for chunk in thresholds.split(max(1, CHUNK // trace.num_samples)):
        staying = torch.ones(len(chunk), trace.num_samples, dtype=torch.bool)
        rights = torch.zeros(len(chunk), dtype=torch.int64)
        lefts = []
        for n in range(trace.num_exits):
            leaving = staying
            if n < trace.num_exits - 1:
                leaving = staying & (trace.uncertainty[:, n] < chunk[:, n, None])
                staying = staying & ~leaving
            lefts.append(leaving.sum(dim=1))
            rights += (leaving & correct[:, n]).sum(dim=1)
        right.append(rights)
        left.append(torch.stack(lefts, dim=1))
    return _points(thresholds, torch.cat(right), torch.cat(left), trace.num_samples)


def evaluate_grid(trace: Trace, grid: Sequence[Tensor]) -> OperatingPoints:
    """Evaluate every combination of the thresholds in `grid`, N-1 tensors (G_n,), the last varying fastest.

    Exact, without a loop over combinations: a sample's uncertainty at exit n only matters by how many of the
    G_n thresholds are not above it. The samples are counted in a joint histogram of these numbers, and
    cumulative sums over it count, for all combinations at once, who has not left before exit n and leaves
    there.

    Raises:
        UserError: more than 5,000,000 combinations.
    """
    if len(grid) != trace.num_exits - 1:
        raise ValueError(f"the grid has {len(grid)} sets of thresholds, not {trace.num_exits - 1}")
    sizes = [len(values) for values in grid]
    if math.prod(sizes) > MAX_VECTORS:
        raise UserError(
            f"{' × '.join(map(str, sizes))} thresholds are {math.prod(sizes):,} combinations, at most "
            f"{MAX_VECTORS:,} are allowed: give fewer sweep.thresholds or set sweep.thresholds=null"
        )
    grid = [values.float() for values in grid]
    ordered, order = zip(*(values.sort() for values in grid), strict=True) if grid else ((), ())
    # rank[s, n]: the sample is taken at exit n by the ordered thresholds from number `rank` on.
    ranks = [
        torch.searchsorted(values, trace.uncertainty[:, n].contiguous(), right=True)
        for n, values in enumerate(ordered)
    ]
    correct = trace.correct
    right = torch.zeros(sizes, dtype=torch.int64)
    left = []
    for n in range(trace.num_exits):
        involved = min(n + 1, trace.num_exits - 1)
        everyone = _leaving(ranks[:involved], sizes, n, None)
        left.append(everyone.expand(sizes))
        right += _leaving(ranks[:involved], sizes, n, correct[:, n])
    # Back from sorted to the given order of thresholds.
    for n, permutation in enumerate(order):
        back = permutation.argsort()
        right = right.index_select(n, back)
        left = [counts.index_select(n, back) for counts in left]
    thresholds = torch.cartesian_prod(*grid) if grid else torch.empty(1, 0)
    return _points(
        thresholds.reshape(-1, len(grid)),
        right.reshape(-1),
        torch.stack([counts.reshape(-1) for counts in left], dim=1),
        trace.num_samples,
    )


def _leaving(ranks: Sequence[Tensor], sizes: Sequence[int], n: int, mask: Tensor | None) -> Tensor:
    """How many samples leave at exit n, (G_1, …, G_n, 1, …), only those in `mask` counted.

    Exits before n are passed by the thresholds number 0 … rank-1, exit n takes from number rank on.
    """
    dims = len(sizes)
    shape = [size + 1 for size in sizes[: len(ranks)]]
    index = torch.zeros((), dtype=torch.int64)
    for rank, size in zip(ranks, shape, strict=True):
        index = index * size + rank
    if not ranks:
        total = int(mask.sum()) if mask is not None else 1
        return torch.full([1] * dims, total, dtype=torch.int64)
    if mask is not None:
        index = index[mask]
    counts = torch.bincount(index, minlength=math.prod(shape)).reshape(shape)
    for m in range(len(ranks)):
        if m < n:
            # Passed: rank above the threshold's number, so the sum over all higher ranks.
            counts = counts.flip(m).cumsum(m).flip(m).narrow(m, 1, sizes[m])
        else:
            counts = counts.cumsum(m).narrow(m, 0, sizes[m])
    return counts.reshape([*counts.shape, *[1] * (dims - len(ranks))])


def threshold_grid(trace: Trace, max_vectors: int, values: Sequence[float] | None = None) -> list[Tensor]:
    """Thresholds to try: N-1 rising tensors (G_n,) float32, each with 0 and one above every uncertainty.

    Args:
        trace: where the uncertainties are taken from; the validation split's.
        max_vectors: at most so many combinations (at least 2 thresholds per exit are given all the same).
        values: these at every exit instead, besides 0 and the one above all.

    From the data, a threshold stands midway between neighbouring observed uncertainties, evenly spaced over
    the samples: so no sample lies on it, and with as many as there are distinct uncertainties every possible
    operating point is there.

    Raises:
        UserError: a threshold that is negative or not a number.
    """
    if values is not None:
        for value in values:
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
                raise UserError(f"sweep.thresholds has {value!r}: a threshold is a number, 0 or more")
    elif max_vectors < 1:
        raise UserError(f"sweep.max_vectors={max_vectors}: it is a whole number above 0")
    side_exits = trace.num_exits - 1
    per_exit = max(2, int(max_vectors ** (1 / max(side_exits, 1)) + 1e-9))
    grid = []
    for n in range(side_exits):
        observed = trace.uncertainty[:, n].double().unique()
        above = observed[-1:] * 1.001 + 1e-6
        if values is not None:
            inner = torch.tensor(list(values), dtype=torch.float64)
        else:
            every = trace.uncertainty[:, n].double().sort().values
            middles = (every[1:] + every[:-1])[every[1:] > every[:-1]] / 2
            count = per_exit - 2
            if len(middles) > count:
                # Evenly over the samples, not over the range: sure samples lie close together.
                middles = middles[torch.linspace(0, len(middles) - 1, count).round().long()]
            inner = middles
        ends = torch.cat([torch.zeros(1, dtype=torch.float64), above])
        grid.append(torch.cat([ends, inner]).float().unique())
    return grid


def _points(thresholds: Tensor, right: Tensor, left: Tensor, samples: int) -> OperatingPoints:
    return OperatingPoints(thresholds, right.double() / samples, left.double() / samples)
