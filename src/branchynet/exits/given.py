"""The rule that chooses nothing: thresholds that somebody has found, on a run's page or elsewhere."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from branchynet.errors import ArgumentError, is_number, not_allowed
from branchynet.exits.rules import Choice, View
from branchynet.exits.sweep import point_at


@dataclass(frozen=True)
class Given:
    """The point at these `thresholds`: N-1, one for each exit but the last, in the criterion's unit."""

    thresholds: Sequence[float]

    name: ClassVar[str] = "given"
    cost: ClassVar[str] = "latency_us"

    def __post_init__(self) -> None:
        values = self.thresholds
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise not_allowed(
                "thresholds", values, "a list such as [0.1], a number for each exit but the last"
            )
        for value in values:
            if not is_number(value) or not 0 <= value < math.inf:
                raise ArgumentError(
                    "thresholds", f" has {value!r}: a threshold is a finite number, 0 or more"
                )
        object.__setattr__(self, "thresholds", tuple(map(float, values)))

    def check_exits(self, exits: int) -> None:
        """An ArgumentError unless they are as many as a network of so many exits has."""
        if len(self.thresholds) != exits - 1:
            raise ArgumentError(
                "thresholds",
                f" has {len(self.thresholds)}: the network's {exits} exits have {exits - 1}, the last takes all",
            )

    def choose(self, view: View) -> Choice:
        """See the class."""
        self.check_exits(view.trace.num_exits)
        return Choice(point_at(view.trace, self.thresholds))
