"""Data sets: from a name, or a file, to tensors.

S samples, C channels, H, W pixels, K classes. Images stay unsigned bytes, 0 (background) to 255.
"""

from __future__ import annotations

import os
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from branchynet.data.files import ARRAYS, FileProblem, NotThere, one_line, read_idx, read_npz
from branchynet.errors import UserError

NAMES = ("mnist", "digits", "arrays")
DIGITS = tuple("0123456789")
NO_FILE = "data=digits, which needs no file"
MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class ImageSet:
    """x: images, (S, C, H, W) uint8; y: labels, (S,) int64, 0 … K-1."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def at(self, index: Tensor) -> ImageSet:
        """The images and labels at these places, copied."""
        return ImageSet(self.x.index_select(0, index), self.y.index_select(0, index))

    def to(self, device: torch.device | str) -> ImageSet:
        """The set on a device; the same tensors if it is there already."""
        return ImageSet(self.x.to(device), self.y.to(device))


@dataclass(frozen=True)
class Dataset:
    """A training and a test set of equal image shape, and the K class names."""

    name: str
    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]


def load_dataset(
    name: str, root: str | Path | None = None, download: bool = False, path: str | Path | None = None
) -> Dataset:
    """Load a data set by name.

    Args:
        name: `mnist`, looked for in `root` as MNIST/raw/*-ubyte (or .gz of these), then as mnist.npz, then
            downloaded if `download`; `digits`, scikit-learn's 1,797 digits at 28×28, needs no file;
            `arrays`, the .npz file at `path`.
        root: folder; default is the environment variable BRANCHYNET_DATA, else `data`.
        download: whether torchvision may download (with checksums) what is not in `root`.
        path: the file of `arrays`: x_train, x_test uint8 (S, H, W), (S, H, W, C) or (S, C, H, W) with C ≤ 4;
            y_train, y_test integers (S,); optionally `classes`, the K names.

    Raises:
        UserError: unknown name; a file that is missing, truncated or corrupt; a download that fails.
    """
    if name == "digits":
        return _digits()
    if name == "mnist":
        folder = Path(str(root or os.environ.get("BRANCHYNET_DATA") or "data")).expanduser()
        wanted = f"MNIST/raw/{{{','.join(MNIST_FILES)}}} (or their .gz) or mnist.npz in the folder {folder}"
        cure = "set data.root" if download else "set data.root or data.download=true"
    elif name == "arrays":
        if path is None:
            raise UserError(f"data=arrays needs data.path=<file.npz>, or take {NO_FILE}")
        file = Path(str(path)).expanduser()
        wanted = f"an .npz file with {', '.join(ARRAYS)} in the folder {file.parent}"
        cure = "set data.path"
    else:
        raise UserError(f"unknown data set {name!r}; there are {', '.join(NAMES)}")
    try:
        return _mnist(folder, download) if name == "mnist" else _from_npz(name, file)
    except FileProblem as problem:
        cure = cure if isinstance(problem, NotThere) else "replace it"
        raise UserError(f"{problem}; data={name} wants {wanted}: {cure}, or take {NO_FILE}") from None


def _mnist(root: Path, download: bool) -> Dataset:
    raw = root / "MNIST" / "raw"
    files = _find_raw(raw)
    if files is None and os.path.isfile(root / "mnist.npz"):
        return _from_npz("mnist", root / "mnist.npz", DIGITS)
    if files is None and download:
        _download_mnist(root)
        files = _find_raw(raw)
    if files is None:
        raise NotThere(f"no MNIST in {root}")
    x_train, y_train, x_test, y_test = (read_idx(file, 3 if "images" in file.name else 1) for file in files)
    return _build("mnist", (x_train, y_train, x_test, y_test), DIGITS, str(raw))


def _find_raw(raw: Path) -> list[Path] | None:
    """The four files in MNIST_FILES' order, each plain or else .gz; None unless all are there."""
    found = []
    for name in MNIST_FILES:
        file = next((f for f in (raw / name, raw / f"{name}.gz") if os.path.isfile(f)), None)
        if file is None:
            return None
        found.append(file)
    return found


def _download_mnist(root: Path) -> None:
    """Have torchvision download MNIST beside its place, then move it there file by file.

    So a killed or a concurrent download never leaves half a file under the final name.
    """
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # seconds; torchvision would wait for ever
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as folder:
            from torchvision.datasets import MNIST  # slow to import, so only here

            MNIST(folder, download=True)
            (root / "MNIST" / "raw").mkdir(parents=True, exist_ok=True)
            for name in MNIST_FILES:
                os.replace(Path(folder, "MNIST", "raw", name), root / "MNIST" / "raw" / name)
    except Exception as error:  # no network, a bad checksum, a read-only folder, a broken torchvision …
        raise NotThere(f"MNIST could not be downloaded to {root} ({one_line(error)})") from error
    finally:
        socket.setdefaulttimeout(patience)


def _from_npz(name: str, path: Path, classes: tuple[str, ...] | None = None) -> Dataset:
    arrays, own_classes = read_npz(path)
    four = (arrays["x_train"], arrays["y_train"], arrays["x_test"], arrays["y_test"])
    return _build(name, four, classes or own_classes, str(path))


def _digits() -> Dataset:
    """scikit-learn's digits, 8×8 with values 0 … 16, as bytes at 28×28; 1,437 for training, 360 for test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    values, labels = bunch.images, bunch.target
    # Every fifth image of each class, in a random order that NumPy's policy keeps for ever.
    order = np.lexsort((np.random.RandomState(2016).random_sample(len(labels)), labels))
    test = np.zeros(len(labels), bool)
    test[order[::5]] = True
    x = torch.from_numpy(values).to(torch.float32)[:, None] * (255 / 16)
    x = torch.nn.functional.interpolate(x, size=(28, 28), mode="bilinear", align_corners=False)
    images = x.round().to(torch.uint8).numpy()
    return _build("digits", (images[~test], labels[~test], images[test], labels[test]), DIGITS, "digits")


def _build(
    name: str,
    arrays: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    classes: tuple[str, ...] | None,
    source: str,
) -> Dataset:
    """Check (x_train, y_train, x_test, y_test) and make tensors of them."""
    x_train, y_train, x_test, y_test = arrays
    for x, y, part in ((x_train, y_train, "train"), (x_test, y_test, "test")):
        if x.dtype != np.uint8:
            raise FileProblem(f"{source}: x_{part} is {x.dtype}, must be uint8 (0 … 255)")
        if y.dtype.kind not in "iu" or y.ndim != 1:
            raise FileProblem(f"{source}: y_{part} is {y.dtype} {y.shape}, must be integers of shape (S,)")
    train, test = (_channels_first(x, source) for x in (x_train, x_test))
    for x, y, part in ((train, y_train, "train"), (test, y_test, "test")):
        if len(x) != len(y):
            raise FileProblem(f"{source}: {len(x)} images in x_{part}, {len(y)} labels in y_{part}")
    if train.shape[1:] != test.shape[1:]:
        raise FileProblem(f"{source}: images are {train.shape[1:]} in x_train, {test.shape[1:]} in x_test")
    if classes is None:
        # More classes than images: these are no class numbers.
        count = min(int(y_train.max()) + 1, len(y_train))
        classes = tuple(str(k) for k in range(count))
    if len(classes) < 2:
        raise FileProblem(f"{source}: {len(classes)} class, at least 2 are needed")
    top = len(classes) - 1
    for y, part in ((y_train, "train"), (y_test, "test")):
        low, high = int(y.min()), int(y.max())
        if low < 0 or high > top:
            raise FileProblem(f"{source}: labels {low} … {high} in y_{part}, allowed are 0 … {top}")
    return Dataset(name, _image_set(train, y_train), _image_set(test, y_test), classes)


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
    return ImageSet(torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y.astype(np.int64)))
