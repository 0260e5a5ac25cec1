"""Which of the operating points to take.

Shapes: N exits, V points. Costs are means per sample, accuracies fractions on the split of the choice.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from branchynet.errors import UserError
from branchynet.exits.sweep import OperatingPoints

# Accuracies are counts over S and costs sums of a few products: what differs by less than this (relatively,
# for costs) differs by rounding only.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Reference:
    """The baseline, on the split that the choice is made on."""

    accuracy: float  # a count over S in double precision, as the points' are
    latency_us: float
    macs: float


@dataclass(frozen=True)
class Selection:
    """The chosen point.

    `feasible` is False where no point met the rule and the nearest was taken; `cheaper` is False where the
    chosen one costs no less than the baseline, in MACs for `mac_budget`, else in latency. `note` then says so
    in words, and is empty otherwise.
    """

    index: int
    feasible: bool
    cheaper: bool
    note: str


@dataclass(frozen=True, eq=False)
class Candidates:
    """What the rules look at; all float64."""

    accuracy: Tensor  # (V,)
    latency_us: Tensor  # (V,)
    macs: Tensor  # (V,)
    baseline: Reference
    exit_accuracy: Tensor  # (N,) of the forced exits: everybody leaves there
    exit_latency_us: Tensor  # (N,)


# What a rule gives: the index, whether it is feasible, and, if not, a sentence.
Choice = tuple[int, bool, str]


def accuracy_floor(points: Candidates, distance: float) -> Choice:
    """The fastest point whose accuracy is at least the baseline's less `distance`, a fraction.

    Of equally fast ones the most accurate. If there is none: the most accurate, of those the fastest.
    """
    floor = points.baseline.accuracy - distance
    enough = points.accuracy >= floor - ROUNDING
    if enough.any():
        return _first(enough, points.latency_us, -points.accuracy), True, ""
    nearest = _first(~enough, -points.accuracy, points.latency_us)
    note = (
        f"No operating point reaches {100 * floor:.3f} % on the split of the choice: the most accurate, "
        f"{100 * float(points.accuracy[nearest]):.3f} %, was taken."
    )
    return nearest, False, note


def knee(points: Candidates) -> Choice:
    """The point farthest above the chord from 'all leave at exit 1' to 'all go to the end'.

    With A_1, L_1 and A_N, L_N the accuracy and latency of these two forced exits, and A and L a point's own:

        slope = max(0, (A_N - A_1) / (L_N - L_1))        score = A - slope · L

    The knee has the greatest score; of equals it is the fastest. As in Kneedle (Satopää et al., 2011) it is
    where the curve bulges most over its chord, but this chord is fixed by two forced exits, which do not
    depend on the thresholds tried. So trying more thresholds changes no score: the knee stays, unless a new
    point lies strictly farther above the same chord (or as far, and is faster). Where going to the end is no
    more accurate, or no slower, the slope is 0 and the knee is the most accurate point.
    """
    rise = float(points.exit_accuracy[-1] - points.exit_accuracy[0])
    run = float(points.exit_latency_us[-1] - points.exit_latency_us[0])
    slope = max(0.0, rise / run) if run > 0 else 0.0
    score = points.accuracy - slope * points.latency_us
    best = score >= score.max() - ROUNDING
    return _first(best, points.latency_us, -points.accuracy), True, ""


def latency_budget(points: Candidates, budget_us: float) -> Choice:
    """The most accurate point whose mean latency is at most `budget_us` microseconds; see `_within`."""
    return _within(points, points.latency_us, budget_us, "µs")


def mac_budget(points: Candidates, budget_macs: float) -> Choice:
    """The most accurate point whose mean MACs are at most `budget_macs`; see `_within`."""
    return _within(points, points.macs, budget_macs, "MACs")


# Each rule's function and the names of its parameters.
RULES: dict[str, tuple[Callable[..., Choice], tuple[str, ...]]] = {
    "accuracy_floor": (accuracy_floor, ("distance",)),
    "knee": (knee, ()),
    "latency_budget": (latency_budget, ("budget_us",)),
    "mac_budget": (mac_budget, ("budget_macs",)),
}


def check_rule(rule: Mapping[str, Any]) -> None:
    """A UserError if `rule` is not a rule's name with exactly its parameters, each finite and not negative."""
    name = rule.get("name")
    if not isinstance(name, str) or name not in RULES:
        raise UserError(f"sweep.rule.name={name}: there is no such rule, take one of {', '.join(RULES)}")
    wanted = RULES[name][1]
    takes = f"the rule {name} takes {', '.join(f'sweep.rule.{key}' for key in wanted) or 'no parameter'}"
    for key in rule:
        if key != "name" and key not in wanted:
            raise UserError(f"sweep.rule.{key}={rule[key]}: {takes}; choose rules by sweep/rule=<name>")
    for key in wanted:
        if key not in rule:
            raise UserError(f"sweep.rule.{key} is missing: {takes}; choose rules by sweep/rule=<name>")
        value = rule[key]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value < 0:
            raise UserError(f"sweep.rule.{key}={value}: give a finite number, 0 or more")
        if key == "distance" and value >= 1:
            raise UserError(
                f"sweep.rule.distance={value}: it is a fraction below 1, 0.01 is one point of accuracy"
            )


def select(
    rule: Mapping[str, Any],
    points: OperatingPoints,
    latency_us: Tensor,
    macs: Tensor,
    baseline: Reference,
    exit_accuracy: Tensor,
) -> Selection:
    """Choose one of the points.

    Args:
        rule: `name`, one of RULES, and its parameter, such as {"name": "accuracy_floor", "distance": 0.005}.
        points: V ≥ 1 points.
        latency_us: (N,) what leaving at each exit costs, all heads on the way included.
        macs: (N,) likewise.
        baseline: on the same split and engine.
        exit_accuracy: (N,) of forcing every sample out at each exit, on the same split.

    Raises:
        UserError: see `check_rule`.
    """
    check_rule(rule)
    function, parameters = RULES[rule["name"]]
    candidates = Candidates(
        accuracy=points.accuracy,
        latency_us=points.mean_cost(latency_us),
        macs=points.mean_cost(macs),
        baseline=baseline,
        exit_accuracy=exit_accuracy.double(),
        exit_latency_us=latency_us.double(),
    )
    index, feasible, note = function(candidates, **{key: rule[key] for key in parameters})
    cost, base, unit = float(candidates.latency_us[index]), baseline.latency_us, "µs"
    if rule["name"] == "mac_budget":
        cost, base, unit = float(candidates.macs[index]), baseline.macs, "MACs"
    cheaper = cost < base * (1 - ROUNDING)
    if not cheaper:
        which = (
            "Even the fastest such point" if rule["name"] == "accuracy_floor" and feasible else "This point"
        )
        note += (
            f" {which} costs {cost:,.1f} {unit} per sample, the baseline {base:,.1f} {unit}: "
            "the exits save nothing here."
        )
    return Selection(index, feasible, cheaper, note.strip())


def _within(points: Candidates, cost: Tensor, budget: float, unit: str) -> Choice:
    """The most accurate of the points that cost at most `budget`, of equals the cheapest.

    If there is none: the cheapest of all, of equals the most accurate.
    """
    enough = cost <= budget * (1 + ROUNDING)
    if enough.any():
        return _first(enough, -points.accuracy, cost), True, ""
    nearest = _first(~enough, cost, -points.accuracy)
    note = (
        f"No operating point costs at most {budget:,.1f} {unit} per sample: the cheapest, "
        f"{float(cost[nearest]):,.1f} {unit}, was taken."
    )
    return nearest, False, note


def _first(among: Tensor, *keys: Tensor) -> int:
    """Of the points in the mask `among`, the one with the least keys, compared in turn; of equals the first."""
    index = among.nonzero()[:, 0]
    for key in keys:
        values = key[index]
        least = values.min()
        index = index[values <= least + ROUNDING * least.abs()]
    return int(index[0])
