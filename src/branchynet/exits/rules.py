"""Rules: which of the operating points to take.

A rule is a frozen dataclass. Its fields are its settings and check themselves; its `choose` looks at a `View` and
gives a `Choice`. Shapes: N exits, S samples, V points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from branchynet.errors import check_choice, is_number, not_allowed
from branchynet.exits.certificate import Certificate
from branchynet.exits.point import OperatingPoint
from branchynet.exits.sweep import OperatingPoints, point_at, sweep
from branchynet.exits.trace import Trace

# Accuracies are counts over S and costs sums of a few products: what differs by less than this (relatively,
# for costs) differs by rounding only.
ROUNDING = 1e-12

# What a rule may be told to be about: keys of `View.costs`.
COSTS = ("latency_us", "macs")


class Cost(NamedTuple):
    """One kind of cost of an image."""

    unit: str
    exits: tuple[float, ...]  # N: leaving at each exit, all heads on the way included
    baseline: float

    def amount(self, value: float) -> str:
        """Such as `12.5 µs`."""
        return f"{value:,.1f} {self.unit}"


@dataclass(frozen=True, eq=False)
class View:
    """All that a choice can be made from; of one split, the split of the choice.

    Args:
        trace: of S samples.
        sweep: from a trace to V points, the same threshold vectors whatever the trace.
        costs: by name: `latency_us`, on the engine of the choice, and `macs`.
        baseline_correct: (S,) as `Trace.correct`: which samples the baseline is right about.
        search: from any trace to points whose thresholds are that trace's own, whatever this one's are.
    """

    trace: Trace
    sweep: Callable[[Trace], OperatingPoints]
    costs: Mapping[str, Cost]
    baseline_correct: Tensor
    search: Callable[[Trace], OperatingPoints] = sweep

    @cached_property
    def points(self) -> OperatingPoints:
        """V points."""
        return self.sweep(self.trace)

    @property
    def baseline_accuracy(self) -> float:
        """A count over S in double precision, as the points' are."""
        return self.baseline_correct.sum().item() / len(self.baseline_correct)

    @cached_property
    def exit_accuracy(self) -> Tensor:
        """(N,) float64, of the forced exits: everybody leaves there."""
        return self.trace.correct.double().mean(dim=0)

    def mean(self, cost: str) -> Tensor:
        """(V,) float64: the points' mean cost per sample."""
        return self.points.mean_cost(torch.tensor(self.costs[cost].exits, dtype=torch.float64))

    def at(self, samples: Tensor) -> View:
        """The same thresholds and costs on some of the samples, by their numbers (int64) or a mask (S,)."""
        return View(
            self.trace.at(samples), self.sweep, self.costs, self.baseline_correct[samples], self.search
        )


@dataclass(frozen=True)
class Choice:
    """What a rule gives.

    `feasible` is False where no point is as wanted, and the nearest was taken; `note` then says so in a sentence.
    `what` is the point's name in a sentence that says what it costs. `certificate` is what the rule promises of the
    point on new data; None: nothing.
    """

    point: OperatingPoint  # on the view's split
    feasible: bool = True
    note: str = ""
    what: str = "This point"
    certificate: Certificate | None = None


@runtime_checkable
class Rule(Protocol):
    """What every rule is: a frozen dataclass.

    Attributes:
        name: in results and tables.
        cost: the kind of cost that it is about: a key of `View.costs`.
        promises: may be there; true where its choice comes with a certificate, which choosing on test would void.
        check_exits: may be there; called with N before anything is trained: an ArgumentError where the rule is for
            networks of another number of exits.
        whole: may be there; true where it counts answers that are right or wrong, and none that are partly right.
    """

    name: ClassVar[str]

    @property
    def cost(self) -> str:
        """See the class."""

    def choose(self, view: View) -> Choice:
        """Choose a point. Its thresholds need not be among the view's."""


def check_rule(rule: Rule, exits: int) -> None:
    """An ArgumentError where the rule is not for networks of so many exits."""
    check = getattr(rule, "check_exits", None)
    if check is not None:
        check(exits)


@dataclass(frozen=True)
class AccuracyFloor:
    """The cheapest point, by `cost`, whose accuracy is at least the baseline's less `distance`, a fraction.

    Of equally cheap ones the most accurate. If there is none: the most accurate, of those the cheapest.
    """

    distance: float = 0.0
    cost: str = "latency_us"

    name: ClassVar[str] = "accuracy_floor"

    def __post_init__(self) -> None:
        check_choice("cost", self.cost, COSTS)
        _check_amount("distance", self.distance)
        if self.distance >= 1:
            raise not_allowed("distance", self.distance, "a fraction below 1, 0.01 is one point of accuracy")

    def choose(self, view: View) -> Choice:
        """See the class."""
        accuracy, mean = view.points.accuracy, view.mean(self.cost)
        floor = view.baseline_accuracy - self.distance
        enough = accuracy >= floor - ROUNDING
        if enough.any():
            found = view.points[first(enough, mean, -accuracy)]
            least = "fastest" if self.cost == "latency_us" else "cheapest"
            return Choice(found, what=f"Even the {least} such point")
        nearest = view.points[first(~enough, -accuracy, mean)]
        note = (
            f"No operating point reaches {100 * floor:.3f} % on the split of the choice: the most accurate, "
            f"{100 * nearest.accuracy:.3f} %, was taken."
        )
        return Choice(nearest, feasible=False, note=note)


@dataclass(frozen=True)
class Knee:
    """The point farthest above the chord from 'all leave at exit 1' to 'all go to the end'.

    With A_1, L_1 and A_N, L_N the accuracy and the cost of these two forced exits, and A and L a point's own:

        slope = max(0, (A_N - A_1) / (L_N - L_1))        score = A - slope · L

    The knee has the greatest score; of equals it is the cheapest. As in Kneedle (Satopää et al., 2011) it is
    where the curve bulges most over its chord, but this chord is fixed by two forced exits, which do not
    depend on the thresholds tried. So trying more thresholds changes no score: the knee stays, unless a new
    point lies strictly farther above the same chord (or as far, and is cheaper). Where going to the end is no
    more accurate, or no dearer, the slope is 0 and the knee is the most accurate point.
    """

    cost: str = "latency_us"

    name: ClassVar[str] = "knee"

    def __post_init__(self) -> None:
        check_choice("cost", self.cost, COSTS)

    def choose(self, view: View) -> Choice:
        """See the class."""
        accuracy, mean = view.points.accuracy, view.mean(self.cost)
        rise = float(view.exit_accuracy[-1] - view.exit_accuracy[0])
        exits = view.costs[self.cost].exits
        run = exits[-1] - exits[0]
        slope = max(0.0, rise / run) if run > 0 else 0.0
        score = accuracy - slope * mean
        best = score >= score.max() - ROUNDING
        return Choice(view.points[first(best, mean, -accuracy)])


@dataclass(frozen=True)
class GainFloor:
    """The most accurate point that costs at most the baseline's cost over `gain`; see `within`."""

    gain: float
    cost: str = "latency_us"

    name: ClassVar[str] = "gain_floor"

    def __post_init__(self) -> None:
        check_choice("cost", self.cost, COSTS)
        if not is_number(self.gain) or not math.isfinite(self.gain) or self.gain <= 0:
            raise not_allowed("gain", self.gain, "a number above 0, 2 is twice as fast as the baseline")

    def choose(self, view: View) -> Choice:
        """See the class."""
        choice = within(view, self.cost, view.costs[self.cost].baseline / self.gain)
        if choice.feasible:
            return choice
        return cheapest(
            view, self.cost, f"No operating point is {self.gain:g} times as cheap as the baseline"
        )


@dataclass(frozen=True)
class LatencyBudget:
    """The most accurate point whose mean latency is at most `budget_us` microseconds; see `within`.

    With a `delta`, the one whose mean on new data is that with a probability of at least 1 - `delta` over the draw
    of the samples; see `branchynet.exits.budgets`.
    """

    budget_us: float
    delta: float | None = None

    name: ClassVar[str] = "latency_budget"
    cost: ClassVar[str] = "latency_us"

    def __post_init__(self) -> None:
        _check_amount("budget_us", self.budget_us)
        check_delta(self.delta)

    @property
    def promises(self) -> bool:
        """Whether of new data."""
        return self.delta is not None

    def choose(self, view: View) -> Choice:
        """See the class."""
        return within(view, self.cost, self.budget_us, self.delta)


@dataclass(frozen=True)
class MacBudget:
    """The most accurate point whose mean MACs are at most `budget_macs`; see `within`.

    With a `delta`, the one whose mean on new data is that with a probability of at least 1 - `delta` over the draw
    of the samples; see `branchynet.exits.budgets`.
    """

    budget_macs: float
    delta: float | None = None

    name: ClassVar[str] = "mac_budget"
    cost: ClassVar[str] = "macs"

    def __post_init__(self) -> None:
        _check_amount("budget_macs", self.budget_macs)
        check_delta(self.delta)

    @property
    def promises(self) -> bool:
        """Whether of new data."""
        return self.delta is not None

    def choose(self, view: View) -> Choice:
        """See the class."""
        return within(view, self.cost, self.budget_macs, self.delta)


@dataclass(frozen=True)
class Selection:
    """The chosen point, and what is to be said of it.

    `feasible` is False where no point met the rule and the nearest was taken; `cheaper` is False where the
    chosen one costs no less than the baseline, in the rule's own kind of cost. `note` then says so in words,
    and is empty otherwise. `certificate`: see `Choice`. `cost` is the rule's own kind, a key of `View.costs`.
    """

    point: OperatingPoint  # on the split of the choice
    feasible: bool
    cheaper: bool
    note: str
    certificate: Certificate | None = None
    cost: str = "latency_us"


def select(rule: Rule, view: View) -> Selection:
    """Let the rule choose, and see whether the choice is cheaper than the baseline."""
    choice = rule.choose(view)
    kind = view.costs[rule.cost]
    cost = choice.point.mean_cost(kind.exits)
    cheaper = cost < kind.baseline * (1 - ROUNDING)
    note = choice.note
    if not cheaper:
        note += (
            f" {choice.what} costs {kind.amount(cost)} per sample, the baseline {kind.amount(kind.baseline)}: the "
            "exits save nothing here."
        )
    return Selection(choice.point, choice.feasible, cheaper, note.strip(), choice.certificate, rule.cost)


def within(view: View, cost: str, budget: float, delta: float | None = None) -> Choice:
    """The most accurate of the points that cost at most `budget`, of equals the cheapest.

    If there is none: the cheapest of all, of equals the most accurate. With a `delta`: see `certified_within`.

    Args:
        view: what to choose from.
        cost: a key of `view.costs`.
        budget: per sample, in that cost's unit.
        delta: δ, or None: nothing is promised of new data.
    """
    if delta is not None:
        # Only now: SciPy takes its time to import.
        from branchynet.exits.budgets import certified_within

        found = certified_within(view, cost, budget, delta)
        if isinstance(found, str):
            return cheapest(view, cost, found)
        return Choice(point_at(view.trace, found.thresholds), certificate=found.certificate)
    accuracy, mean = view.points.accuracy, view.mean(cost)
    enough = mean <= budget * (1 + ROUNDING)
    if enough.any():
        return Choice(view.points[first(enough, -accuracy, mean)])
    return cheapest(
        view, cost, f"No operating point costs at most {view.costs[cost].amount(budget)} per sample"
    )


def cheapest(view: View, cost: str, why: str) -> Choice:
    """The cheapest point of all, of equals the most accurate, for want of a better one."""
    mean = view.mean(cost)
    point = view.points[first(torch.ones_like(mean, dtype=torch.bool), mean, -view.points.accuracy)]
    taken = view.costs[cost].amount(point.mean_cost(view.costs[cost].exits))
    return Choice(point, feasible=False, note=f"{why}: the cheapest, {taken}, was taken.")


def first(among: Tensor, *keys: Tensor) -> int:
    """The first of the points in the mask `among` (V,) that have the least keys (V,), compared in turn."""
    index = among.nonzero()[:, 0]
    for key in keys:
        values = key[index]
        least = values.min()
        index = index[values <= least + ROUNDING * least.abs()]
    return int(index[0])


def _check_amount(name: str, value: float) -> None:
    if not is_number(value) or not math.isfinite(value) or value < 0:
        raise not_allowed(name, value, "a finite number, 0 or more")


def check_delta(delta: float | None) -> None:
    """An ArgumentError unless this is a probability between 0 and 1, or None."""
    if delta is not None and (not is_number(delta) or not 0 < delta < 1):
        raise not_allowed(
            "delta", delta, "a number between 0 and 1, and neither of them, such as 0.1, or null"
        )
