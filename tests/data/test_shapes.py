"""Shapes on textures: always the same, all classes in all parts, harder images of more and fainter shapes."""

import numpy as np
import pytest
import torch

from branchynet.data import shapes as module
from branchynet.data.module import ImageData
from branchynet.data.shapes import CLASSES, draw, shapes
from branchynet.errors import UserError


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(module, "PARTS", {"train": 130, "val": 30, "test": 40})


def test_they_are_always_the_same_and_no_part_is_anothers(few):
    one, other = shapes(), shapes()
    assert [len(part.x) for part in one.values()] == [130, 30, 40]
    for part in one:
        assert np.array_equal(one[part].x, other[part].x) and np.array_equal(one[part].y, other[part].y)
        assert set(np.unique(one[part].y)) == set(range(len(CLASSES)))
    assert not np.array_equal(one["train"].x[:30], one["val"].x)


def test_images_and_maps_are_bytes_and_most_pixels_are_ground():
    found = draw(60, np.random.RandomState(0))
    assert found.x.shape == (60, 3, 48, 48) and found.y.shape == (60, 48, 48)
    assert found.x.dtype == found.y.dtype == np.uint8
    assert 0.5 < (found.y == 0).mean() < 0.95
    assert (found.y > 0).any(axis=(1, 2)).mean() > 0.95


def test_a_shape_has_another_colour_than_the_ground():
    """On average over an image's ground and its shapes; some are nearly of one colour, as hard ones should be."""
    found = draw(60, np.random.RandomState(1))
    away = []
    for x, y in zip(found.x.astype(float), found.y, strict=True):
        if (y > 0).any():
            away.append(np.linalg.norm(x[:, y > 0].mean(axis=1) - x[:, y == 0].mean(axis=1)))
    assert np.median(away) > 40 and min(away) < 30


def test_the_data_module_gives_maps_and_refuses_to_move_images_alone(few):
    data = ImageData("shapes", batch_size=64, validation_size=None)
    data.setup()
    assert data.input_shape == (3, 48, 48) and data.classes == CLASSES
    assert data.labels("test").shape == (40, 48, 48) and data.labels("test").dtype == torch.uint8
    x, y = next(iter(data.train_dataloader()))
    assert x.shape == (64, 3, 48, 48) and y.shape == (64, 48, 48) and y.dtype == torch.int64
    with pytest.raises(UserError, match="augment: shapes has a label for every pixel"):
        ImageData("shapes", validation_size=None, augment={"flip": True}).setup()
    ImageData("shapes", validation_size=None, augment={"cutout": 8}).setup()


def test_calibration_images_are_taken_out_of_training(few):
    data = ImageData("shapes", validation_size=None, calibration=10)
    assert len(data.labels("calibration")) == 10 and len(data.labels("train")) == 120
