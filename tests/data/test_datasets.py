import gzip
import hashlib
import os
import pickle
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

from branchynet.data.datasets import MNIST_FILES, load_dataset
from branchynet.data.normalise import channel_statistics
from branchynet.errors import UserError

RNG = np.random.default_rng(0)


def arrays(train=20, test=10, shape=(28, 28)) -> dict[str, np.ndarray]:
    return {
        "x_train": RNG.integers(0, 256, (train, *shape), dtype=np.uint8),
        "y_train": np.arange(train) % 10,
        "x_test": RNG.integers(0, 256, (test, *shape), dtype=np.uint8),
        "y_test": np.arange(test) % 10,
    }


def write_raw(root: Path, data: dict[str, np.ndarray], packed: bool = False, folder: str = "MNIST") -> Path:
    """torchvision's layout; returns the folder with the four files."""
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for name, key in zip(MNIST_FILES, ("x_train", "y_train", "x_test", "y_test"), strict=True):
        values = data[key].astype(np.uint8)
        sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
        content = bytes((0, 0, 8, values.ndim)) + sizes + values.tobytes()
        (raw / (name + ".gz" * packed)).write_bytes(gzip.compress(content) if packed else content)
    return raw


def check_equal(dataset, data):
    for part in ("train", "test"):
        images = getattr(dataset, part)
        assert images.x.dtype == torch.uint8
        assert images.y.dtype == torch.int64
        np.testing.assert_array_equal(images.x.numpy()[:, 0], data[f"x_{part}"])
        np.testing.assert_array_equal(images.y.numpy(), data[f"y_{part}"])


def the_line(*args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        load_dataset(*args, **kwargs)
    line = str(caught.value)
    assert "\n" not in line
    assert "data=digits" in line
    return line


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

    from branchynet.data.datasets import CLOTHES

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


# Images that are not the published ones


def test_inexact_images_are_named_rising_and_once(tmp_path):
    numbers = {"inexact_train": np.array([7, 3, 7]), "inexact_test": np.array([9], np.uint16)}
    np.savez(tmp_path / "f.npz", **arrays(), **numbers)
    dataset = load_dataset("arrays", path=tmp_path / "f.npz")
    assert dataset.inexact_train.tolist() == [3, 7]
    assert dataset.inexact_test.tolist() == [9]
    assert dataset.inexact_train.dtype == dataset.inexact_test.dtype == torch.int64


def test_files_may_say_that_no_image_is_inexact(tmp_path):
    np.savez(tmp_path / "f.npz", **arrays(), inexact_test=np.array([]))
    dataset = load_dataset("arrays", path=tmp_path / "f.npz")
    assert dataset.inexact_train.shape == dataset.inexact_test.shape == (0,)


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ({"inexact_test": np.array([10])}, "inexact_test names images that are not there"),
        ({"inexact_train": np.array([-1, 3])}, "inexact_train names images that are not there"),
        ({"inexact_train": np.zeros(20, bool)}, "inexact_train is bool, must be the numbers of images"),
        ({"inexact_test": np.array([0.5])}, "inexact_test is float64, must be the numbers of images"),
    ],
)
def test_inexact_numbers_that_cannot_be_are_one_line(tmp_path, numbers, says):
    np.savez(tmp_path / "f.npz", **arrays(), **numbers)
    assert says in the_line("arrays", path=tmp_path / "f.npz")


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


def change(key, change):
    def harm(data):
        data[key] = change(data[key])

    return harm


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (change("x_train", lambda x: np.where(x > 250, np.nan, x)), "x_train is float64, must be uint8"),
        (change("x_test", lambda x: x.astype(np.int32)), "x_test is int32, must be uint8"),
        (change("y_train", lambda y: y + np.nan), "y_train is float64 (20,), must be integers"),
        (change("y_train", lambda y: y[:, None]), "y_train is int64 (20, 1), must be integers of shape (S,)"),
        (change("y_train", lambda y: y[:-1]), "20 images in x_train, 19 labels"),
        (change("y_test", lambda y: y - 1), "labels -1 … 8 in y_test, allowed are 0 … 9"),
        (change("y_test", lambda y: y + 1), "labels 1 … 10 in y_test, allowed are 0 … 9"),
        (change("y_train", lambda y: y * 10**9), "allowed are 0 … 19"),
        (change("y_train", lambda y: y * 0), "1 class, at least 2"),
        (change("x_test", lambda x: x[:, 1:]), "(1, 28, 28) in x_train, (1, 27, 28) in x_test"),
        (change("x_train", lambda x: x.reshape(20, 784)), "shape (20, 784)"),
        (change("x_train", lambda x: x.reshape(20, 28, 7, 4)[:, :, :, None]), "must be (S, H, W)"),
        (change("x_train", lambda x: x.reshape(20, 7, 14, 8)), "C ≤ 4"),
        (change("x_train", lambda x: x[:0]), "shape (0, 28, 28)"),
        (lambda data: data.pop("y_test"), "has no y_test"),
        (lambda data: data.update(classes=np.array(["a", "b"])), "allowed are 0 … 1"),
    ],
)
def test_bad_arrays_are_one_line(tmp_path, harm, says):
    data = arrays()
    harm(data)
    path = tmp_path / "mine.npz"
    np.savez(path, **data)
    line = the_line("arrays", path=path)
    assert says in line
    assert str(path) in line
    assert "x_train, y_train, x_test, y_test" in line


@pytest.mark.parametrize("content", [b"", b"PK\3\4 rubbish", b"\x93NUMPY rubbish", b"text"])
def test_no_npz_at_all(tmp_path, content):
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    assert f"{path} cannot be read" in the_line("arrays", path=path)


def test_truncated_npz_and_flipped_bit(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, **arrays())
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert "cannot be read" in the_line("arrays", path=path)
    path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    assert "cannot be read" in the_line("arrays", path=path)


def test_npy_under_the_name_of_npz(tmp_path):
    path = tmp_path / "mine.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    assert "no .npz" in the_line("arrays", path=path)


def test_missing_arrays(tmp_path):
    assert "is not there" in the_line("arrays", path=tmp_path / "none.npz")
    assert "data.path" in the_line("arrays")


def test_unknown_name():
    names = "mnist, fashion_mnist, cifar10, cifar100, digits, digits_cluttered, arrays"
    with pytest.raises(UserError, match=f"'mnits'; there are {names}"):
        load_dataset("mnits")


# Anyone's own arrays


@pytest.mark.parametrize("place", ["none", "first", "last"])
def test_channel_places(tmp_path, place):
    shape = {"none": (6, 5), "first": (3, 6, 5), "last": (6, 5, 3)}[place]
    data = arrays(shape=shape)
    np.savez(tmp_path / "f.npz", **data, classes=np.array(list("abcdefghij")))
    dataset = load_dataset("arrays", path=tmp_path / "f.npz")
    assert dataset.train.x.shape == (20, 1 if place == "none" else 3, 6, 5)
    assert dataset.train.x.is_contiguous()
    there = {"none": (4, 2, 1), "first": (4, 2, 2, 1), "last": (4, 2, 1, 2)}[place]
    assert dataset.train.x[4, -1, 2, 1] == data["x_train"][there]
    assert dataset.classes == tuple("abcdefghij")


def labelled(tmp_path, labels, **more):
    data = arrays()
    data["y_train"], data["y_test"] = (np.resize(labels, len(data[name])) for name in ("y_train", "y_test"))
    np.savez(tmp_path / "f.npz", **data, **more)
    return tmp_path / "f.npz"


def test_labels_from_one_are_named_and_the_cure_said(tmp_path):
    with pytest.raises(UserError) as caught:
        load_dataset("arrays", path=labelled(tmp_path, [1, 2, 3]))
    message = str(caught.value)
    assert "no training image is of class 0" in message and "begin at 1: subtract 1" in message
    assert "\n" not in message


def test_gaps_are_named(tmp_path):
    with pytest.raises(UserError, match="no training image is of 0, 1, 2, 4, 5, 6, 7; number the classes"):
        load_dataset("arrays", path=labelled(tmp_path, [3, 8]))


def test_a_class_with_a_name_may_be_empty_and_is_told(tmp_path, caplog):
    path = labelled(tmp_path, [0, 2], classes=np.array(["a", "b", "c"]))
    assert load_dataset("arrays", path=path).classes == ("a", "b", "c")
    assert "no training image is of class b" in caplog.text


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


# The digits


def test_digits():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    dataset = load_dataset("digits")
    assert dataset.train.x.shape == (1437, 1, 28, 28)
    assert dataset.test.x.shape == (360, 1, 28, 28)
    assert dataset.classes == tuple("0123456789")
    assert dataset.train.x.max() == 255
    # Stratified: a fifth of each class, to within one image.
    shares = torch.bincount(dataset.test.y).numpy() - np.bincount(bunch.target) / 5
    assert np.abs(shares).max() <= 1
    # The mean brightness survives scaling and resizing.
    both = torch.cat([dataset.train.x, dataset.test.x]).double().mean().item()
    assert both == pytest.approx(bunch.images.mean() * 255 / 16, rel=0.02)


def test_digits_split_is_the_published_one():
    """These numbers may never change: results are compared across versions."""
    dataset = load_dataset("digits")
    assert dataset.test.y[:12].tolist() == [1, 7, 9, 2, 4, 9, 9, 1, 7, 3, 1, 2]
    assert torch.bincount(dataset.test.y).tolist() == [36, 36, 36, 36, 37, 36, 36, 36, 35, 36]


@pytest.mark.skipif(
    not os.path.isdir(os.path.join(os.environ.get("BRANCHYNET_DATA", ""), "MNIST", "raw")),
    reason="needs MNIST in BRANCHYNET_DATA",
)
def test_real_mnist():
    dataset = load_dataset("mnist")
    assert dataset.train.x.shape == (60000, 1, 28, 28)
    assert dataset.test.x.shape == (10000, 1, 28, 28)
    assert dataset.train.y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    # The mean that everyone's normalisation constants quote.
    assert dataset.train.x.double().mean().item() / 255 == pytest.approx(0.1307, abs=5e-5)


@pytest.mark.skipif(
    not os.path.isfile(os.path.join(os.environ.get("BRANCHYNET_DATA", ""), "cifar10.npz")),
    reason="needs cifar10.npz in BRANCHYNET_DATA",
)
def test_real_cifar10():
    dataset = load_dataset("cifar10")
    assert dataset.train.x.shape == (50000, 3, 32, 32)
    assert dataset.test.x.shape == (10000, 3, 32, 32)
    assert torch.bincount(dataset.train.y).tolist() == [5000] * 10
    assert torch.bincount(dataset.test.y).tolist() == [1000] * 10
    names = [dataset.classes[k] for k in dataset.train.y[:5]]
    assert names == ["frog", "truck", "truck", "deer", "automobile"]
    # The means that everyone's normalisation constants quote.
    assert channel_statistics(dataset.train.x)[0] == pytest.approx([0.4914, 0.4822, 0.4465], abs=1e-4)
