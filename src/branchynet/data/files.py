"""Readers of the two file formats: MNIST's IDX (plain or .gz) and NumPy's .npz.

A file is someone else's: whatever is wrong with it becomes a `FileProblem` of one line, never a
traceback. How large the contents are is known before they are read: a small packed file may hold
more than any machine has. S samples, H, W pixels, C channels.
"""

from __future__ import annotations

import gzip
import io
import math
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from branchynet.data.memory import available_memory, gib
from branchynet.errors import ArgumentError, not_allowed, reason_of
from branchynet.regular import check_regular, read_regular

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
OWN_VALIDATION = ("x_val", "y_val")
# What arrays of images and labels are called: ours, which are Keras', and MedMNIST's.
LAYOUTS = (
    {name: name for name in (*ARRAYS, *OWN_VALIDATION)},
    {
        f"{short}_{part}": f"{part}_{long}"
        for part in ("train", "test", "val")
        for short, long in (("x", "images"), ("y", "labels"))
    },
)
INEXACT = ("inexact_train", "inexact_test")
HEADER = 10_100  # bytes; NumPy takes none above 10,000
MOST_CLASSES = 100_000  # names
MOST_TOLD = 12  # arrays of a file


class FileProblem(Exception):
    """What is wrong with a file, in one line that names it."""


class NotThere(FileProblem):
    """Nothing is wrong with the file but that there is none."""


class NamedOtherwise(FileProblem):
    """Nothing is wrong with the file but that its arrays have other names."""


class TooLarge(FileProblem):
    """Nothing is wrong with the file but that this machine's memory does not hold it."""


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Unsigned bytes of an IDX file with this number of dimensions (3: images (S, H, W); 1: labels (S,)).

    The four bytes of magic are 0, 0, 8 (unsigned byte) and the number of dimensions; the sizes follow,
    four bytes each, big-endian; then the values. Raises `FileProblem` unless all of that is so and the
    file is exactly as long as its header says.
    """
    check_there(path)
    length = 4 + 4 * dimensions
    magic = bytes((0, 0, 8, dimensions))
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if packed else path.open("rb") as stream:
            header = stream.read(length)
            if len(header) < length or header[:4] != magic:
                raise FileProblem(
                    f"{path} begins with {header[:4].hex() or 'nothing'}, not with {magic.hex()}"
                )
            sizes = [int(size) for size in np.frombuffer(header[4:], ">u4")]
            wanted = math.prod(sizes)
            found = wanted if packed else path.stat().st_size - length
            if found == wanted:
                check_fits(path, 2 * wanted)  # twice: below they are copied
                values = stream.read(wanted + 1)  # no byte of what may follow is unpacked
                found = len(values)
    except FileProblem:
        raise
    except Exception as error:  # no permission, a damaged .gz, MemoryError
        raise FileProblem(f"{path} cannot be read ({kind_and_reason(error)})") from error
    if found != wanted:
        more = " or more" if packed and found > wanted else ""
        raise FileProblem(f"{path} has {length + found} bytes{more}, its header says {length + wanted}")
    # The copy is writable, as torch.from_numpy wants it.
    return np.frombuffer(values, np.uint8).reshape(sizes).copy()


@dataclass(frozen=True)
class ArrayFile:
    """What an .npz file of images holds."""

    parts: dict[str, tuple[np.ndarray, np.ndarray]]  # images and labels of train, test and perhaps val
    names: dict[str, str]  # what x_train, y_train … are called in the file
    classes: tuple[str, ...] | None  # names
    inexact: dict[str, np.ndarray]  # train, test: numbers of images that differ from the published ones


def read_npz(path: Path, keys: Mapping[str, str] | None = None) -> ArrayFile:
    """Images and labels of an .npz file, and what it has beside them.

    Nothing is ever unpickled. Raises `FileProblem` if the file or one of the arrays cannot be read.

    Args:
        path: the file.
        keys: what x_train, y_train, x_test, y_test, x_val, y_val and classes are called in it; None: as in one of
            LAYOUTS.
    """
    check_there(path)
    try:
        with zipfile.ZipFile(path) as archive:
            there = {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}
            called = _called(path, there, keys)
            beside = {"classes": (keys or {}).get("classes", "classes"), **{name: name for name in INEXACT}}
            called |= {name: key for name, key in beside.items() if key in there}
            sizes = {name: _size(path, archive, key) for name, key in called.items()}
            check_fits(path, _peak(sizes))
            arrays = {name: _array(path, archive, key) for name, key in called.items()}
    except FileProblem:
        raise
    except OSError as error:
        raise FileProblem(f"{path} cannot be read ({kind_and_reason(error)})") from error
    except Exception as error:  # a foreign zip file fails in a dozen ways, MemoryError among them
        raise FileProblem(
            f"{path} cannot be read: it is no .npz file, or a damaged one ({kind_and_reason(error)})"
        ) from error
    parts = ("train", "test", "val") if "x_val" in called else ("train", "test")
    return ArrayFile(
        parts={part: (arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in parts},
        names={name: key for name, key in called.items() if name not in beside},
        classes=_names(path, arrays["classes"]) if "classes" in arrays else None,
        inexact={name.removeprefix("inexact_"): _numbers(path, arrays, name) for name in INEXACT},
    )


def _called(path: Path, there: set[str], keys: Mapping[str, str] | None) -> dict[str, str]:
    """What the file calls x_train, y_train …, those of validation among them only where it has them."""
    layouts = (
        [{**LAYOUTS[0], **{name: key for name, key in keys.items() if name in LAYOUTS[0]}}]
        if keys
        else LAYOUTS
    )
    # The one of which most is there, so that what is said to be missing is missed.
    layout = max(layouts, key=lambda layout: len(there & set(layout.values())))
    own = any(layout[name] in there for name in OWN_VALIDATION)
    own = own or any(name in (keys or ()) for name in OWN_VALIDATION)
    needed = (*ARRAYS, *OWN_VALIDATION) if own else ARRAYS
    missing = [layout[name] for name in needed if layout[name] not in there]
    if keys and "classes" in keys and keys["classes"] not in there:
        missing.append(keys["classes"])
    if missing:
        has = ", ".join(sorted(there)[:MOST_TOLD]) + (" …" if len(there) > MOST_TOLD else "")
        raise NamedOtherwise(f"{path} has no {', '.join(missing)}; it has {has or 'no arrays'}")
    return {name: layout[name] for name in needed}


def check_there(path: Path) -> None:
    """Raises `NotThere` unless `path` is a file with an end, not a folder, a pipe or a device."""
    try:
        check_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        raise NotThere(f"{path} is not there") from None
    except ValueError as error:
        raise NotThere(f"{path} cannot be read ({error})") from None
    except OSError as error:
        raise NotThere(f"{path} cannot be read ({kind_and_reason(error)})") from error


def check_fits(path: Path, needed: int) -> None:
    """Raises `TooLarge` if the contents need more bytes than this machine has."""
    free = available_memory()
    if needed > free:
        raise TooLarge(f"{path} needs {gib(needed)} of memory, and {gib(free)} are free here")


def _size(path: Path, archive: zipfile.ZipFile, name: str) -> int:
    """The bytes of an array, as its header says; no more than the header is unpacked."""
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # The others may ask for gigabytes to unpack a single byte; NumPy writes none of them.
        raise FileProblem(f"{path}: {name} is packed in another way than by np.savez_compressed")
    with archive.open(info) as member:
        start = io.BytesIO(member.read(HEADER))
    version = np.lib.format.read_magic(start)
    if version not in ((1, 0), (2, 0)):
        raise FileProblem(f"{path}: {name} has format {version}, which holds no plain arrays")
    read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
    shape, _, dtype = read(start)
    if dtype.hasobject:
        raise FileProblem(f"{path}: {name} holds Python objects, which are not unpickled: store plain arrays")
    return math.prod(shape) * max(dtype.itemsize, 1)


def _peak(sizes: Mapping[str, int]) -> int:
    """The bytes that a run needs at its height, from those of the arrays: the training images are copied once, as
    validation images are taken out."""
    return sum(sizes.values()) + sizes["x_train"]


def _array(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(f"{name}.npy") as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
        # Read to the end: only there the checksum is looked at.
        if member.read(1):
            raise FileProblem(f"{path}: {name} is longer than its header says")
    return array


def class_names(value: Any) -> tuple[str, ...] | None:
    """The names of a setting `classes`: a list of them, a text file with one in each line, or None for none.

    Raises:
        ArgumentError: anything else, a file that cannot be read, or a name that stands there twice.
    """
    if value is None:
        return None
    if isinstance(value, str):
        path = Path(value).expanduser()
        try:
            lines = read_regular(path).decode().rstrip().splitlines()
        except (OSError, ValueError) as error:
            raise ArgumentError(
                "classes", f"={value}: it cannot be read ({kind_and_reason(error)})"
            ) from error
        names = [line.strip() for line in lines]
    elif isinstance(value, Sequence) and all(isinstance(name, str | int) for name in value):
        names = [str(name) for name in value]
    else:
        raise not_allowed("classes", value, "null, a list of names, or a text file with a name in each line")
    empty = next((number for number, name in enumerate(names, 1) if not name), None)
    if not names or empty is not None:
        raise ArgumentError(
            "classes", f"={value}: " + (f"name {empty} is empty" if names else "it has no names")
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ArgumentError("classes", f"={value}: it has {twice[0]!r} twice")
    return tuple(names)


def _names(path: Path, classes: np.ndarray) -> tuple[str, ...]:
    """The classes' names, each once."""
    if classes.ndim != 1 or classes.dtype.kind not in "USiu":
        raise FileProblem(f"{path}: classes is {classes.dtype} {classes.shape}, must be text of shape (K,)")
    if len(classes) > MOST_CLASSES:
        raise FileProblem(f"{path}: classes has {len(classes)} names, more than {MOST_CLASSES}")
    if classes.dtype.kind == "S":
        classes = np.char.decode(classes, "utf-8", "replace")
    names = tuple(str(name) for name in classes)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise FileProblem(f"{path}: classes has {twice[0]!r} twice")
    return names


def _numbers(path: Path, arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """The image numbers under this name, rising and each once, (I,) int64; none where there is no such array."""
    numbers = arrays.get(name, np.empty(0, np.int64))
    if numbers.size and numbers.dtype.kind not in "iu":
        raise FileProblem(f"{path}: {name} is {numbers.dtype}, must be the numbers of images")
    return np.unique(numbers).astype(np.int64)


def kind_and_reason(error: Exception) -> str:
    """An exception's type and text on one line, cut after 160 characters."""
    reason = reason_of(error)
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__
