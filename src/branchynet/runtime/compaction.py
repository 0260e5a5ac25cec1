"""A batch through the exits: after each, the remaining rows alone go on. NumPy only.

Shapes: B batch, N exits, R rows.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

# The share of a batch's rows that has to have left before the others are copied together. About there copying
# costs B-LeNet as much as carrying those rows through the layers that follow; B-AlexNet's layers cost more, and
# break even earlier: see benchmarks/compaction.py.
COMPACT_FROM = 0.02


class Outcome(NamedTuple):
    """What a batch gave, in the order of its input."""

    prediction: np.ndarray  # (B,) int64
    exit: np.ndarray  # (B,) int64, 0-based
    uncertainty: np.ndarray  # (B,) float32, of the exit that was taken


# From n, 0-based, and features (R, …) behind segment n-1 to (those behind segment n, prediction (R,) int64,
# uncertainty (R,) float32, and what else is to be known of a row: any number of (R,)).
Step = Callable[[int, np.ndarray], Sequence[np.ndarray]]


def pays(staying: int, rows: int) -> bool:
    """Whether to copy the `staying` ones of so many rows together, or to carry the others on, unread."""
    return rows - staying >= COMPACT_FROM * rows and staying < rows


class Scratch:
    """Memory for features that is used again by every batch; it grows with the largest one.

    Two buffers suffice: a segment or a copy reads from one and writes into the other.
    """

    def __init__(self) -> None:
        self._buffers = [np.empty(0, np.float32), np.empty(0, np.float32)]

    def array(self, shape: Sequence[int], beside: np.ndarray) -> np.ndarray:
        """An array of that shape, float32, apart from `beside`'s memory. What was there before is lost."""
        index = int(beside.base is self._buffers[0])
        size = math.prod(shape)
        if len(self._buffers[index]) < size:
            self._buffers[index] = np.empty(size, np.float32)
        return self._buffers[index][:size].reshape(shape)


def by_compaction(
    x: np.ndarray, thresholds: Sequence[float], step: Step, scratch: Scratch
) -> tuple[np.ndarray, ...]:
    """Run a batch exit by exit, leaving behind the rows that are sure where that pays.

    Args:
        x: (B, …).
        thresholds: N-1, as float32 holds them.
        step: may keep its features in `scratch`; the other arrays are new ones.

    Returns:
        An outcome's fields, (B,) each, and behind them what else the steps give.
    """
    x, *whole = step(0, x)
    exits = np.zeros(len(x), np.int64)
    unsure = whole[1]
    rows: np.ndarray | None = None  # of the input, that have not left yet; None: all
    at: np.ndarray | None = None  # where they are in x; None: they are all there is
    for n, threshold in enumerate(thresholds, start=1):
        staying = (~(unsure < np.float32(threshold))).nonzero()[0]
        if not len(staying):
            break
        if len(staying) < len(unsure):
            rows = staying if rows is None else rows[staying]
            at = staying if at is None else at[staying]
            if pays(len(rows), len(x)):
                # The mode spares a copy that NumPy makes for safety's sake; no index is out of bounds.
                together = scratch.array((len(at), *x.shape[1:]), beside=x)
                x, at = np.take(x, at, axis=0, out=together, mode="clip"), None
        x, *answers = step(n, x)
        if at is not None:
            answers = [answer[at] for answer in answers]
        unsure = answers[1]
        if rows is None:
            whole = answers
            exits.fill(n)
            continue
        exits[rows] = n
        for values, answer in zip(whole, answers, strict=True):
            values[rows] = answer  # over what an earlier exit gave
    prediction, uncertainty, *others = whole
    return prediction, exits, uncertainty, *others
