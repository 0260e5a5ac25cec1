"""Thresholds in one order, from "all go to the end" to "all leave": what a controller climbs. No PyTorch here.

Shapes: N exits.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

import numpy as np

from branchynet.runtime.profile import QUANTILES, Profile


class Rail:
    """One exit's thresholds by height: at 0 a threshold of 0, which takes nobody, at 1 one that takes everybody.

    Height is the mean of two scales. One is the share of validation that lies below the threshold: it has its
    resolution where validation lies. The other is the threshold's share of the largest uncertainty: there lie the
    images that have become harder, which no quantile of validation could tell apart.

    Args:
        quantiles: of validation's uncertainties at this exit, at 0 … 100 %, rising.
        most: the largest uncertainty that there can be; None: not known.
    """

    def __init__(self, quantiles: Sequence[float], most: float | None) -> None:
        levels = np.linspace(0, 1, len(quantiles))
        values, first = np.unique(np.asarray(quantiles, np.float64), return_index=True)
        last = np.append(first[1:], len(levels)) - 1
        self._values = values.tolist()
        # Of the shares below and not above each value; where many samples are as unsure, they differ.
        self._below, self._upto = levels[first].tolist(), levels[last].tolist()
        top = max(most if most is not None else 2 * self._values[-1] + 1, self._values[-1], 1e-6)
        grid = np.unique(np.concatenate([values, np.linspace(0, top, QUANTILES + 1)]))
        shares = [(self.share_below(value) + self.rank(value)) / 2 for value in grid.tolist()]
        self._grid, self._heights = grid, (np.array(shares) + grid / top) / 2
        self._heights[0] = 0.0
        self._heights /= self._heights[-1]

    def rank(self, uncertainty: float) -> float:
        """The share of validation that is surer; of those as unsure, half of them."""
        place = bisect.bisect_left(self._values, uncertainty)
        if place < len(self._values) and self._values[place] == uncertainty:
            return (self._below[place] + self._upto[place]) / 2
        return self._between(place, uncertainty)

    def share_below(self, threshold: float) -> float:
        """The share of validation that a threshold takes."""
        place = bisect.bisect_left(self._values, threshold)
        if place < len(self._values) and self._values[place] == threshold:
            return self._below[place]
        return self._between(place, threshold)

    def _between(self, place: int, value: float) -> float:
        """The share below a value between the ones at `place` - 1 and `place`."""
        if not place:
            return 0.0
        if place == len(self._values):
            return 1.0
        low, high, share = self._values[place - 1], self._values[place], self._upto[place - 1]
        return share + (self._below[place] - share) * (value - low) / (high - low)

    def threshold(self, height: float) -> float:
        """At a height; above 1 and below 0 it is as at 1 and 0."""
        return math.inf if height >= 1 else float(np.interp(height, self._heights, self._grid))

    def height(self, threshold: float) -> float:
        """Of a threshold."""
        return float(np.interp(threshold, self._grid, self._heights))


class Ladder:
    """The rails of all side exits, and one way up all of them at once, through the network's own thresholds.

    No threshold falls on the way up. So no sample leaves later higher up.
    """

    def __init__(self, profile: Profile) -> None:
        self.rails = [Rail(each, profile.most) for each in profile.validation.uncertainty]
        self._own = [
            rail.height(threshold) for rail, threshold in zip(self.rails, profile.thresholds, strict=True)
        ]
        self.start = sum(self._own) / len(self._own)
        # Where all of them lie at an end there is no way through: then straight up.
        if not 0 < self.start < 1:
            self._own = [0.5] * len(self.rails)
        self._middle = sum(self._own) / len(self._own)

    def heights(self, position: float) -> list[float]:
        """Of the N-1 exits at a position, 0 … 1: at `start` those of the network's own thresholds."""
        if position <= self._middle:
            return [position * own / self._middle for own in self._own]
        share = (position - self._middle) / (1 - self._middle)
        return [own + share * (1 - own) for own in self._own]

    def thresholds(self, position: float) -> list[float]:
        """The N-1 thresholds at a position; above 1 and below 0 they are as at 1 and 0."""
        return [
            rail.threshold(height) for rail, height in zip(self.rails, self.heights(position), strict=True)
        ]

    def position(self, exit_index: int, height: float) -> float:
        """Where an exit reaches a height, 0 … 1."""
        own = self._own[exit_index]
        if height <= own:
            return height * self._middle / own if own else 0.0
        return self._middle + (height - own) / (1 - own) * (1 - self._middle)
