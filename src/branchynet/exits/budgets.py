"""Mean costs that hold on new data: the most accurate point that is certified to be within a budget.

Shapes: J points in their order, N exits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from branchynet.exits.certificate import Certificate
from branchynet.exits.certify import binomial_p, certified, hoeffding_bentkus_p, samples_needed
from branchynet.exits.held_out import ORDERING, confidence, filled, frontier, split
from branchynet.exits.sweep import evaluate

if TYPE_CHECKING:
    from branchynet.exits.point import OperatingPoint
    from branchynet.exits.rules import Cost, View

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
    ordering = parts.ordering.trace
    thresholds = filled(ordering, frontier(ordering, parts.ordering.search, costs), costs)
    points, samples = evaluate(parts.certifying.trace, thresholds), parts.certifying.trace.num_samples
    passed = certified(
        (p_value(exits, rates, samples, budget) for rates in points.exit_rates.tolist()), delta
    )
    if not passed:
        return (
            f"No operating point is certified to cost at most {limit} per sample on new data: on {samples:,} "
            f"samples that certify the first of them costs {_of_the_first(kind, points[0], samples, budget, delta)}"
        )
    found, others = points[len(passed) - 1], ordering.num_samples
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


def _of_the_first(kind: Cost, point: OperatingPoint, samples: int, budget: float, delta: float) -> str:
    """What the cheapest point costs, and how many samples would certify it, if others are like these."""
    rates, seen = point.exit_rates, point.mean_cost(kind.exits)
    needed = None
    if seen < budget:
        needed = samples_needed(lambda count: p_value(kind.exits, rates, count, budget), delta)
    more = "and no number of samples would do"
    if needed is not None:
        least = math.ceil(needed / (1 - ORDERING))
        more = f"and it would take {needed:,} like these, so {least:,} with those that order"
    return f"{kind.amount(seen)} (p = {p_value(kind.exits, rates, samples, budget):.2g}), {more}"


def p_value(exits: Sequence[float], rates: Sequence[float], samples: int, budget: float) -> float:
    """Of the null hypothesis that the mean cost on new data is above `budget`.

    A cost is one of N known ones. Where these are two, the test is an exact binomial one, else Hoeffding-Bentkus.

    Args:
        exits: N, what leaving at each costs.
        rates: N, which shares of the samples left at each.
        samples: how many.
        budget: at least the least of the costs.
    """
    least, most = min(exits), max(exits)
    if budget >= most:
        return 0.0
    limit = (budget - least) / (most - least)
    if len(exits) == 2:
        # Rounded up, but not for what is a whole number already.
        return binomial_p(math.ceil(samples * rates[exits.index(most)] * (1 - 1e-12)), samples, limit)
    shares = [(cost - least) / (most - least) for cost in exits]
    mean = sum(rate * share for rate, share in zip(rates, shares, strict=True))
    return hoeffding_bentkus_p(mean, samples, limit)
