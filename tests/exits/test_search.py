"""The search against every vector of the grid, one by one."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from traces import random_trace

from branchynet.exits import search
from branchynet.exits.frontier import pareto
from branchynet.exits.search import frontier_of_grid
from branchynet.exits.sweep import evaluate, evaluate_grid, threshold_grid
from branchynet.exits.trace import Trace

LEVELS = [0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 2.3]
# Whole numbers, so that sums are exact; a later exit may be cheaper.
COST = st.integers(1, 9)


@st.composite
def traces(draw, exits=(1, 5)):
    shape = (draw(st.integers(1, 14)), draw(st.integers(*exits)))
    size = shape[0] * shape[1]
    uncertainty = draw(st.lists(st.sampled_from(LEVELS), min_size=size, max_size=size))
    right = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    ones = torch.ones(shape[0], dtype=torch.int64)
    return Trace(torch.tensor(uncertainty).reshape(shape), torch.tensor(right).reshape(shape), ones)


def best(points, costs):
    """By kind of cost, what the points on the frontier give: right answers and the cost of all samples."""
    found = []
    for kind in costs:
        cost = (points.left.double() * torch.tensor(kind, dtype=torch.float64)).sum(dim=1)
        index = pareto(cost, points.accuracy)
        found.append(list(zip(points.right[index].tolist(), cost[index].tolist(), strict=True)))
    return found


def rising(values):
    return torch.tensor(sorted(values), dtype=torch.float32)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_frontier_is_that_of_all_vectors(data):
    trace = data.draw(traces())
    # Those that take nobody and everybody need not be there.
    values = st.sets(st.sampled_from([*LEVELS, 3.0]), min_size=1, max_size=4)
    grid = [rising(data.draw(values)) for _ in range(trace.num_exits - 1)]
    exits = st.lists(COST, min_size=trace.num_exits, max_size=trace.num_exits)
    costs = data.draw(st.lists(exits, min_size=1, max_size=2))

    found = frontier_of_grid(trace, grid, costs)

    vectors = list(itertools.product(*(values.tolist() for values in grid)))
    vectors = torch.tensor(vectors).reshape(len(vectors), len(grid))
    assert best(evaluate(trace, found), costs) == best(evaluate(trace, vectors), costs)
    listed = vectors.tolist()
    places = [listed.index(vector) for vector in found.tolist()]
    assert places == sorted(set(places))
    # Nothing else: every one is on the frontier of some kind of cost, and of equals one stays.
    assert len(found) <= sum(map(len, best(evaluate(trace, vectors), costs)))


@pytest.mark.parametrize(
    ("samples", "exits", "per_exit"), [(700, 2, 600), (600, 3, 90), (500, 4, 33), (300, 5, 9)]
)
@pytest.mark.parametrize("table", [2**21, 500])
def test_a_large_grid(monkeypatch, samples, exits, per_exit, table):
    """Thresholds enough for several blocks of a table, and for a coarse grid that is searched before."""
    monkeypatch.setattr(search, "TABLE", table)
    trace = random_trace(samples, exits)
    grid = threshold_grid(trace, per_exit ** (exits - 1))
    costs = [[10.0 * 1.7**n for n in range(exits)], [5.0 + n + 3 * (n % 2) for n in range(exits)]]
    found = evaluate(trace, frontier_of_grid(trace, grid, costs))
    for one, other in zip(best(found, costs), best(evaluate_grid(trace, grid), costs), strict=True):
        assert [right for right, _ in one] == [right for right, _ in other]
        assert [cost for _, cost in one] == pytest.approx([cost for _, cost in other], rel=1e-12)


def test_wide_cells_where_counts_do_not_fit_narrow_ones():
    """More than 2**15 samples, and as many that the last two exits answer differently."""
    trace = random_trace(70_000, 4)
    flipped = Trace(trace.uncertainty, trace.prediction.clone(), trace.label)
    flipped.prediction[:, 3] = 1 - flipped.prediction[:, 2]
    grid = threshold_grid(flipped, 12**3)
    costs = [[1.0, 2.0, 3.0, 4.0]]
    found = evaluate(flipped, frontier_of_grid(flipped, grid, costs))
    assert best(found, costs) == best(evaluate_grid(flipped, grid), costs)


def test_progress_rises_to_the_end():
    trace, told = random_trace(200, 5), []
    frontier_of_grid(trace, threshold_grid(trace, 7**4), [[1, 2, 3, 4, 5]], told.append)
    assert told == sorted(told) and math.isclose(told[-1], 1) and told[0] < 0.2


def test_another_number_of_exits_is_refused():
    with pytest.raises(ValueError, match="the grid has 1 sets of thresholds, not 2"):
        frontier_of_grid(random_trace(5, 3), [torch.zeros(1)], [[1, 2, 3]])
