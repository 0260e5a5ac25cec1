"""Data sets: from a name, or a file, to tensors.

Every kind of set is one entry of KINDS. A set of somebody else's needs none: see `given`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from branchynet.data.arrays import ArraySettings, read_arrays
from branchynet.data.checked import Dataset, build, build_maps
from branchynet.data.digits import cluttered_digits, plain_digits
from branchynet.data.files import ARRAYS, FileProblem, NamedOtherwise, NotThere, TooLarge
from branchynet.data.folder import FolderSettings, read_folder
from branchynet.data.maps import LEFT_OUT
from branchynet.data.masks import MaskSettings, read_masks
from branchynet.data.published import DIGITS, PUBLISHED, files_wanted, read_published
from branchynet.data.shapes import CLASSES as SHAPES
from branchynet.data.shapes import shapes
from branchynet.data.torchvision_sets import TorchvisionSettings, read_torchvision
from branchynet.errors import ArgumentError, UserError, counted

NO_FILE = "data=digits, which needs no file"


@dataclass(frozen=True)
class Place:
    """Where a set is, and what may be done to get it."""

    root: Path  # the folder of published sets
    download: bool = False  # whether what it lacks may be downloaded
    path: Path | None = None  # the set's own file or folder
    seed: int = 0  # of splits that a set does not have
    classes: tuple[str, ...] | None = None  # names, in place of the set's own


@dataclass(frozen=True)
class NoSettings:
    """Of a set that has none of its own."""


@dataclass(frozen=True)
class Kind:
    """What a kind of set is.

    Args:
        read: from the set's name, its place and its own settings to the set.
        settings: a frozen dataclass of these; its fields check themselves.
        path: what `data.path` is, `<folder>`; None: it has none.
    """

    read: Callable[[str, Place, Any], Dataset]
    settings: type = NoSettings
    path: str | None = None


def _from_arrays(name: str, place: Place, settings: ArraySettings) -> Dataset:
    assert place.path is not None
    with _told(
        name,
        f"an .npz file with {', '.join(ARRAYS)} in the folder {place.path.parent}",
        "set data.path",
        "say what they are called by data.keys={x_train: …, y_train: …, x_test: …, y_test: …}",
    ):
        return read_arrays(name, place.path, settings, place.classes)


def _from_folder(name: str, place: Place, settings: FolderSettings) -> Dataset:
    assert place.path is not None
    found = read_folder(place.path, settings, place.seed)
    return build(name, found.parts, found.classes, str(place.path))


def _from_masks(name: str, place: Place, settings: MaskSettings) -> Dataset:
    assert place.path is not None
    try:
        parts = read_masks(place.path, settings, place.classes is not None, place.seed)
        left_out = None if settings.ignore is None else LEFT_OUT
        return build(name, parts, place.classes, str(place.path), ignore=left_out)
    except FileProblem as problem:
        raise UserError(str(problem)) from None


def _from_published(name: str, place: Place, settings: NoSettings) -> Dataset:
    wanted = f"{files_wanted(name)} or {name}.npz in the folder {place.root}"
    with _told(name, wanted, "set data.root" if place.download else "set data.root or data.download=true"):
        return read_published(name, place.root, place.download)


# Made from what comes with scikit-learn.
EMBEDDED = {"digits": plain_digits, "digits_cluttered": cluttered_digits}


def _embedded(name: str, place: Place, settings: NoSettings) -> Dataset:
    return build(name, EMBEDDED[name](), DIGITS, name)


def _shapes(name: str, place: Place, settings: NoSettings) -> Dataset:
    return build_maps(name, shapes(), SHAPES)


def _from_torchvision(name: str, place: Place, settings: TorchvisionSettings) -> Dataset:
    wanted = f"the files of data.dataset={settings.dataset} as torchvision lays them out in the folder {place.root}"
    with _told(name, wanted, "set data.root" if place.download else "set data.root or data.download=true"):
        parts, classes = read_torchvision(settings, place.root, place.download, place.seed)
        return build(str(settings.dataset), parts, classes or place.classes, str(settings.dataset))


KINDS: dict[str, Kind] = {
    **{name: Kind(_from_published) for name in PUBLISHED},
    **{name: Kind(_embedded) for name in EMBEDDED},
    "shapes": Kind(_shapes),
    "arrays": Kind(_from_arrays, ArraySettings, "<file.npz>"),
    "folder": Kind(_from_folder, FolderSettings, "<folder>"),
    "masks": Kind(_from_masks, MaskSettings, "<folder>"),
    "torchvision": Kind(_from_torchvision, TorchvisionSettings),
}
NAMES = tuple(KINDS)


def own_settings(name: str, given: Mapping[str, Any]) -> Any:
    """The settings that a kind of set has of its own, checked.

    Raises:
        ArgumentError: there is none of such a name, or one that is not allowed.
    """
    for key, value in given.items():
        known = [f"data={kind}" for kind, each in KINDS.items() if key in _names(each.settings)]
        if not known:
            raise ArgumentError(key, f"={value}: there is no such setting; see conf/data")
        if f"data={name}" not in known:
            raise ArgumentError(key, f"={value} is for {' and '.join(known)} only")
    return KINDS[name].settings(**given)


def decodes(name: str) -> bool:
    """Whether one of these settings is how many processes decode its files."""
    return "num_workers" in _names(KINDS[name].settings)


def check_path(name: str, path: str | None) -> None:
    """A UserError unless a set that has a path of its own has got one, and no other."""
    wanted = KINDS[name].path
    if wanted and path is None:
        raise UserError(f"data={name} needs data.path={wanted}, or take {NO_FILE}")
    if path is not None and not wanted:
        those = " and ".join(f"data={kind}" for kind, each in KINDS.items() if each.path)
        raise ArgumentError("path", f"={path!r} is for {those}; {name} has data.root")


def load_dataset(
    name: str,
    root: str | Path | None = None,
    download: bool = False,
    path: str | Path | None = None,
    own: Any = None,
    seed: int = 0,
    classes: tuple[str, ...] | None = None,
) -> Dataset:
    """Load a data set by name.

    Args:
        name: `mnist`, `fashion_mnist`, `cifar10` or `cifar100`, looked for in `root` as torchvision lays it
            out (MNIST's files plain or as .gz), then as `<name>.npz`, then downloaded if `download`; `digits`,
            scikit-learn's 1,797 digits at 28×28, `digits_cluttered`, made of them, and `shapes`, images with maps,
            need no file; `arrays`, the .npz file at `path`, see `branchynet.data.arrays`; `folder`, the image files
            in the folder `path`, see `branchynet.data.folder`; `masks`, image files and masks there, see
            `branchynet.data.masks`; `torchvision`, a set of torchvision's in `root`, see
            `branchynet.data.torchvision_sets`.
        root: folder; default is the environment variable BRANCHYNET_DATA, else `data`.
        download: whether torchvision may download (with checksums) what is not in `root`.
        path: see `name`.
        own: the settings that this kind of set has of its own, see `own_settings`; None: as they are.
        seed: of the splits that a set does not have.
        classes: the classes' names, in place of the set's own.

    Raises:
        UserError: unknown name; a file that is missing, truncated or corrupt; a download that fails.
    """
    if name not in KINDS:
        raise UserError(f"unknown data set {name!r}; there are {', '.join(NAMES)}")
    check_path(name, None if path is None else str(path))
    place = Place(
        root=Path(os.path.expanduser(str(root or os.environ.get("BRANCHYNET_DATA") or "data"))),
        download=download,
        path=None if path is None else Path(os.path.expanduser(str(path))),
        seed=seed,
        classes=classes,
    )
    kind = KINDS[name]
    return renamed(kind.read(name, place, own or kind.settings()), classes)


def given(name: str, source: Any, classes: tuple[str, ...] | None = None) -> Dataset:
    """The data set that somebody's own function has made.

    Args:
        name: what it is called.
        source: by split, `train`, `test` and perhaps `val`, images and labels, see
            `branchynet.data.checked.build`; and the classes' names, or None.
        classes: the classes' names, in place of these.

    Raises:
        UserError: it is anything else.
    """
    if isinstance(source, str):
        raise ArgumentError(
            "source",
            f"={source}: it is {{_target_: {source}}} if that is your function, with its arguments beside",
        )
    try:
        parts, names = source
        pairs = {part: (x, y) for part, (x, y) in parts.items()}
        whole = {"train", "test"} <= set(pairs) <= {"train", "test", "val"}
        names = None if names is None else tuple(map(str, names))
        if not whole or not all(isinstance(each, np.ndarray) for pair in pairs.values() for each in pair):
            raise TypeError("no arrays of train, test and perhaps val")
    except (TypeError, ValueError, AttributeError) as error:
        raise ArgumentError(
            "source",
            f": it gives no images ({error}); wanted are ({{train: (x, y), test: (x, y), val: …}}, names or None)",
        ) from error
    try:
        return renamed(build(name, pairs, names or classes, f"data.source of {name}"), classes)
    except FileProblem as problem:
        raise UserError(str(problem)) from None


def renamed(data: Dataset, classes: tuple[str, ...] | None) -> Dataset:
    """The same set with other names of its classes, in their order; None: its own.

    Raises:
        ArgumentError: there are more or fewer of them.
    """
    if classes is None:
        return data
    if len(classes) != len(data.classes):
        shown = ", ".join(data.classes[:3]) + (" …" if len(data.classes) > 3 else "")
        raise ArgumentError(
            "classes",
            f": {counted(len(classes), 'name')} for the {len(data.classes)} classes of {data.name}: {shown}",
        )
    return replace(data, classes=classes)


def _names(settings: type) -> set[str]:
    return {field.name for field in fields(settings)}


@contextmanager
def _told(name: str, wanted: str, cure: str, named_otherwise: str = "replace it") -> Iterator[None]:
    """Inside, what is wrong with a file becomes a UserError that says what is wanted, and what to do: where there
    is none, and where arrays have other names."""
    try:
        yield
    except FileProblem as problem:
        if isinstance(problem, NamedOtherwise):
            cure = named_otherwise
        elif not isinstance(problem, NotThere):
            cure = "take fewer images" if isinstance(problem, TooLarge) else "replace it"
        raise UserError(f"{problem}; data={name} wants {wanted}: {cure}, or take {NO_FILE}") from None
