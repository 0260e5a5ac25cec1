"""The rule that promises: kept on populations that are known, the last point before a refusal, words."""

import math
import re
from functools import partial

import numpy as np
import pytest
import torch

from branchynet.errors import ArgumentError
from branchynet.exits import certified
from branchynet.exits.certified import Certified
from branchynet.exits.certify import binomial_p, net_p
from branchynet.exits.held_out import split
from branchynet.exits.rules import Cost, View, select
from branchynet.exits.sweep import point_at, sweep
from branchynet.exits.trace import Trace

COSTS = {
    2: Cost("µs", (10.0, 50.0), 40.0),
    3: Cost("µs", (10.0, 30.0, 60.0), 40.0),
}


def drawn(samples, seed, exits=2):
    """From a known population: of uncertainty u a sample is harmful at a side exit with a probability of h(u).

    u is the same at all exits, which err independently of each other; h falls and rises again.
    """
    rng = np.random.default_rng(seed)
    u = rng.random(samples)
    harmful = rng.random((samples, exits - 1)) < harm(u)[:, None]
    helpful = ~harmful & (rng.random((samples, exits - 1)) < 0.02)
    last = rng.random(samples) < 0.9
    # Harmful means something only where the last exit is right, helpful where it is not.
    side = np.where(last[:, None], ~harmful, helpful)
    right = torch.from_numpy(np.column_stack([side, last]))
    uncertainty = torch.from_numpy(u).float()[:, None].repeat(1, exits)
    trace = Trace(uncertainty, right.long(), torch.ones(samples).long())
    costs = {"latency_us": COSTS[exits], "macs": COSTS[exits]}
    return View(trace, sweep, costs, right[:, -1], search=partial(sweep, max_vectors=40 ** (exits - 1)))


def harm(u):
    return np.where(u < 0.2, 0.08 * (0.2 - u), 0.0) + np.where(u > 0.4, 0.5 * (u - 0.4) ** 2, 0.0)


def true_risk(threshold, loss):
    """Of a new sample: where the last exit is right 0.9 · h, and where it is wrong 0.1 · 0.02 less h's share."""
    u = np.linspace(0, 1, 20_001)
    h = np.where(u < threshold, harm(u), 0.0).mean()
    helpful = np.where(u < threshold, 0.02 * (1 - harm(u)), 0.0).mean()
    return 0.9 * h - (0.1 * helpful if loss == "net" else 0.0)


@pytest.mark.parametrize("loss", ["harmful", "net"])
def test_the_promise_is_kept_on_new_data(loss):
    """120 draws of 500 samples: the true loss, which is known, is above ε in at most δ of them."""
    epsilon, delta, draws = 0.02, 0.2, 120
    rule = Certified(epsilon, delta, loss=loss)
    broken, taken = 0, []
    for seed in range(draws):
        choice = rule.choose(drawn(500, seed))
        threshold = min(1.0, choice.point.thresholds[0])
        taken.append(threshold)
        broken += true_risk(threshold, loss) > epsilon
    assert broken / draws <= delta + 3 * math.sqrt(delta * (1 - delta) / draws)
    assert np.median(taken) > 0.4, "it is not kept by promising nothing"


def population(right, uncertainty=None, baseline=None):
    """A view of samples that are right where `right` (S, N) says; by default the first ones are the surest."""
    right = torch.tensor(right, dtype=torch.bool)
    samples, exits = right.shape
    if uncertainty is None:
        uncertainty = (torch.arange(samples) / samples)[:, None].repeat(1, exits)
    trace = Trace(uncertainty.float(), right.long(), torch.ones(samples).long())
    baseline = right[:, -1] if baseline is None else torch.tensor(baseline)
    return View(trace, sweep, {"latency_us": COSTS[exits], "macs": COSTS[exits]}, baseline)


def on_certifying(rule, view, thresholds):
    """Samples that certify, harmful and helpful ones at these thresholds."""
    trace = split(view, rule.ordering, rule.seed).certifying.trace
    left = point_at(trace, thresholds)
    last = point_at(trace, [0.0] * len(thresholds))
    harmful = rule.lost(split(view, rule.ordering, rule.seed).certifying).harmful
    early = (trace.uncertainty[:, :-1] < torch.tensor(thresholds)).int()
    at = torch.cat([early, torch.ones(len(early), 1).int()], 1).argmax(1)
    count = int(harmful.gather(1, at[:, None]).sum())
    return trace.num_samples, count, count - (last.right - left.right)


@pytest.mark.parametrize("exits", [2, 3])
@pytest.mark.parametrize("loss", ["harmful", "net"])
def test_what_is_certified_is_what_the_samples_say(loss, exits):
    view = drawn(3000, 7, exits)
    rule = Certified(0.02, 0.1, loss=loss, seed=3)
    selection = select(rule, view)
    found = selection.certificate
    samples, harmful, helpful = on_certifying(rule, view, selection.point.thresholds)
    assert (found.samples, found.ordering) == (samples, 900) == (2100, 900)
    assert (found.harmful, found.helpful) == (harmful, helpful)
    expected = (
        binomial_p(harmful, samples, 0.02)
        if loss == "harmful"
        else net_p(harmful, helpful, samples, 0.02, 0.1)
    )
    assert found.p_value == pytest.approx(expected) and found.p_value <= 0.1
    lost = harmful if loss == "harmful" else harmful - helpful
    assert found.observed == lost / samples
    assert (found.bounded, found.limit, found.delta, found.against) == (loss, 0.02, 0.1, "last")
    assert selection.point == point_at(view.trace, selection.point.thresholds) and selection.feasible
    assert f"{harmful:,} of them harmful" in found.promise and "90 %" in found.promise
    assert selection.point.exit_rates[-1] < 0.6, "much leaves early"


def test_none_past_the_first_refusal_is_taken(monkeypatch):
    """Points beyond it would pass, and are not asked."""
    asked = []

    def p_value(count, samples, limit):
        asked.append(count)
        return 0.5 if len(asked) == 4 else 0.01

    monkeypatch.setattr(certified, "binomial_p", p_value)
    rule = Certified()
    view = drawn(400, 0)
    choice = rule.choose(view)
    assert len(asked) == 4
    thresholds = rule.order(split(view, rule.ordering, rule.seed).ordering)
    assert choice.point.thresholds == point_at(view.trace, thresholds[2].tolist()).thresholds


def test_the_order_goes_from_few_early_exits_to_many():
    ordering = split(drawn(2000, 1, 3), 0.3, 0).ordering
    thresholds = Certified().order(ordering)
    costs = [point_at(ordering.trace, each.tolist()).mean_cost(COSTS[3].exits) for each in thresholds]
    assert costs == sorted(costs, reverse=True) and len(costs) > 60
    assert costs[0] > 55 and costs[-1] == 10


def test_against_the_baseline_going_to_the_end_may_lose_too():
    # The baseline is right everywhere, the last exit on 9 of 10: more than ε is lost wherever samples leave.
    right = [[True, n % 10 > 0] for n in range(2000)]
    view = population(right, baseline=[True] * 2000)
    assert select(Certified(0.02), view).feasible
    selection = select(Certified(0.02, against="baseline"), view)
    # Exit 1 is right everywhere: the safest point takes it, and it is the fastest.
    assert selection.feasible and selection.point.exit_rates == (1.0, 0.0)
    worse = population([[n % 5 > 0, n % 10 > 0] for n in range(2000)], baseline=[True] * 2000)
    selection = select(Certified(0.02, against="baseline"), worse)
    assert not selection.feasible and selection.certificate is None
    assert selection.point.exit_rates == (0.0, 1.0)
    assert "no number of samples would do" in selection.note


def test_net_counts_what_early_exits_win():
    # Of ten samples one is harmful and one helpful.
    right = [[n % 10 != 0, n % 10 != 1] for n in range(4000)]
    harmful, net = (select(Certified(0.02, loss=loss), population(right)) for loss in ("harmful", "net"))
    assert harmful.point.exit_rates[0] < 0.2 and net.point.exit_rates[0] > 0.9


def test_too_few_samples_are_told_how_many_it_takes():
    view = population([[True, True]] * 100)
    selection = select(Certified(0.01, 0.1), view)
    assert (selection.feasible, selection.certificate) == (False, None)
    assert selection.point.thresholds == (0.0,) and selection.point.exit_rates == (0.0, 1.0)
    assert selection.note == (
        "Nothing can be certified: to promise that at most 1 % are lost takes 230 samples that certify even where "
        "none is harmful, so 329 with those that order; 70 certify here. Everything goes to the last exit. The "
        "last exit costs 50.0 µs per sample, the baseline 40.0 µs: the exits save nothing here."
    )
    assert select(Certified(0.01, 0.1), population([[True, True]] * 329)).feasible
    assert not select(Certified(0.01, 0.1), population([[True, True]] * 327)).feasible
    assert "needs" not in selection.note and select(Certified(), population([[True, True]])).feasible is False


def test_a_rate_that_more_samples_would_certify():
    # Wherever samples leave, 1 of 125 is harmful.
    view = population([[n % 125 > 0] * 2 for n in range(1000)], baseline=[True] * 1000)
    note = select(Certified(0.01, 0.01, against="baseline"), view).note
    needed = int(re.search(r"others are like these, ([\d,]+) would certify it", note)[1].replace(",", ""))
    harmful = int(re.search(r"(\d+) of 700 samples are harmful", note)[1])
    for more, passes in ((0, True), (-2000, False)):
        count = needed + more
        assert (binomial_p(math.ceil(harmful * count / 700), count, 0.01) <= 0.01) == passes


def test_networks_that_the_same_samples_chose_share_delta():
    view = drawn(3000, 2)
    one, many = Certified(0.02), Certified(0.02, chosen_among=50)
    assert many.level == pytest.approx(0.1 / 50)
    first, second = one.choose(view), many.choose(view)
    assert first.point.exit_rates[0] > second.point.exit_rates[0]
    assert second.certificate.p_value <= 0.1 / 50 and "50 networks" in second.certificate.promise
    assert second.certificate.delta == 0.1


def test_a_single_exit_has_nothing_to_lose():
    trace = Trace(torch.rand(400, 1), torch.ones(400, 1).long(), torch.ones(400).long())
    costs = {"latency_us": Cost("µs", (10.0,), 10.0)}
    choice = Certified().choose(View(trace, sweep, costs, torch.ones(400, dtype=torch.bool)))
    assert choice.feasible and choice.point.thresholds == () and choice.certificate.harmful == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epsilon": 0}, "epsilon=0: it is a number between 0 and 1"),
        ({"epsilon": 1}, "epsilon=1: it is"),
        ({"delta": 1.5}, "delta=1.5: it is"),
        ({"delta": "0.1"}, "delta=0.1: it is"),
        ({"ordering": 0.0}, "ordering=0.0: it is"),
        ({"against": "first"}, "against=first: it is one of last, baseline"),
        ({"loss": "gross"}, "loss=gross: it is one of harmful, net"),
        ({"seed": -1}, "seed=-1: it is"),
        ({"chosen_among": 0}, "chosen_among=0: it is"),
    ],
)
def test_settings_check_themselves(settings, words):
    with pytest.raises(ArgumentError) as caught:
        Certified(**settings)
    assert str(caught.value).startswith(words) and "\n" not in str(caught.value)
