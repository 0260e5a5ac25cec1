"""Thresholds for a new set without labels, from its own difficulty (Teerapittayanon et al., 2016, section V-B).

What early exits can lose against the whole network needs no labels: only where an early answer is not the last
exit's can it be worse. On validation, the network's own thresholds let a share of the samples disagree so. On a new
set, `adapt` goes as far up the ladder of thresholds as no more of its samples disagree: a harder set leaves later,
an easier one earlier, and what the exits cost in accuracy, on this set, is at most that share.

No PyTorch here. Shapes: N exits, S samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from branchynet.errors import UserError
from branchynet.runtime.ladder import Ladder
from branchynet.runtime.profile import Profile, bin_of, exit_indices

STEPS = 1000  # positions that are tried


@dataclass(frozen=True)
class Adapted:
    """What `adapt` found on a set."""

    thresholds: tuple[float, ...]  # N-1
    position: float  # on the ladder, 0 … 1
    exit_rates: tuple[float, ...]  # N
    disagreement: float  # share of samples whose answer is not the last exit's
    allowed: float  # the same on validation, at the network's own thresholds
    accuracy: float  # estimated, see `estimated_accuracy`


def adapt(profile: Profile, uncertainty: np.ndarray, prediction: np.ndarray) -> Adapted:
    """Find thresholds for a set of which every exit's answers are known.

    Args:
        profile: of the network.
        uncertainty: (S, N) float32.
        prediction: (S, N) int64.
    """
    exits = profile.num_exits
    if uncertainty.shape != prediction.shape or uncertainty.ndim != 2 or uncertainty.shape[1] != exits:
        raise UserError(f"the answers are {uncertainty.shape} and {prediction.shape}, not (S, {exits}) both")
    ladder, allowed = Ladder(profile), profile.validation.disagreement
    differs = prediction != prediction[:, -1:]
    best = 0.0
    for step in range(1, STEPS + 1):
        taken = exit_indices(uncertainty, ladder.thresholds(step / STEPS))
        # Not the farthest that is good, but up to the first that is not: the others got there by luck.
        if np.take_along_axis(differs, taken[:, None], axis=1).mean() > allowed:
            break
        best = step / STEPS
    thresholds = tuple(ladder.thresholds(best))
    if profile.certified is not None:
        thresholds = tuple(map(min, thresholds, profile.certified))
    taken = exit_indices(uncertainty, thresholds)
    return Adapted(
        thresholds=thresholds,
        position=best,
        exit_rates=tuple((np.bincount(taken, minlength=exits) / len(taken)).tolist()),
        disagreement=float(np.take_along_axis(differs, taken[:, None], axis=1).mean()),
        allowed=allowed,
        accuracy=estimated_accuracy(profile, uncertainty, taken),
    )


def estimated_accuracy(profile: Profile, uncertainty: np.ndarray, taken: np.ndarray) -> float:
    """What the accuracy would be if exits were as often right as on validation where they were as unsure.

    A guess: on images of another kind, a network that is sure of what it has never seen is taken at its word.

    Args:
        uncertainty: (S, N).
        taken: (S,) from 0, where they leave.
    """
    validation, right = profile.validation, np.empty(len(taken))
    for n in range(profile.num_exits):
        here = taken == n
        right[here] = np.asarray(validation.right[n])[bin_of(uncertainty[here, n], validation.bins[n])]
    return float(right.mean())
