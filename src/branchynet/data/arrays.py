"""Images and labels as arrays in one .npz file, under the names that people give them.

S samples, C channels, H, W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from branchynet.data.checked import Dataset, build
from branchynet.data.files import ARRAYS, OWN_VALIDATION, FileProblem, read_npz
from branchynet.data.maps import check_ignore
from branchynet.errors import ArgumentError, not_allowed

NAMED = (*ARRAYS, *OWN_VALIDATION, "classes")


@dataclass(frozen=True)
class ArraySettings:
    """How an .npz file becomes a data set.

    Args:
        keys: what arrays of the file are called, by what they are: `{x_train: photos, y_train: kinds}`; those that
            are left out have their own names. None: those of Keras (`x_train` …) or of MedMNIST (`train_images` …),
            whichever there are.
        ignore: the label of pixels that do not count, of labels of every pixel; None: all count.

    Raises:
        ArgumentError: names of something else.
    """

    keys: Mapping[str, str] | None = None
    ignore: int | None = None

    def __post_init__(self) -> None:
        check_ignore(self.ignore)
        if self.keys is None:
            return
        if not isinstance(self.keys, Mapping):
            raise not_allowed("keys", self.keys, "null or such as {x_train: photos, y_train: kinds}")
        for name, key in self.keys.items():
            if name not in NAMED:
                raise ArgumentError("keys", f".{name} is unknown; there are {', '.join(NAMED)}")
            if not isinstance(key, str) or not key:
                raise not_allowed(f"keys.{name}", key, "the name of an array in the file")


def read_arrays(
    name: str, path: Path, settings: ArraySettings, classes: tuple[str, ...] | None = None
) -> Dataset:
    """The data set in an .npz file.

    Args:
        name: what it is called.
        path: the file: images uint8 (S, H, W), (S, H, W, C) or (S, C, H, W) with C ≤ 4; labels integers (S,) or
            (S, 1); perhaps validation images, class names, and the numbers of images that differ from the published
            ones, see `branchynet.data.files.read_npz`.
        settings: what the arrays are called.
        classes: the classes' names; None: the file's.

    Raises:
        FileProblem: no such file, a damaged one, or other arrays.
    """
    file = read_npz(path, settings.keys)
    dataset = build(name, file.parts, classes or file.classes, str(path), file.names, settings.ignore)
    for part, images in (("train", dataset.train), ("test", dataset.test)):
        inexact = file.inexact[part]
        if len(inexact) and not 0 <= inexact.min() <= inexact.max() < len(images):
            raise FileProblem(f"{path}: inexact_{part} names images that are not there")
    return replace(
        dataset,
        inexact_train=torch.from_numpy(file.inexact["train"]),
        inexact_test=torch.from_numpy(file.inexact["test"]),
    )
