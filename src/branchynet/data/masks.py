"""A folder of image files with a mask for each, the class of every pixel, as a data set of maps.

S samples, C channels, H, W pixels. Images and masks become one size together.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from branchynet.data.decode import told
from branchynet.data.files import FileProblem, TooLarge
from branchynet.data.folder import SPLITS, FolderSettings
from branchynet.data.image_files import ImageFiles
from branchynet.data.maps import LEFT_OUT, MOST_CLASSES, TO_LEAVE_OUT, check_ignore
from branchynet.data.memory import amount, available_memory
from branchynet.data.pictures import image_names, in_shape, upright
from branchynet.data.shares import set_apart
from branchynet.errors import ArgumentError, UserError, counted, is_whole, not_allowed

log = logging.getLogger(__name__)

SHOWN = 12  # values that are named


@dataclass(frozen=True)
class MaskSettings:
    """How image files and their masks become a data set.

    Args:
        images, masks: the folders' names: `images/a.jpg` has the mask `masks/a.png`, in any format without loss.
        values: what pixels of masks are, in the order of the classes; None: the classes' numbers.
        ignore: what pixels are that do not count; None: all count.
        size, channels, val_share, test_share, background: as of `FolderSettings`.

    Raises:
        ArgumentError: an argument that is not allowed.
    """

    images: str = "images"
    masks: str = "masks"
    values: Sequence[int] | None = None
    ignore: int | None = None
    size: int = 64
    channels: int = 3
    val_share: float = 0.15
    test_share: float = 0.15
    background: int = 255

    def __post_init__(self) -> None:
        check_ignore(self.ignore)
        FolderSettings(self.size, self.channels, self.val_share, self.test_share, self.background)
        if self.size is None:
            raise not_allowed("size", self.size, "a whole number above 0, of pixels")
        for name in ("images", "masks"):
            given = getattr(self, name)
            if not isinstance(given, str) or given != Path(given).name:
                raise not_allowed(name, given, "the name of a folder in data.path")
        if self.values is None:
            return
        given = self.values
        whole = isinstance(given, Sequence) and all(
            is_whole(each, 0) and each < MOST_CLASSES for each in given
        )
        if not whole or len(set(given)) < max(2, len(given)):
            raise not_allowed("values", given, "null or a list of different values, 0 … 255, such as [0,255]")
        if self.ignore in given:
            raise ArgumentError("ignore", f"={self.ignore}: it is one of data.values, which are the classes")

    @property
    def rule(self) -> ImageFiles:
        """What becomes of an image's size, channels and transparency."""
        return ImageFiles(size="crop", background=(self.background,) * self.channels)


Parts = dict[str, tuple[np.ndarray, np.ndarray]]


def read_masks(folder: Path, settings: MaskSettings, named: bool, seed: int = 0) -> Parts:
    """Find, split and read all images and masks of a folder.

    Args:
        folder: it has `train/images/` and `train/masks/`, perhaps the same of `val/` and `test/`; or
            `images/train/` and `masks/train/` …; or `images/` and `masks/` alone.
        settings: see there.
        named: whether the classes have names: then some of them may be nowhere.
        seed: of drawing the splits that the folder does not have.

    Returns:
        By split, `train`, `val` and `test`, images (S, C, H, W) uint8 and the class of every pixel (S, H, W) uint8.

    Raises:
        UserError: no such folders, an image without a mask, or values that are no class numbers.
        FileProblem: a file that cannot be read, or more than fit into memory.
    """
    pairs = _find(folder, settings)
    count, pixels = sum(map(len, pairs.values())), settings.size**2
    needed, free = 2 * count * (settings.channels + 1) * pixels, available_memory()
    if needed > free:  # twice: splits are taken apart
        raise TooLarge(
            f"{counted(count, 'image')} with masks in {folder} need {amount(needed)} of memory, and {amount(free)} "
            "are free here"
        )
    log.info("%s: reading %s with masks", folder, counted(count, "image"))
    parts = {split: _read(own, settings) for split, own in pairs.items()}
    for split, share in (("test", settings.test_share), ("val", settings.val_share)):
        if split not in parts:
            x, y = parts["train"]
            if len(y) < 2:
                raise UserError(
                    f"{folder}: the training images are too few for {split} images: put some there"
                )
            stays, chosen = set_apart(np.zeros(len(y), np.int64), share, seed)
            parts["train"], parts[split] = (x[stays], y[stays]), (x[chosen], y[chosen])
    if settings.values is None and not named:
        _check_numbers(folder, [y for _, y in parts.values()], settings.ignore)
    return parts


def _find(folder: Path, settings: MaskSettings) -> dict[str, list[tuple[Path, Path]]]:
    """By split, images and their masks."""
    found = {}
    for split, names in SPLITS.items():
        ways = [(folder / name / settings.images, folder / name / settings.masks) for name in names]
        ways += [(folder / settings.images / name, folder / settings.masks / name) for name in names]
        way = next((each for each in ways if each[0].is_dir()), None)
        if way is not None:
            found[split] = _pairs(*way)
    if "train" not in found:
        own, masks = folder / settings.images, folder / settings.masks
        if found or not own.is_dir() or not masks.is_dir():
            raise UserError(
                f"data.path={folder}: it has neither {settings.images}/ and {settings.masks}/, nor train/"
                f"{settings.images}/ and train/{settings.masks}/, with an image and a mask of one name in them; "
                "data.images and data.masks say what these folders are called"
            )
        found["train"] = _pairs(own, masks)
    return found


def _pairs(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Each image of a folder, and of folders below it, with the mask of its name without the ending."""
    if not masks.is_dir():
        raise UserError(f"{images} has no masks: there is no folder {masks}")
    there = {os.path.splitext(name)[0]: name for name in image_names(masks)[0]}
    found = []
    for name in image_names(images)[0]:
        own = there.get(os.path.splitext(name)[0])
        if own is None:
            raise UserError(
                f"{images / name} has no mask: wanted is {masks / os.path.splitext(name)[0]}.png, or another "
                "ending of a picture"
            )
        found.append((images / name, masks / own))
    if not found:
        raise UserError(f"{images} has no images")
    return found


def _read(pairs: Sequence[tuple[Path, Path]], settings: MaskSettings) -> tuple[np.ndarray, np.ndarray]:
    shape = (settings.channels, settings.size, settings.size)
    x, y = np.empty((len(pairs), *shape), np.uint8), np.empty((len(pairs), *shape[1:]), np.uint8)
    for number, (path, mask_path) in enumerate(told(pairs, len(pairs))):
        image, mask = upright(path), read_mask(mask_path)
        if image.size != mask.size:
            raise FileProblem(
                f"{mask_path} is {mask.height}×{mask.width}, its image {image.height}×{image.width}: they show the "
                "same"
            )
        x[number] = in_shape(image, path, shape, settings.rule)
        # As an image is brought to its size, but no two classes are mixed.
        values = np.asarray(ImageOps.fit(mask, shape[1:], Image.Resampling.NEAREST))
        y[number] = _numbered(values, settings, mask_path)
        if settings.ignore is not None and (y[number] == LEFT_OUT).all():
            raise FileProblem(
                f"{mask_path}: in the middle that is cut out no pixel counts: take the image out"
            )
    return x, y


def read_mask(path: Path) -> Image.Image:
    """A mask as a picture of bytes: what is stored of each pixel, grey, black and white, or a palette's number.

    Raises:
        FileProblem: no picture, a damaged one, or one that is in colour or has larger values.
    """
    image = upright(path)
    values = np.asarray(image)
    if values.ndim == 3:
        colours = values[..., :3] if image.mode in ("RGB", "RGBA") else values[..., :1]
        if (colours != colours[..., :1]).any():
            raise FileProblem(
                f"{path} is in colour: a mask has a class's number in each pixel, grey or with a palette"
            )
        values = colours[..., 0]
    if values.dtype.kind not in "uib" or values.min() < 0 or values.max() >= MOST_CLASSES:
        raise FileProblem(f"{path} has values beyond 0 … {MOST_CLASSES - 1} ({image.mode})")
    return Image.fromarray(values.astype(np.uint8))


def _numbered(values: np.ndarray, settings: MaskSettings, path: Path) -> np.ndarray:
    """The class of each value, LEFT_OUT for those that do not count."""
    places = np.arange(MOST_CLASSES)
    said = "a class's number, as another value is ignored: list the classes by data.values"
    if settings.values is not None:
        order = list(settings.values)
        places[:] = -1
        places[order] = np.arange(len(order))
        said = f"none of data.values={order}"
    elif settings.ignore is not None:
        places[LEFT_OUT] = -1
    if settings.ignore is not None and 0 <= settings.ignore < MOST_CLASSES:
        places[settings.ignore] = LEFT_OUT
    found = places[values]
    if (found < 0).any():
        raise FileProblem(f"{path} has the value {values[found < 0][0]}, which is {said}")
    return found


def _check_numbers(folder: Path, maps: Sequence[np.ndarray], ignore: int | None) -> None:
    """A UserError where values are left out between 0 and the largest."""
    there = np.unique(np.concatenate([np.unique(each) for each in maps])).tolist()
    if ignore is not None and LEFT_OUT in there:
        there.remove(LEFT_OUT)
    if there == list(range(len(there))):
        return
    shown = ", ".join(map(str, there[:SHOWN]))
    if len(there) > SHOWN:
        cure = "masks of a lossy format, as JPEG, are smeared: take PNG; or list all values by data.values"
        raise UserError(
            f"{folder}: the masks have {len(there)} values, {shown} …, which are not 0 … K-1: {cure}"
        )
    raise UserError(
        f"{folder}: the masks' values are {shown}, which are not 0 … K-1: list them in the order of the classes, "
        f"data.values=[{shown.replace(' ', '')}]"
        + (TO_LEAVE_OUT if LEFT_OUT in there and len(there) > 2 else "")
    )
