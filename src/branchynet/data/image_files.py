"""What becomes of image files on their way into a network, and what is around the images that it was trained on.

Shapes: S samples, C channels, H, W pixels, P of them on the border.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from branchynet.errors import check_choice, check_flag, is_whole, not_allowed

SIZES = ("bilinear", "crop", "refuse")
CHANNELS = ("convert", "refuse")
FAR = 64  # of 255: a border further than this from those of all training images is worth a word


@dataclass(frozen=True)
class Border:
    """Of the outermost pixels of the training images: what lies behind what they show."""

    colour: tuple[int, ...]  # C, 0 … 255: the median
    darkest: int  # 0 … 255: of 100 images, 99 have a border whose mean is from this …
    lightest: int  # … to this

    def __post_init__(self) -> None:
        if not all(0 <= value <= 255 for value in (*self.colour, self.darkest, self.lightest)):
            raise ValueError("the border is of bytes, 0 … 255")


@dataclass(frozen=True)
class ImageFiles:
    """How an image file becomes (C, H, W) uint8. Raises an ArgumentError for what is not allowed."""

    # Of another size: bilinear (resized to H × W) | crop (resized to cover that, and the middle kept) | refuse.
    size: str = "bilinear"
    channels: str = "convert"  # of other channels: convert (to grey or RGB) | refuse
    background: tuple[int, ...] | None = None  # C, 0 … 255, what lies below transparency; None refuses it
    invert: bool = False  # whether dark and light are swapped, before anything lies below
    border: tuple[int, int] | None = None  # darkest and lightest, see `Border`; None: not known

    def __post_init__(self) -> None:
        check_choice("image_files.size", self.size, SIZES)
        check_choice("image_files.channels", self.channels, CHANNELS)
        check_flag("image_files.invert", self.invert)


def background_of(value: Any, channels: int) -> tuple[int, ...]:
    """A setting `image_files.background`, a byte or one per channel, as one per channel; else an ArgumentError."""
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value] * channels
    if len(values) != channels or not all(is_whole(each, 0) and each <= 255 for each in values):
        allowed = f"a whole number, 0 (black) … 255 (white), or a list of {channels}, one per channel"
        raise not_allowed("image_files.background", value, allowed)
    return tuple(values)


def border_of(parts: Iterable[np.ndarray]) -> Border:
    """The border of images (S, C, H, W) uint8 in parts, of which one is looked at at a time."""
    means: list[np.ndarray] = []
    counts: np.ndarray | int = 0  # (C, 256): how often each byte is there
    for part in parts:
        pixels = around(part)
        means.append(pixels.mean(axis=(1, 2)))
        counts = counts + np.stack(
            [np.bincount(values.reshape(-1), minlength=256) for values in pixels.swapaxes(0, 1)]
        )
    darkest, lightest = np.quantile(np.concatenate(means), (0.005, 0.995))
    colour = tuple(map(_median, np.asarray(counts)))
    return Border(colour, int(darkest), int(np.ceil(lightest)))


def _median(counts: np.ndarray) -> int:
    """Of values 0, 1, … that are there so often, rounded down."""
    places, count = np.cumsum(counts), int(counts.sum())
    lower, upper = np.searchsorted(places, ((count - 1) // 2, count // 2), side="right")
    return int(lower + upper) // 2


def is_far(x: np.ndarray, border: tuple[int, int]) -> bool:
    """Whether an image (C, H, W) has another border than those that the network was trained on."""
    darkest, lightest = border
    return not darkest - FAR <= around(x).mean() <= lightest + FAR


def around(x: np.ndarray) -> np.ndarray:
    """The outermost pixels of images (…, H, W): (…, P)."""
    sides = (x[..., 0, :], x[..., -1, :], x[..., 1:-1, 0], x[..., 1:-1, -1])
    return np.concatenate(sides, axis=-1)
