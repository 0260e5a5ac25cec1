"""Labels of every pixel: what people store as masks, as class numbers.

S samples, H, W pixels, K classes.
"""

import numpy as np

from branchynet.data.files import FileProblem
from branchynet.errors import not_allowed

MOST_CLASSES = 256  # they are kept as bytes
# In the place of a class: the pixel counts neither in the loss nor in the score. Most people write it so, too.
LEFT_OUT = 255
TO_LEAVE_OUT = f". Pixels that are not to count: data.ignore={LEFT_OUT}"


def as_maps(y: np.ndarray, size: tuple[int, ...], what: str) -> np.ndarray:
    """Labels as (S, H, W).

    Args:
        y: integers, or of two classes true and false: (S, H, W), or with one channel, (S, H, W, 1) or (S, 1, H, W).
        size: H and W of the images.
        what: they are, for what is said of them.

    Raises:
        FileProblem: they are anything else.
    """
    maps = y
    for channel in (1, 3):
        if y.ndim == 4 and y.shape[channel] == 1 and maps is y:
            maps = y[:, 0] if channel == 1 else y[..., 0]
    if y.dtype.kind not in "iub" or maps.shape[1:] != size:
        sides = ", ".join(map(str, size))
        raise FileProblem(
            f"{what} is {y.dtype} {y.shape}, must be integers of shape (S,) or (S, 1), or of every pixel of these "
            f"images (S, {sides})"
        )
    return maps


def check_ignore(value: object) -> None:
    """An ArgumentError unless it is the number of pixels that do not count, or None for none."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise not_allowed("ignore", value, f"null or a whole number, such as {LEFT_OUT}")


def without(y: np.ndarray, ignore: int, what: str) -> np.ndarray:
    """Labels of every pixel (S, …) with LEFT_OUT in the place of `ignore`.

    Args:
        what: they are, for what is said of them.

    Raises:
        FileProblem: labels of images, LEFT_OUT is a class, or an image of which nothing counts.
    """
    if y.ndim < 3:
        raise FileProblem(f"{what} has one label for an image: data.ignore is for labels of every pixel")
    if ignore != LEFT_OUT and (y == LEFT_OUT).any():
        raise FileProblem(
            f"{what}: with data.ignore={ignore} no class can be {LEFT_OUT}: number them 0 … K-1"
        )
    away = y == ignore
    whole = away.reshape(len(y), -1).all(axis=1)
    if whole.any():
        raise FileProblem(
            f"{what}: of image {int(whole.argmax())}, counted from 0, no pixel counts: take it out"
        )
    return y if ignore == LEFT_OUT else np.where(away, np.uint8(LEFT_OUT), y)
