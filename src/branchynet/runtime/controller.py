"""A controller for live streams: it moves the thresholds so that a mean cost, or exit rates, stay as data drift.

It needs no labels. What it looks at is what every image costs, which is known of all of them; how unsure an exit
was of images that left before it, nobody knows, and it does not ask. No PyTorch here, and a few microseconds an
image.

The control is integral. With positions p on a ladder of thresholds (`branchynet.runtime.ladder`), 0 where all go to
the end and 1 where all leave at once, an image of cost c moves p by step · (c - budget) / (largest - smallest
cost): too dear, and thresholds rise. So what was spent above the budget is how far p has moved, and as p stays
between 0 and 1, the mean over *any* n images in a row is within

    (largest - smallest cost) · (1 + 2 · step · every) / (step · n)      of the budget,

whatever the images are (that is the argument of Gibbs and Candès, 2021). It holds while no bound is in the way.

Shapes: B batch, N exits.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from branchynet.errors import UserError, check_choice, check_whole, is_number, not_allowed
from branchynet.regular import read_regular
from branchynet.runtime.drift import DriftTest
from branchynet.runtime.ladder import Ladder
from branchynet.runtime.profile import Profile

UNITS = {"latency_us": "µs", "macs": "MACs"}
RATES = "exit_rates"
KINDS = (*UNITS, RATES)
CERTIFIED = "certified"
FORM = 1  # of a stored state
# Of the costs' span: a mean that is nearer to its target than that is as good as met, and not told at a bound.
LET_GO = 0.01


class Summary(NamedTuple):
    """What a controller has seen since it was made."""

    images: int
    exit_rates: tuple[float, ...]  # N
    mean: float | None  # cost per image, where a cost is held
    position: tuple[float, ...]  # where it stands: one, or, where exit rates are held, N-1


class Controller:
    """Holds what it is told to, within bounds.

    Thresholds change after every `every` images of the stream, counted from its beginning, however the stream is
    cut into batches: so they are the same for the same images. `thresholds` are those for the next `ahead` images;
    then `observe` is told what these gave. `branchynet.load(…).controller` does all of that.

    Args:
        profile: what is known of the network.
        hold: `latency_us`, `macs` or `exit_rates`.
        target: the mean per image; of exit rates N-1 fractions, for all exits but the last. None: what the
            network's own thresholds gave on validation.
        step: how far one image moves the position at most; larger is faster and less steady.
        every: images between two changes of the thresholds.
        safest: the lowest position, 0 … 1; 0 sends all images to the end.
        fastest: the highest; 1 lets all leave at once.
        limit: N-1 thresholds; none is ever above its own. `certified`: those that the network's certificate is for,
            where it has one. None: no limit.
        false_alarm: of drift: images on average, at least, until there is one, see `branchynet.runtime.drift`.
        tell: what is called with a sentence where a budget cannot be met, and where the images are not like
            validation's any more, once each; None: `warnings.warn`.

    Raises:
        UserError: an argument that is not allowed, or a budget below what the cheapest exit costs.
    """

    def __init__(
        self,
        profile: Profile,
        hold: str = "latency_us",
        target: float | Sequence[float] | None = None,
        step: float = 0.01,
        every: int = 16,
        safest: float = 0.0,
        fastest: float = 1.0,
        limit: str | Sequence[float] | None = CERTIFIED,
        false_alarm: float = 1e6,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        check_choice("hold", hold, KINDS)
        check_whole("every", every, most=100_000, hint=", of images")
        if not is_number(step) or not 0 < step <= 1:
            raise not_allowed("step", step, "a number above 0, at most 1, such as 0.01")
        for name, value in (("safest", safest), ("fastest", fastest)):
            if not is_number(value) or not 0 <= value <= 1:
                raise not_allowed(name, value, "a position, 0 (all go to the end) … 1 (all leave at once)")
        if safest > fastest:
            raise not_allowed("safest", safest, f"at most fastest={fastest}")
        if not is_number(false_alarm) or not 1 <= false_alarm < math.inf:
            raise not_allowed("false_alarm", false_alarm, "a number of images, 1 or more, such as 1000000")
        if profile.num_exits < 2:
            raise UserError("the network has one exit: there is nothing to hold")
        self.profile, self.hold, self.every, self.tell = profile, hold, every, tell
        self.target: float | tuple[float, ...]
        if hold == RATES:
            self.target = _rates(target, profile)
            pulls = _pulls_of_rates(self.target)
        else:
            self.target = _budget(target, profile, hold)
            pulls = _pulls_of_cost(self.target, profile.costs[hold])
        self._pulls = [tuple(step * pull for pull in each) for each in pulls]
        self._ladder = Ladder(profile)
        self._limit = _limit(limit, profile)
        rails = self._ladder.rails
        tops = [rail.height(most) for rail, most in zip(rails, self._limit, strict=True)]
        starts: Sequence[float]
        if hold == RATES:
            starts = [rail.height(own) for rail, own in zip(rails, profile.thresholds, strict=True)]
        else:
            starts = [self._ladder.start]
            tops = [max(self._ladder.position(n, top) for n, top in enumerate(tops))]
        # At the ladder's own ends one step over them is no harm, and nothing is forgotten: the bound needs that.
        self._slack = slack = step * every
        self._low = safest if safest > 0 else -slack
        self._high = [min(fastest, top) if min(fastest, top) < 1 else 1 + slack for top in tops]
        self._low = min(self._low, *self._high)
        self.position = [min(max(own, self._low), high) for own, high in zip(starts, self._high, strict=True)]
        self._drift = DriftTest(rails[0], profile.validation.samples, false_alarm)
        self.counts = [0] * profile.num_exits  # of images, by the exit that they left at
        self._pending = [0.0] * len(self.position)
        self._behind = [0.0] * len(self.position)  # what was missed at a bound lately, in positions
        self._told: list[str] = []
        self._ahead = every
        self._set()

    @property
    def thresholds(self) -> tuple[float, ...]:
        """N-1, as float32 holds them, for the next `ahead` images."""
        return self._thresholds

    @property
    def images(self) -> int:
        """Seen so far."""
        return sum(self.counts)

    @property
    def ahead(self) -> int:
        """Images until the thresholds change."""
        return self._ahead

    @property
    def drifted(self) -> bool:
        """Whether there was an alarm: images that are not like validation's."""
        return "drift" in self._told

    @property
    def at_bound(self) -> bool:
        """Whether it was found that the target cannot be met within the bounds."""
        return "bound" in self._told

    def observe(self, exit: Any, uncertainty: Any) -> None:
        """Learn where images left, and how unsure that exit was; they are the next ones of the stream.

        Args:
            exit: (B,), 1 … N, or a number, with B ≤ `ahead`.
            uncertainty: (B,), or a number.
        """
        if isinstance(exit, int):
            exits, unsure = [exit], [uncertainty]
        else:
            exits, unsure = np.ravel(exit).tolist(), np.ravel(uncertainty).tolist()
        if len(exits) > self._ahead:
            raise ValueError(
                f"{len(exits)} images at once: the thresholds were to change after {self._ahead}"
            )
        self._ahead -= len(exits)
        counts, pulls, pending, see = self.counts, self._pulls, self._pending, self._drift.see
        alarm = False
        for left, value in zip(exits, unsure, strict=True):
            counts[left - 1] += 1
            for place, pull in enumerate(pulls[left - 1]):
                pending[place] += pull
            if see(left == 1, value):
                alarm = True
        if alarm and not self.drifted:
            self._say("drift", self._drift_found())
        if not self._ahead:
            self._ahead = self.every
            self._move()

    def summary(self) -> Summary:
        """What it has seen."""
        images = max(self.images, 1)
        rates = tuple(count / images for count in self.counts)
        mean = None
        if self.hold != RATES:
            costs = self.profile.costs[self.hold]
            mean = math.fsum(rate * cost for rate, cost in zip(rates, costs, strict=True))
        return Summary(self.images, rates, mean, tuple(self.position))

    def sentence(self) -> str:
        """What was held, for people."""
        found = self.summary()
        rates = ", ".join(f"{100 * rate:.1f}" for rate in found.exit_rates)
        if isinstance(self.target, tuple):
            wanted = ", ".join(f"{100 * rate:.1f}" for rate in self.target)
            said = f"Held: exit rates of {wanted} %. In {found.images:,} images they were {rates} %"
        else:
            unit = UNITS[self.hold]
            said = f"Held: {self.target:,.1f} {unit} an image. In {found.images:,} images the mean was "
            said += f"{found.mean:,.1f} {unit}, exit rates {rates} %"
        thresholds = ", ".join(f"{threshold:.4g}" for threshold in self.thresholds)
        return f"{said}; the thresholds are now {thresholds}."

    def state(self) -> dict[str, Any]:
        """All that it goes on from, as plain values for JSON."""
        return {
            "form": FORM,
            "network": self.profile.fingerprint,
            "hold": self.hold,
            "position": list(self.position),
            "counts": list(self.counts),
            "pending": list(self._pending),
            "behind": list(self._behind),
            "drift": self._drift.state(),
            "told": list(self._told),
        }

    def restore(self, state: Any) -> None:
        """Go on from a state, of this network and of a controller that holds the same.

        With the same settings it goes on as the other would have; with others from where that one stood.

        Raises:
            UserError: it is none, or of another network or kind.
        """
        own = self.state()
        try:
            if not isinstance(state, dict) or state["form"] != FORM:
                raise ValueError("it is no controller's state, or a later one's")
            if state["network"] != own["network"]:
                raise UserError(
                    "the state is of another network, or of other thresholds of it: begin a new one"
                )
            if state["hold"] != self.hold:
                raise UserError(f"the state is of a controller that holds {state['hold']}, not {self.hold}")
            for name in ("position", "counts", "pending", "behind", "drift"):
                values = state[name]
                finite = all(is_number(value) and math.isfinite(value) for value in values)
                if len(values) != len(own[name]) or not finite:
                    raise ValueError(f"{name} is not {len(own[name])} numbers")
            if not all(isinstance(count, int) and count >= 0 for count in state["counts"]):
                raise ValueError("counts are not whole numbers")
            if any(told not in ("drift", "bound") for told in state["told"]):
                raise ValueError("told has a word that is none")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"the state is damaged ({error}): begin a new one") from None
        self.position = [
            min(max(float(value), self._low), high)
            for value, high in zip(state["position"], self._high, strict=True)
        ]
        self.counts = list(state["counts"])
        self._pending, self._behind = list(map(float, state["pending"])), list(map(float, state["behind"]))
        self._told, self._ahead = list(state["told"]), self.every - self.images % self.every
        self._drift.restore(state["drift"])
        self._set()

    def save(self, path: Path | str) -> None:
        """Write the state as JSON; beside its place, and then renamed."""
        path = Path(path)
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            temporary.write_text(json.dumps(self.state(), indent=1) + "\n", encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            raise UserError(f"the state {path} cannot be written ({error.strerror})") from error

    def load(self, path: Path | str) -> None:
        """Go on from what `save` wrote, see `restore`."""
        try:
            state = json.loads(read_regular(Path(path)))
        except (OSError, ValueError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"the state {path} cannot be read ({reason})") from None
        try:
            self.restore(state)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def _move(self) -> None:
        let_go = LET_GO * self._slack
        for place, (pull, high) in enumerate(zip(self._pending, self._high, strict=True)):
            wanted, behind = self.position[place] + pull, self._behind[place]
            self.position[place] = min(max(wanted, self._low), high)
            self._pending[place] = 0.0
            # What is missed at a bound adds up, above 0 at the upper one, below at the lower.
            if behind > 0 or wanted >= high:
                behind = max(0.0, behind + pull - let_go)
            elif behind < 0 or wanted <= self._low:
                behind = min(0.0, behind + pull + let_go)
            self._behind[place] = behind
            if abs(behind) > 1 and not self.at_bound:
                self._say("bound", self._bound_found(place, behind > 0))
        self._set()

    def _set(self) -> None:
        if self.hold == RATES:
            rails = zip(self._ladder.rails, self.position, strict=True)
            found = [rail.threshold(height) for rail, height in rails]
        else:
            found = self._ladder.thresholds(self.position[0])
        # As engines hold them.
        self._thresholds = tuple(
            float(np.float32(min(each, most))) for each, most in zip(found, self._limit, strict=True)
        )
        self._drift.set_threshold(self._thresholds[0])

    def _say(self, what: str, sentence: str) -> None:
        self._told.append(what)
        if self.tell is None:
            warnings.warn(sentence, UserWarning, stacklevel=4)
        else:
            self.tell(sentence)

    def _bound_found(self, place: int, upper: bool) -> str:
        if isinstance(self.target, tuple):
            what = f"an exit rate of {100 * self.target[place]:.1f} % at exit {place + 1}"
            other = "it is lower" if upper else "it is higher"
        else:
            what = f"{self.target:,.1f} {UNITS[self.hold]} an image"
            other = "they cost more" if upper else "they cost less"
        thresholds = ", ".join(f"{threshold:.4g}" for threshold in self.thresholds)
        return (
            f"after {self.images:,} images {what} cannot be held within the bounds: {other}; the thresholds stay "
            f"at their {'upper' if upper else 'lower'} bound ({thresholds}) until it can"
        )

    def _drift_found(self) -> str:
        kind = "harder" if self._drift.harder else "easier"
        lost = "" if self.profile.certified is None else "; what was certified is no promise for them"
        return (
            f"after {self.images:,} images: they are not like validation's, but {kind} for exit 1{lost} (false "
            f"alarms: one in {self._drift.every:,.0f} images at most, on average)"
        )


def _budget(target: Any, profile: Profile, hold: str) -> float:
    costs, unit = profile.costs[hold], UNITS[hold]
    if target is None:
        target = profile.mean_cost(hold)
    if not is_number(target) or not math.isfinite(target):
        raise not_allowed("target", target, f"a number of {unit} per image")
    if target < min(costs):
        raise not_allowed(
            "target",
            target,
            f"at least {min(costs):,.1f} {unit}: that is what leaving at the cheapest exit costs",
        )
    return float(target)


def _rates(target: Any, profile: Profile) -> tuple[float, ...]:
    exits = profile.num_exits
    if target is None:
        return profile.validation.exit_rates[:-1]
    rates = [target] if is_number(target) else target
    wanted = f"{exits - 1} fractions for exits 1 … {exits - 1}, which add up to 1 at most"
    if isinstance(rates, str) or not isinstance(rates, Sequence) or len(rates) != exits - 1:
        raise not_allowed("target", target, wanted)
    if not all(is_number(rate) and 0 <= rate <= 1 for rate in rates) or math.fsum(rates) > 1 + 1e-9:
        raise not_allowed("target", target, wanted)
    return tuple(map(float, rates))


def _limit(limit: Any, profile: Profile) -> tuple[float, ...]:
    if limit == CERTIFIED:
        limit = profile.certified
    if limit is None:
        return (math.inf,) * (profile.num_exits - 1)
    wanted = f"{profile.num_exits - 1} thresholds, {CERTIFIED} or none"
    if isinstance(limit, str) or not isinstance(limit, Sequence) or len(limit) != profile.num_exits - 1:
        raise not_allowed("limit", limit, wanted)
    if not all(is_number(each) and each >= 0 for each in limit):
        raise not_allowed("limit", limit, wanted)
    return tuple(map(float, limit))


def _pulls_of_cost(budget: float, costs: Sequence[float]) -> list[tuple[float, ...]]:
    """N times how an image that leaves there moves the one position; dear ones move it up."""
    span = max(costs) - min(costs)
    if not span:
        raise UserError("all exits cost the same: there is nothing to hold")
    return [((cost - budget) / span,) for cost in costs]


def _pulls_of_rates(rates: Sequence[float]) -> list[tuple[float, ...]]:
    """N times how an image that leaves there moves the N-1 positions: those of the exits that it has reached."""
    pulls: list[tuple[float, ...]] = []
    wanted, rest = [], 1.0
    for rate in rates:  # of the images that reach an exit, those that leave there
        wanted.append(min(1.0, rate / rest) if rest > 1e-12 else 0.0)
        rest -= rate
    for left in range(len(rates) + 1):
        pulls.append(tuple(share * (n <= left) - (n == left) for n, share in enumerate(wanted)))
    return pulls
