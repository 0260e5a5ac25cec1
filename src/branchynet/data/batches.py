"""Images a batch at a time: no more of them are floats at once than memory bears, however many there are.

B batch, C channels, H, W pixels, S samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # an export has no PyTorch
    from torch import Tensor

SMALL = 4096  # numbers: an image of more, 32×32 in three colours is one of 3,072, counts as several


def at_once(shape: Sequence[int], most: int = 1000) -> int:
    """How many images of a shape (C, H, W) are taken at once: `most` small ones, or as many as need no more memory.

    >>> at_once((3, 32, 32)), at_once((3, 224, 224)), at_once((3, 4000, 4000))
    (1000, 27, 1)
    """
    return max(1, min(most, most * SMALL // math.prod(shape)))


def in_batches(
    x: Tensor, y: Tensor, size: int, part: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (S, C, H, W) and labels (S,), `size` at a time; the last batch may be smaller.

    Args:
        part: (P,) int64, the numbers of those that are wanted, in this order; None: all.
    """
    if part is None:
        for start in range(0, len(y), size):
            yield x[start : start + size], y[start : start + size]
        return
    for start in range(0, len(part), size):
        numbers = part[start : start + size]
        yield x[numbers], y[numbers]
