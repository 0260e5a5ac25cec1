"""A folder of image files, one folder for each class, as a data set.

S samples, C channels, H, W pixels, K classes. Images become bytes of one size, which is what a network sees.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from branchynet.data.files import FileProblem
from branchynet.data.image_files import ImageFiles
from branchynet.data.memory import available_memory, gib
from branchynet.data.pictures import endings, find_images, left_out, read_image
from branchynet.data.shares import by_shares
from branchynet.errors import (
    ArgumentError,
    UserError,
    check_choice,
    check_whole,
    counted,
    is_number,
    is_whole,
    not_allowed,
)

log = logging.getLogger(__name__)

SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
ON_ERROR = ("skip", "stop")
SHOWN = 3  # of the files that are named


@dataclass(frozen=True)
class FolderSettings:
    """How image files become a data set.

    Args:
        size: pixels, height and width: the shorter side is resized to it, and the middle is cut out; None: all
            files have one size.
        channels: 1 (grey) or 3 (colour).
        val_share, test_share: of each class's images, set aside where the folder has no such split.
        background: 0 (black) … 255 (white), below transparency.
        on_error: what becomes of a file that cannot be read: `skip` (named and counted) or `stop`.

    Raises:
        ArgumentError: an argument that is not allowed.
    """

    size: int | None = None
    channels: int = 3
    val_share: float = 0.15
    test_share: float = 0.15
    background: int = 255
    on_error: str = "skip"

    @property
    def rule(self) -> ImageFiles:
        """What becomes of a file's size, channels and transparency."""
        return ImageFiles(size="crop", background=(self.background,) * self.channels)

    def __post_init__(self) -> None:
        if self.size is not None:
            check_whole("size", self.size, hint=", of pixels")
        if self.channels not in (1, 3) or isinstance(self.channels, bool):
            raise not_allowed("channels", self.channels, "1 (grey) or 3 (colour)")
        for name in ("val_share", "test_share"):
            if not is_number(getattr(self, name)) or not 0 < getattr(self, name) < 0.5:
                raise not_allowed(name, getattr(self, name), "a share between 0 and 0.5")
        if not is_whole(self.background, 0) or self.background > 255:
            raise not_allowed("background", self.background, "0 (black) … 255 (white)")
        check_choice("on_error", self.on_error, ON_ERROR)


class FolderFiles(NamedTuple):
    """Image files by split, with their classes' numbers, and the classes' names."""

    files: Mapping[str, list[Path]]
    labels: Mapping[str, np.ndarray]
    classes: tuple[str, ...]


class FolderImages(NamedTuple):
    """The same, read: by split `train`, `val` and `test`, (S, C, H, W) uint8 and labels (S,) int64."""

    parts: Mapping[str, tuple[np.ndarray, np.ndarray]]
    classes: tuple[str, ...]


def read_folder(folder: Path, settings: FolderSettings, seed: int = 0) -> FolderImages:
    """Find, split and read all image files of a folder.

    Args:
        folder: it has `train/`, `val/` and `test/`, or some of them, with a folder for each class in them; or the
            folders of the classes themselves.
        settings: see there.
        seed: of drawing the splits that the folder does not have.

    Raises:
        UserError: no such folder, classes or images, more than fit into memory, or, with `on_error=stop`, a file
            that cannot be read.
    """
    found = find_files(folder, settings, seed)
    size = settings.size or _one_size([file for files in found.files.values() for file in files])
    height, width = (size, size) if isinstance(size, int) else size
    shape = (settings.channels, height, width)
    count = sum(map(len, found.files.values()))
    needed, memory = count * int(np.prod(shape)), available_memory()
    if needed > memory / 2:
        raise UserError(
            f"{count:,} images of {settings.channels}×{height}×{width} take {gib(needed)} of memory, and "
            f"{gib(memory)} are free here: make data.size smaller, or take fewer"
        )
    problems: list[FileProblem] = []
    parts = {}
    for split, files in found.files.items():
        images, label = _read(files, found.labels[split], shape, settings.rule, problems, settings.on_error)
        parts[split] = (images, label)
    _tell(folder, problems, count)
    missing = [split for split, (_, label) in parts.items() if not len(label)]
    if missing:
        raise UserError(f"{folder}: no image of {missing[0]} can be read")
    return FolderImages(parts, found.classes)


def find_files(folder: Path, settings: FolderSettings, seed: int = 0) -> FolderFiles:
    """The image files of a folder by split. Arguments as of `read_folder`."""
    if not folder.is_dir():
        raise UserError(
            f"data.path={folder}: there is no such folder; it has a folder of images for each class"
        )
    there = {
        split: next((folder / name for name in names if (folder / name).is_dir()), None)
        for split, names in SPLITS.items()
    }
    if there["train"] is None and (there["val"] or there["test"]):
        other = there["val"] or there["test"]
        raise UserError(
            f"{folder} has {other.name if other else ''}/ and no train/: put the other images there"
        )
    base = there["train"] or folder
    classes = tuple(sorted(path.name for path in _folders(base)))
    if len(classes) < 2:
        raise UserError(
            f"{base} has {counted(len(classes), 'folder')}: it has one for each class, 2 at least, with "
            "images in it"
        )
    files: dict[str, list[Path]] = {}
    labels: dict[str, np.ndarray] = {}
    for split, own in there.items():
        place = own or (folder if split == "train" else None)
        if place is None:
            continue
        unknown = sorted({path.name for path in _folders(place)} - set(classes))
        if unknown:
            raise UserError(f"{place} has a folder {unknown[0]}, which no class in {base} is called")
        files[split], numbers = [], []
        for number, name in enumerate(classes):
            own_files = _images(place / name)
            files[split] += own_files
            numbers += [number] * len(own_files)
        labels[split] = np.array(numbers, np.int64)
        _check_classes(place, labels[split], classes, split)
    for split, share in (("test", settings.test_share), ("val", settings.val_share)):
        if split not in files:
            _set_aside(files, labels, split, share, seed)
    return FolderFiles(files, labels, classes)


def _folders(folder: Path) -> list[Path]:
    try:
        return [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror})") from error


def _images(folder: Path) -> list[Path]:
    """Image files in a class's folder and below it; none where there is no such folder."""
    if not folder.is_dir():
        return []
    try:
        found = find_images(folder)
    except FileProblem:
        found = []
    if others := left_out(folder):
        log.warning("%s: left out are %s; read are %s", folder, others, ", ".join(endings()[:8]) + " …")
    return found


def _check_classes(place: Path, label: np.ndarray, classes: Sequence[str], split: str) -> None:
    """A class needs images to train on; elsewhere it is told."""
    empty = [name for number, name in enumerate(classes) if number not in label]
    if not empty:
        return
    text = f"{place} has no image of {', '.join(empty[:SHOWN])}{' …' if len(empty) > SHOWN else ''}"
    if split == "train":
        raise UserError(f"{text}: put some there, or remove the folder")
    log.warning("%s", text)


def _set_aside(
    files: dict[str, list[Path]], labels: dict[str, np.ndarray], split: str, share: float, seed: int
) -> None:
    """Move a share of each class's training images to another split."""
    label = labels["train"]
    # RandomState: NumPy's policy keeps its numbers for ever.
    order = by_shares(np.random.RandomState(seed).permutation(len(label)), label)
    count = max(1, round(share * len(label)))
    chosen = np.sort(order[:count])
    stays = np.setdiff1d(np.arange(len(label)), chosen)
    if not set(label) <= set(label[stays]):
        raise ArgumentError(
            f"{split}_share", f"={share}: it would leave a class without training images: take fewer"
        )
    names = files["train"]
    files[split], labels[split] = [names[n] for n in chosen], label[chosen]
    files["train"], labels["train"] = [names[n] for n in stays], label[stays]


def _one_size(files: Sequence[Path]) -> tuple[int, int]:
    """Height and width of all files, where they are the same."""
    sizes = set()
    for file in files:
        try:
            with Image.open(file) as image:
                sizes.add((image.height, image.width))
        except Exception:  # told when it is read
            continue
        if len(sizes) > 1:
            (a, b), (c, d) = sorted(sizes)
            raise UserError(
                f"the images are of several sizes, such as {a}×{b} and {c}×{d}: set data.size=<pixels>, to which "
                "they are brought"
            )
    if not sizes:
        raise UserError("none of the image files can be read")
    return sizes.pop()


def _read(
    files: Sequence[Path],
    label: np.ndarray,
    shape: tuple[int, int, int],
    rule: ImageFiles,
    problems: list[FileProblem],
    on_error: str,
) -> tuple[np.ndarray, np.ndarray]:
    """All files that can be read, decoded side by side: Pillow lets other threads run meanwhile."""
    images = np.empty((len(files), *shape), np.uint8)
    fine = np.zeros(len(files), bool)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for n, given in enumerate(pool.map(partial(_decoded, shape=shape, rule=rule), files)):
            if isinstance(given, FileProblem):
                if on_error == "stop":
                    pool.shutdown(cancel_futures=True)
                    raise UserError(f"{given}: mend or remove it, or data.on_error=skip leaves it out")
                problems.append(given)
            else:
                images[n], fine[n] = given, True
    return (images, label) if fine.all() else (images[fine], label[fine])


def _decoded(file: Path, shape: tuple[int, int, int], rule: ImageFiles) -> np.ndarray | FileProblem:
    try:
        return read_image(file, shape, rule)
    except FileProblem as problem:
        return problem


def _tell(folder: Path, problems: Sequence[FileProblem], count: int) -> None:
    if not problems:
        return
    named = "; ".join(str(problem) for problem in problems[:SHOWN])
    more = f"; and {len(problems) - SHOWN:,} more" if len(problems) > SHOWN else ""
    text = f"{len(problems):,} of {counted(count, 'image')} cannot be read and are left out: {named}{more}"
    log.warning("%s: %s", folder, text)
