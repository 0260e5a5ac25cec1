"""Selection rules on hand-made points."""

import math

import pytest
import torch

from branchynet.errors import UserError
from branchynet.exits.select import Reference, check_rule, select
from branchynet.exits.sweep import OperatingPoints, evaluate_grid
from branchynet.exits.trace import Trace

# Leaving at exit 1 costs 10, at exit 2 it costs 50; the baseline costs 40.
LATENCY, MACS = torch.tensor([10.0, 50.0]), torch.tensor([100.0, 600.0])
BASELINE = Reference(accuracy=0.90, latency_us=40.0, macs=500.0)


def points(*pairs):
    """From (exit rate 1, accuracy) pairs."""
    rates = torch.tensor([[rate, 1 - rate] for rate, _ in pairs], dtype=torch.float64)
    accuracy = torch.tensor([accuracy for _, accuracy in pairs], dtype=torch.float64)
    return OperatingPoints(torch.arange(float(len(pairs)))[:, None], accuracy, rates)


FOUR = points((0.0, 0.92), (0.5, 0.91), (0.75, 0.90), (1.0, 0.80))


def choose(rule, chosen_from=FOUR, baseline=BASELINE, ends=(0.80, 0.92)):
    return select(rule, chosen_from, LATENCY, MACS, baseline, torch.tensor(ends))


def test_accuracy_floor_takes_the_fastest_that_is_good_enough():
    chosen = choose({"name": "accuracy_floor", "distance": 0.0})
    assert (chosen.index, chosen.feasible, chosen.cheaper, chosen.note) == (2, True, True, "")
    assert choose({"name": "accuracy_floor", "distance": 0.1}).index == 3


def test_accuracy_floor_of_exactly_the_baselines_count_is_enough():
    third = 1 / 3  # fractions of counts that floating point cannot hold
    chosen = choose(
        {"name": "accuracy_floor", "distance": 0.0},
        points((0.0, 0.5), (1.0, 1 - 2 * third)),
        Reference(third, 40.0, 500.0),
    )
    assert chosen.index == 1 and chosen.feasible


def test_no_point_good_enough_gives_the_nearest_and_says_so():
    chosen = choose({"name": "accuracy_floor", "distance": 0.0}, baseline=Reference(0.95, 40.0, 500.0))
    assert chosen.index == 0 and not chosen.feasible
    assert "95.00 %" in chosen.note and "92.00 %" in chosen.note


def test_a_choice_that_saves_nothing_says_so():
    chosen = choose({"name": "accuracy_floor", "distance": 0.0}, baseline=Reference(0.92, 40.0, 500.0))
    assert chosen.index == 0 and chosen.feasible and not chosen.cheaper
    assert "50.0 µs" in chosen.note and "40.0" in chosen.note


def test_budgets_take_the_most_accurate_within_or_the_cheapest():
    assert choose({"name": "latency_budget", "budget_us": 30.0}).index == 1  # 0.5·10 + 0.5·50
    assert choose({"name": "latency_budget", "budget_us": 29.9}).index == 2
    assert choose({"name": "mac_budget", "budget_macs": 350}).index == 1
    assert choose({"name": "mac_budget", "budget_macs": 349}).index == 2
    chosen = choose({"name": "latency_budget", "budget_us": 5.0})
    assert chosen.index == 3 and not chosen.feasible and "5.0 µs" in chosen.note and "10.0" in chosen.note


def test_of_equally_accurate_points_the_cheapest_is_taken():
    equal = points((0.2, 0.9), (0.6, 0.9), (0.4, 0.9))
    assert choose({"name": "latency_budget", "budget_us": 100.0}, equal).index == 1
    assert choose({"name": "knee"}, equal, ends=(0.9, 0.9)).index == 1


def test_knee_is_the_point_farthest_above_the_line_between_the_forced_exits():
    # The line from (10 µs, 0.80) to (50 µs, 0.92) rises 0.003 per µs. Heights: 0, 0.05, 0.07, 0.
    assert choose({"name": "knee"}).index == 2


def test_knee_stays_where_it_is_when_the_grid_is_refined():
    generator = torch.Generator().manual_seed(0)
    uncertainty = torch.rand(400, 2, generator=generator)
    # Unsure samples are wrong more often at exit 1; exit 2 is right on most.
    right = torch.stack(
        [torch.rand(400, generator=generator) > uncertainty[:, 0] ** 2, torch.rand(400, generator=generator) > 0.1], 1
    )
    trace = Trace(uncertainty, right.long(), torch.ones(400, dtype=torch.int64))
    ends = trace.correct.double().mean(0)

    def knee_of(thresholds):
        found = evaluate_grid(trace, [thresholds])
        chosen = select({"name": "knee"}, found, LATENCY, MACS, BASELINE, ends)
        return float(found.thresholds[chosen.index, 0]), found

    fine = torch.linspace(0, 1.0, 201)
    best, found = knee_of(fine)
    # Any coarser grid that has the fine one's knee has the same knee; others have one no better.
    for step in (2, 5, 10, 50):
        coarse = torch.cat([fine[::step], torch.tensor([best])]).unique()
        assert knee_of(coarse)[0] == best
    slope = float(ends[1] - ends[0]) / 40
    heights = found.accuracy - slope * found.mean_cost(LATENCY)
    index = (found.thresholds[:, 0] == best).nonzero()[0, 0]
    assert heights[index] == pytest.approx(heights.max().item())
    assert 0 < best < 1


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        ({"name": "best"}, "accuracy_floor, knee, latency_budget, mac_budget"),
        ({"name": "accuracy_floor"}, "distance"),
        ({"name": "knee", "distance": 0.0}, "distance"),
        ({"name": "latency_budget", "budget_us": -1.0}, "budget_us=-1.0"),
        ({"name": "mac_budget", "budget_macs": math.nan}, "nan"),
        ({"name": "mac_budget", "budget_macs": None}, "None"),
    ],
)
def test_wrong_rules_get_one_line(rule, word):
    with pytest.raises(UserError, match=word) as caught:
        check_rule(rule)
    assert "\n" not in str(caught.value)
