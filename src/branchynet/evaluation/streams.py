"""Streams that drift, and what ways of setting thresholds make of them.

All of it is arithmetic on what every exit says of every image of a stream: the very exits that engines take.

Shapes: N exits, S images of a stream, W windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from branchynet.runtime.adapt import adapt, estimated_accuracy
from branchynet.runtime.controller import RATES, Controller
from branchynet.runtime.ladder import Ladder
from branchynet.runtime.profile import Profile, exit_indices

NEAR = 0.05  # of a budget, or of exit rates: a mean that is nearer is met
PROBES = 0.2  # of a window's images: what `adaptive` sends through all exits, to learn from
ARMS = 21  # of the bandit: positions on the ladder


@dataclass(frozen=True, eq=False)
class Stream:
    """What every exit says of S images in a row."""

    kind: str
    uncertainty: np.ndarray  # (S, N) float32
    prediction: np.ndarray  # (S, N) int64
    label: np.ndarray  # (S,) int64
    begin: int  # the first image that is harder
    end: int  # the first one that is as hard as they become

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True, eq=False)
class Course:
    """What one way of setting thresholds made of a stream."""

    name: str
    taken: np.ndarray  # (S,) from 0: where images left
    told: dict[int, str] = field(default_factory=dict)  # by number of images, what it said


def fixed(stream: Stream, profile: Profile) -> Course:
    """The network's own thresholds."""
    return Course("fixed", exit_indices(stream.uncertainty, profile.thresholds))


def to_the_end(stream: Stream, profile: Profile) -> Course:
    """All go to the last exit."""
    return Course("all to the end", np.full(len(stream), profile.num_exits - 1))


def held(stream: Stream, make: Callable[[Callable[[str], None]], Controller]) -> Course:
    """A controller, which `make` makes of what it is to call with what it has to say."""
    told: dict[int, str] = {}

    def tell(sentence: str) -> None:
        told[controller.images] = sentence

    controller = make(tell)
    taken = np.empty(len(stream), np.int64)
    start = 0
    while start < len(stream):
        stop = min(start + controller.ahead, len(stream))
        part = exit_indices(stream.uncertainty[start:stop], controller.thresholds)
        taken[start:stop] = part
        controller.observe(part + 1, stream.uncertainty[np.arange(start, stop), part])
        start = stop
    return Course("held", taken, told)


def adaptive(stream: Stream, profile: Profile, window: int) -> Course:
    """Thresholds for every window from its first images, which go to the end and so show what all exits say."""
    taken = np.empty(len(stream), np.int64)
    for start in range(0, len(stream), window):
        probes = slice(start, start + max(1, round(PROBES * window)))
        rest = slice(probes.stop, start + window)
        found = adapt(profile, stream.uncertainty[probes], stream.prediction[probes])
        taken[probes] = profile.num_exits - 1
        taken[rest] = exit_indices(stream.uncertainty[rest], found.thresholds)
    return Course("adaptive", taken)


def bandit(stream: Stream, profile: Profile, costs: Sequence[float], weight: float) -> Course:
    """A bandit over thresholds, after the idea of UAT (Bajpai and Hanawal, 2025, arXiv 2509.23666).

    UCB1 over positions on the ladder. An image's reward is how sure its exit was, less `weight` times its share of
    the costs' span: nothing of it needs a label. The paper's own reward has a term for how reliable that is, which
    is not here; and this is not its authors' code.
    """
    ladder = Ladder(profile)
    arms = [ladder.thresholds(position) for position in np.linspace(0, 1, ARMS)]
    every = np.stack([exit_indices(stream.uncertainty, arm) for arm in arms], axis=1)
    reward = rewards(stream.uncertainty, every, profile, costs, weight)
    counts, sums = np.zeros(ARMS), np.zeros(ARMS)
    taken = np.empty(len(stream), np.int64)
    for number in range(len(stream)):
        arm = number  # each once, to begin with
        if number >= ARMS:
            arm = int(np.argmax(sums / counts + np.sqrt(2 * math.log(number) / counts)))
        counts[arm] += 1
        sums[arm] += reward[number, arm]
        taken[number] = every[number, arm]
    return Course("bandit", taken)


def rewards(
    uncertainty: np.ndarray, taken: np.ndarray, profile: Profile, costs: Sequence[float], weight: float
) -> np.ndarray:
    """(S, A): of leaving at exits `taken` (S, A), from uncertainties (S, N)."""
    spans = np.asarray(costs)[taken] - min(costs)
    most = (
        profile.most if profile.most is not None else max(each[-1] for each in profile.validation.uncertainty)
    )
    sure = 1 - np.minimum(np.take_along_axis(uncertainty, taken, axis=1) / most, 1)
    return sure - weight * spans / (max(costs) - min(costs))


def weight_for(uncertainty: np.ndarray, profile: Profile, costs: Sequence[float], budget: float) -> float:
    """The weight with which the best arm on validation's uncertainties (S, N) costs nearest to a budget."""
    ladder = Ladder(profile)
    arms = [exit_indices(uncertainty, ladder.thresholds(position)) for position in np.linspace(0, 1, ARMS)]
    taken = np.stack(arms, axis=1)
    means = np.asarray(costs)[taken].mean(axis=0)

    def missed(weight: float) -> float:
        best = int(rewards(uncertainty, taken, profile, costs, weight).mean(axis=0).argmax())
        return abs(float(means[best]) - budget)

    return min(np.linspace(0, 2, 81).tolist(), key=missed)


@dataclass(frozen=True)
class Outcome:
    """A course in numbers: on the easy images before the drift, and on the hard ones after it."""

    name: str
    means: tuple[float, ...]  # of what is held: cost, or the rate of exit 1
    missed: tuple[float, ...]  # how far from the target, see `distance`
    worst: float  # the farthest of all windows
    settled: int | None  # images from the beginning of the drift until it is met for good; None: it is not
    accuracy: tuple[float, ...]
    estimated: tuple[float, ...]  # of the accuracy, without labels
    told: dict[int, str]


def outcome(stream: Stream, course: Course, controller: Controller, window: int) -> Outcome:
    """See `Outcome`; windows are of that many images in a row."""
    parts = slice(0, stream.begin), slice(stream.end, len(stream))
    right = np.take_along_axis(stream.prediction, course.taken[:, None], axis=1)[:, 0] == stream.label
    missed = distance(rolling(what_is_held(course, controller), window), controller)
    return Outcome(
        name=course.name,
        means=tuple(float(what_is_held(course, controller)[part, 0].mean()) for part in parts),
        missed=tuple(_missed(course, controller, part) for part in parts),
        worst=float(missed.max()),
        settled=_settled(missed, stream.begin, window),
        accuracy=tuple(float(right[part].mean()) for part in parts),
        estimated=tuple(
            estimated_accuracy(controller.profile, stream.uncertainty[part], course.taken[part])
            for part in parts
        ),
        told=course.told,
    )


def what_is_held(course: Course, controller: Controller) -> np.ndarray:
    """(S, 1) what each image costs, or (S, N-1) whether it leaves at each side exit."""
    if controller.hold == RATES:
        return (course.taken[:, None] == np.arange(controller.profile.num_exits - 1)).astype(float)
    return np.asarray(controller.profile.costs[controller.hold])[course.taken][:, None]


def distance(means: np.ndarray, controller: Controller) -> np.ndarray:
    """(W,) of means (W, 1) from a budget, as a share of it; of exit rates (W, N-1) the largest difference."""
    if controller.hold == RATES:
        return np.abs(means - np.asarray(controller.target)).max(axis=1)
    return np.abs(means[:, 0] / controller.target - 1)


def rolling(values: np.ndarray, window: int) -> np.ndarray:
    """(S - window + 1, …): means over all windows in a row, of values (S, …)."""
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    return (sums[window:] - sums[:-window]) / window


def _missed(course: Course, controller: Controller, part: slice) -> float:
    return float(distance(what_is_held(course, controller)[part].mean(axis=0)[None], controller)[0])


def _settled(missed: np.ndarray, begin: int, window: int) -> int | None:
    """From (W,) distances of windows; window w ends with image w + `window`."""
    outside = (missed > NEAR).nonzero()[0]
    if len(outside) and outside[-1] == len(missed) - 1:
        return None
    last = int(outside[-1]) + 1 + window if len(outside) else 0
    return max(0, last - begin)
