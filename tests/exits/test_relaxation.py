"""The limit against every vector of small grids, and against what is found."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from branchynet.exits import relaxation
from branchynet.exits.frontier import pareto
from branchynet.exits.relaxation import Limit, limits
from branchynet.exits.search import frontier_of_grid
from branchynet.exits.sweep import OperatingPoints, evaluate, evaluate_grid, threshold_grid
from branchynet.exits.trace import Trace

LEVELS = [0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 2.3]


@st.composite
def traces(draw):
    shape = (draw(st.integers(2, 14)), draw(st.integers(2, 4)))
    size = shape[0] * shape[1]
    uncertainty = draw(st.lists(st.sampled_from(LEVELS), min_size=size, max_size=size))
    right = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    ones = torch.ones(shape[0], dtype=torch.int64)
    return Trace(torch.tensor(uncertainty).reshape(shape), torch.tensor(right).reshape(shape), ones)


@settings(max_examples=60, deadline=None)
@given(traces(), st.data())
def test_no_vector_is_above_the_limit(trace, data):
    """Wherever the descent ends, and whatever was found: here it is short, and some points are left out."""
    grid = threshold_grid(trace, 1, candidates=5)
    exits = data.draw(st.lists(st.integers(1, 9), min_size=trace.num_exits, max_size=trace.num_exits))
    costs = [[float(cost) for cost in exits], [2.0 * n + 1 for n in range(trace.num_exits)]]
    every = evaluate_grid(trace, grid)
    some = every.subset(torch.arange(0, len(every), data.draw(st.integers(1, 3))))
    relaxation_steps = relaxation.STEPS
    relaxation.STEPS = 20
    try:
        found = limits(trace, grid, costs, some)
    finally:
        relaxation.STEPS = relaxation_steps
    for limit, kind in zip(found, costs, strict=True):
        cost = every.left.numpy() @ np.array(kind)
        assert (every.right.numpy() <= limit.right(cost)).all()
        gap = limit.gap(some)
        known = some.left.numpy() @ np.array(kind)
        for right, price in zip(every.right.tolist(), cost.tolist(), strict=True):
            if (known <= price).any():
                best = int(some.right.numpy()[known <= price].max())
                assert (right - best) / trace.num_samples <= gap + 1e-9


def random_trace(samples: int, exits: int) -> Trace:
    generator = torch.Generator().manual_seed(0)
    margin = torch.randn(samples, 1, generator=generator) + torch.linspace(0.2, 1.2, exits)
    margin = margin + 0.6 * torch.randn(samples, exits, generator=generator)
    right = torch.rand(samples, exits, generator=generator) < torch.sigmoid(2 * margin)
    return Trace(torch.sigmoid(-2 * margin), right.long(), torch.ones(samples, dtype=torch.int64))


def test_it_is_far_below_perfect_knowledge():
    """Of three exits the limit is mostly within a point; leaving where an exit is right would be far above."""
    trace, told = random_trace(1000, 3), []
    grid, costs = threshold_grid(trace, 1, candidates=40), [[1.0, 2.0, 4.0]]
    points = evaluate(trace, frontier_of_grid(trace, grid, costs))
    (limit,) = limits(trace, grid, costs, points, told.append)
    assert told == sorted(told) and told[-1] == pytest.approx(1)
    gaps = torch.tensor([limit.gap_at(point) for point in points])
    assert gaps.median() < 0.01
    assert limit.gap(points) >= gaps.max() and (gaps >= 0).all()
    knowing = trace.correct.any(dim=1).double().mean()
    assert knowing - points.accuracy.max() > 0.05
    best = pareto(points.mean_cost(torch.tensor(costs[0])), points.accuracy)
    assert len(best) == len(points)


def test_by_hand():
    """At most 10 - price · cost are worth more: at cost 4 of all samples that is 6, of 2.5 it is 7."""
    limit = Limit(np.array([1.0, 2.0]), [(-1.0, 10.0)])
    assert limit.right(np.array([4.0, 2.5])).tolist() == [6, 7]
    limit = Limit(np.array([1.0, 2.0]), [(1.0, 0.0), (0.0, 4.0)])
    points = OperatingPoints(
        torch.tensor([[1.0], [0.0]]), torch.tensor([2, 3]), torch.tensor([[4, 0], [0, 4]])
    )
    # Up to cost 8 a vector could have 4 right answers, the first point has 2; the second, at cost 8, has 3.
    assert limit.gap(points) == 0.5 and limit.gap_at(points[1]) == 0.25 and limit.gap_at(points[0]) == 0.5
