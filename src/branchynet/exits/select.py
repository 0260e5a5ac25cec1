"""Which of the operating points to take.

Shapes: N exits, V points. Costs are means per sample; accuracies are fractions on the split of the choice.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from branchynet.errors import UserError
from branchynet.exits.sweep import OperatingPoints

# Accuracies are counts over S; fractions closer than this are equal counts.
EQUAL = 1e-9


@dataclass(frozen=True)
class Reference:
    """The baseline, on the split that the choice is made on."""

    accuracy: float
    latency_us: float
    macs: float


@dataclass(frozen=True)
class Selection:
    """The chosen point.

    `feasible` is False where no point met the rule and the nearest was taken, `cheaper` where the chosen one
    costs no less than the baseline; `note` then says so in a sentence, else it is empty.
    """

    index: int
    feasible: bool
    cheaper: bool
    note: str


@dataclass(frozen=True)
class _Candidates:
    accuracy: Tensor  # (V,)
    latency_us: Tensor  # (V,)
    macs: Tensor  # (V,)
    baseline: Reference
    exit_accuracy: Tensor  # (N,) of the forced exits
    exit_latency_us: Tensor  # (N,)


def accuracy_floor(points: _Candidates, distance: float) -> tuple[int, bool, str]:
    """The fastest point at most `distance` (a fraction) less accurate than the baseline."""
    floor = points.baseline.accuracy - distance
    enough = points.accuracy >= floor - EQUAL
    if enough.any():
        return _first(points.latency_us, -points.accuracy, among=enough), True, ""
    nearest = _first(-points.accuracy, points.latency_us)
    note = (
        f"No operating point reaches {100 * floor:.2f} % on the split of the choice; "
        f"the nearest, {100 * float(points.accuracy[nearest]):.2f} %, was taken."
    )
    return nearest, False, note


def knee(points: _Candidates) -> tuple[int, bool, str]:
    """The point farthest above the line from 'all leave at exit 1' to 'all go to the end'.

    With A_n and L_n the accuracy and latency of forcing every sample out at exit n, and
    slope = max(0, (A_N - A_1) / (L_N - L_1)), it is argmax over the points of `accuracy - slope · latency`;
    of equals the fastest. The line is fixed by the two forced exits and not by the points tried, so a refined
    grid leaves the knee where it is unless it has a point that lies farther above the very same line.
    """
    rise = float(points.exit_accuracy[-1] - points.exit_accuracy[0])
    run = float(points.exit_latency_us[-1] - points.exit_latency_us[0])
    slope = max(0.0, rise / run) if run > 0 else 0.0
    score = points.accuracy - slope * points.latency_us
    best = score >= score.max() - EQUAL
    return _first(points.latency_us, -points.accuracy, among=best), True, ""


def latency_budget(points: _Candidates, budget_us: float) -> tuple[int, bool, str]:
    """The most accurate point whose mean latency is at most `budget_us` microseconds."""
    return _within(points, points.latency_us, budget_us, "µs")


def mac_budget(points: _Candidates, budget_macs: float) -> tuple[int, bool, str]:
    """The most accurate point whose mean MACs are at most `budget_macs`."""
    return _within(points, points.macs, budget_macs, "MACs")


RULES: dict[str, tuple[Callable[..., tuple[int, bool, str]], tuple[str, ...]]] = {
    "accuracy_floor": (accuracy_floor, ("distance",)),
    "knee": (knee, ()),
    "latency_budget": (latency_budget, ("budget_us",)),
    "mac_budget": (mac_budget, ("budget_macs",)),
}


def check_rule(rule: Mapping[str, Any]) -> None:
    """A UserError if `rule` is not a rule's name with exactly its parameters, finite and not negative."""
    name = rule.get("name")
    if name not in RULES:
        raise UserError(f"sweep.rule.name={name}: known are {', '.join(RULES)}")
    wanted = RULES[name][1]
    given = set(rule) - {"name"}
    if given != set(wanted):
        wrong = ", ".join(sorted(given.symmetric_difference(wanted)))
        takes = ", ".join(f"sweep.rule.{key}" for key in wanted) or "no parameter"
        raise UserError(f"the rule {name} takes {takes}: {wrong} is missing or not known")
    for key in wanted:
        value = rule[key]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value < 0:
            raise UserError(f"sweep.rule.{key}={value}: it is a number, 0 or more")


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
        rule: `name` (accuracy_floor, knee, latency_budget, mac_budget) and its parameter.
        points: V points.
        latency_us: (N,) what leaving at each exit costs, all heads on the way included.
        macs: (N,) likewise.
        baseline: on the same split.
        exit_accuracy: (N,) of forcing every sample out at each exit, on the same split.

    Raises:
        UserError: see `check_rule`.
    """
    check_rule(rule)
    function, parameters = RULES[rule["name"]]
    candidates = _Candidates(
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
    cheaper = cost < base
    if not cheaper:
        costs = f"The chosen point costs {cost:,.1f} {unit} per sample, the baseline {base:,.1f}"
        note = f"{note} {costs}: the exits save nothing here.".strip()
    return Selection(index, feasible, cheaper, note)


def _within(points: _Candidates, cost: Tensor, budget: float, unit: str) -> tuple[int, bool, str]:
    enough = cost <= budget
    if enough.any():
        return _first(-points.accuracy, cost, among=enough), True, ""
    nearest = _first(cost, -points.accuracy)
    note = (
        f"No operating point costs at most {budget:,.1f} {unit} per sample; "
        f"the nearest, {float(cost[nearest]):,.1f}, was taken."
    )
    return nearest, False, note


def _first(first: Tensor, second: Tensor, among: Tensor | None = None) -> int:
    """The index of the least `first`, of equals the least `second`, of equals the first."""
    index = torch.arange(len(first)) if among is None else among.nonzero()[:, 0]
    index = index[first[index] <= first[index].min()]
    return int(index[second[index].argmin()])
