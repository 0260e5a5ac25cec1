"""Uncertainties in rising order, and the knee of that curve: a threshold without labels (the paper's Figure 4).

Shapes: S samples.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Knee(NamedTuple):
    """Where a rising curve turns steep."""

    threshold: float  # the uncertainty there: who is surer leaves
    share: float  # of the samples below it, 0 … 1


def rising_knee(uncertainty: Tensor) -> Knee:
    """The point of the curve of uncertainties in rising order that is farthest below its chord.

    The chord runs from the surest sample to the least sure one; distances are upright, which names the same point
    in any unit. As in Kneedle (Satopää et al., 2011), but without smoothing. Where all samples are as sure, it is
    the first one, and nobody leaves.

    Args:
        uncertainty: (S,) float32, in any order.
    """
    curve = uncertainty.double().sort().values
    chord = torch.linspace(float(curve[0]), float(curve[-1]), len(curve), dtype=torch.float64)
    at = int((chord - curve).argmax())
    return Knee(float(curve[at]), int((curve < curve[at]).sum()) / len(curve))
