"""Labels of every pixel: what people store as masks, as class numbers.

S samples, H, W pixels, K classes.
"""

import numpy as np

from branchynet.data.files import FileProblem

MOST_CLASSES = 256  # they are kept as bytes
LEFT_OUT = ". Every pixel counts: 255 is a class like any other, and no mark for those that are left out"


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
