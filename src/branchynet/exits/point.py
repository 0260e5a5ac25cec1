"""An operating point: thresholds, and what they give on one set of samples.

Shapes: N exits, S samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class OperatingPoint:
    """Thresholds with the accuracy and the exit rates that they give.

    Args:
        thresholds: N-1; what float32 holds of them counts.
        right: how many samples are answered rightly; a sum where they may be partly right.
        left: N, how many samples leave at each exit.
    """

    thresholds: tuple[float, ...]
    right: int | float
    left: tuple[int, ...]

    @property
    def samples(self) -> int:
        """S."""
        return sum(self.left)

    @property
    def accuracy(self) -> float:
        """A fraction."""
        return self.right / self.samples

    @property
    def exit_rates(self) -> tuple[float, ...]:
        """N fractions, which add up to 1."""
        return tuple(count / self.samples for count in self.left)

    def mean_cost(self, cost: Sequence[float]) -> float:
        """Per sample, from what leaving at each of the N exits costs."""
        return sum(rate * value for rate, value in zip(self.exit_rates, cost, strict=True))


def decimal(value: float) -> float:
    """The shortest decimal number that is `value` in float32: 0.3 instead of 0.30000001192092896.

    Thresholds are float32; rounding this to float32 gives the very same threshold back.
    """
    with np.errstate(over="ignore"):
        return float(str(np.float32(value)))
