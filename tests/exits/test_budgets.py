"""Budgets that promise: kept on populations that are known, and the last point before a refusal."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from branchynet.errors import ArgumentError
from branchynet.exits.budgets import p_value
from branchynet.exits.certify import binomial_p, hoeffding_bentkus_p
from branchynet.exits.rules import Cost, LatencyBudget, MacBudget, View, select, within
from branchynet.exits.sweep import sweep
from branchynet.exits.trace import Trace

COSTS = {2: (10.0, 50.0), 3: (10.0, 30.0, 60.0)}


def drawn(samples, seed, exits=2, vectors=40):
    """Uncertainties are uniform and independent; the deeper, the more often right; the surer, too."""
    rng = np.random.default_rng(seed)
    u = rng.random((samples, exits))
    right = torch.from_numpy(rng.random((samples, exits)) > u * np.linspace(0.9, 0.05, exits))
    trace = Trace(torch.from_numpy(u).float(), right.long(), torch.ones(samples).long())
    kind = Cost("µs", COSTS[exits], 40.0)
    search = partial(sweep, max_vectors=vectors ** (exits - 1))
    return View(trace, search, {"latency_us": kind, "macs": kind}, right[:, -1], search)


def true_cost(thresholds, exits):
    """Of a new sample: it leaves at exit n, which it reaches, with the probability T_n."""
    cost, staying = 0.0, 1.0
    for threshold, each in zip((*thresholds, 1.0), COSTS[exits], strict=True):
        cost += staying * min(1.0, threshold) * each
        staying *= 1 - min(1.0, threshold)
    return cost


@pytest.mark.parametrize("exits", [2, 3])
def test_the_promise_is_kept_on_new_data(exits):
    """The true mean cost, which is known, is above the budget in at most δ of the draws; else it often is."""
    budget, delta, draws = 32.0, 0.1, 100
    costs, plain = [], []
    for seed in range(draws):
        view = drawn(300, seed, exits, vectors=30 if exits == 3 else 200)
        costs.append(true_cost(within(view, "macs", budget, delta).point.thresholds, exits))
        plain.append(true_cost(within(view, "macs", budget).point.thresholds, exits))
    slack = 3 * math.sqrt(delta * (1 - delta) / draws)
    assert (np.array(costs) > budget).mean() <= delta + slack
    assert np.median(costs) > 0.8 * budget, "it is not kept by being far from the budget"
    if exits == 2:
        assert (np.array(plain) > budget).mean() > delta + slack, "who promises nothing does not keep it"


@pytest.mark.parametrize("rule", [LatencyBudget(30.0, 0.1), MacBudget(30.0, 0.1)])
@pytest.mark.parametrize("exits", [2, 3])
def test_what_is_certified_is_what_the_samples_say(rule, exits):
    view = drawn(2000, 5, exits)
    selection = select(rule, view)
    found = selection.certificate
    assert selection.feasible and selection.note == ""
    assert (found.samples, found.ordering, found.bounded) == (1400, 600, rule.cost)
    assert (found.limit, found.delta) == (30.0, 0.1) and found.p_value <= 0.1
    assert 0.9 * 30 < found.observed < 30 and found.harmful is None
    assert "at most 30.0 µs per sample" in found.promise
    # Nearly as dear on all samples, and dearer than what a smaller δ gives.
    assert selection.point.mean_cost(COSTS[exits]) == pytest.approx(found.observed, rel=0.05)
    surer = within(view, rule.cost, 30.0, 0.001)
    assert surer.certificate.observed < found.observed


def test_p_values():
    assert p_value((10.0, 50.0), (0.7, 0.3), 100, 25.0) == binomial_p(30, 100, 15 / 40)
    mean = (0.3 * 20 + 0.2 * 50) / 50
    found = p_value((10.0, 30.0, 60.0), (0.5, 0.3, 0.2), 100, 31.0)
    assert found == pytest.approx(hoeffding_bentkus_p(mean, 100, 21 / 50))
    assert p_value((10.0, 50.0), (0.0, 1.0), 100, 50.0) == 0.0, "no sample costs more"


@pytest.mark.parametrize("samples", [7, 1000, 3500, 49_999])
def test_counts_are_whole_again(samples):
    for count in range(0, samples, 1 + samples // 97):
        found = p_value((0.0, 1.0), (1 - count / samples, count / samples), samples, 0.5)
        assert found == binomial_p(count, samples, 0.5)


def test_a_budget_that_cannot_be_certified_gives_the_cheapest_and_says_so():
    view = drawn(30, 0)
    below = within(view, "macs", 9.0, 0.1)
    assert below.note == "No exit costs as little as 9.0 µs per sample: the cheapest, 10.0 µs, was taken."
    few = within(view, "macs", 10.4, 0.1)
    assert "on 21 samples that certify the first of them costs 10.0 µs (p = 0.81)" in few.note
    # (1 - 0.4 / 40) ** 230 is below 0.1.
    assert "it would take 230 like these, so 329 with those that order" in few.note
    for choice in (below, few):
        assert (choice.feasible, choice.certificate) == (False, None)
        assert choice.point.exit_rates == (1.0, 0.0)
    alone = within(drawn(1, 0), "macs", 30.0, 0.1)
    assert "too few" in alone.note and not alone.feasible


def test_a_budget_above_every_cost_needs_no_early_exit():
    choice = within(drawn(300, 0), "macs", 50.0, 0.1)
    assert choice.feasible and choice.certificate.p_value == 0.0


@pytest.mark.parametrize("delta", [0, 1, 1.5, -0.1, "0.1", True, float("nan")])
def test_delta_is_a_probability(delta):
    for kind in (LatencyBudget, MacBudget):
        with pytest.raises(ArgumentError, match=r"^delta=.*between 0 and 1"):
            kind(10.0, delta)


def test_a_budget_promises_where_it_has_a_delta():
    assert MacBudget(10.0, 0.1).promises and not MacBudget(10.0).promises
