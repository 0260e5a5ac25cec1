"""Mean costs that hold on new data: the most accurate point that is certified to be within a budget.

Shapes: J points in their order, N exits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from branchynet.exits.certificate import Certificate
from branchynet.exits.certify import binomial_p, certified, hoeffding_bentkus_p
from branchynet.exits.held_out import ORDERING, confidence, frontier, split
from branchynet.exits.sweep import evaluate

if TYPE_CHECKING:
    from branchynet.exits.rules import View

SEED = 0  # of drawing the samples that order


class Found(NamedTuple):
    """A point that is certified."""

    thresholds: tuple[float, ...]
    certificate: Certificate


def certified_within(view: View, cost: str, budget: float, delta: float) -> Found | str:
    """The most accurate point whose mean cost on new data is certified to be at most `budget`.

    See `branchynet.exits.held_out`: the points go from cheap to dear, and the last one before the first refusal is
    taken. Labels only order the points.

    Args:
        view: what to choose from.
        cost: a key of `view.costs`.
        budget: per sample, in that cost's unit.
        delta: δ.

    Returns:
        The point; or, where there is none, why.
    """
    kind = view.costs[cost]
    exits, limit = kind.exits, kind.amount(budget)
    if budget < min(exits):
        return f"No exit costs as little as {limit} per sample"
    parts = split(view, ORDERING, SEED)
    if parts is None:
        return f"A single sample is too few to certify {limit} per sample"
    costs = torch.tensor(exits, dtype=torch.float64)
    thresholds = frontier(parts.ordering.trace, parts.ordering.search, costs)
    points, samples = evaluate(parts.certifying.trace, thresholds), parts.certifying.trace.num_samples
    left = points.left.tolist()
    passed = certified((p_value(exits, each, budget) for each in left), delta)
    if not passed:
        first = kind.amount(points[0].mean_cost(exits))
        return (
            f"No operating point is certified to cost at most {limit} per sample on new data: {samples:,} samples "
            f"certify, on which the first of them costs {first} (p = {p_value(exits, left[0], budget):.2g})"
        )
    found, others = points[len(passed) - 1], parts.ordering.trace.num_samples
    seen = found.mean_cost(exits)
    certificate = Certificate(
        promise=f"{confidence(delta)}, the mean on new samples is at most {limit} per sample, if leaving at "
        f"each exit costs what was measured. {samples:,} samples certified it, at "
        f"{kind.amount(seen)} (p = {passed[-1]:.2g}); {others:,} others ordered the points.",
        bounded=cost,
        limit=budget,
        delta=delta,
        samples=samples,
        ordering=others,
        observed=seen,
        p_value=passed[-1],
    )
    return Found(found.thresholds, certificate)


def p_value(exits: tuple[float, ...], left: list[int], budget: float) -> float:
    """Of the null hypothesis that the mean cost on new data is above `budget`.

    A cost is one of N known ones. Where these are two, the test is an exact binomial one, else Hoeffding-Bentkus.

    Args:
        exits: N, what leaving at each costs.
        left: N, how many samples left at each.
        budget: at least the least of the costs.
    """
    least, most, samples = min(exits), max(exits), sum(left)
    if budget >= most:
        return 0.0
    limit = (budget - least) / (most - least)
    if len(exits) == 2:
        return binomial_p(left[exits.index(most)], samples, limit)
    shares = [(cost - least) / (most - least) for cost in exits]
    mean = sum(count * share for count, share in zip(left, shares, strict=True)) / samples
    return hoeffding_bentkus_p(mean, samples, limit)
