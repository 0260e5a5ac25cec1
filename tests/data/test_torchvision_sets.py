"""Sets of torchvision by name, made here in the form in which they are published; nothing is downloaded."""

import csv
import hashlib
from urllib.error import URLError

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image
from sets import the_line

from branchynet.data.datasets import load_dataset
from branchynet.data.torchvision_sets import KNOWN, TorchvisionSettings
from branchynet.errors import ArgumentError, UserError

RNG = np.random.default_rng(0)


def load(root=None, download=False, **settings):
    return load_dataset("torchvision", root, download, own=TorchvisionSettings(**settings))


def line_of(root, download=False, **settings):
    return the_line("torchvision", root, download, own=TorchvisionSettings(**settings))


@pytest.fixture
def svhn(tmp_path, monkeypatch):
    """SVHN's two files, images (32, 32, 3, S) and labels 1 … 10, their checksums made torchvision's."""
    from scipy.io import savemat

    made, checksums = {}, dict(torchvision.datasets.SVHN.split_list)
    for part, count in (("train", 40), ("test", 20)):
        images = RNG.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        label = np.arange(count, dtype=np.uint8)[:, None] % 10 + 1
        path = tmp_path / f"{part}_32x32.mat"
        savemat(path, {"X": images, "y": label})
        checksums[part] = ["", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
        made[part] = (images.transpose(3, 2, 0, 1), label[:, 0] % 10)  # in the file 10 is the digit 0
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", checksums)
    return made


def test_svhn_with_its_own_test_images_and_a_share_for_validation(tmp_path, svhn):
    data = load(tmp_path, dataset="SVHN", val_share=0.25)
    np.testing.assert_array_equal(data.test.x.numpy(), svhn["test"][0])
    np.testing.assert_array_equal(data.test.y.numpy(), svhn["test"][1])
    assert (len(data.train), len(data.val)) == (30, 10)
    assert data.val.y.bincount().tolist() == [1] * 10
    assert data.classes == tuple("0123456789") and data.name == "SVHN"
    everything = {image.tobytes() for image in svhn["train"][0]}
    assert {image.numpy().tobytes() for image in (*data.train.x, *data.val.x)} == everything
    small = load(tmp_path, dataset="SVHN", size=8, channels=1)
    assert small.train.x.shape[1:] == (1, 8, 8)
    assert len(load(tmp_path, dataset="SVHN", splits={"train": "test"}).train) < 20


def test_a_file_with_another_checksum_is_said_to_be_so_and_not_replaced_unasked(tmp_path, svhn, monkeypatch):
    path = tmp_path / "test_32x32.mat"
    path.write_bytes(path.read_bytes()[:-1])
    line = line_of(tmp_path, dataset="SVHN")
    assert "no SVHN that torchvision takes in" in line and "corrupted" in line
    assert "set data.root or data.download=true" in line

    def fail(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.datasets.svhn, "download_url", fail)
    assert "could not be downloaded" in line_of(tmp_path, True, dataset="SVHN")


def test_a_split_that_a_set_does_not_have_is_one_line(tmp_path, svhn):
    with pytest.raises(ArgumentError, match=r"splits.val=valid: SVHN has none"):
        load(tmp_path, dataset="SVHN", splits={"train": "train", "val": "valid"})


def test_eurosat_has_no_splits_and_names_from_its_folders(tmp_path):
    for k, name in enumerate(("Forest", "River")):
        folder = tmp_path / "eurosat" / "2750" / name
        folder.mkdir(parents=True)
        for n in range(20):
            Image.new("RGB", (9, 7), (100 * k, n, 0)).save(folder / f"{n}.png")
    data = load(tmp_path, dataset="EuroSAT")
    assert data.classes == ("Forest", "River")
    assert [len(each) for each in (data.train, data.val, data.test)] == [29, 5, 6]
    assert data.train.x.shape[1:] == (3, 7, 9)
    assert (data.train.x[:, 0, 0, 0] == 100 * data.train.y).all()
    Image.new("RGB", (9, 8)).save(tmp_path / "eurosat" / "2750" / "River" / "z.png")
    with pytest.raises(UserError, match=r"several sizes, such as 7×9 and 8×9: set data.size"):
        load(tmp_path, dataset="EuroSAT")
    (tmp_path / "eurosat" / "2750" / "River" / "z.png").write_bytes(b"no picture")
    assert "image 40 of EuroSAT's train cannot be read" in line_of(tmp_path, dataset="EuroSAT")


def test_gtsrb_has_two_splits_and_no_names(tmp_path):
    base = tmp_path / "gtsrb"
    for k in range(3):
        folder = base / "GTSRB" / "Training" / f"{k:05d}"
        folder.mkdir(parents=True)
        for n in range(10):
            Image.new("RGB", (20 + n, 20), (k, 0, 0)).save(folder / f"{n}.ppm")
    images = base / "GTSRB" / "Final_Test" / "Images"
    images.mkdir(parents=True)
    with (base / "GT-final_test.csv").open("w", newline="") as file:
        rows = csv.DictWriter(file, ["Filename", "ClassId"], delimiter=";")
        rows.writeheader()
        for n in range(3):
            Image.new("RGB", (20, 20), (n, 0, 0)).save(images / f"{n}.ppm")
            rows.writerow({"Filename": f"{n}.ppm", "ClassId": n})
    data = load(tmp_path, dataset="GTSRB", size=16)
    assert data.test.y.tolist() == [0, 1, 2] and data.classes == ("0", "1", "2")
    assert (len(data.train), len(data.val)) == (26, 4)


def test_fake_data_needs_no_folder_and_has_options():
    options = {"size": 60, "image_size": [3, 12, 12], "num_classes": 3}
    data = load(dataset="FakeData", options=options)
    assert data.train.x.shape[1:] == (3, 12, 12) and len(data.train) + len(data.val) + len(data.test) == 60
    assert len(data.classes) == 3


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"dataset": "SVNH"}, "dataset=SVNH: it is a set for classification, one of CIFAR10"),
        ({"dataset": "CocoDetection"}, "dataset=CocoDetection: it is a set for classification"),
        ({"size": 0}, "size=0"),
        ({"channels": 2}, "channels=2: it is 1"),
        ({"splits": {"test": "test"}}, "null or such as {train: train"),
        ({"options": 3}, "options=3: it is null or a mapping"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(ArgumentError, match=says):
        TorchvisionSettings(**settings)


def test_arguments_that_a_set_does_not_take_or_lacks(tmp_path):
    with pytest.raises(UserError, match=r"data=torchvision needs data.dataset=<name>; there are CIFAR10"):
        load(tmp_path)
    with pytest.raises(ArgumentError, match=r"options.sise: FakeData takes size, image_size"):
        load(tmp_path, dataset="FakeData", options={"sise": 3})
    with pytest.raises(ArgumentError, match=r"options: EMNIST needs split, too: data.options=.split: …."):
        load(tmp_path, dataset="EMNIST")
    with pytest.raises(ArgumentError, match="splits: KMNIST takes train=true or false"):
        load(tmp_path, dataset="KMNIST", splits={"train": "train"})
    assert "no EMNIST that torchvision takes" in line_of(
        tmp_path, dataset="EMNIST", options={"split": "letters"}
    )


def test_what_is_no_picture_and_its_class_is_refused(monkeypatch):
    picture = Image.new("RGB", (8, 8))
    for item, says in (
        ((picture, np.ones(14)), "FakeData gives Image and ndarray in its train"),
        ((picture, "cat"), "gives Image and str"),
        ((np.zeros(3), 1), "gives ndarray and int"),
        ((picture, 1, 2), "which is not a picture and its class"),
    ):
        monkeypatch.setattr(
            torchvision.datasets.FakeData, "__getitem__", lambda self, number, item=item: item
        )
        assert says in line_of(None, dataset="FakeData")


def test_all_known_sets_are_torchvisions():
    assert {*KNOWN} <= {*torchvision.datasets.__all__}
