"""Data sets: from a name, or a file, to tensors.

S samples, C channels, H, W pixels, K classes. Images stay unsigned bytes, 0 (background) to 255.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from branchynet.data.digits import cluttered_digits, plain_digits
from branchynet.data.files import ARRAYS, FileProblem, NotThere, TooLarge, kind_and_reason, read_idx, read_npz
from branchynet.data.folder import FolderSettings, read_folder
from branchynet.data.mapped import forget, rows, tensor_of
from branchynet.errors import UserError

log = logging.getLogger(__name__)

DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
NO_FILE = "data=digits, which needs no file"
MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class Published:
    """A published data set that torchvision can download, and where its files lie."""

    torchvision: str  # the name of torchvision's class
    folder: str  # in `data.root`, as torchvision lays it out
    classes: tuple[str, ...] | None  # None: the files have the names


PUBLISHED = {
    "mnist": Published("MNIST", "MNIST/raw", DIGITS),
    "fashion_mnist": Published("FashionMNIST", "FashionMNIST/raw", CLOTHES),
    "cifar10": Published("CIFAR10", "cifar-10-batches-py", None),
    "cifar100": Published("CIFAR100", "cifar-100-python", None),
}
# Made from what comes with scikit-learn.
EMBEDDED = {"digits": plain_digits, "digits_cluttered": cluttered_digits}
NAMES = (*PUBLISHED, *EMBEDDED, "arrays", "folder")


@dataclass(frozen=True)
class ImageSet:
    """x: images, (S, C, H, W) uint8; y: labels, (S,) int64, 0 … K-1."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def at(self, index: Tensor) -> ImageSet:
        """The images and labels at these places, copied."""
        x = self.x.index_select(0, index)
        forget(self.x)
        return ImageSet(x, self.y.index_select(0, index))

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


def load_dataset(
    name: str,
    root: str | Path | None = None,
    download: bool = False,
    path: str | Path | None = None,
    folder: FolderSettings | None = None,
    seed: int = 0,
) -> Dataset:
    """Load a data set by name.

    Args:
        name: `mnist`, `fashion_mnist`, `cifar10` or `cifar100`, looked for in `root` as torchvision lays it
            out (MNIST's files plain or as .gz), then as `<name>.npz`, then downloaded if `download`; `digits`,
            scikit-learn's 1,797 digits at 28×28, and `digits_cluttered`, made of them, need no file; `arrays`, the
            .npz file at `path`.
        root: folder; default is the environment variable BRANCHYNET_DATA, else `data`.
        download: whether torchvision may download (with checksums) what is not in `root`.
        path: the file of `arrays`: x_train, x_test uint8 (S, H, W), (S, H, W, C) or (S, C, H, W) with C ≤ 4;
            y_train, y_test integers (S,); optionally x_val, y_val, `classes`, the K names, and `inexact_train`
            and `inexact_test`, the numbers of images that differ from the published ones. For `folder` it is a
            folder of image files, see `branchynet.data.folder.read_folder`.
        folder: how those become a data set.
        seed: of the splits that such a folder does not have.

    Raises:
        UserError: unknown name; a file that is missing, truncated or corrupt; a download that fails.
    """
    if name in EMBEDDED:
        return _build(name, EMBEDDED[name](), DIGITS, name)
    if name == "folder":
        if path is None:
            raise UserError(f"data=folder needs data.path=<folder>, or take {NO_FILE}")
        found = read_folder(Path(os.path.expanduser(str(path))), folder or FolderSettings(), seed)
        return _build(name, found.parts, found.classes, str(path))
    if name in PUBLISHED:
        place = Path(os.path.expanduser(str(root or os.environ.get("BRANCHYNET_DATA") or "data")))
        wanted = f"{_files_wanted(name)} or {name}.npz in the folder {place}"
        cure = "set data.root" if download else "set data.root or data.download=true"
    elif name == "arrays":
        if path is None:
            raise UserError(f"data=arrays needs data.path=<file.npz>, or take {NO_FILE}")
        file = Path(os.path.expanduser(str(path)))
        wanted = f"an .npz file with {', '.join(ARRAYS)} in the folder {file.parent}"
        cure = "set data.path"
    else:
        raise UserError(f"unknown data set {name!r}; there are {', '.join(NAMES)}")
    try:
        return _published(name, place, download) if name in PUBLISHED else _from_npz(name, file)
    except FileProblem as problem:
        if not isinstance(problem, NotThere):
            cure = "take fewer images" if isinstance(problem, TooLarge) else "replace it"
        raise UserError(f"{problem}; data={name} wants {wanted}: {cure}, or take {NO_FILE}") from None


def _files_wanted(name: str) -> str:
    folder = PUBLISHED[name].folder
    if folder.endswith("raw"):
        return f"{folder}/{{{','.join(MNIST_FILES)}}} (or their .gz)"
    return f"{folder}/ as torchvision unpacks it"


def _published(name: str, root: Path, download: bool) -> Dataset:
    """From torchvision's files, the .npz file or the network, whichever comes first."""
    published = PUBLISHED[name]
    if root.is_dir() and not os.access(root, os.R_OK | os.X_OK):
        raise NotThere(f"the folder {root} cannot be read (permission denied)")
    read = _from_raw if published.folder.endswith("raw") else _from_torchvision
    found = read(name, root)
    if found is None and os.path.isfile(root / f"{name}.npz"):
        return _from_npz(name, root / f"{name}.npz", published.classes)
    if found is None and download:
        _download(name, root)
        found = read(name, root)
    if found is None:
        raise NotThere(f"no {published.torchvision} in {root}")
    return found


def _from_raw(name: str, root: Path) -> Dataset | None:
    """MNIST's four files, or None."""
    raw = root / PUBLISHED[name].folder
    files = _find_raw(raw)
    if files is None:
        return None
    x_train, y_train, x_test, y_test = (read_idx(file, 3 if "images" in file.name else 1) for file in files)
    parts = {"train": (x_train, y_train), "test": (x_test, y_test)}
    return _build(name, parts, PUBLISHED[name].classes, str(raw))


def _from_torchvision(name: str, root: Path) -> Dataset | None:
    """CIFAR's files, or None unless all are there.

    They are pickles, which could run anything: no file is opened before all are known to be the published
    ones, by their checksums. torchvision looks at them, too, but would not say which file is wrong.
    """
    folder = root / PUBLISHED[name].folder
    if not folder.is_dir():
        return None
    import torchvision.datasets  # slow to import, so only here

    load = getattr(torchvision.datasets, PUBLISHED[name].torchvision)
    checksums = dict([*load.train_list, *load.test_list, (load.meta["filename"], load.meta["md5"])])
    if not all(os.path.isfile(folder / file) for file in checksums):
        return None
    try:
        for file, checksum in checksums.items():
            if not torchvision.datasets.utils.check_integrity(folder / file, checksum):
                raise FileProblem(f"{folder / file} is not the published file: its checksum differs")
        train, test = (load(root, train=which) for which in (True, False))
    except FileProblem:
        raise
    except Exception as error:  # an unreadable file, a broken torchvision
        raise FileProblem(f"{folder} cannot be read ({kind_and_reason(error)})") from error
    parts = {part: (s.data, np.asarray(s.targets)) for part, s in (("train", train), ("test", test))}
    return _build(name, parts, tuple(train.classes), str(folder))


def _find_raw(raw: Path) -> list[Path] | None:
    """The four files in MNIST_FILES' order, each plain or else .gz; None unless all are there."""
    found = []
    for name in MNIST_FILES:
        file = next((f for f in (raw / name, raw / f"{name}.gz") if os.path.isfile(f)), None)
        if file is None:
            return None
        found.append(file)
    return found


def _download(name: str, root: Path) -> None:
    """Have torchvision download a data set beside its place, then move it there.

    So a killed or a concurrent download never leaves half a file under the final name.
    """
    published = PUBLISHED[name]
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # seconds; torchvision would wait for ever
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as folder:
            import torchvision.datasets  # slow to import, so only here

            getattr(torchvision.datasets, published.torchvision)(folder, download=True)
            target = root / published.folder
            target.mkdir(parents=True, exist_ok=True)
            for file in Path(folder, published.folder).iterdir():
                os.replace(file, target / file.name)
    except Exception as error:  # no network, a bad checksum, a read-only folder, a broken torchvision …
        what = published.torchvision
        raise NotThere(f"{what} could not be downloaded to {root} ({kind_and_reason(error)})") from error
    finally:
        socket.setdefaulttimeout(patience)


def _from_npz(name: str, path: Path, classes: tuple[str, ...] | None = None) -> Dataset:
    file = read_npz(path)
    dataset = _build(name, file.parts, classes or file.classes, str(path))
    for part, images in (("train", dataset.train), ("test", dataset.test)):
        inexact = file.inexact[part]
        if len(inexact) and not 0 <= inexact.min() <= inexact.max() < len(images):
            raise FileProblem(f"{path}: inexact_{part} names images that are not there")
    return replace(
        dataset,
        inexact_train=torch.from_numpy(file.inexact["train"]),
        inexact_test=torch.from_numpy(file.inexact["test"]),
    )


def _build(
    name: str,
    parts: Mapping[str, tuple[np.ndarray, np.ndarray]],
    classes: tuple[str, ...] | None,
    source: str,
) -> Dataset:
    """Check images and labels of `train`, `test` and perhaps `val`, and make tensors of them."""
    for part, (x, y) in parts.items():
        if x.dtype != np.uint8:
            raise FileProblem(f"{source}: x_{part} is {x.dtype}, must be uint8 (0 … 255)")
        if y.dtype.kind not in "iu" or y.ndim != 1:
            raise FileProblem(f"{source}: y_{part} is {y.dtype} {y.shape}, must be integers of shape (S,)")
    images = {part: _channels_first(x, source) for part, (x, _) in parts.items()}
    labels = {part: y for part, (_, y) in parts.items()}
    for part, x in images.items():
        if len(x) != len(labels[part]):
            raise FileProblem(
                f"{source}: {len(x)} images in x_{part}, {len(labels[part])} labels in y_{part}"
            )
        if x.shape[1:] != images["train"].shape[1:]:
            shapes = f"{images['train'].shape[1:]} in x_train, {x.shape[1:]} in x_{part}"
            raise FileProblem(f"{source}: images are {shapes}")
    named = classes is not None
    if classes is None:
        # More classes than images: these are no class numbers.
        count = min(int(labels["train"].max()) + 1, len(labels["train"]))
        classes = tuple(str(k) for k in range(count))
    if len(classes) < 2:
        raise FileProblem(f"{source}: {len(classes)} class, at least 2 are needed")
    top = len(classes) - 1
    for part, y in labels.items():
        low, high = int(y.min()), int(y.max())
        if low < 0 or high > top:
            raise FileProblem(f"{source}: labels {low} … {high} in y_{part}, allowed are 0 … {top}")
    _check_classes(labels["train"], classes, named, source)
    sets = {part: _image_set(x, labels[part]) for part, x in images.items()}
    return Dataset(name, sets["train"], sets["test"], classes, sets.get("val"))


def _check_classes(y: np.ndarray, classes: tuple[str, ...], named: bool, source: str) -> None:
    """A FileProblem where classes that nobody has named have no training image, a warning where they have names."""
    there = set(np.unique(y).tolist())
    empty = [name for k, name in enumerate(classes) if k not in there]
    if not empty:
        return
    shown = ", ".join(empty[:8]) + (" …" if len(empty) > 8 else "")
    what = f"no training image is of class {shown}" if len(empty) == 1 else f"no training image is of {shown}"
    if named:
        log.warning("%s: %s", source, what)
        return
    cure = "the labels seem to begin at 1: subtract 1" if empty == ["0"] else "number the classes 0 … K-1"
    raise FileProblem(f"{source}: {what}; {cure}, or give the names of all in an array `classes`")


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
    return ImageSet(tensor_of(np.ascontiguousarray(x)), torch.from_numpy(y.astype(np.int64)))
