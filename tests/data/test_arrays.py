import numpy as np
import pytest
import torch
from sets import arrays, the_line

from branchynet.data.arrays import ArraySettings
from branchynet.data.datasets import load_dataset
from branchynet.errors import ArgumentError, UserError

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


# What may be wrong with them


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
        (
            change("y_train", lambda y: y[:, None] + np.zeros((20, 3), int)),
            "y_train is int64 (20, 3), must be",
        ),
        (
            change("y_train", lambda y: np.eye(10, dtype=int)[y]),
            "one column for each class: store y.argmax(axis=1)",
        ),
        (
            change("y_test", lambda y: (np.eye(10)[y] + np.eye(10)[1]).clip(0, 1)),
            "several labels for an image",
        ),
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


# The names that people give


def medmnist(data):
    """The same arrays as MedMNIST has them, with validation images."""
    named = {}
    for part, own in (("train", "train"), ("val", "test"), ("test", "test")):
        named[f"{part}_images"], named[f"{part}_labels"] = data[f"x_{own}"], data[f"y_{own}"][:, None]
    return named


def test_keras_and_medmnist_layouts(tmp_path):
    data = arrays(shape=(6, 5, 3))
    np.savez(tmp_path / "k.npz", **data | {name: data[name][:, None] for name in ("y_train", "y_test")})
    np.savez(tmp_path / "m.npz", **medmnist(data))
    keras, med = (load_dataset("arrays", path=tmp_path / name) for name in ("k.npz", "m.npz"))
    for dataset in (keras, med):
        np.testing.assert_array_equal(dataset.train.x.numpy(), data["x_train"].transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(dataset.test.y.numpy(), data["y_test"])
    assert keras.val is None
    np.testing.assert_array_equal(med.val.y.numpy(), data["y_test"])


def test_keys_say_what_arrays_are_called(tmp_path):
    data = arrays()
    named = {
        "photos": data["x_train"],
        "kinds": data["y_train"],
        "x_test": data["x_test"],
        "t": data["y_test"],
    }
    np.savez(tmp_path / "f.npz", **named, names=np.array(list("abcdefghij")))
    keys = {"x_train": "photos", "y_train": "kinds", "y_test": "t", "classes": "names"}
    dataset = load_dataset("arrays", path=tmp_path / "f.npz", own=ArraySettings(keys))
    np.testing.assert_array_equal(dataset.test.y.numpy(), data["y_test"])
    assert dataset.classes == tuple("abcdefghij")
    line = the_line("arrays", path=tmp_path / "f.npz", own=ArraySettings({**keys, "x_test": "tests"}))
    assert "has no tests; it has kinds, names, photos, t, x_test" in line
    assert "say what they are called by data.keys={x_train: …," in line and "replace it" not in line
    line = the_line("arrays", path=tmp_path / "f.npz", own=ArraySettings({**keys, "classes": "nams"}))
    assert "has no nams; it has kinds, names" in line


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("x_train", "keys=x_train: it is null or such as"),
        ({"x_trian": "photos"}, "keys.x_trian is unknown; there are x_train, y_train"),
        ({"x_train": 3}, "keys.x_train=3: it is the name of an array"),
    ],
)
def test_keys_that_cannot_be(keys, says):
    with pytest.raises(ArgumentError, match=says):
        ArraySettings(keys)


def test_what_is_wrong_is_said_by_the_names_in_the_file(tmp_path):
    named = medmnist(arrays())
    for harm, says in (
        ({"val_images": named["val_images"].astype(float)}, "val_images is float64, must be uint8"),
        ({"test_labels": named["test_labels"][:-1]}, "10 images in test_images, 9 labels in test_labels"),
        (
            {"train_labels": np.ones((20, 14), int)},
            "train_labels is int64 (20, 14), several labels for an image",
        ),
    ):
        np.savez(tmp_path / "m.npz", **named | harm)
        assert says in the_line("arrays", path=tmp_path / "m.npz")
    del named["val_labels"]
    np.savez(tmp_path / "m.npz", **named)
    assert "has no val_labels; it has test_images" in the_line("arrays", path=tmp_path / "m.npz")


def test_pixels_that_do_not_count(tmp_path):
    images, maps = np.zeros((8, 4, 4), np.uint8), np.arange(128).reshape(8, 4, 4) % 3 - 1
    np.savez(tmp_path / "f.npz", x_train=images, y_train=maps, x_test=images, y_test=maps)
    dataset = load_dataset("arrays", path=tmp_path / "f.npz", own=ArraySettings(ignore=-1))
    assert dataset.classes == ("0", "1")
    assert np.array_equal(dataset.test.y, np.where(maps < 0, 255, maps))
