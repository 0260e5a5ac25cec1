"""Selection rules on points worked out by hand, and against a plain search; the view that they choose from."""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from branchynet.errors import UserError
from branchynet.exits.rules import (
    AccuracyFloor,
    Choice,
    Cost,
    GainFloor,
    Knee,
    LatencyBudget,
    MacBudget,
    View,
    first,
    select,
    within,
)
from branchynet.exits.sweep import OperatingPoints, evaluate, evaluate_grid, point_at, threshold_grid
from branchynet.exits.trace import Trace

# Leaving at exit 1 costs 10 µs, at exit 2 it costs 50 µs; the baseline costs 40 µs.
LATENCY, MACS = (10.0, 50.0), (100.0, 600.0)
SAMPLES = 1000


def costs(latency_us=40.0, macs=500.0, latency=LATENCY, work=MACS):
    """Of the baseline, and of leaving at each exit."""
    return {"latency_us": Cost("µs", latency, latency_us), "macs": Cost("MACs", work, macs)}


def points(*pairs, samples=SAMPLES):
    """From (exit rate 1, accuracy) pairs; a point's threshold is its number."""
    left = [round(rate * samples) for rate, _ in pairs]
    right = [round(accuracy * samples) for _, accuracy in pairs]
    thresholds = torch.arange(float(len(pairs)))[:, None]
    return OperatingPoints(thresholds, torch.tensor(right), torch.tensor([[n, samples - n] for n in left]))


def some_right(count, samples):
    """(samples,) bool: the first `count` of them."""
    return torch.arange(samples) < count


def view_of(made, baseline=0.90, ends=(0.80, 0.92), samples=SAMPLES, **others):
    """A view of ready points; `baseline` and `ends` are accuracies: of the baseline, and of the forced exits."""
    right = torch.stack([some_right(round(accuracy * samples), samples) for accuracy in ends], dim=1)
    trace = Trace(torch.ones(samples, 2), right.long(), torch.ones(samples, dtype=torch.int64))
    return View(trace, lambda _: made, costs(**others), some_right(round(baseline * samples), samples))


# 50, 30, 20 and 10 µs; 600, 350, 225 and 100 MACs.
FOUR = points((0.0, 0.92), (0.5, 0.91), (0.75, 0.90), (1.0, 0.80))


@dataclass
class Chosen:
    """A selection, and which of the points it is."""

    index: int
    feasible: bool
    cheaper: bool
    note: str


def choose(rule, chosen_from=FOUR, **others):
    selection = select(rule, view_of(chosen_from, **others))
    index = int(selection.point.thresholds[0])
    assert selection.point == chosen_from[index]
    return Chosen(index, selection.feasible, selection.cheaper, selection.note)


def floor_of(accuracy, distance=0.0, latency_us=40.0, chosen_from=FOUR, **others):
    return choose(AccuracyFloor(distance), chosen_from, baseline=accuracy, latency_us=latency_us, **others)


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
    enough = right - lost
    made = OperatingPoints(
        torch.tensor([[0.0], [1.0]]),
        torch.tensor([enough, enough - 1]),
        torch.tensor([[samples - samples // 2, samples // 2], [samples, 0]]),
    )
    chosen = floor_of(right / samples, lost / samples, chosen_from=made, samples=samples)
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
    assert choose(LatencyBudget(30)).index == 1
    assert choose(LatencyBudget(29.9)).index == 2
    assert choose(MacBudget(350)).index == 1
    assert choose(MacBudget(349)).index == 2
    for rule in (LatencyBudget(1e9), MacBudget(1e9)):
        assert choose(rule).index == 0


def test_gain_floor_takes_the_most_accurate_that_is_so_many_times_as_cheap():
    assert [choose(GainFloor(gain)).index for gain in (0.8, 1.3, 2, 4)] == [0, 1, 2, 3]
    assert choose(GainFloor(2, cost="macs"), macs=700.0).index == 1
    chosen = choose(GainFloor(5))
    assert (chosen.index, chosen.feasible) == (3, False)
    note = "No operating point is 5 times as cheap as the baseline: the cheapest, 10.0 µs, was taken."
    assert chosen.note == note


@pytest.mark.parametrize("rule", [AccuracyFloor, Knee])
def test_a_rule_is_about_the_cost_that_it_is_told(rule):
    """Both points are as accurate; one lets all leave at exit 2, which is fast, the other half of all at exit 1."""
    made = OperatingPoints(torch.zeros(2, 2), torch.tensor([9, 9]), torch.tensor([[0, 10, 0], [5, 0, 5]]))
    trace = Trace(torch.ones(10, 3), torch.ones(10, 3).long(), torch.ones(10, dtype=torch.int64))
    both = {"latency_us": Cost("µs", (10, 20, 50), 40), "macs": Cost("MACs", (100, 500, 550), 300)}
    view = View(trace, lambda _: made, both, some_right(9, 10))
    assert select(rule(), view).point == made[0]
    assert select(rule(), view).cost == "latency_us"
    by_macs = select(rule(cost="macs"), view)
    assert by_macs.cost == "macs"
    assert by_macs.point == made[1] and not by_macs.cheaper
    assert "costs 325.0 MACs per sample, the baseline 300.0 MACs" in by_macs.note


def test_a_budget_met_exactly_is_met_in_spite_of_rounding():
    """The means, 600 - 500 · count / 500, are whole numbers here, their sums in floating point not always."""
    above = 0
    for left in range(501):
        budget = 600 - left
        point = points((left / 500, 0.9), samples=500)
        above += point.mean_cost(torch.tensor(MACS)).item() > budget
        assert choose(MacBudget(budget), point, samples=500).feasible
    assert above, "no case where rounding matters"


def test_a_budget_that_none_meets_gives_the_cheapest_and_says_so():
    chosen = choose(LatencyBudget(5.0))
    assert (chosen.index, chosen.feasible, chosen.cheaper) == (3, False, True)
    assert (
        chosen.note == "No operating point costs at most 5.0 µs per sample: the cheapest, 10.0 µs, was taken."
    )
    chosen = choose(MacBudget(0))
    assert (chosen.index, chosen.feasible) == (3, False) and "100.0 MACs" in chosen.note


def test_mac_budget_is_cheaper_by_macs_and_others_by_latency():
    slow_but_small = {"latency_us": 5.0, "macs": 500.0}
    chosen = choose(MacBudget(350), **slow_but_small)
    assert chosen.cheaper and chosen.note == ""
    fast_but_large = {"latency_us": 40.0, "macs": 50.0}
    chosen = choose(MacBudget(350), **fast_but_large)
    assert not chosen.cheaper and "350.0 MACs per sample, the baseline 50.0 MACs" in chosen.note
    assert choose(LatencyBudget(30), **fast_but_large).cheaper


def test_of_equally_accurate_points_the_cheapest_is_taken():
    equal = points((0.2, 0.9), (0.6, 0.9), (0.4, 0.9), (0.6, 0.9))
    assert choose(LatencyBudget(100.0), equal).index == 1
    assert choose(Knee(), equal, ends=(0.9, 0.9)).index == 1


def test_knee_is_the_point_farthest_above_the_line_between_the_forced_exits():
    # The line from (10 µs, 0.80) to (50 µs, 0.92) rises 0.003 per µs. Heights: 0, 0.05, 0.07, 0.
    assert choose(Knee()).index == 2
    # A steeper line, 0.015 per µs, favours points further right: 0.97 - 0.6 is less than 0.92 - 0.
    steep = points((0.0, 0.90), (0.5, 0.72), (1.0, 0.30))
    assert choose(Knee(), steep, ends=(0.30, 0.90)).index == 1


def test_knee_where_going_to_the_end_is_no_better_is_the_most_accurate_point():
    # A falling line would favour the slower first point.
    assert choose(Knee(), points((0.0, 0.90), (0.6, 0.91), (1.0, 0.9)), ends=(0.9, 0.8)).index == 1


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
    of_exits = costs(latency=(10.0, 25.0, 50.0)[-exits:], work=(1.0,) * exits)

    def knee(grid):
        view = View(trace, partial(evaluate_grid, grid=grid), of_exits, trace.correct[:, -1])
        return select(Knee(), view).point

    fine = threshold_grid(trace, 60 ** (exits - 1))
    best = knee(fine)
    coarse = [
        torch.cat(
            [values[sorted(i for i in kept if i < len(values))], torch.tensor([best.thresholds[n]])]
        ).unique()
        for n, values in enumerate(fine)
    ]
    again = knee(coarse)
    assert again.thresholds == best.thresholds
    assert (again.accuracy, again.exit_rates) == (best.accuracy, best.exit_rates)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.2), st.floats(5, 60))
def test_rules_equal_a_plain_search(seed, distance, budget):
    trace = overlapping_trace(60, 3, seed)
    latency = (10.0, 25.0, 50.0)
    sweep = partial(evaluate_grid, grid=threshold_grid(trace, 100))
    view = View(trace, sweep, costs(40.0, 40.0, latency, latency), trace.correct[:, -1])
    found = evaluate_grid(trace, threshold_grid(trace, 100))
    ends = [int(right) / 60 for right in trace.correct.sum(0)]
    accuracy, cost = found.accuracy.tolist(), found.mean_cost(torch.tensor(latency)).tolist()
    every = range(len(found))

    def chosen_by(rule):
        selection = select(rule, view)
        index = [found[i] for i in every].index(selection.point)
        return index, selection

    index, chosen = chosen_by(AccuracyFloor(distance))
    # Accuracies differ by 1/60, costs by ¼ µs: what differs by less differs by rounding.
    good = [i for i in every if accuracy[i] >= ends[-1] - distance - 1e-12]
    assert good, "the forced last exit is always good enough"
    assert cost[index] == pytest.approx(min(cost[i] for i in good))
    assert chosen.feasible and accuracy[index] >= ends[-1] - distance - 1e-12

    for rule in (LatencyBudget(budget), MacBudget(budget)):
        index, chosen = chosen_by(rule)
        cheap = [i for i in every if cost[i] <= budget + 1e-9]
        assert chosen.feasible == bool(cheap)
        if cheap:
            best = max(accuracy[i] for i in cheap)
            assert accuracy[index] == best
            assert cost[index] == pytest.approx(min(cost[i] for i in cheap if accuracy[i] == best))
        else:
            assert cost[index] == pytest.approx(min(cost))
        assert chosen.cheaper == (cost[index] < 40.0 - 1e-9)
        assert bool(chosen.note) == (not chosen.feasible or not chosen.cheaper)

    index, _ = chosen_by(Knee())
    slope = max(0.0, (ends[-1] - ends[0]) / 40.0)
    scores = [accuracy[i] - slope * cost[i] for i in every]
    assert scores[index] == pytest.approx(max(scores), abs=1e-12)


@pytest.mark.parametrize(
    ("rule", "setting", "value", "words"),
    [
        (LatencyBudget, "budget_us", -1.0, "0 or more"),
        (LatencyBudget, "budget_us", math.inf, "finite"),
        (MacBudget, "budget_macs", math.nan, "finite"),
        (MacBudget, "budget_macs", None, "number"),
        (MacBudget, "budget_macs", "1e5", "number"),
        (AccuracyFloor, "distance", True, "number"),
        (AccuracyFloor, "distance", -0.1, "0 or more"),
        (AccuracyFloor, "distance", 1, "fraction"),
        (AccuracyFloor, "cost", "time", "one of latency_us, macs"),
        (Knee, "cost", None, "one of latency_us, macs"),
        (GainFloor, "gain", 0, "above 0"),
        (GainFloor, "gain", math.inf, "above 0"),
    ],
)
def test_wrong_settings_get_one_line_that_begins_with_their_name(rule, setting, value, words):
    with pytest.raises(UserError) as caught:
        rule(**{setting: value})
    message = str(caught.value)
    assert message.startswith(f"{setting}={value}: it is ")
    assert "\n" not in message and words in message


# The view


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    exits=st.integers(1, 3),
    chosen=st.lists(st.integers(0, 39), min_size=1, max_size=60),
    as_mask=st.booleans(),
)
def test_any_part_of_a_view_is_the_same_sweep_over_those_samples(seed, exits, chosen, as_mask):
    trace = overlapping_trace(40, exits, seed)
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.rand(7, exits - 1, generator=generator)
    baseline = torch.rand(40, generator=generator) < 0.8
    latency, work = tuple(range(1, exits + 1)), tuple(range(10, 10 + exits))
    view = View(trace, partial(evaluate, thresholds=vectors), costs(latency=latency, work=work), baseline)
    if as_mask:
        samples = torch.isin(torch.arange(40), torch.tensor(chosen))
        chosen = samples.nonzero()[:, 0].tolist()
    else:
        samples = torch.tensor(chosen)  # in any order, some of them twice
    part = view.at(samples)

    own = Trace(
        torch.stack([trace.uncertainty[s] for s in chosen]),
        torch.stack([trace.prediction[s] for s in chosen]),
        torch.stack([trace.label[s] for s in chosen]),
    )
    expected = evaluate(own, vectors)
    assert torch.equal(part.points.thresholds, vectors)
    assert torch.equal(part.points.right, expected.right) and torch.equal(part.points.left, expected.left)
    assert part.baseline_accuracy == sum(bool(baseline[s]) for s in chosen) / len(chosen)
    assert part.exit_accuracy.tolist() == pytest.approx(
        [sum(bool(trace.correct[s, n]) for s in chosen) / len(chosen) for n in range(exits)]
    )
    assert part.costs == view.costs
    for name, cost in (("latency_us", latency), ("macs", work)):
        assert part.mean(name).tolist() == pytest.approx([point.mean_cost(cost) for point in expected])
    # A part of a part, and the whole as it was.
    assert torch.equal(part.at(torch.tensor([0])).trace.uncertainty[0], trace.uncertainty[chosen[0]])
    assert view.trace.num_samples == 40 and view.points.left.sum() == 7 * 40


def test_a_view_sweeps_once_and_not_before_it_is_asked():
    swept = []
    view = view_of(FOUR)
    view = View(view.trace, lambda trace: swept.append(trace) or FOUR, view.costs, view.baseline_correct)
    part = view.at(torch.arange(10))
    assert not swept
    assert view.points is view.points is FOUR and view.mean("macs").tolist() == [600.0, 350.0, 225.0, 100.0]
    assert len(swept) == 1 and swept[0] is view.trace
    assert part.points is FOUR and swept[1] is part.trace


# A stranger's rule


@dataclass(frozen=True)
class Halfway:
    """Lets those leave at exit 1 that are surer than half of the samples: a threshold that nobody swept."""

    costly: bool = False
    name: ClassVar[str] = "halfway"
    cost: ClassVar[str] = "macs"

    def choose(self, view):
        middle = float(view.trace.uncertainty[:, 0].median()) + 1e-3
        note = "Nobody was asked." if self.costly else ""
        return Choice(point_at(view.trace, [middle]), not self.costly, note, what="Halfway")


def stranger(**others):
    # Uncertainties 0.00 … 0.99 at exit 1: the median is 0.49, so 50 of 100 leave there, all of them rightly.
    uncertainty = torch.stack([torch.arange(100) / 100, torch.ones(100)], dim=1)
    right = torch.stack([some_right(60, 100), some_right(90, 100)], dim=1)
    trace = Trace(uncertainty, right.long(), torch.ones(100, dtype=torch.int64))
    view = View(
        trace, partial(evaluate, thresholds=torch.tensor([[0.1], [0.9]])), costs(**others), right[:, 1]
    )
    return view, [point.thresholds for point in view.points]


def test_a_rule_of_ones_own_may_choose_a_point_that_was_not_swept():
    view, swept = stranger(macs=351.0)
    selection = select(Halfway(), view)
    assert selection.point.thresholds == pytest.approx((0.491,)) and selection.point.thresholds not in swept
    assert (selection.point.left, selection.point.right) == ((50, 50), 90)
    assert (selection.feasible, selection.cheaper, selection.note) == (True, True, "")


def test_the_cost_of_such_a_choice_is_that_of_its_rule_and_its_notes_are_put_together():
    view, _ = stranger(macs=350.0, latency_us=1e9)  # (100 + 600) / 2: as dear as the baseline
    saves_nothing = "costs 350.0 MACs per sample, the baseline 350.0 MACs: the exits save nothing here."
    selection = select(Halfway(), view)
    assert (selection.feasible, selection.cheaper) == (True, False)
    assert selection.note == f"Halfway {saves_nothing}"
    selection = select(Halfway(costly=True), view)
    assert (selection.feasible, selection.cheaper) == (False, False)
    assert selection.note == f"Nobody was asked. Halfway {saves_nothing}"
    assert select(Halfway(costly=True), stranger(macs=400.0)[0]).note == "Nobody was asked."


def test_a_rule_of_ones_own_may_use_what_ours_are_made_of():
    view = view_of(FOUR)
    assert within(view, "macs", 225).point == FOUR[2] and not within(view, "latency_us", 1).feasible
    among, cost = torch.tensor([False, True, True, True]), torch.tensor([0.0, 2.0, 1.0, 1.0])
    assert first(among, cost) == 2 and first(among, cost, torch.tensor([0.0, 0.0, 5.0, 4.0])) == 3


@settings(max_examples=100)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 3)), min_size=1))
def test_first_is_the_least_by_one_key_after_the_other(rows):
    rows = [*rows, (True, 2, 2)]
    among, *keys = (torch.tensor(column) for column in zip(*rows, strict=True))
    allowed = [n for n, row in enumerate(rows) if row[0]]
    assert first(among, *(key.double() for key in keys)) == min(allowed, key=lambda n: rows[n][1:])
