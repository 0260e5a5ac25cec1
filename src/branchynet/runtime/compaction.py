"""A batch through the exits: after each, the remaining rows alone go on. For NumPy's arrays and PyTorch's tensors.

Shapes: B batch, N exits, R rows.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# The share of a batch's rows that has to have left before the others are copied together. About there copying
# costs B-LeNet as much as carrying those rows through the layers that follow; B-AlexNet's layers cost more, and
# break even earlier: see benchmarks/compaction.py.
COMPACT_FROM = 0.02

# NumPy's or PyTorch's; both are indexed, compared and assigned to in the same words.
Array = Any
# What goes from exit to exit: features (R, …), then what else step n takes, any number of (R, …).
Handed = Sequence[Array]
# From n, 0-based, and what step n-1 hands on, at first the images alone, to (what step n hands on, prediction
# (R, …) int64, uncertainty (R,) float32, and what else is to be known of a row: any number of (R,)).
RowStep = Callable[[int, Handed], Sequence[Any]]


def pays(staying: int, rows: int) -> bool:
    """Whether to copy the `staying` ones of `rows` rows together, or to carry the others on, unread."""
    return rows - staying >= COMPACT_FROM * rows and staying < rows


def by_compaction(
    x: Array,
    thresholds: Sequence[float],
    step: RowStep,
    take: Callable[[Array, Array], Array],
    where: Callable[[Array], Array],
) -> tuple[Array, ...]:
    """Run a batch exit by exit, leaving behind the rows that are sure where that pays.

    Args:
        x: (B, …).
        thresholds: N-1, as float32 holds them.
        step: its arrays are new ones, but for the features, which `take` may write over. Features are copied by
            `take`; what else is handed on is small, and indexed.
        take: from features and row numbers to those rows, copied together.
        where: from a mask (R,) to the numbers, int64, of the rows that are set.

    Returns:
        prediction (B, …), exit (from 1) and uncertainty, (B,) each, then what else the steps give.
    """
    (x, *beside), *whole = step(0, (x,))
    exits = whole[0].reshape(len(x), -1)[:, 0] * 0 + 1
    unsure = whole[1]
    rows: Array | None = None  # of the input, that have not left yet; None: all
    at: Array | None = None  # where they are in x; None: they are all there is
    for n, threshold in enumerate(thresholds, start=1):
        staying = where(~(unsure < threshold))
        if not len(staying):
            break
        if len(staying) < len(unsure):
            rows = staying if rows is None else rows[staying]
            at = staying if at is None else at[staying]
            if pays(len(rows), len(x)):
                x, beside, at = take(x, at), [each[at] for each in beside], None
        (x, *beside), *answers = step(n, (x, *beside))
        if at is not None:
            answers = [answer[at] for answer in answers]
        unsure = answers[1]
        if rows is None:
            whole = answers
            exits[:] = n + 1
            continue
        exits[rows] = n + 1
        for values, answer in zip(whole, answers, strict=True):
            values[rows] = answer  # over what an earlier exit gave
    prediction, uncertainty, *others = whole
    return prediction, exits, uncertainty, *others


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

    def take(self, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Rows of x (R, …), copied together in this memory."""
        together = self.array((len(rows), *x.shape[1:]), beside=x)
        # The mode spares a copy that NumPy makes for safety's sake; no index is out of bounds.
        return np.take(x, rows, axis=0, out=together, mode="clip")


def numbers(mask: np.ndarray) -> np.ndarray:
    """`where` of `by_compaction`, for NumPy."""
    return mask.nonzero()[0]
