"""Selection rules on points worked out by hand, and against a plain search."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from branchynet.errors import UserError
from branchynet.exits.rules import RULES, Reference, check_rule, select
from branchynet.exits.sweep import OperatingPoints, evaluate_grid, threshold_grid
from branchynet.exits.trace import Trace

# Leaving at exit 1 costs 10 µs, at exit 2 it costs 50 µs; the baseline costs 40 µs.
LATENCY, MACS = torch.tensor([10.0, 50.0]), torch.tensor([100.0, 600.0])
BASELINE = Reference(accuracy=0.90, latency_us=40.0, macs=500.0)


def points(*pairs):
    """From (exit rate 1, accuracy) pairs."""
    rates = torch.tensor([[rate, 1 - rate] for rate, _ in pairs], dtype=torch.float64)
    accuracy = torch.tensor([accuracy for _, accuracy in pairs], dtype=torch.float64)
    return OperatingPoints(torch.arange(float(len(pairs)))[:, None], accuracy, rates)


# 50, 30, 20 and 10 µs; 600, 350, 225 and 100 MACs.
FOUR = points((0.0, 0.92), (0.5, 0.91), (0.75, 0.90), (1.0, 0.80))


def choose(rule, chosen_from=FOUR, baseline=BASELINE, ends=(0.80, 0.92)):
    return select(rule, chosen_from, LATENCY, MACS, baseline, torch.tensor(ends, dtype=torch.float64))


def floor_of(accuracy, distance=0.0, latency_us=40.0, chosen_from=FOUR):
    rule = {"name": "accuracy_floor", "distance": distance}
    return choose(rule, chosen_from, Reference(accuracy, latency_us, 500.0))


def test_accuracy_floor_takes_the_fastest_that_is_good_enough():
    chosen = floor_of(0.90)
    assert (chosen.index, chosen.feasible, chosen.cheaper, chosen.note) == (2, True, True, "")
    assert floor_of(0.905).index == 1
    assert floor_of(0.90, distance=0.1).index == 3


@given(st.integers(1, 100_000).flatmap(lambda s: st.tuples(st.just(s), st.integers(0, s), st.integers(0, s))))
def test_accuracy_floor_compares_counts(counts):
    """The same count is enough, one sample less is not, whatever floating point makes of the fractions."""
    samples, right, lost = counts
    lost = min(lost, right, samples - 1)  # a distance of 1 is refused
    enough, one_less = (right - lost) / samples, (right - lost - 1) / samples
    chosen = floor_of(right / samples, lost / samples, chosen_from=points((0.5, enough), (1.0, one_less)))
    assert (chosen.index, chosen.feasible) == (0, True)


def test_accuracy_floor_of_equally_fast_points_takes_the_most_accurate_of_equals_the_first():
    equal = points((0.5, 0.90), (0.75, 0.91), (0.75, 0.93), (0.75, 0.93), (0.75, 0.92))
    assert floor_of(0.90, chosen_from=equal).index == 2


def test_no_point_good_enough_gives_the_most_accurate_and_says_so():
    chosen = floor_of(0.96, distance=0.01, latency_us=60.0)
    assert (chosen.index, chosen.feasible, chosen.cheaper) == (0, False, True)
    assert chosen.note == (
        "No operating point reaches 95.000 % on the split of the choice: the most accurate, 92.000 %, was taken."
    )
    # Of the two most accurate the cheaper one.
    assert floor_of(0.95, chosen_from=points((0.1, 0.9), (0.2, 0.9), (1.0, 0.8))).index == 1


def test_a_choice_that_saves_nothing_says_so():
    chosen = floor_of(0.92)
    assert (chosen.index, chosen.feasible, chosen.cheaper) == (0, True, False)
    assert chosen.note == (
        "Even the fastest such point costs 50.0 µs per sample, the baseline 40.0 µs: the exits save nothing here."
    )
    # As dear as the baseline is not cheaper.
    assert not floor_of(0.90, latency_us=20.0).cheaper
    assert floor_of(0.90, latency_us=20.1).cheaper


def test_neither_feasible_nor_cheaper_says_both():
    chosen = floor_of(0.95)
    assert (chosen.index, chosen.feasible, chosen.cheaper) == (0, False, False)
    assert "95.000 %" in chosen.note and "50.0 µs per sample, the baseline 40.0 µs" in chosen.note


def test_budgets_take_the_most_accurate_within():
    assert choose({"name": "latency_budget", "budget_us": 30}).index == 1
    assert choose({"name": "latency_budget", "budget_us": 29.9}).index == 2
    assert choose({"name": "mac_budget", "budget_macs": 350}).index == 1
    assert choose({"name": "mac_budget", "budget_macs": 349}).index == 2
    for rule in ({"name": "latency_budget", "budget_us": 1e9}, {"name": "mac_budget", "budget_macs": 1e9}):
        assert choose(rule).index == 0


def test_a_budget_met_exactly_is_met_in_spite_of_rounding():
    """The means, 600 - 500 · count / 500, are whole numbers here, their sums in floating point not always."""
    above = 0
    for left in range(501):
        budget = 600 - left
        point = points((left / 500, 0.9))
        above += point.mean_cost(MACS).item() > budget
        assert choose({"name": "mac_budget", "budget_macs": budget}, point).feasible
    assert above, "no case where rounding matters"


def test_a_budget_that_none_meets_gives_the_cheapest_and_says_so():
    chosen = choose({"name": "latency_budget", "budget_us": 5.0})
    assert (chosen.index, chosen.feasible, chosen.cheaper) == (3, False, True)
    assert (
        chosen.note == "No operating point costs at most 5.0 µs per sample: the cheapest, 10.0 µs, was taken."
    )
    chosen = choose({"name": "mac_budget", "budget_macs": 0})
    assert (chosen.index, chosen.feasible) == (3, False) and "100.0 MACs" in chosen.note


def test_mac_budget_is_cheaper_by_macs_and_others_by_latency():
    slow_but_small = Reference(0.9, latency_us=5.0, macs=500.0)
    chosen = choose({"name": "mac_budget", "budget_macs": 350}, baseline=slow_but_small)
    assert chosen.cheaper and chosen.note == ""
    fast_but_large = Reference(0.9, latency_us=40.0, macs=50.0)
    chosen = choose({"name": "mac_budget", "budget_macs": 350}, baseline=fast_but_large)
    assert not chosen.cheaper and "350.0 MACs per sample, the baseline 50.0 MACs" in chosen.note
    assert choose({"name": "latency_budget", "budget_us": 30}, baseline=fast_but_large).cheaper


def test_of_equally_accurate_points_the_cheapest_is_taken():
    equal = points((0.2, 0.9), (0.6, 0.9), (0.4, 0.9), (0.6, 0.9))
    assert choose({"name": "latency_budget", "budget_us": 100.0}, equal).index == 1
    assert choose({"name": "knee"}, equal, ends=(0.9, 0.9)).index == 1


def test_knee_is_the_point_farthest_above_the_line_between_the_forced_exits():
    # The line from (10 µs, 0.80) to (50 µs, 0.92) rises 0.003 per µs. Heights: 0, 0.05, 0.07, 0.
    assert choose({"name": "knee"}).index == 2
    # A steeper line, 0.015 per µs, favours points further right: 0.97 - 0.6 is less than 0.92 - 0.
    steep = points((0.0, 0.90), (0.5, 0.72), (1.0, 0.30))
    assert choose({"name": "knee"}, steep, ends=(0.30, 0.90)).index == 1


def test_knee_where_going_to_the_end_is_no_better_is_the_most_accurate_point():
    # A falling line would favour the slower first point.
    assert choose({"name": "knee"}, points((0.0, 0.90), (0.6, 0.91), (1.0, 0.9)), ends=(0.9, 0.8)).index == 1


def overlapping_trace(samples: int, exits: int, seed: int) -> Trace:
    """Surer samples are right more often, later exits are right more often."""
    generator = torch.Generator().manual_seed(seed)
    uncertainty = torch.rand(samples, exits, generator=generator) ** 2
    error = uncertainty * torch.linspace(0.6, 0.15, exits)
    right = torch.rand(samples, exits, generator=generator) > error
    return Trace(uncertainty, right.long(), torch.ones(samples, dtype=torch.int64))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 3), st.sets(st.integers(0, 59), max_size=20))
def test_knee_stays_where_it_is_when_the_grid_is_refined(seed, exits, kept):
    """Of a fine grid's points, any coarser grid that still has the knee has the same knee."""
    trace = overlapping_trace(300, exits, seed)
    latency, macs = torch.tensor([10.0, 25.0, 50.0])[-exits:], torch.ones(exits)
    ends = trace.correct.double().mean(0)

    def knee(grid):
        found = evaluate_grid(trace, grid)
        return found.subset(
            torch.tensor([select({"name": "knee"}, found, latency, macs, BASELINE, ends).index])
        )

    fine = threshold_grid(trace, 60 ** (exits - 1))
    best = knee(fine)
    coarse = [
        torch.cat([values[sorted(i for i in kept if i < len(values))], best.thresholds[:, n]]).unique()
        for n, values in enumerate(fine)
    ]
    again = knee(coarse)
    assert again.thresholds.tolist() == best.thresholds.tolist()
    assert (again.accuracy, again.exit_rates.tolist()) == (best.accuracy, best.exit_rates.tolist())


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.2), st.floats(5, 60))
def test_rules_equal_a_plain_search(seed, distance, budget):
    trace = overlapping_trace(60, 3, seed)
    found = evaluate_grid(trace, threshold_grid(trace, 100))
    latency = torch.tensor([10.0, 25.0, 50.0])
    ends = trace.correct.double().mean(0)
    base = Reference(ends[-1].item(), 40.0, 40.0)
    accuracy, cost = found.accuracy.tolist(), found.mean_cost(latency).tolist()
    every = range(len(found))

    chosen = select({"name": "accuracy_floor", "distance": distance}, found, latency, latency, base, ends)
    good = [i for i in every if accuracy[i] >= base.accuracy - distance]
    assert good, "the forced last exit is always good enough"
    assert cost[chosen.index] == pytest.approx(min(cost[i] for i in good))
    assert chosen.feasible and accuracy[chosen.index] >= base.accuracy - distance

    for rule in (
        {"name": "latency_budget", "budget_us": budget},
        {"name": "mac_budget", "budget_macs": budget},
    ):
        chosen = select(rule, found, latency, latency, base, ends)
        cheap = [i for i in every if cost[i] <= budget]
        assert chosen.feasible == bool(cheap)
        if cheap:
            best = max(accuracy[i] for i in cheap)
            assert accuracy[chosen.index] == best
            assert cost[chosen.index] == pytest.approx(min(cost[i] for i in cheap if accuracy[i] == best))
        else:
            assert cost[chosen.index] == pytest.approx(min(cost))
        assert chosen.cheaper == (cost[chosen.index] < 40.0)
        assert bool(chosen.note) == (not chosen.feasible or not chosen.cheaper)

    chosen = select({"name": "knee"}, found, latency, latency, base, ends)
    slope = max(0.0, (ends[-1] - ends[0]).item() / 40.0)
    scores = [accuracy[i] - slope * cost[i] for i in every]
    assert scores[chosen.index] == pytest.approx(max(scores), abs=1e-12)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"name": "best"}, ["best", *RULES]),
        ({}, ["None", *RULES]),
        ({"name": ["knee"]}, list(RULES)),
        ({"name": "accuracy_floor"}, ["distance is missing"]),
        ({"name": "knee", "distance": 0.0}, ["distance=0.0", "no parameter"]),
        (
            {"name": "mac_budget", "budget_macs": 1, "budget_us": 1},
            ["budget_us=1", "takes sweep.rule.budget_macs"],
        ),
        ({"name": "latency_budget", "budget_us": -1.0}, ["budget_us=-1.0"]),
        ({"name": "latency_budget", "budget_us": math.inf}, ["budget_us=inf"]),
        ({"name": "mac_budget", "budget_macs": math.nan}, ["budget_macs=nan"]),
        ({"name": "mac_budget", "budget_macs": None}, ["budget_macs=None"]),
        ({"name": "mac_budget", "budget_macs": "1e5"}, ["budget_macs=1e5"]),
        ({"name": "accuracy_floor", "distance": True}, ["distance=True"]),
        ({"name": "accuracy_floor", "distance": 1}, ["distance=1", "fraction"]),
    ],
)
def test_wrong_rules_get_one_line(rule, words):
    for refuse in (check_rule, choose):
        with pytest.raises(UserError) as caught:
            refuse(rule)
        message = str(caught.value)
        assert "\n" not in message and all(word in message for word in words)
