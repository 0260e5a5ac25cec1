"""The embedded sets: always the same, no original on both sides, easy and hard images."""

import hashlib

import numpy as np
import pytest

from branchynet.data.datasets import load_dataset
from branchynet.data.digits import cluttered_digits, plain_digits


@pytest.fixture(scope="module")
def cluttered():
    return cluttered_digits()


def test_shapes_and_classes(cluttered):
    assert cluttered.x_train.shape == (14_000, 28, 28) and cluttered.x_test.shape == (4_000, 28, 28)
    assert cluttered.x_train.dtype == np.uint8
    for labels in (cluttered.y_train, cluttered.y_test):
        counts = np.bincount(labels, minlength=10)
        assert len(counts) == 10 and counts.min() > 0.08 * len(labels)


def test_it_is_the_same_every_time(cluttered):
    again = cluttered_digits()
    assert all(np.array_equal(first, second) for first, second in zip(cluttered, again, strict=True))
    labels = hashlib.sha256(cluttered.y_train.tobytes() + cluttered.y_test.tobytes()).hexdigest()
    assert labels[:16] == "b23e12a5ba0523f2"


def test_a_third_is_nearly_clean_and_some_are_full_of_clutter(cluttered):
    """A clean image is black at its border."""
    border = np.concatenate(
        [cluttered.x_train[:, 0], cluttered.x_train[:, -1], cluttered.x_train[:, :, 0]], axis=1
    )
    bright = border.mean(axis=1)
    assert 0.28 < (bright < 1).mean() < 0.5
    assert (bright > 20).mean() > 0.15


def test_test_images_are_of_other_originals():
    plain = plain_digits()
    train = {image.tobytes() for image in plain.x_train}
    assert not any(image.tobytes() in train for image in plain.x_test)


def test_by_name():
    data = load_dataset("digits_cluttered")
    assert len(data.train) == 14_000 and len(data.test) == 4_000 and len(data.classes) == 10
