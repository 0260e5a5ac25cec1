"""Data sets of torchvision by the names of their classes: opened by what their constructors take.

S samples, C channels, H, W pixels.
"""

from __future__ import annotations

import inspect
import logging
import math
import operator
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from branchynet.data.files import FileProblem, NotThere, TooLarge, kind_and_reason
from branchynet.data.folder import FolderSettings
from branchynet.data.image_files import ImageFiles
from branchynet.data.memory import amount, available_memory
from branchynet.data.pictures import in_shape
from branchynet.data.published import downloading
from branchynet.data.shares import set_apart
from branchynet.errors import ArgumentError, UserError, counted, not_allowed

log = logging.getLogger(__name__)

# Those that give a picture and one class with it; the others are of other tasks.
KNOWN = (
    *(
        "CIFAR10",
        "CIFAR100",
        "CLEVRClassification",
        "Caltech101",
        "Caltech256",
        "Country211",
        "DTD",
        "EMNIST",
    ),
    *("EuroSAT", "FER2013", "FGVCAircraft", "FakeData", "FashionMNIST", "Flowers102", "Food101", "GTSRB"),
    *("INaturalist", "ImageNet", "Imagenette", "KMNIST", "LFWPeople", "MNIST", "Omniglot", "OxfordIIITPet"),
    *("PCAM", "Places365", "QMNIST", "RenderedSST2", "SEMEION", "STL10", "SUN397", "SVHN", "StanfordCars"),
    "USPS",
)
# What the splits are called by constructors that take `split`; of several names the first that there is.
SPLITS = {"train": ("train", "trainval", "train-standard"), "val": ("val", "valid"), "test": ("test",)}


@dataclass(frozen=True)
class TorchvisionSettings:
    """Which set, and how its pictures become images of one size.

    Args:
        dataset: the name of its class in torchvision.datasets.
        options: further arguments of that class, such as EMNIST's `{split: letters}`; None: none.
        splits: what `train`, `val` and `test` are called there; None: as in SPLITS.
        size, val_share, test_share, background: as of `FolderSettings`; the shares are of what the set calls
            training images.
        channels: 1 (grey) or 3 (colour); None: as the first picture is.

    Raises:
        ArgumentError: an argument that is not allowed.
    """

    dataset: str | None = None
    options: Mapping[str, Any] | None = None
    splits: Mapping[str, str] | None = None
    size: int | None = None
    channels: int | None = None
    val_share: float = 0.15
    test_share: float = 0.15
    background: int = 255

    def __post_init__(self) -> None:
        FolderSettings(self.size, self.channels or 3, self.val_share, self.test_share, self.background)
        if self.dataset is not None and self.dataset not in KNOWN:
            raise not_allowed("dataset", self.dataset, f"a set for classification, one of {', '.join(KNOWN)}")
        if self.options is not None and not isinstance(self.options, Mapping):
            raise not_allowed("options", self.options, "null or a mapping, such as {split: letters}")
        if self.splits is None:
            return
        if not isinstance(self.splits, Mapping) or not {"train"} <= set(self.splits) <= set(SPLITS):
            raise not_allowed("splits", self.splits, "null or such as {train: train, val: valid, test: test}")

    @property
    def rule(self) -> ImageFiles:
        """What becomes of a picture's size, channels and transparency."""
        return ImageFiles(size="crop", background=(self.background,) * (self.channels or 3))


Parts = dict[str, tuple[np.ndarray, np.ndarray]]


def read_torchvision(
    settings: TorchvisionSettings, root: Path, download: bool, seed: int = 0
) -> tuple[Parts, tuple[str, ...] | None]:
    """All pictures of a set, and its classes' names, None where it has none.

    Args:
        settings: see there.
        root: the folder in which torchvision looks.
        download: whether torchvision may download what is not there.
        seed: of drawing the splits that the set does not have.

    Returns:
        By split, `train`, `val` and `test`, images (S, C, H, W) uint8 and labels (S,).

    Raises:
        UserError: no such set, or arguments that it does not take.
        FileProblem: it is not there, damaged, larger than the memory, or not of one class for a picture.
    """
    if settings.dataset is None:
        raise UserError(f"data=torchvision needs data.dataset=<name>; there are {', '.join(KNOWN)}")
    opened = _open(settings, root, download)
    count = sum(map(len, opened.values()))
    first, _ = _item(settings.dataset, opened["train"], "train", 0)
    channels = settings.channels or (1 if first.mode in ("1", "L", "LA") else 3)
    height, width = (settings.size, settings.size) if settings.size else (first.height, first.width)
    shape = (channels, height, width)
    needed, free = 2 * count * math.prod(shape), available_memory()  # twice: splits are taken apart
    if needed > free:
        raise TooLarge(
            f"{settings.dataset} needs {amount(needed)} of memory, and {amount(free)} are free here"
        )
    log.info("%s: reading %s", settings.dataset, counted(count, "image"))
    parts = {split: _read(settings, each, split, shape) for split, each in opened.items()}
    for split, share in (("test", settings.test_share), ("val", settings.val_share)):
        if split not in parts:
            x, y = parts["train"]
            stays, chosen = set_apart(y, share, seed)
            parts["train"], parts[split] = (x[stays], y[stays]), (x[chosen], y[chosen])
    return parts, _class_names(opened["train"], max(int(y.max()) for _, y in parts.values()))


def _open(settings: TorchvisionSettings, root: Path, download: bool) -> dict[str, Any]:
    """Torchvision's object of each split that the set has."""
    import torchvision.datasets  # slow to import, so only here

    name = str(settings.dataset)
    if not hasattr(torchvision.datasets, name):
        raise UserError(f"data.dataset={name}: the torchvision that is installed has no such set")
    load = getattr(torchvision.datasets, name)
    takes, options = _parameters(load), dict(settings.options or {})
    unknown = next((key for key in options if key not in takes), None)
    if unknown is not None:
        raise ArgumentError("options", f".{unknown}: {name} takes {', '.join(takes)}")
    ways, optional = _ways(settings, takes)
    known = {"root", *options, *(key for way in ways.values() for key in way)}
    lacking = [
        key for key, default in takes.items() if default is inspect.Parameter.empty and key not in known
    ]
    if lacking:
        raise ArgumentError("options", f": {name} needs {lacking[0]}, too: data.options={{{lacking[0]}: …}}")
    common = {**options, **({"root": str(root)} if "root" in takes else {})}
    opened: dict[str, Any] = {}
    for way, arguments in ways.items():
        split = way.partition(" ")[0]
        if split in opened:
            continue
        try:
            opened[split] = _opened(load, {**common, **arguments}, root, download and "download" in takes)
        except _NoSuchSplit as error:
            if not optional:
                raise ArgumentError(
                    "splits", f".{split}={arguments['split']}: {name} has none ({error})"
                ) from None
    if "train" not in opened:
        raise UserError(f"{name} has no training images by its split=: name them by data.splits={{train: …}}")
    if download and "download" not in takes and "root" in takes:
        log.warning("%s: torchvision does not download it; it was there", name)
    return opened


def _ways(settings: TorchvisionSettings, takes: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], bool]:
    """By split and number, with what arguments it is asked for; and whether a set may lack it."""
    if "train" in takes:
        if settings.splits is not None:
            raise ArgumentError(
                "splits", f": {settings.dataset} takes train=true or false, it has no names of splits"
            )
        return {"train": {"train": True}, "test": {"train": False}}, False
    if "split" not in takes:
        if settings.splits is not None:
            raise ArgumentError("splits", f": {settings.dataset} has no splits")
        return {"train": {}}, False
    if settings.splits is not None:
        return {split: {"split": name} for split, name in settings.splits.items()}, False
    return {f"{split} {name}": {"split": name} for split, names in SPLITS.items() for name in names}, True


class _NoSuchSplit(Exception):
    """A constructor does not know a value of `split`."""


def _opened(load: Any, arguments: Mapping[str, Any], root: Path, download: bool) -> Any:
    """An object of torchvision's; what it lacks is downloaded, if that is allowed."""
    try:
        return load(**arguments)
    except ValueError as error:
        if "argument split" in str(error):  # torchvision says so before it looks at any file
            raise _NoSuchSplit(kind_and_reason(error)) from error
        raise FileProblem(f"{load.__name__} in {root} cannot be read ({kind_and_reason(error)})") from error
    except Exception as error:  # no files, damaged ones, a package that is missing
        if not download:
            what = kind_and_reason(error)
            raise NotThere(f"no {load.__name__} that torchvision takes in {root} ({what})") from error
    with downloading(load.__name__, root):
        return load(**arguments, download=True)


def _parameters(load: Any) -> dict[str, Any]:
    """What a constructor takes, with defaults: those of the class that it hands its keywords to, too."""
    found: dict[str, Any] = {}
    for each in load.__mro__:
        if "__init__" not in vars(each):
            continue
        own = inspect.signature(each.__init__).parameters.values()
        named = [p for p in own if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        found = {**{p.name: p.default for p in named}, **found}
        if not any(p.kind is p.VAR_KEYWORD for p in own):
            break
    return {key: value for key, value in found.items() if key != "self"}


def _read(
    settings: TorchvisionSettings, pictures: Any, split: str, shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    name, rule = str(settings.dataset), settings.rule
    images, label = np.empty((len(pictures), *shape), np.uint8), np.empty(len(pictures), np.int64)
    for number in range(len(pictures)):
        picture, label[number] = _item(name, pictures, split, number)
        if settings.size is None and (picture.height, picture.width) != shape[1:]:
            raise UserError(
                f"the images of {name} are of several sizes, such as {shape[1]}×{shape[2]} and "
                f"{picture.height}×{picture.width}: set data.size=<pixels>, to which they are brought"
            )
        images[number] = in_shape(picture, f"image {number} of {name}'s {split}", shape, rule)
    return images, label


def _item(name: str, pictures: Any, split: str, number: int) -> tuple[Image.Image, int]:
    """A picture and its class."""
    try:
        picture, label, *more = pictures[number]
    except Exception as error:  # a decoder raises about anything on a damaged file
        raise FileProblem(
            f"image {number} of {name}'s {split} cannot be read ({kind_and_reason(error)})"
        ) from error
    if not more and isinstance(picture, Image.Image):
        with suppress(TypeError, ValueError):
            return picture, operator.index(label)
    raise FileProblem(
        f"{name} gives {type(picture).__name__} and {type(label).__name__} in its {split}, which is not a "
        "picture and its class"
    )


def _class_names(pictures: Any, highest: int) -> tuple[str, ...] | None:
    """As the set has them, of several for one class the first; None where it has none, or too few."""
    names = getattr(pictures, "classes", None) or getattr(pictures, "categories", None)
    if not isinstance(names, Sequence) or isinstance(names, str) or len(names) <= highest:
        return None
    plain = tuple(str(name[0] if isinstance(name, tuple | list) and name else name) for name in names)
    return plain if len(set(plain)) == len(plain) else None
