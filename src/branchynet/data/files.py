"""Readers of the two file formats: MNIST's IDX (plain or .gz) and NumPy's .npz.

A file is someone else's: whatever is wrong with it becomes a `FileProblem` of one line, never a
traceback. S samples, H, W pixels, C channels.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


class FileProblem(Exception):
    """What is wrong with a file, in one line that names it."""


class NotThere(FileProblem):
    """Nothing is wrong with the file but that there is none."""


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Unsigned bytes of an IDX file with this number of dimensions (3: images (S, H, W); 1: labels (S,)).

    The four bytes of magic are 0, 0, 8 (unsigned byte) and the number of dimensions; the sizes follow,
    four bytes each, big-endian; then the values. Raises `FileProblem` unless all of that is so and the
    file is exactly as long as its header says.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise FileProblem(f"{path} cannot be read ({one_line(error)})") from error
    header = 4 + 4 * dimensions
    magic = bytes((0, 0, 8, dimensions))
    if len(raw) < header or raw[:4] != magic:
        raise FileProblem(f"{path} begins with {raw[:4].hex() or 'nothing'}, not with {magic.hex()}")
    sizes = [int(size) for size in np.frombuffer(raw[4:header], ">u4")]
    wanted = header + math.prod(sizes)
    if len(raw) != wanted:
        raise FileProblem(f"{path} has {len(raw)} bytes, its header says {wanted}")
    # The copy is writable, as torch.from_numpy wants it.
    return np.frombuffer(raw, np.uint8, offset=header).reshape(sizes).copy()


@dataclass(frozen=True)
class ArrayFile:
    """What an .npz file of images holds."""

    arrays: dict[str, np.ndarray]  # x_train, y_train, x_test, y_test
    classes: tuple[str, ...] | None  # names
    inexact: dict[str, np.ndarray]  # train, test: numbers of images that differ from the published ones


def read_npz(path: Path) -> ArrayFile:
    """The arrays x_train, y_train, x_test, y_test of an .npz file, and what it has beside them.

    Nothing is ever unpickled. Raises `FileProblem` if the file or one of the arrays cannot be read.
    """
    if not os.path.isfile(path):
        raise NotThere(f"{path} is not there")
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise FileProblem(f"{path} is no .npz file")
            missing = [name for name in ARRAYS if name not in file.files]
            if missing:
                raise FileProblem(f"{path} has no {', '.join(missing)}")
            arrays = {name: file[name] for name in ARRAYS}
            classes = tuple(str(name) for name in file["classes"]) if "classes" in file.files else None
            inexact = {part: _numbers(path, file, f"inexact_{part}") for part in ("train", "test")}
    except FileProblem:
        raise
    except Exception as error:  # a foreign zip file fails in a dozen ways, MemoryError among them
        raise FileProblem(f"{path} cannot be read ({one_line(error)})") from error
    return ArrayFile(arrays, classes, inexact)


def _numbers(path: Path, file: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    """The image numbers under this name, rising and each once, (I,) int64; none where there is no such array."""
    numbers = file[name] if name in file.files else np.empty(0, np.int64)
    if numbers.size and numbers.dtype.kind not in "iu":
        raise FileProblem(f"{path}: {name} is {numbers.dtype}, must be the numbers of images")
    return np.unique(numbers).astype(np.int64)


def one_line(error: Exception) -> str:
    """An exception's type and text on one line, cut after 160 characters."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__
