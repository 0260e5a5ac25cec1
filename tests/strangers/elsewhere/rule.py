"""A rule with a parameter of its own, which looks at one half of the samples and asks the other."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from branchynet.errors import is_number, not_allowed
from branchynet.exits.rules import Choice, View, first
from branchynet.exits.sweep import point_at


@dataclass(frozen=True)
class TwiceAsAccurate:
    """The point with the fewest MACs that loses at most `loss` against the last exit, on either half."""

    loss: float = 0.01

    name: ClassVar[str] = "twice_as_accurate"
    cost: ClassVar[str] = "macs"

    def __post_init__(self) -> None:
        if not is_number(self.loss) or not 0 <= self.loss < 1:
            raise not_allowed("loss", self.loss, "a fraction, 0 … 1")

    def choose(self, view: View) -> Choice:
        """See the class."""
        halves = [view.at(torch.arange(start, view.trace.num_samples, 2)) for start in (0, 1)]
        enough = torch.stack([half.points.accuracy >= half.exit_accuracy[-1] - self.loss for half in halves])
        both = enough.all(dim=0)
        if not both.any():
            return Choice(point_at(view.trace, [0.0] * (view.trace.num_exits - 1)), False, "No point is.")
        return Choice(view.points[first(both, view.mean("macs"))])
