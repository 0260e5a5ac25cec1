"""How much an image of each class counts in training, where classes have unlike numbers of images.

Shapes: K classes.
"""

import math
from collections.abc import Sequence
from typing import Any

from branchynet.errors import ArgumentError, counted, is_number, not_allowed

BALANCED = "balanced"
ALLOWED = "null, balanced, or a list of one number for each class, 0 or more"


def class_weights(spec: Any, counts: Sequence[int]) -> tuple[float, ...] | None:
    """The weights of a setting `class_weights`, so that the mean over the training images is 1.

    So a loss keeps its size, and a learning rate its meaning.

    Args:
        spec: None, no weights; `balanced`, the inverse of a class's number of images; or K numbers, 0 or more.
        counts: K, how many training images each class has.

    Returns:
        K numbers, or None. Of a class without images `balanced` gives 0.

    Raises:
        ArgumentError: anything else.
    """
    if spec is None:
        return None
    if spec == BALANCED:
        values = [1 / count if count else 0.0 for count in counts]
    elif isinstance(spec, Sequence) and not isinstance(spec, str):
        values = check_class_weights(spec)
        if len(values) != len(counts):
            raise ArgumentError(
                "class_weights", f"={list(spec)}: {counted(len(values), 'number')} for {len(counts)} classes"
            )
    else:
        raise not_allowed("class_weights", spec, ALLOWED)
    total = math.fsum(value * count for value, count in zip(values, counts, strict=True))
    if not total:
        raise ArgumentError("class_weights", f"={list(spec)}: no training image would count")
    return tuple(value * sum(counts) / total for value in values)


def check_class_weights(values: Any) -> list[float]:
    """`values` as floats, or an ArgumentError that says what is wrong with them."""
    if (
        not isinstance(values, Sequence)
        or isinstance(values, str)
        or not all(is_number(value) and 0 <= value < math.inf for value in values)
    ):
        raise not_allowed("class_weights", values, ALLOWED)
    return [float(value) for value in values]
