"""Images and labels, looked at; what else may be wrong with them is in test_arrays.py."""

import numpy as np
import pytest
import torch

from branchynet.data.checked import build
from branchynet.data.files import FileProblem

X, Y = np.arange(120, dtype=np.uint8).reshape(6, 5, 4), np.arange(6) % 3


def test_labels_of_one_column_are_labels():
    dataset = build(
        "it", {"train": (X, Y[:, None]), "test": (X[:3], Y[:3].astype(np.uint8)[:, None])}, None, "file"
    )
    assert dataset.train.y.tolist() == Y.tolist() and dataset.test.y.dtype == torch.int64
    assert dataset.classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (np.eye(3)[Y], r"labels is float64 \(6, 3\), one column for each class: store y.argmax"),
        (np.eye(3, dtype=int)[Y] | [1, 0, 0], "several labels for an image: exits answer with one class"),
        (np.ones((6, 2), int), "several labels"),
        (np.stack([Y, Y]).T[:, None], r"must be integers of shape \(S,\) or \(S, 1\)"),
        (Y / 2, r"must be integers of shape \(S,\) or \(S, 1\)"),
    ],
)
def test_labels_that_are_none_are_refused_by_their_own_name(y, says):
    with pytest.raises(FileProblem, match=f"file: labels.*{says}" if "labels is" not in says else says):
        build("it", {"train": (X, Y), "test": (X, y)}, None, "file", {"y_test": "labels"})


MAPS = X % 3


def of_maps(y=MAPS, classes=None, test=MAPS):
    return build("it", {"train": (X, y), "test": (X, test)}, classes, "file")


@pytest.mark.parametrize("y", [MAPS, MAPS[..., None], MAPS.astype(np.int64)[:, None]])
def test_labels_of_every_pixel_are_bytes(y):
    dataset = of_maps(y)
    assert dataset.train.y.dtype == torch.uint8 and np.array_equal(dataset.train.y, MAPS)
    assert dataset.classes == ("0", "1", "2") and dataset.train.at(torch.tensor([1])).y.dtype == torch.int64


def test_two_classes_may_be_true_and_false():
    dataset = of_maps(MAPS > 0, test=MAPS == 2)
    assert dataset.classes == ("0", "1") and np.array_equal(dataset.test.y, MAPS == 2)


def test_a_class_of_no_pixel_is_refused_unless_it_has_a_name(caplog):
    with pytest.raises(FileProblem, match="no training pixel is of class 1; number the classes 0 … K-1"):
        of_maps(np.where(MAPS == 1, 0, MAPS))
    assert of_maps(np.where(MAPS == 1, 0, MAPS), ("a", "b", "c")).classes == ("a", "b", "c")
    assert "no training pixel is of class b" in caplog.text


@pytest.mark.parametrize(
    ("y", "test", "says"),
    [
        (
            np.where(MAPS == 1, 255, MAPS),
            MAPS,
            r"no training pixel is of 1, 3, .*that are not to count: data\.ignore=255",
        ),
        (
            MAPS,
            np.where(MAPS == 1, 255, MAPS),
            "labels 0 … 255 in y_test, allowed are 0 … 2. Pixels that are not to count: data.ignore=255",
        ),
        (MAPS.astype(int) * 1000, MAPS, "labels 0 … 2000 in y_train, allowed are 0 … 255"),
        (MAPS, Y, r"y_test is int64 \(6,\), must be integers .* \(S, 5, 4\)"),
        (Y, MAPS, r"y_test is uint8 \(6, 5, 4\), must be integers of shape \(S,\)"),
        (MAPS[:, :4], MAPS, r"y_train is uint8 \(6, 4, 4\), must be .* \(S, 5, 4\)"),
    ],
)
def test_labels_that_are_no_maps_of_the_images_are_refused(y, test, says):
    with pytest.raises(FileProblem, match=f"^file: {says}"):
        of_maps(y, test=test)


def test_pixels_that_do_not_count_are_no_class():
    away = np.where(MAPS == 2, 255, MAPS)
    parts = {"train": (X, away), "test": (X, away)}
    dataset = build("it", parts, None, "file", ignore=255)
    assert dataset.classes == ("0", "1") and np.array_equal(dataset.train.y, away)
    with pytest.raises(FileProblem, match=r"^file: no training pixel is of class 0; .* begin at 1"):
        build(
            "it", {"train": (X, np.where(MAPS == 0, 255, MAPS)), "test": (X, away)}, None, "file", ignore=255
        )
    with pytest.raises(FileProblem, match=r"256 classes, with data\.ignore there are at most 255"):
        build("it", parts, tuple(map(str, range(256))), "file", ignore=255)
