"""What is kept of grids of all sizes."""

import math

import pytest
import torch

from branchynet.errors import UserError
from branchynet.exits import found
from branchynet.exits.found import Search
from branchynet.exits.frontier import pareto
from branchynet.exits.sweep import evaluate_grid, sweep, threshold_grid
from branchynet.exits.trace import Trace

COSTS = [[1.0, 2.0, 4.0], [1.0, 3.0, 4.0]]


def random_trace(samples: int, seed: int = 0) -> Trace:
    generator = torch.Generator().manual_seed(seed)
    uncertainty = torch.rand(samples, 3, generator=generator)
    right = torch.rand(samples, 3, generator=generator) > uncertainty * torch.tensor([0.9, 0.6, 0.3])
    return Trace(uncertainty, right.long(), torch.ones(samples, dtype=torch.int64))


TRACE = random_trace(200)


def test_a_small_grid_is_kept_whole():
    kept = Search(COSTS, max_vectors=100).find(TRACE)
    assert (kept.vectors, kept.frontier, kept.gap) == (100, None, 0)
    every = sweep(TRACE, 100)
    for points in (kept.on(TRACE), Search(COSTS, max_vectors=100)(TRACE)):
        assert torch.equal(points.thresholds, every.thresholds) and torch.equal(points.right, every.right)


def test_of_a_large_one_the_frontier_of_every_kind_of_cost_is_kept(monkeypatch):
    monkeypatch.setattr(found, "WHOLE", 99)
    search = Search(COSTS, max_vectors=100)
    kept, every = search.find(TRACE), sweep(TRACE, 100)
    points = kept.on(TRACE)
    assert (
        kept.vectors == 100 and len(points) == len(kept.frontier) < 100 and kept.gap == 0 and not kept.limits
    )
    for exits in torch.tensor(COSTS, dtype=torch.float64):
        best, mine = (each.subset(pareto(each.mean_cost(exits), each.accuracy)) for each in (every, points))
        assert torch.equal(best.left, mine.left) and torch.equal(best.right, mine.right)
    # The same vectors on other samples, which have another frontier.
    other = random_trace(200, seed=1)
    assert torch.equal(kept.on(other).thresholds, kept.frontier)
    assert not torch.equal(search(other).thresholds, kept.frontier)


def test_what_is_too_large_to_go_through_has_a_limit(monkeypatch):
    monkeypatch.setattr(found, "WHOLE", 99)
    monkeypatch.setattr(found, "THROUGH", 99)
    told = []
    kept = Search(COSTS, candidates=12, progress=told.append).find(TRACE)
    assert kept.vectors == 144 and len(kept.limits) == 2 and 0 <= kept.gap < 0.2
    assert told == sorted(told) and math.isclose(told[-1], 1)
    every = evaluate_grid(TRACE, kept.grid)
    for limit in kept.limits:
        cost = every.left.numpy() @ limit.exits
        assert (every.right.numpy() <= limit.right(cost)).all()


def test_candidates_are_so_many_thresholds_per_exit():
    assert [len(values) for values in threshold_grid(TRACE, 4, candidates=50)] == [50, 50]
    # There are no more between 200 samples, but none and all of them.
    assert [len(values) for values in threshold_grid(TRACE, 4, candidates=500)] == [201, 201]


@pytest.mark.parametrize("candidates", [1, 0, -3, 2.5, True, "many"])
def test_wrong_candidates_get_one_line(candidates):
    with pytest.raises(UserError, match=r"^candidates=[^\n]*$"):
        threshold_grid(TRACE, 100, candidates=candidates)
