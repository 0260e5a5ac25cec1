"""What goes into an export's models and comes out of them: names, types, shapes.

Shapes: B batch, C channels, H, W, T tokens, K classes, N exits. Nothing here needs PyTorch.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

# Of features, by how many dimensions they have; memory is row-major.
LAYOUTS = {2: "NC", 3: "NTC", 4: "NCHW"}
ANSWERS = {"prediction": "int64", "uncertainty": "float32", "confidence": "float32"}
NOTHING: Mapping[str, int] = {}
SINGLE_ANSWERS = {"prediction": "int64", "exit": "int64", "uncertainty": "float32", "confidence": "float32"}
# What goes from segment to segment beside the features, in this order, where it does: an exit's answer, where the
# next one averages, and its criterion's state, where that looks back. By name the layout.
BESIDE = {"answer": "NK", "state": "NW"}
MOST = 2**26  # values of an image, and of its features at an exit: 256 MiB of float32


class Tensor(NamedTuple):
    """An input or output of a model."""

    name: str
    dtype: str  # uint8 | int64 | float32
    layout: str
    shape: tuple[int | str, ...]  # B, where any batch is taken


class Tensors(NamedTuple):
    """All of one model's, in its order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def of_segment(
    n: int,
    given: Sequence[int],
    handed_on: Sequence[int] | None,
    takes: Mapping[str, int] = NOTHING,
    gives: Mapping[str, int] = NOTHING,
    answer: Sequence[int] = (),
) -> Tensors:
    """Segment n's (from 1).

    Args:
        given: the shape of its input, without the batch.
        handed_on: that of the features behind it; None: it is the last.
        takes: what it takes from segment n-1 beside these features, (B, W) each: W by name, see `BESIDE`.
        gives: what it hands on beside its own.
        answer: the shape of a prediction, without the batch: () of a class, (H, W) of a map.
    """
    first = _image("B", given) if n == 1 else _features(n - 1, given)
    answers = [Tensor(f"{name}_{n}", dtype, "N", ("B",)) for name, dtype in ANSWERS.items()]
    if answer:
        answers[0] = answers[0]._replace(layout="NHW", shape=("B", *answer))
    behind = () if handed_on is None else (_features(n, handed_on),)
    return Tensors((first, *_beside(n - 1, takes)), (*answers, *behind, *_beside(n, gives)))


def of_single(input_shape: Sequence[int], num_exits: int) -> Tensors:
    """Those of one model with the exits inside, for one image."""
    thresholds = Tensor("thresholds", "float32", "exit 1 … N-1", (num_exits - 1,))
    answers = (Tensor(name, dtype, "N", (1,)) for name, dtype in SINGLE_ANSWERS.items())
    return Tensors((_image(1, input_shape), thresholds), tuple(answers))


def _image(batch: int | str, shape: Sequence[int]) -> Tensor:
    return Tensor("image", "uint8", "NCHW", (batch, *shape))


def _beside(n: int, widths: Mapping[str, int]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(f"{name}_{n}", "float32", layout, ("B", widths[name]))
        for name, layout in BESIDE.items()
        if name in widths
    )


def _features(n: int, shape: Sequence[int]) -> Tensor:
    return Tensor(f"features_{n}", "float32", LAYOUTS.get(len(shape) + 1, "row-major"), ("B", *shape))
