"""Which samples order and which certify, and the order."""

import pytest
import torch

from branchynet.errors import ArgumentError
from branchynet.exits.frontier import pareto
from branchynet.exits.held_out import (
    FILLED,
    STEPS,
    careful,
    check_share,
    confidence,
    counting,
    filled,
    frontier,
    split,
)
from branchynet.exits.rules import Cost, View
from branchynet.exits.sweep import evaluate, sweep
from branchynet.exits.trace import Trace

COSTS = {"latency_us": Cost("µs", (10.0, 30.0, 60.0), 50.0), "macs": Cost("MACs", (1.0, 3.0, 6.0), 5.0)}
EXITS = torch.tensor(COSTS["latency_us"].exits).double()


def random_trace(samples=400, seed=0):
    torch.manual_seed(seed)
    uncertainty = torch.rand(samples, 3)
    right = torch.rand(samples, 3) > 0.5 * uncertainty
    return counting(Trace(uncertainty, right.long(), torch.ones(samples).long()), right)


def view_of(trace):
    return View(trace, sweep, COSTS, trace.correct[:, -1])


def test_every_sample_orders_or_certifies_and_the_seed_says_which():
    trace = random_trace(100)
    ordering, certifying = split(view_of(trace), 0.3, 0)
    assert (ordering.trace.num_samples, certifying.trace.num_samples) == (30, 70)
    both = torch.cat([ordering.trace.uncertainty, certifying.trace.uncertainty])
    assert torch.equal(both.sort(dim=0).values, trace.uncertainty.sort(dim=0).values)
    again, other = split(view_of(trace), 0.3, 0), split(view_of(trace), 0.3, 1)
    assert torch.equal(again.ordering.trace.uncertainty, ordering.trace.uncertainty)
    assert not torch.equal(other.ordering.trace.uncertainty, ordering.trace.uncertainty)


def test_too_few_samples_to_split():
    assert split(view_of(random_trace(1)), 0.3, 0) is None
    assert split(view_of(random_trace(2)), 0.3, 0) is not None


def test_the_frontier_goes_from_cheap_to_dear_and_none_of_it_is_beaten():
    trace = random_trace()
    found = evaluate(trace, frontier(trace, lambda each: sweep(each, 2000), EXITS))
    mean = found.mean_cost(EXITS)
    assert (mean.diff() > 0).all() and (found.accuracy.diff() > 0).all()
    every = sweep(trace, 2000)
    best = pareto(every.mean_cost(EXITS), every.accuracy)
    if len(best) <= STEPS:
        assert torch.equal(found.thresholds, every.thresholds[best])


def test_a_long_frontier_is_thinned_evenly_in_cost_and_keeps_its_ends():
    # The less sure, the less right: every threshold is on the frontier.
    samples = 3000
    order = torch.arange(samples)
    right = torch.stack([order % 2 == 1, torch.ones(samples, dtype=torch.bool)], 1)
    trace = counting(Trace((order[:, None] / samples).float().repeat(1, 2), right.long(), order), right)
    costs = torch.tensor([10.0, 30.0]).double()
    found = evaluate(trace, frontier(trace, sweep, costs)).mean_cost(costs)
    assert len(found) == STEPS and (found[0], found[-1]) == (10.0, 30.0)
    assert found.diff().max() < 1.1 * 20 / (STEPS - 1)


def test_more_careful_points_take_parts_of_the_samples():
    trace = random_trace(800)
    found = careful(trace, torch.tensor([0.5, 0.2]))
    below = (trace.uncertainty[:, :-1] < torch.tensor([0.5, 0.2])).sum(0)
    taken = (trace.uncertainty[None, :, :-1] < found[:, None]).sum(1)
    assert torch.equal(taken, torch.arange(1, 8)[:, None] * below // 8)


def test_gaps_are_filled_step_by_step():
    trace = random_trace(1000)
    cost = torch.tensor([10.0, 30.0, 60.0]).double()
    ends = torch.tensor([[0.0, 0.0], [0.9, 0.6], [0.91, 0.6]])
    found = filled(trace, ends, cost)
    assert torch.equal(found[[0, -2, -1]], ends), "those given stay, and a narrow gap stays one"
    mean = evaluate(trace, found).mean_cost(cost)
    assert (mean.diff() < 0).all() and len(found) > 100
    # What one sample takes is in it, too: each changes the mean by 50 / 1000 at most.
    assert (mean[:-1] / mean[1:]).max() < 1 + 2 / FILLED + 0.05 / 10, (
        "near the cheap end, too: gains are ratios"
    )
    assert torch.equal(filled(trace, ends[:1], cost), ends[:1])
    assert len(filled(trace, ends, torch.ones(3).double())) == 3, "where nothing is saved"


def test_what_comes_of_some_samples_hangs_on_no_others():
    """So the order is fixed before others certify: changing them changes nothing."""
    trace = random_trace()
    changed = Trace(trace.uncertainty.clone(), trace.prediction.clone(), trace.label)
    drawn = split(
        view_of(Trace(torch.arange(400.0)[:, None].repeat(1, 3), trace.prediction, trace.label)), 0.3, 0
    )
    others = drawn.certifying.trace.uncertainty[:, 0].long()
    changed.uncertainty[others] *= 0.123
    changed.prediction[others] = 0
    one, two = (split(view_of(each), 0.3, 0).ordering for each in (trace, changed))
    assert torch.equal(frontier(one.trace, one.search, EXITS), frontier(two.trace, two.search, EXITS))


@pytest.mark.parametrize("value", [0, 1, 1.0, -0.1, 2, True, "half", float("nan"), None])
def test_a_share_lies_between_0_and_1(value):
    with pytest.raises(ArgumentError, match=r"^epsilon=.*between 0 and 1"):
        check_share("epsilon", value)
    check_share("epsilon", 0.01)


def test_a_promise_begins_with_its_probability():
    assert confidence(0.05).startswith("With a probability of at least 95 %")
