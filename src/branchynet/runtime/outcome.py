"""What a batch gives, without a library that computes it: what runs an export needs no PyTorch.

Shapes: B batch, N exits.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from branchynet.errors import UserError


class Outcome(NamedTuple):
    """What a batch gave, in the order of its input."""

    prediction: np.ndarray  # (B,) int64
    exit: np.ndarray  # (B,) int64, 0-based
    uncertainty: np.ndarray  # (B,) float32, of the exit that was taken


def check_thresholds(values: Sequence[float], num_exits: int) -> tuple[float, ...]:
    """`values` as float32 holds them; a UserError for a wrong number of them or one that is nan."""
    values = [float(value) for value in values]
    if len(values) != num_exits - 1:
        raise UserError(
            f"{len(values)} thresholds for a network of {num_exits} exits: give {num_exits - 1}, one for each "
            f"exit but the last"
        )
    if any(math.isnan(value) for value in values):
        raise UserError(f"the thresholds are {values}: nan is none")
    return tuple(float(np.float32(value)) for value in values)
