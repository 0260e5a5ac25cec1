"""What makes numbers on a data set doubtful: images that stand in two splits, splits that lack a class.

S samples, C channels, H, W pixels, K classes.
"""

import hashlib
from typing import Protocol

from torch import Tensor

from branchynet.data.mapped import walk
from branchynet.errors import counted

NAMES = {"train": "training", "val": "validation", "test": "test", "calibration": "calibration"}
SHOWN = 8  # classes that are named


class Splits(Protocol):
    """What is looked at of a data set, such as `branchynet.data.module.ImageData`."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    def labels(self, which: str) -> Tensor: ...

    def images(self, which: str) -> Tensor: ...


def doubts(data: Splits) -> list[str]:
    """A sentence for each; nothing that is refused."""
    return [*_lacking(data), *_twice(data)]


def _lacking(data: Splits) -> list[str]:
    """Of the splits that accuracies are of."""
    found = []
    for which in ("val", "test"):
        counts = data.labels(which).flatten().bincount(minlength=len(data.classes)).tolist()
        counts = counts[: len(data.classes)]  # without pixels that are left out
        empty = [name for name, count in zip(data.classes, counts, strict=True) if not count]
        if empty:
            shown = ", ".join(empty[:SHOWN]) + (" …" if len(empty) > SHOWN else "")
            found.append(f"no {NAMES[which]} image is of {shown}: accuracy there says nothing of it")
    return found


def _twice(data: Splits) -> list[str]:
    """Images that are the same byte by byte, by their hashes: of all splits after the first that has them."""
    seen = {which: digests(data.images(which)) for which in ("train", "calibration", "val", "test")}
    known = {which: set(own) for which, own in seen.items()}
    pairs = (
        ("train", "val"),
        ("train", "test"),
        ("val", "test"),
        ("calibration", "val"),
        ("calibration", "test"),
    )
    found = []
    for first, second in pairs:
        count = sum(each in known[first] for each in seen[second])
        if count:
            are, images = "is" if count == 1 else "are", counted(len(seen[second]), f"{NAMES[second]} image")
            found.append(
                f"{count:,} of {images} {are} among the {NAMES[first]} images, too, byte by byte: what is known by "
                "heart flatters accuracy there"
            )
    return found


def digests(x: Tensor) -> list[bytes]:
    """A hash of every image of x (S, C, H, W) uint8, of all its bytes."""
    return [
        hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        for part in walk(x)
        for image in part.numpy()
    ]
