"""Parts of a set in which every class has its share.

S samples.
"""

import numpy as np


def by_shares(order: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The same image numbers, so that all classes are spread evenly: every start of it has, of each class, the
    share that it has of all images, to the nearest image.

    Args:
        order: (S,), each image's number once.
        label: (S,), of image 0, 1, …
    """
    by_class = order[np.argsort(label[order], kind="stable")]
    counts = np.bincount(label)
    place = np.concatenate(
        [(np.arange(count) + 0.5) / max(count, 1) for count in counts]
    )  # in its class, 0 … 1
    return by_class[np.argsort(place, kind="stable")]


def set_apart(label: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the images that stay, and of a share that is taken out, the same of each class; each rising.

    At least one is taken out.

    Args:
        label: (S,), of image 0, 1, …
        share: 0 … 1.
        seed: of which ones.
    """
    # RandomState: NumPy's policy keeps its numbers for ever.
    order = by_shares(np.random.RandomState(seed).permutation(len(label)), label)
    chosen = np.sort(order[: max(1, round(share * len(label)))])
    return np.setdiff1d(np.arange(len(label)), chosen), chosen
