"""Local search against the frontier of all vectors."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from traces import random_trace

from branchynet.exits.local import Lines, local_frontier
from branchynet.exits.search import frontier_of_grid
from branchynet.exits.sweep import evaluate, threshold_grid

COSTS = [[1.0, 2.0, 3.5, 5.0, 9.0], [3.0, 2.0, 4.0, 5.0, 6.0]]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(2, 6), st.data())
def test_what_differs_in_one_threshold_is_what_evaluating_it_gives(seed, exits, per_exit, data):
    """From any point: every better neighbour is found, with its own right answers and costs."""
    trace = random_trace(30, exits, seed)
    grid = threshold_grid(trace, 1, candidates=per_exit)
    lines = Lines(trace, grid, [costs[:exits] for costs in COSTS])
    positions = torch.tensor([data.draw(st.integers(0, len(values) - 1)) for values in grid]).numpy()
    right, cost = lines.at(positions)
    lines.add(torch.tensor([right]).numpy(), cost[:, None], positions[None])
    lines.from_point(0)

    found = torch.stack([torch.from_numpy(at) for at in lines.points])
    points = evaluate(trace, torch.stack([values[at] for values, at in zip(grid, found.T, strict=True)], 1))
    for kind in range(2):
        for count, (price, index) in enumerate(
            zip(lines.frontier.cost[kind], lines.frontier.index[kind], strict=True)
        ):
            if index >= 0:
                left = points.left[index].double()
                assert points.right[index] == count
                assert float((left * torch.tensor(COSTS[kind][:exits])).sum()) == pytest.approx(price)
    neighbours = [
        [*positions[:n].tolist(), at, *positions[n + 1 :].tolist()]
        for n, values in enumerate(grid)
        for at in range(len(values))
    ]
    for neighbour in neighbours:
        right, cost = lines.at(torch.tensor(neighbour).numpy())
        assert (lines.frontier.to_beat[:, right] <= cost).all()


@pytest.mark.parametrize(("exits", "per_exit"), [(2, 50), (3, 40), (5, 14)])
def test_it_finds_the_frontier_of_a_network_like_trace(exits, per_exit):
    trace = random_trace(600, exits)
    grid, costs = threshold_grid(trace, 1, candidates=per_exit), [costs[:exits] for costs in COSTS[:1]]
    found, all_of_them = (
        evaluate(trace, of(trace, grid, costs)) for of in (local_frontier, frontier_of_grid)
    )
    prices = torch.tensor(costs[0])
    pairs = [
        set(zip(points.right.tolist(), (points.left * prices).sum(dim=1).tolist(), strict=True))
        for points in (found, all_of_them)
    ]
    # Whole rows of the costs are halves: the sums are exact.
    assert len(pairs[0] ^ pairs[1]) <= 0.02 * len(pairs[1])


def test_twenty_exits_and_progress():
    trace, told = random_trace(300, 20), []
    grid = threshold_grid(trace, 40_000)
    assert {len(values) for values in grid} == {14}
    found = evaluate(trace, local_frontier(trace, grid, [list(range(1, 21))], told.append))
    assert told == sorted(told) and told[-1] == 1
    alone = trace.correct.sum(dim=0)
    # At the price of every single exit there is something better than that exit alone.
    cost = (found.left * torch.arange(1, 21)).sum(dim=1)
    for n, right in itertools.islice(enumerate(alone.tolist()), 1, 19):
        assert found.right[cost <= 300 * (n + 1)].max() > right
