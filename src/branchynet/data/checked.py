"""Images and labels, looked at: what every data set is made of, wherever it comes from.

S samples, C channels, H, W pixels, K classes. Images stay unsigned bytes, 0 (background) to 255.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from branchynet.data.files import FileProblem
from branchynet.data.mapped import forget, rows, tensor_of
from branchynet.data.maps import LEFT_OUT, MOST_CLASSES, TO_LEAVE_OUT, as_maps, without

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageSet:
    """x: images, (S, C, H, W) uint8; y: labels, (S,) int64, or of every pixel, (S, H, W) uint8; 0 … K-1.

    Of pixels also LEFT_OUT, which is no class: it does not count.
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def at(self, index: Tensor) -> ImageSet:
        """The images and labels at these places, copied; labels as int64, whatever they are kept as."""
        x = self.x.index_select(0, index)
        forget(self.x)
        return ImageSet(x, self.y.index_select(0, index).long())

    def part(self, index: Tensor) -> ImageSet:
        """The same for a part of any size, its places rising: of a mapped file it lies in a file, too."""
        return ImageSet(rows(self.x, index), self.y.index_select(0, index))

    def to(self, device: torch.device | str) -> ImageSet:
        """The set on a device; the same tensors if it is there already."""
        return ImageSet(self.x.to(device), self.y.to(device))


@dataclass(frozen=True)
class Dataset:
    """A training and a test set of equal image shape, and the K class names.

    `val` is the set's own validation set, None where it has none: then one is taken out of the training set.
    `inexact_train` and `inexact_test` are the numbers of images that differ from the published ones, where
    the file says so; (I,) int64.
    """

    name: str
    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    val: ImageSet | None = None
    inexact_train: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    inexact_test: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))


def build(
    name: str,
    parts: Mapping[str, tuple[np.ndarray, np.ndarray]],
    classes: tuple[str, ...] | None,
    source: str,
    called: Mapping[str, str] | None = None,
    ignore: int | None = None,
) -> Dataset:
    """Check images and labels, and make tensors of them.

    Args:
        name: of the set.
        parts: `train`, `test` and perhaps `val`: images uint8 (S, H, W), (S, C, H, W) or (S, H, W, C) with C ≤ 4,
            and labels, integers (S,) or (S, 1), or of every pixel, see `branchynet.data.maps.as_maps`.
        classes: the names of all classes; None: they are numbered.
        source: where all this comes from, for what is said of it.
        called: what `x_train`, `y_train` … are called there, if not so.
        ignore: the label of pixels that do not count; None: all count.

    Raises:
        FileProblem: they are anything else, or do not fit each other.
    """
    said = {f"{letter}_{part}": f"{letter}_{part}" for part in parts for letter in "xy"} | dict(called or {})
    for part, (x, _) in parts.items():
        if x.dtype != np.uint8:
            raise FileProblem(f"{source}: {said[f'x_{part}']} is {x.dtype}, must be uint8 (0 … 255)")
    images, labels = {}, {}
    of_pixels = parts["train"][1].ndim > 2
    for part, (x, y) in parts.items():
        images[part], what = _channels_first(x, source), f"{source}: {said[f'y_{part}']}"
        y = y if ignore is None else without(y, ignore, what)
        labels[part] = as_maps(y, images[part].shape[2:], what) if of_pixels else _one_label(y, what)
    counted = labels if ignore is None else {part: y[y != LEFT_OUT] for part, y in labels.items()}
    for part, x in images.items():
        if len(x) != len(labels[part]):
            raise FileProblem(
                f"{source}: {len(x)} images in {said[f'x_{part}']}, {len(labels[part])} labels in "
                f"{said[f'y_{part}']}"
            )
        if x.shape[1:] != images["train"].shape[1:]:
            shapes = f"{images['train'].shape[1:]} in {said['x_train']}, {x.shape[1:]} in {said[f'x_{part}']}"
            raise FileProblem(f"{source}: images are {shapes}")
    named = classes is not None
    if classes is None:
        # More classes than images: these are no class numbers.
        most = MOST_CLASSES if of_pixels else len(labels["train"])
        count = min(int(counted["train"].max()) + 1, most)
        classes = tuple(str(k) for k in range(count))
    if len(classes) < 2:
        raise FileProblem(f"{source}: {len(classes)} class, at least 2 are needed")
    top = len(classes) - 1
    if ignore is not None and top >= LEFT_OUT:
        raise FileProblem(f"{source}: {len(classes)} classes, with data.ignore there are at most {LEFT_OUT}")
    for part, y in counted.items():
        low, high = int(y.min()), int(y.max())
        more = TO_LEAVE_OUT if of_pixels and high == LEFT_OUT else ""
        if low < 0 or high > top:
            raise FileProblem(
                f"{source}: labels {low} … {high} in {said[f'y_{part}']}, allowed are 0 … {top}{more}"
            )
    _check_classes(counted["train"], classes, named, source, of_pixels)
    sets = {part: _image_set(x, labels[part]) for part, x in images.items()}
    return Dataset(name, sets["train"], sets["test"], classes, sets.get("val"))


def build_maps(
    name: str, parts: Mapping[str, tuple[np.ndarray, np.ndarray]], classes: tuple[str, ...]
) -> Dataset:
    """The same of labels for every pixel, for sets of our own: nothing is looked at.

    Args:
        name: of the set.
        parts: `train`, `test` and perhaps `val`: images (S, C, H, W) uint8, labels (S, H, W) uint8.
        classes: the names of all classes.
    """
    sets = {part: ImageSet(torch.from_numpy(x), torch.from_numpy(y)) for part, (x, y) in parts.items()}
    return Dataset(name, sets["train"], sets["test"], classes, sets.get("val"))


def _check_classes(
    y: np.ndarray, classes: tuple[str, ...], named: bool, source: str, of_pixels: bool
) -> None:
    """A FileProblem where classes that nobody has named have no training image, a warning where they have names."""
    there = set(np.unique(y).tolist())
    empty = [name for k, name in enumerate(classes) if k not in there]
    if not empty:
        return
    shown = ", ".join(empty[:8]) + (" …" if len(empty) > 8 else "")
    what = f"no training {'pixel' if of_pixels else 'image'} is of {'class ' * (len(empty) == 1)}{shown}"
    if named:
        log.warning("%s: %s", source, what)
        return
    cure = "the labels seem to begin at 1: subtract 1" if empty == ["0"] else "number the classes 0 … K-1"
    more = TO_LEAVE_OUT if of_pixels and LEFT_OUT in there else ""
    raise FileProblem(f"{source}: {what}; {cure}, or name all of them by data.classes{more}")


def _one_label(y: np.ndarray, what: str) -> np.ndarray:
    """Integers (S,) or, as Keras and MedMNIST have them, (S, 1), as (S,)."""
    whole = y.dtype.kind in "iu"
    if whole and y.ndim == 2 and y.shape[1] == 1:
        return y[:, 0]
    if y.ndim == 2 and y.shape[1] > 1 and (y == 1).sum() + (y == 0).sum() == y.size:
        if (y.sum(axis=1) == 1).all():
            raise FileProblem(
                f"{what} is {y.dtype} {y.shape}, one column for each class: store y.argmax(axis=1)"
            )
        raise FileProblem(
            f"{what} is {y.dtype} {y.shape}, several labels for an image: exits answer with one class, so every "
            "image needs one label"
        )
    if not whole or y.ndim != 1:
        raise FileProblem(
            f"{what} is {y.dtype} {y.shape}, must be integers of shape (S,) or (S, 1), or (S, H, W) of every pixel"
        )
    return y


def _channels_first(x: np.ndarray, source: str) -> np.ndarray:
    """(S, H, W), (S, C, H, W) or (S, H, W, C) with C ≤ 4, as (S, C, H, W)."""
    if x.size and x.ndim == 3:
        return x[:, None]
    if x.size and x.ndim == 4 and x.shape[1] <= 4:
        return x
    if x.size and x.ndim == 4 and x.shape[3] <= 4:
        return x.transpose(0, 3, 1, 2)
    allowed = "(S, H, W), (S, H, W, C) or (S, C, H, W) with C ≤ 4"
    raise FileProblem(f"{source}: images of shape {x.shape}, must be {allowed}")


def _image_set(x: np.ndarray, y: np.ndarray) -> ImageSet:
    kept = y.astype(np.int64 if y.ndim == 1 else np.uint8, copy=False)
    return ImageSet(tensor_of(np.ascontiguousarray(x)), torch.from_numpy(np.ascontiguousarray(kept)))
