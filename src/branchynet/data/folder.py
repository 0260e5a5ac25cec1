"""A folder of image files, one folder for each class, as a data set.

S samples, C channels, H, W pixels, K classes. Images become bytes of one size, which is what a network sees.
"""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from branchynet.data.decode import Decoder, cores
from branchynet.data.decoded import Decoded, map_decoded, read_images
from branchynet.data.image_files import ImageFiles
from branchynet.data.memory import amount, available_memory
from branchynet.data.pictures import endings, image_names, in_words
from branchynet.data.shares import set_apart
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
KEEP = ("auto", "memory", "disk")
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
        keep: where decoded images are: in `memory`; on the `disk`, in a file that is made once and mapped into
            memory; `auto`: there if they take more than half of the memory that is free.
        cache: the folder of such files; None: see `map_decoded`.
        num_workers: processes that decode into such a file; None: as many as cores; 0: none.

    Raises:
        ArgumentError: an argument that is not allowed.
    """

    size: int | None = None
    channels: int = 3
    val_share: float = 0.15
    test_share: float = 0.15
    background: int = 255
    on_error: str = "skip"
    keep: str = "auto"
    cache: str | None = None
    num_workers: int | None = None

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
        check_choice("keep", self.keep, KEEP)
        if self.cache is not None and (not isinstance(self.cache, str) or not self.cache):
            raise not_allowed("cache", self.cache, "a folder, or null")


class FolderFiles(NamedTuple):
    """Image files by split, as they are called in the folder, their classes' numbers, and the classes' names."""

    files: Mapping[str, list[str]]
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

    Returns:
        Images in memory, or in a mapped file that cannot be written to.

    Raises:
        UserError: no such folder, classes or images, more than fit into memory or on the disk, or, with
            `on_error=stop`, a file that cannot be read.
    """
    found = find_files(folder, settings, seed)
    size = settings.size or _one_size(folder, [name for names in found.files.values() for name in names])
    height, width = (size, size) if isinstance(size, int) else size
    decoder = Decoder(folder, (settings.channels, height, width), settings.rule)
    count = sum(map(len, found.files.values()))
    if _fits_into_memory(decoder, count, settings.keep):
        decoded = read_images(decoder, found.files, settings.on_error)
    else:
        apart = (settings.val_share, settings.test_share, seed)
        processes = cores() if settings.num_workers is None else settings.num_workers
        cache = None if settings.cache is None else Path(settings.cache).expanduser()
        decoded = map_decoded(decoder, found.files, apart, cache, processes, settings.on_error)
    parts = {}
    for split, images in decoded.images.items():
        parts[split] = (images, np.delete(found.labels[split], decoded.missing[split]))
    _tell(folder, decoded, count)
    missing = [split for split, (_, label) in parts.items() if not len(label)]
    if missing:
        raise UserError(f"{folder}: no image of {missing[0]} can be read")
    return FolderImages(parts, found.classes)


def _fits_into_memory(decoder: Decoder, count: int, keep: str) -> bool:
    """Whether decoded images are kept in memory, said in a line; half of what is free is for them."""
    needed, free = count * math.prod(decoder.shape), available_memory()
    what = f"{count:,} images of {'×'.join(map(str, decoder.shape))} take {amount(needed)}"
    fits = needed <= free / 2
    if keep == "memory" and not fits:
        raise UserError(
            f"{what} of memory, and {amount(free)} are free here: set data.keep=disk, make data.size smaller, or "
            "take fewer"
        )
    if keep == "memory" or (keep == "auto" and fits):
        log.info("%s: %s and are kept in memory", decoder.folder, what)
        return True
    why = (
        "and are kept on the disk"
        if fits
        else f"and {amount(free)} of memory are free: they are kept on the disk"
    )
    log.info("%s: %s %s", decoder.folder, what, why)
    return False


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
    files: dict[str, list[str]] = {}
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
            own_files = _images(folder, place / name)
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


def _images(folder: Path, place: Path) -> list[str]:
    """Image files in a class's folder and below it, as they are called in `folder`; none where it is not there."""
    names, others = image_names(place) if place.is_dir() else ([], None)
    if others:
        log.warning(
            "%s: left out are %s; read are %s", place, in_words(others), ", ".join(endings()[:8]) + " …"
        )
    within = os.fspath(place.relative_to(folder))
    return [os.path.join(within, name) for name in names]


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
    files: dict[str, list[str]], labels: dict[str, np.ndarray], split: str, share: float, seed: int
) -> None:
    """Move a share of each class's training images to another split."""
    label = labels["train"]
    stays, chosen = set_apart(label, share, seed)
    if not set(label) <= set(label[stays]):
        raise ArgumentError(
            f"{split}_share", f"={share}: it would leave a class without training images: take fewer"
        )
    names = files["train"]
    files[split], labels[split] = [names[n] for n in chosen], label[chosen]
    files["train"], labels["train"] = [names[n] for n in stays], label[stays]


def _one_size(folder: Path, names: Sequence[str]) -> tuple[int, int]:
    """Height and width of all files, where they are the same."""
    sizes = set()
    for name in names:
        try:
            with Image.open(folder / name) as image:
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


def _tell(folder: Path, decoded: Decoded, count: int) -> None:
    number = sum(map(len, decoded.missing.values()))
    if not number:
        return
    named = "; ".join(decoded.problems[:SHOWN])
    more = f"; and {number - SHOWN:,} more" if number > SHOWN else ""
    text = f"{number:,} of {counted(count, 'image')} cannot be read and are left out: {named}{more}"
    log.warning("%s: %s", folder, text)
