import hashlib
import os
import pickle
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from sets import RNG, arrays, check_equal, the_line, write_raw

from branchynet.data.datasets import load_dataset
from branchynet.data.published import MNIST_FILES

# Where MNIST is found


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_from_torchvisions_layout(tmp_path, packed):
    data = arrays()
    write_raw(tmp_path, data, packed)
    check_equal(load_dataset("mnist", tmp_path), data)


def test_mnist_reads_what_torchvision_reads(tmp_path):
    from torchvision.datasets import MNIST

    write_raw(tmp_path, arrays())
    ours = load_dataset("mnist", tmp_path)
    for part, images in (("train", ours.train), ("test", ours.test)):
        theirs = MNIST(tmp_path, train=part == "train")
        assert torch.equal(images.x[:, 0], theirs.data)
        assert torch.equal(images.y, theirs.targets)


def test_mnist_from_npz_in_the_folder_of_the_environment(tmp_path, monkeypatch):
    data = arrays()
    np.savez(tmp_path / "mnist.npz", **data)
    monkeypatch.setenv("BRANCHYNET_DATA", str(tmp_path))
    check_equal(load_dataset("mnist"), data)


def test_raw_files_come_before_npz(tmp_path):
    raw, npz = arrays(), arrays()
    write_raw(tmp_path, raw)
    np.savez(tmp_path / "mnist.npz", **npz)
    check_equal(load_dataset("mnist", tmp_path), raw)


def test_half_a_raw_folder_falls_back_on_npz(tmp_path):
    data = arrays()
    (write_raw(tmp_path, arrays()) / MNIST_FILES[3]).unlink()
    np.savez(tmp_path / "mnist.npz", **data)
    check_equal(load_dataset("mnist", tmp_path), data)


def test_missing_mnist_names_folder_and_files(tmp_path):
    line = the_line("mnist", tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in line
    assert "mnist.npz" in line
    assert "set data.root or data.download=true" in line
    for name in MNIST_FILES:
        assert name in line


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    write_raw(tmp_path, arrays())
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read everything
    assert f"the folder {tmp_path} cannot be read" in the_line("mnist", tmp_path)


@pytest.mark.parametrize("packed", [False, True])
def test_fashion_mnist_has_its_own_folder_and_names(tmp_path, packed):
    data, other = arrays(), arrays()
    write_raw(tmp_path, data, packed, folder="FashionMNIST")
    write_raw(tmp_path, other)
    dataset = load_dataset("fashion_mnist", tmp_path)
    check_equal(dataset, data)
    assert (dataset.classes[0], dataset.classes[9]) == ("T-shirt/top", "Ankle boot")
    check_equal(load_dataset("mnist", tmp_path), other)


def test_fashion_mnist_has_torchvisions_names():
    from torchvision.datasets import FashionMNIST

    from branchynet.data.published import CLOTHES

    assert list(CLOTHES) == FashionMNIST.classes


# CIFAR, whose files are pickles

CIFAR = {"cifar10": ("CIFAR10", "labels", 10), "cifar100": ("CIFAR100", "fine_labels", 100)}


def write_cifar(name: str, root: Path, monkeypatch, per_batch: int = 4) -> dict[str, np.ndarray]:
    """A small CIFAR in the layout of the published archive, its checksums made torchvision's.

    Returns the arrays in it, images (S, 3, 32, 32).
    """
    import torchvision.datasets

    kind, key, classes = CIFAR[name]
    load = getattr(torchvision.datasets, kind)
    folder = root / load.base_folder
    folder.mkdir(parents=True)

    def write(file: str, content: object) -> str:
        data = pickle.dumps(content)
        (folder / file).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    parts: dict[str, list] = {"x_train": [], "y_train": [], "x_test": [], "y_test": []}
    for which, files in (("train", load.train_list), ("test", load.test_list)):
        checksums = []
        for file, _ in files:
            rows = RNG.integers(0, 256, (per_batch, 3072), dtype=np.uint8)
            labels = RNG.integers(0, classes, per_batch).tolist()
            checksums.append([file, write(file, {"data": rows, key: labels})])
            # A row is red, green and blue, each 32 rows of 32 pixels.
            parts[f"x_{which}"].append(rows.reshape(-1, 3, 32, 32))
            parts[f"y_{which}"].append(labels)
        monkeypatch.setattr(load, f"{which}_list", checksums)
    names = {load.meta["key"]: [f"class {k}" for k in range(classes)]}
    monkeypatch.setattr(load, "meta", {**load.meta, "md5": write(load.meta["filename"], names)})
    return {key: np.concatenate(values) for key, values in parts.items()}


@pytest.mark.parametrize(("name", "batches"), [("cifar10", 5), ("cifar100", 1)])
def test_cifar_from_torchvisions_layout(tmp_path, monkeypatch, name, batches):
    data = write_cifar(name, tmp_path, monkeypatch)
    dataset = load_dataset(name, tmp_path)
    assert dataset.train.x.shape == (4 * batches, 3, 32, 32)
    assert dataset.test.x.shape == (4, 3, 32, 32)
    for part, images in (("train", dataset.train), ("test", dataset.test)):
        assert images.x.is_contiguous()
        np.testing.assert_array_equal(images.x.numpy(), data[f"x_{part}"])
        np.testing.assert_array_equal(images.y.numpy(), data[f"y_{part}"])
    assert dataset.classes == tuple(f"class {k}" for k in range(CIFAR[name][2]))
    assert len(dataset.inexact_train) == len(dataset.inexact_test) == 0


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(bytes(content))


class Trap:
    """Unpickled, it leaves a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("file", ["data_batch_3", "test_batch", "batches.meta"])
@pytest.mark.parametrize("harm", ["bit", "pickle"])
def test_a_cifar_file_that_is_not_the_published_one_is_named_and_not_opened(
    tmp_path, monkeypatch, file, harm
):
    write_cifar("cifar10", tmp_path, monkeypatch)
    path, trace = tmp_path / "cifar-10-batches-py" / file, tmp_path / "was opened"
    if harm == "bit":
        flip_a_bit(path)
    else:
        path.write_bytes(pickle.dumps(Trap(trace)))
    line = the_line("cifar10", tmp_path, download=True)
    assert f"{path} is not the published file: its checksum differs" in line
    assert "cifar10.npz" in line
    assert "replace it" in line
    assert not trace.exists()


def test_half_a_cifar_folder_falls_back_on_npz(tmp_path, monkeypatch):
    write_cifar("cifar10", tmp_path, monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "data_batch_5").unlink()
    assert "no CIFAR10 in" in the_line("cifar10", tmp_path)
    data = arrays(shape=(32, 32, 3))
    np.savez(tmp_path / "cifar10.npz", **data)
    dataset = load_dataset("cifar10", tmp_path)
    np.testing.assert_array_equal(dataset.train.x.numpy(), data["x_train"].transpose(0, 3, 1, 2))


def test_missing_cifar_names_folder_and_files(tmp_path):
    line = the_line("cifar100", tmp_path / "nowhere")
    assert "no CIFAR100 in" in line
    assert f"cifar-100-python/ as torchvision unpacks it or cifar100.npz in the folder {tmp_path}" in line
    assert "set data.root or data.download=true" in line


def test_downloaded_cifar_gets_torchvisions_layout(tmp_path, monkeypatch):
    import torchvision.datasets

    made = write_cifar("cifar10", tmp_path / "elsewhere", monkeypatch)

    def unpack(url, root, **_):
        os.replace(tmp_path / "elsewhere" / "cifar-10-batches-py", Path(root, "cifar-10-batches-py"))

    monkeypatch.setattr(torchvision.datasets.cifar, "download_and_extract_archive", unpack)
    root = tmp_path / "data"
    dataset = load_dataset("cifar10", root, download=True)
    np.testing.assert_array_equal(dataset.test.x.numpy(), made["x_test"])
    assert [path.name for path in root.iterdir()] == ["cifar-10-batches-py"]
    np.testing.assert_array_equal(load_dataset("cifar10", root).test.x.numpy(), made["x_test"])


# What may be wrong with it


def truncate(raw):
    path = raw / MNIST_FILES[0]
    path.write_bytes(path.read_bytes()[:-5])


def swap(raw):
    os.replace(raw / MNIST_FILES[0], raw / "x")
    os.replace(raw / MNIST_FILES[1], raw / MNIST_FILES[0])
    os.replace(raw / "x", raw / MNIST_FILES[1])


def label_ten(raw):
    path = raw / MNIST_FILES[3]
    path.write_bytes(path.read_bytes()[:-1] + b"\x0a")


def fewer_labels(raw):
    path = raw / MNIST_FILES[1]
    path.write_bytes(bytes.fromhex("00000801 00000002 0001"))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (truncate, "its header says"),
        (swap, "begins with 00000801"),
        (label_ten, "labels 0 … 10 in y_test, allowed are 0 … 9"),
        (fewer_labels, "20 images in x_train, 2 labels in y_train"),
    ],
)
def test_corrupt_mnist_is_one_line(tmp_path, harm, says):
    harm(write_raw(tmp_path, arrays()))
    line = the_line("mnist", tmp_path)
    assert says in line
    assert str(tmp_path) in line
    assert MNIST_FILES[2] in line
    assert "replace it" in line


# Download


def test_failing_download_is_one_line(tmp_path, monkeypatch):
    import torchvision.datasets

    def fail(*args, **kwargs):
        raise URLError("no\nroute\nto host")

    monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", fail)
    line = the_line("mnist", tmp_path / "new", download=True)
    assert "could not be downloaded" in line
    assert "no route" in line
    assert MNIST_FILES[0] in line
    assert list((tmp_path / "new").iterdir()) == []  # nothing half-done is left


def test_download_into_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    assert "could not be downloaded" in the_line("mnist", tmp_path / "file", download=True)


def test_downloaded_files_get_torchvisions_layout(tmp_path, monkeypatch):
    import torchvision.datasets

    data = arrays()
    monkeypatch.setattr(torchvision.datasets.MNIST, "download", lambda self: write_raw(Path(self.root), data))
    check_equal(load_dataset("mnist", tmp_path, download=True), data)
    assert [path.name for path in tmp_path.iterdir()] == ["MNIST"]
    monkeypatch.undo()
    check_equal(load_dataset("mnist", tmp_path), data)


def test_torchvision_is_not_imported_for_files_that_are_there(tmp_path):
    import subprocess

    write_raw(tmp_path, arrays())
    code = (
        "import sys; from branchynet.data.datasets import load_dataset;"
        f"load_dataset('mnist', {str(tmp_path)!r}, download=True);"
        "assert not {'torchvision', 'sklearn', 'lightning'} & set(sys.modules)"
    )
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
