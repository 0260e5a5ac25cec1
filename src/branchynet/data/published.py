"""Published data sets that torchvision can download: MNIST's and CIFAR's files, or an .npz file in their place."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from branchynet.data.arrays import ArraySettings, read_arrays
from branchynet.data.checked import Dataset, build
from branchynet.data.files import FileProblem, NotThere, kind_and_reason, read_idx

DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
PATIENCE = 30  # seconds without a byte, after which a download has failed; torchvision would wait for ever


@dataclass(frozen=True)
class Published:
    """A published data set, and where its files lie."""

    torchvision: str  # the name of torchvision's class
    folder: str  # in `data.root`, as torchvision lays it out
    classes: tuple[str, ...] | None  # None: the files have the names


PUBLISHED = {
    "mnist": Published("MNIST", "MNIST/raw", DIGITS),
    "fashion_mnist": Published("FashionMNIST", "FashionMNIST/raw", CLOTHES),
    "cifar10": Published("CIFAR10", "cifar-10-batches-py", None),
    "cifar100": Published("CIFAR100", "cifar-100-python", None),
}


def files_wanted(name: str) -> str:
    """In words, of `data.root`."""
    folder = PUBLISHED[name].folder
    if folder.endswith("raw"):
        return f"{folder}/{{{','.join(MNIST_FILES)}}} (or their .gz)"
    return f"{folder}/ as torchvision unpacks it"


def read_published(name: str, root: Path, download: bool) -> Dataset:
    """From torchvision's files, the .npz file or the network, whichever comes first.

    Raises:
        FileProblem: no such files, damaged ones, or a download that fails.
    """
    published = PUBLISHED[name]
    if root.is_dir() and not os.access(root, os.R_OK | os.X_OK):
        raise NotThere(f"the folder {root} cannot be read (permission denied)")
    read = _from_raw if published.folder.endswith("raw") else _from_torchvision
    found = read(name, root)
    if found is None and os.path.isfile(root / f"{name}.npz"):
        return read_arrays(name, root / f"{name}.npz", ArraySettings(), published.classes)
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
    return build(name, parts, PUBLISHED[name].classes, str(raw))


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
    return build(name, parts, tuple(train.classes), str(folder))


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
    with (
        downloading(published.torchvision, root),
        tempfile.TemporaryDirectory(dir=root, prefix=".download-") as folder,
    ):
        import torchvision.datasets  # slow to import, so only here

        getattr(torchvision.datasets, published.torchvision)(folder, download=True)
        target = root / published.folder
        target.mkdir(parents=True, exist_ok=True)
        for file in Path(folder, published.folder).iterdir():
            os.replace(file, target / file.name)


@contextmanager
def downloading(what: str, root: Path) -> Iterator[None]:
    """Inside, something is downloaded into the folder `root`: whatever fails becomes a `NotThere`."""
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        root.mkdir(parents=True, exist_ok=True)
        yield
    except Exception as error:  # no network, a bad checksum, a read-only folder, a broken torchvision …
        raise NotThere(f"{what} could not be downloaded to {root} ({kind_and_reason(error)})") from error
    finally:
        socket.setdefaulttimeout(patience)
