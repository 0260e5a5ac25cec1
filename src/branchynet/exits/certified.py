"""A rule that promises something of new data: how much accuracy is lost at most.

Shapes: J points in their order, N exits, S samples.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from branchynet.errors import check_choice, check_whole
from branchynet.exits.certificate import Certificate
from branchynet.exits.certify import binomial_p, certified, net_p, samples_needed
from branchynet.exits.held_out import (
    ORDERING,
    careful,
    check_share,
    confidence,
    counting,
    filled,
    frontier,
    split,
)
from branchynet.exits.rules import COSTS, Choice, View
from branchynet.exits.sweep import evaluate, point_at

AGAINST = ("last", "baseline")
LOSSES = ("harmful", "net")


class Lost(NamedTuple):
    """Of S samples and N exits, (S, N) bool: what answering at an exit loses or wins against a reference."""

    harmful: Tensor  # wrong, where the reference is right
    helpful: Tensor  # right, where it is wrong


@dataclass(frozen=True)
class Certified:
    """The cheapest point, by `cost`, that was certified to lose at most `epsilon` of accuracy on new data.

    With a probability of at least 1 - `delta` over the draw of the samples: see `branchynet.exits.held_out`. The
    points go from safe to cheap, from those with few early exits on; the last one before the first refusal is
    taken. If there is none, everything goes to the last exit.

    Args:
        epsilon: ε, a fraction of the samples.
        delta: δ.
        against: whose accuracy is lost: the `last` exit's, which everything gets where nothing leaves early, or the
            `baseline`'s.
        loss: `harmful`: the share answered wrongly where that one is right, which is never below the accuracy lost;
            `net`: the accuracy lost itself, where samples that are answered rightly instead count against it.
        ordering: the share of the samples that order, the others certify.
        seed: of drawing them.
        chosen_among: how many networks, such as epochs, the same samples have chosen among before; δ is shared
            among them.
        cost: what is to be little: `latency_us` or `macs`.
    """

    epsilon: float = 0.01
    delta: float = 0.1
    against: str = "last"
    loss: str = "harmful"
    ordering: float = ORDERING
    seed: int = 0
    chosen_among: int = 1
    cost: str = "latency_us"

    name: ClassVar[str] = "certified"
    promises: ClassVar[bool] = True
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("epsilon", "delta", "ordering"):
            check_share(name, getattr(self, name))
        check_choice("against", self.against, AGAINST)
        check_choice("loss", self.loss, LOSSES)
        check_choice("cost", self.cost, COSTS)
        check_whole("seed", self.seed, least=0)
        check_whole("chosen_among", self.chosen_among, hint=", of networks")

    @property
    def level(self) -> float:
        """What each test may err with."""
        return self.delta / self.chosen_among

    def choose(self, view: View) -> Choice:
        """See the class."""
        parts = split(view, self.ordering, self.seed)
        if parts is None:
            return self._to_the_end(view, self._too_few(0))
        ordering, certifying = parts
        thresholds = self.order(ordering)
        lost = self.lost(certifying)
        samples = certifying.trace.num_samples
        harmful, helpful = (_count(certifying, which, thresholds) for which in lost)
        pairs = list(zip(harmful.tolist(), helpful.tolist(), strict=True))
        passed = certified((self._p_value(*pair, samples) for pair in pairs), self.level)
        if not passed:
            return self._to_the_end(view, self._refused(*pairs[0], samples))
        at = len(passed) - 1
        certificate = self._certificate(*pairs[at], samples, ordering.trace.num_samples, passed[at])
        return Choice(point_at(view.trace, thresholds[at].tolist()), certificate=certificate)

    def order(self, ordering: View) -> Tensor:
        """(J, N-1) thresholds, from safe to fast."""
        trace, lost = ordering.trace, self.lost(ordering)
        right = ~lost.harmful if self.loss == "harmful" else trace.correct
        cost = torch.tensor(ordering.costs[self.cost].exits, dtype=torch.float64)
        found = frontier(counting(trace, right), ordering.search, cost).flip(0)
        if self.against == "last":  # against a baseline, leaving seldom may be worse: the last exit is not it
            found = torch.cat([careful(trace, found[0]), found])
        return filled(trace, found, cost)

    def lost(self, view: View) -> Lost:
        """Against what is configured."""
        correct = view.trace.correct
        right = (correct[:, -1] if self.against == "last" else view.baseline_correct)[:, None]
        return Lost(right & ~correct, ~right & correct)

    def _p_value(self, harmful: int, helpful: int, samples: int) -> float:
        if self.loss == "harmful":
            return binomial_p(harmful, samples, self.epsilon)
        return net_p(harmful, helpful, samples, self.epsilon, self.level)

    def _certificate(
        self, harmful: int, helpful: int, samples: int, ordering: int, p_value: float
    ) -> Certificate:
        start, of = confidence(self.delta), self._reference
        if self.loss == "harmful":
            what = (
                f"at most {_percent(self.epsilon)} of new samples are answered wrongly where {of} is right, so "
                "no more accuracy than that is lost against it"
            )
            seen, value = f"{harmful:,} of them harmful", harmful
        else:
            what = f"the accuracy on new samples is at most {_percent(self.epsilon)} below {of}'s"
            seen, value = f"{harmful:,} of them harmful and {helpful:,} helpful", harmful - helpful
        return Certificate(
            promise=f"{start}, {what}. {samples:,} samples certified it, {seen} (p = {p_value:.2g}); "
            f"{ordering:,} others ordered the points.{self._shared}",
            bounded=self.loss,
            limit=self.epsilon,
            delta=self.delta,
            samples=samples,
            ordering=ordering,
            observed=value / samples,
            p_value=p_value,
            against=self.against,
            harmful=harmful,
            helpful=helpful,
        )

    @property
    def _reference(self) -> str:
        return "the last exit" if self.against == "last" else "the baseline"

    @property
    def _shared(self) -> str:
        if self.chosen_among == 1:
            return (
                " The network is taken as given: what these samples have chosen before is for chosen_among."
            )
        among = f"{self.chosen_among:,} networks before"
        return f" The same samples chose among {among}: each test is at {self.level:.2g}."

    def _to_the_end(self, view: View, why: str) -> Choice:
        point = point_at(view.trace, [0.0] * (view.trace.num_exits - 1))
        note = f"Nothing can be certified: {why}. Everything goes to the last exit."
        return Choice(point, feasible=False, note=note, what="The last exit")

    def _too_few(self, samples: int) -> str:
        """Why so many samples that certify cannot do, whatever they say."""
        needed = samples_needed(lambda count: self._p_value(0, 0, count), self.level)
        if needed is None:
            return f"no number of samples that can be had certifies a loss of {_percent(self.epsilon)}"
        least = math.ceil(needed / (1 - self.ordering))
        return (
            f"to promise that at most {_percent(self.epsilon)} are lost takes {needed:,} samples "
            f"that certify even where none is harmful, so {least:,} with those that order; {samples:,} certify here"
        )

    def _refused(self, harmful: int, helpful: int, samples: int) -> str:
        """Why the most careful point is not certified, and how many samples would do if others are like these."""
        if self._p_value(0, 0, samples) > self.level:
            return self._too_few(samples)
        seen = f"{harmful:,} of {samples:,} samples are harmful"
        if self.loss == "net":
            seen += f" and {helpful:,} helpful"
        lost = harmful if self.loss == "harmful" else harmful - helpful
        start = f"at the most careful point {seen}"
        needed = None
        if lost < self.epsilon * samples:
            needed = samples_needed(
                lambda count: self._p_value(
                    math.ceil(harmful * count / samples), helpful * count // samples, count
                ),
                self.level,
            )
        if needed is None:
            return (
                f"{start}, which is no less than {_percent(self.epsilon)}: allow a larger epsilon, no number of "
                "samples would do"
            )
        least = math.ceil(needed / (1 - self.ordering))
        return f"{start}; if others are like these, {needed:,} would certify it, so {least:,} with those that order"


def _count(view: View, which: Tensor, thresholds: Tensor) -> Tensor:
    """(J,) int64: for how many samples `which` (S, N) is true at the exit where they leave."""
    return evaluate(counting(view.trace, which), thresholds).right


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
