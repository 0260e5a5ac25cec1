"""Images in a file that may be larger than memory: an array like any other, read where it is looked at.

What was read counts as this process's memory until the system wants it back, or until `forget`. Whoever looks at
all images does so by `walk`, which forgets. S samples, C channels, H, W pixels.
"""

import math
import mmap
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from branchynet.data.memory import check_disk
from branchynet.errors import UserError

STEP = 2**25  # bytes of images that are looked at together

T = TypeVar("T")


class Mapping(mmap.mmap):
    """A file in memory, which lies in a folder."""

    folder: Path


# By the place in memory where its array begins; it goes when the array goes.
_MAPPINGS: WeakValueDictionary[int, Mapping] = WeakValueDictionary()


def map_images(file: BinaryIO, folder: Path, shape: tuple[int, ...], start: int = 0) -> np.ndarray:
    """The bytes of a file from place `start` on as an array of this shape, which cannot be written to."""
    if not math.prod(shape):
        return np.empty(shape, np.uint8)
    mapping = Mapping(file.fileno(), 0, access=mmap.ACCESS_READ)
    mapping.folder = folder
    values = np.frombuffer(mapping, np.uint8, math.prod(shape), start).reshape(shape)
    _MAPPINGS[values.ctypes.data] = mapping
    return values


def tensor_of(values: np.ndarray) -> Tensor:
    """The same memory as a tensor; that of a mapped file must not be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)


def is_mapped(x: Tensor) -> bool:
    """Whether x (S, …), or what it is a part of, lies in a mapped file."""
    return _mapping(x) is not None


def forget(x: Tensor) -> None:
    """Give the memory back into which parts of a mapped file were read; of other tensors nothing is done."""
    mapping = _mapping(x)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def walk(x: Tensor, step: int = STEP) -> Iterator[Tensor]:
    """x (S, …) in parts of about so many bytes, 1 of S at least."""
    size = max(1, step // max(1, x[:1].nbytes))
    for start in range(0, len(x), size):
        yield x[start : start + size]
        forget(x)


def forgetting(x: Tensor, items: Iterable[T]) -> Iterator[T]:
    """The same items, each of which is what was made of a part of x; see `forget`."""
    for item in items:
        yield item
        forget(x)


def rows(x: Tensor, index: Tensor) -> Tensor:
    """A copy of x (S, C, H, W) at these places, rising; of a mapped file in another, which this process alone sees.

    Raises:
        UserError: the folder of the file, or of temporary files, has no room for it.
    """
    mapping = _mapping(x)
    if mapping is None:
        return x.index_select(0, index)
    shape = (len(index), *x.shape[1:])
    # Where others have made the file, its folder may be theirs.
    folder = mapping.folder if os.access(mapping.folder, os.W_OK) else Path(tempfile.gettempdir())
    check_disk(folder, math.prod(shape), f"a part of {len(index):,} images", "data.cache=<folder>")
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for part in index.split(max(1, STEP // x[:1].nbytes)):
                file.write(x.index_select(0, part).numpy().data)
                forget(x)
            file.flush()
            return tensor_of(map_images(file, folder, shape))
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}), and a part of the images would lie there: set "
            "data.cache=<folder>"
        ) from error


def _mapping(x: Tensor) -> Mapping | None:
    return _MAPPINGS.get(x.untyped_storage().data_ptr()) if x.device.type == "cpu" else None
