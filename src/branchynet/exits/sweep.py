"""What threshold vectors give, by arithmetic on a trace; the network is not run again.

A sample leaves at the first exit whose uncertainty is strictly below that exit's threshold, else at the last
(Teerapittayanon, McDanel and Kung, 2016, Figure 2). Thresholds are rounded to float32 at once, as uncertainties
are, so that an engine, which compares in float32, decides the same.

Shapes: G_n thresholds tried at exit n, N exits, S samples, V threshold vectors.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from branchynet.errors import ArgumentError, UserError, check_whole, is_number, not_allowed
from branchynet.exits.point import OperatingPoint, decimal
from branchynet.exits.trace import Outputs, Trace

# A grid of this number of vectors takes some 2 seconds and 1 GB.
MAX_GRID = 5_000_000
# With more than so many exits, at least so many thresholds are tried at each: what 40,000 vectors are for five.
MANY, LEAST = 5, 14
# Comparisons per chunk of `evaluate`, a bit or a byte each: a chunk that fits the cache is faster.
CHUNK = 4_000_000
# Comparisons that `evaluate` keeps, a bit each.
SHARED = 2**29
# An uncertainty this close to a threshold may lie on either side of it: batches of other sizes round otherwise.
ROUNDING = 1e-5
# The share of a map's pixels that it may give to another class.
ROUNDED = 1e-3

Bits = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class OperatingPoints:
    """V threshold vectors and what each gives on one trace of S samples."""

    thresholds: Tensor  # (V, N-1) float32
    right: Tensor  # (V,) int64: samples that are answered rightly; float64 where they may be partly right
    left: Tensor  # (V, N) int64: samples that leave at each exit; a row adds up to S

    @cached_property
    def accuracy(self) -> Tensor:
        """(V,) float64, fraction."""
        return self.right.double() / self.left[:1].sum()

    @cached_property
    def exit_rates(self) -> Tensor:
        """(V, N) float64, fractions that add up to 1."""
        return self.left.double() / self.left[:1].sum()

    def mean_cost(self, cost: Tensor) -> Tensor:
        """(V,) float64: the mean cost per sample, from what leaving at each exit costs (N,)."""
        if cost.shape != self.left.shape[1:]:
            raise ValueError(f"cost is {tuple(cost.shape)}, not ({self.left.shape[1]},)")
        # No matrix product: its rounding may differ between rows, and equal rates have to cost the same.
        return (self.exit_rates * cost.double()).sum(dim=1)

    def subset(self, index: Tensor) -> "OperatingPoints":
        """The points at `index` (int64)."""
        return OperatingPoints(self.thresholds[index], self.right[index], self.left[index])

    def __getitem__(self, index: int) -> OperatingPoint:
        thresholds = tuple(decimal(value) for value in self.thresholds[index].tolist())
        return OperatingPoint(thresholds, self.right[index].item(), tuple(self.left[index].tolist()))

    def __len__(self) -> int:
        return len(self.right)


@dataclass(frozen=True)
class Differences:
    """How a real run differs from the sweep, in numbers of samples."""

    differences: int  # left elsewhere, or answered otherwise
    near_threshold: int  # within rounding of a threshold that they met, whether they differ or not
    unexplained: int  # differences that are not near a threshold


def exit_taken(uncertainty: Tensor, thresholds: Tensor) -> Tensor:
    """(S,) int64, 0-based: where each sample leaves, from uncertainty (S, N) and thresholds (N-1,)."""
    if thresholds.shape != (uncertainty.shape[1] - 1,):
        raise ValueError(f"thresholds are {tuple(thresholds.shape)}, not ({uncertainty.shape[1] - 1},)")
    sure = uncertainty[:, :-1] < thresholds.float()
    # The last exit takes the rest; argmax gives the first that is sure.
    return torch.cat([sure, torch.ones_like(uncertainty[:, :1], dtype=torch.bool)], dim=1).int().argmax(dim=1)


def point_at(trace: Trace, thresholds: Sequence[float]) -> OperatingPoint:
    """What N-1 thresholds give on a trace."""
    return evaluate(trace, torch.tensor([list(thresholds)], dtype=torch.float32).reshape(1, -1))[0]


def compare(
    trace: Trace | Outputs,
    thresholds: Sequence[float],
    exit_index: Tensor,
    prediction: Tensor,
    tolerance: float = ROUNDING,
    otherwise: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Differences:
    """Compare a real run with what the exits said of the same S samples.

    Args:
        trace: has `uncertainty` (S, N) and `prediction` (S, N, …).
        thresholds: N-1, those of the run.
        exit_index: (S,) int64, 0-based: where each sample left in the run.
        prediction: (S, …) int64: what it was answered, as the trace has it.
        tolerance: an uncertainty this close to a threshold may lie on either side of it.
        otherwise: from two of these to (S,) bool, whether they differ; None: see `differing`.
    """
    limits = torch.tensor(list(thresholds), dtype=torch.float32)
    taken = exit_taken(trace.uncertainty, limits)
    expected = trace.prediction[torch.arange(len(taken)), taken]
    # Only the thresholds that a sample met: those up to the exit where it left, in the sweep or in the run.
    met = torch.arange(len(limits)) <= torch.maximum(taken, exit_index)[:, None]
    near = (((trace.uncertainty[:, :-1] - limits).abs() <= tolerance) & met).any(dim=1)
    differs = (exit_index != taken) | (otherwise or differing)(prediction, expected)
    return Differences(int(differs.sum()), int(near.sum()), int((differs & ~near).sum()))


def differing(given: Tensor, expected: Tensor) -> Tensor:
    """(S,) bool: whether answers differ; maps (S, H, W) do where that is more than rounding explains."""
    if given.ndim == 1:
        return given != expected
    return (given != expected).flatten(1).double().mean(dim=1) > ROUNDED


def evaluate(trace: Trace, thresholds: Tensor) -> OperatingPoints:
    """Evaluate any V threshold vectors (V, N-1), in chunks of bounded memory.

    Sets of samples are rows of bits: who is sure at an exit, by threshold, who is still there, who is right.
    """
    thresholds = thresholds.float()
    if thresholds.ndim != 2 or thresholds.shape[1] != trace.num_exits - 1:
        raise ValueError(f"thresholds are {tuple(thresholds.shape)}, not (V, {trace.num_exits - 1})")
    if not len(thresholds):
        return OperatingPoints(thresholds, torch.empty(0).long(), torch.empty(0, trace.num_exits).long())
    if trace.partly:
        return _evaluate_partly(trace, thresholds)
    correct = _bits(trace.correct.T)
    columns = [values.unique(return_inverse=True) for values in thresholds.T]
    # Where vectors share their thresholds, as those of a grid do, who is sure is worked out once for each.
    few = sum(len(values) for values, _ in columns) * trace.num_samples <= SHARED
    shared = [_sure(trace, n, values) for n, (values, _) in enumerate(columns)] if few else []
    all_right, all_left = [], []
    for rows in torch.arange(len(thresholds)).split(max(1, CHUNK // trace.num_samples)):
        staying = np.repeat(_bits(torch.ones(1, trace.num_samples, dtype=torch.bool)), len(rows), axis=0)
        right, left = np.zeros(len(rows), dtype=np.int64), []
        for n in range(trace.num_exits):
            leaving = staying
            if n < trace.num_exits - 1:
                sure = shared[n][columns[n][1][rows].numpy()] if few else _sure(trace, n, thresholds[rows, n])
                leaving = staying & sure
                staying = staying & ~sure
            right += _count(leaving & correct[n])
            left.append(_count(leaving))
        all_right.append(right)
        all_left.append(np.stack(left, axis=1))
    joined = (torch.from_numpy(np.concatenate(parts)) for parts in (all_right, all_left))
    return OperatingPoints(thresholds, *joined)


def _evaluate_partly(trace: Trace, thresholds: Tensor) -> OperatingPoints:
    """The same where answers are partly right: sums instead of counts."""
    correct, parts = trace.correct, []
    for rows in thresholds.split(max(1, CHUNK // trace.num_samples)):
        staying = torch.ones(len(rows), trace.num_samples, dtype=torch.bool)
        right, left = torch.zeros(len(rows), dtype=torch.float64), []
        for n in range(trace.num_exits):
            leaving = staying
            if n < trace.num_exits - 1:
                leaving = staying & (trace.uncertainty[:, n] < rows[:, n, None])
            staying = staying & ~leaving
            right += leaving.double() @ correct[:, n]
            left.append(leaving.sum(dim=1))
        parts.append((right, torch.stack(left, dim=1)))
    return OperatingPoints(thresholds, *(torch.cat(column) for column in zip(*parts, strict=True)))


def evaluate_grid(trace: Trace, grid: Sequence[Tensor]) -> OperatingPoints:
    """Evaluate every combination of the thresholds in `grid`, N-1 tensors (G_n,), the last varying fastest.

    The very numbers that `evaluate` gives, without looking at samples and vectors together: all that matters
    of a sample's uncertainty at exit n is its rank among the G_n sorted thresholds, how many of them do not
    take it. A joint histogram counts the samples with each combination of ranks, and cumulative sums over it
    count, for all vectors at once, who passes every exit before n and leaves at n. All counts are integers; where
    answers are partly right, what they count is added up instead, and these sums are exact, too.

    Raises:
        UserError: more than 5,000,000 combinations.
    """
    if len(grid) != trace.num_exits - 1:
        raise ValueError(f"the grid has {len(grid)} sets of thresholds, not {trace.num_exits - 1}")
    sizes = [len(values) for values in grid]
    if math.prod(sizes) > MAX_GRID:
        raise UserError(
            f"{' × '.join(map(str, sizes))} thresholds make {math.prod(sizes):,} vectors, at most {MAX_GRID:,} "
            "can be swept: shorten thresholds or lower max_vectors"
        )
    grid = [values.float() for values in grid]
    exits = [_sort(values, trace.uncertainty[:, n]) for n, values in enumerate(grid)]
    correct = trace.correct
    right = torch.zeros(sizes, dtype=torch.float64 if trace.partly else torch.int64)
    left = []
    for n in range(trace.num_exits):
        everybody = torch.ones_like(correct[:, n], dtype=torch.bool)
        left.append(_leaving_at(n, exits, everybody).expand(sizes).reshape(-1))
        right += _leaving_at(n, exits, correct[:, n])
    thresholds = torch.cartesian_prod(*grid).reshape(-1, len(grid)) if grid else torch.empty(1, 0)
    return OperatingPoints(thresholds, right.reshape(-1), torch.stack(left, dim=1))


def threshold_grid(
    trace: Trace, max_vectors: int, values: Sequence[float] | None = None, candidates: int | None = None
) -> list[Tensor]:
    """Thresholds to try: N-1 rising tensors (G_n,) float32, each with 0 and one above every uncertainty.

    Args:
        trace: what the uncertainties are taken from: the split that the choice is made on.
        max_vectors: the most combinations of thresholds from the data (but 2 per exit at least, and LEAST where
            there are more than MANY exits).
        values: these are tried at every exit instead, besides 0 and one above all.
        candidates: so many thresholds from the data are tried at every exit, however many combinations that makes.

    Thresholds from the data stand midway between neighbouring observed uncertainties. There no sample of the
    trace lies on a threshold, where another engine's rounding could move it to the other side, and a new
    sample is taken if the observed one nearest to it is: just above the lower or on the upper of the two
    neighbours would give the same operating point on this trace, but favour one side on every other. Where
    there are too many, they are thinned out evenly in rank, because uncertainties crowd towards 0.

    With N = 2 and `max_vectors` above the number of distinct uncertainties, every operating point that is
    possible on the trace is there.

    Raises:
        UserError: `values` is empty or has one that is negative or no number; `max_vectors` is not above 0;
            `candidates` is below 2.
    """
    check_grid(max_vectors, values, candidates)
    side_exits = trace.num_exits - 1
    least = LEAST if trace.num_exits > MANY else 2
    per_exit = candidates or max(least, _root(max_vectors, max(side_exits, 1)))
    grid = []
    for n in range(side_exits):
        observed = trace.uncertainty[:, n].unique()
        inner = _between(observed, per_exit - 2) if values is None else torch.tensor(list(values)).float()
        thresholds = torch.cat([torch.zeros(1), inner])
        if thresholds.max() <= observed[-1]:
            # Well above: uncertainties on another split or engine may be somewhat higher.
            thresholds = torch.cat([thresholds, observed[-1:] * 2 + 1])
        grid.append(thresholds.unique())
    return grid


def sweep(
    trace: Trace, max_vectors: int = 40_000, thresholds: Sequence[float] | None = None
) -> OperatingPoints:
    """What every combination of thresholds gives on a trace. Arguments as of `threshold_grid`."""
    return evaluate_grid(trace, threshold_grid(trace, max_vectors, thresholds))


def check_grid(max_vectors: int, values: Sequence[float] | None, candidates: int | None = None) -> None:
    """A UserError for what `threshold_grid` refuses, before there is a trace."""
    check_whole("max_vectors", max_vectors, hint=", such as 40000")
    if candidates is not None:
        check_whole("candidates", candidates, least=2, hint=", such as 500, or null: as max_vectors says")
    if values is None:
        return
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise not_allowed("thresholds", values, "a list such as [0.01,0.1,1], or null for the data's own")
    for value in values:
        if not is_number(value) or not 0 <= value < math.inf:
            raise ArgumentError("thresholds", f" has {value!r}: a threshold is a finite number, 0 or more")


def _sure(trace: Trace, n: int, values: Tensor) -> Bits:
    """(V, …): whose uncertainty at exit n is below each of the values (V,)."""
    parts = values.split(max(1, CHUNK // trace.num_samples))
    return np.concatenate([_bits(trace.uncertainty[:, n] < part[:, None]) for part in parts])


def _bits(rows: Tensor) -> Bits:
    """(R, S) bool to (R, ⌈S / 64⌉), 64 samples a word."""
    packed = np.packbits(rows.numpy(), axis=1)
    padded = np.pad(packed, [(0, 0), (0, -packed.shape[1] % 8)])
    return np.ascontiguousarray(padded).view(np.uint64)


def _count(rows: Bits) -> NDArray[np.int64]:
    """(R,): how many samples are in each row."""
    return np.bitwise_count(rows).sum(axis=1, dtype=np.int64)


def _sort(values: Tensor, uncertainty: Tensor) -> tuple[Tensor, Tensor]:
    """(G,) each threshold's position among the sorted ones; (S,) how many of them do not take each sample."""
    ordered, order = values.sort()
    # Not taken by T ≤ uncertainty: the comparison is strict.
    return order.argsort(), torch.searchsorted(ordered, uncertainty.contiguous(), right=True)


def _leaving_at(n: int, exits: Sequence[tuple[Tensor, Tensor]], counted: Tensor) -> Tensor:
    """How many of the `counted` samples (S,) bool leave at exit n (0-based): int64, (G_1, …, G_n, 1, …).

    Of (S,) float64, where a sample counts for some part, the sum, float64.
    `exits` has positions (G_m,) and ranks (S,) for all exits but the last, see `_sort`.
    """
    index = torch.zeros_like(counted, dtype=torch.int64)
    shape = []
    for position, rank in exits[: n + 1]:
        shape.append(len(position) + 1)
        index = index * shape[-1] + rank
    size = math.prod(shape)
    if counted.dtype == torch.bool:
        counts = torch.bincount(index[counted], minlength=size).reshape(shape)
    else:
        counts = torch.bincount(index, weights=counted, minlength=size).reshape(shape)
    for m, (position, _) in enumerate(exits[: n + 1]):
        if m < n:
            # Exit m is passed where the rank is above the threshold's position …
            counts = counts.flip(m).cumsum(m).flip(m).index_select(m, position + 1)
        else:
            # … and exit n taken where it is not.
            counts = counts.cumsum(m).index_select(m, position)
    return counts.reshape([*counts.shape, *[1] * (len(exits) - counts.ndim)])


def _between(observed: Tensor, count: int) -> Tensor:
    """At most `count` thresholds that split the rising, distinct float32 values into those below and the rest."""
    lower, upper = observed[:-1], observed[1:]
    middle = lower + (upper - lower) / 2
    # Between two adjacent float32 numbers there is none: the upper one then splits them, by the strict <.
    middle = torch.where(middle > lower, middle, upper)
    if len(middle) > count:
        middle = middle[torch.linspace(0, len(middle) - 1, count).round().long()]
    return middle


def _root(number: int, degree: int) -> int:
    """The largest whole number whose power of `degree` is at most `number`."""
    root = round(number ** (1 / degree))
    return root if root**degree <= number else root - 1
