"""The embedded sets: always the same, no original on both sides, easy and hard images."""

import hashlib

import numpy as np
import pytest

import branchynet.data.digits
from branchynet.data.datasets import load_dataset
from branchynet.data.digits import cluttered_digits, plain_digits


@pytest.fixture(scope="module")
def cluttered():
    return cluttered_digits()


@pytest.fixture
def few(monkeypatch):
    """Made of the same originals, but few, and so in no time."""
    monkeypatch.setattr(branchynet.data.digits, "CLUTTERED", {"train": 30, "val": 20, "test": 10})


def test_shapes_and_classes(cluttered):
    assert {part: images.x.shape for part, images in cluttered.items()} == {
        "train": (12_000, 28, 28),
        "val": (2_000, 28, 28),
        "test": (4_000, 28, 28),
    }
    for images in cluttered.values():
        assert images.x.dtype == np.uint8
        counts = np.bincount(images.y, minlength=10)
        assert len(counts) == 10 and counts.min() > 0.08 * len(images.y)


def test_it_is_the_same_every_time(cluttered, few):
    once, again = cluttered_digits(), cluttered_digits()
    for part, images in once.items():
        assert np.array_equal(images.x, again[part].x) and np.array_equal(images.y, again[part].y)
    labels = hashlib.sha256(b"".join(images.y.tobytes() for images in cluttered.values())).hexdigest()
    assert labels[:16] == "641fbfbded8df67b"


def test_no_two_images_of_a_part_are_the_same(cluttered):
    """A third have neither clutter nor noise, and share their originals."""
    for images in cluttered.values():
        assert len({image.tobytes() for image in images.x}) == len(images.x)


def test_a_third_is_nearly_clean_and_some_are_full_of_clutter(cluttered):
    """A clean image is black at its border."""
    for images in cluttered.values():
        x = images.x
        bright = np.concatenate([x[:, 0], x[:, -1], x[:, :, 0]], axis=1).mean(axis=1)
        assert 0.28 < (bright < 1).mean() < 0.5
        assert (bright > 20).mean() > 0.15


def test_no_part_has_an_original_of_another_one(few, monkeypatch):
    """Every image is made of the originals that its part is given, clutter included."""
    given = []
    made = branchynet.data.digits.clutter

    def spied(values, *rest):
        given.append({image.numpy().tobytes() for image in values})
        return made(values, *rest)

    monkeypatch.setattr("branchynet.data.digits.clutter", spied)
    cluttered_digits()
    train, val, test = given
    assert [len(part) for part in given] == [1231, 206, 360]
    assert not (train & val or train & test or val & test)


def test_test_images_of_the_plain_set_are_of_other_originals():
    plain = plain_digits()
    train = {image.tobytes() for image in plain["train"].x}
    assert len(train) == 1437
    assert not any(image.tobytes() in train for image in plain["test"].x)


def test_by_name(few):
    data = load_dataset("digits_cluttered")
    assert data.val is not None and data.classes == tuple("0123456789")
    assert (len(data.train), len(data.val), len(data.test)) == (30, 20, 10)
    assert load_dataset("digits").val is None
