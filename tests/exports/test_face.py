"""What users hold: one interface, and one wording for images that a network does not take."""

import numpy as np
import pytest
import torch

from branchynet.errors import UserError
from branchynet.exports.face import OnImages
from branchynet.runtime.base import Outcome


class Plain(OnImages):
    """All that is needed to have the interface."""

    classes = ("a", "b")
    input_shape = (1, 12, 12)
    thresholds = ()

    def run(self, images):
        x = self.checked(images)
        return Outcome(np.zeros(len(x), np.int64), np.ones(len(x), np.int64), np.zeros(len(x), np.float32))


OF_ANOTHER_SHAPE = [
    np.zeros((2, 12, 12), np.uint8),
    np.zeros((2, 1, 12, 13), np.uint8),
    np.zeros((0, 1, 12, 12), np.uint8),
    np.uint8(3),
    [[1, 2]],
]


@pytest.mark.parametrize("x", OF_ANOTHER_SHAPE)
def test_images_of_another_shape_are_refused(x, exported):
    for network in (Plain(), exported):
        with pytest.raises(UserError) as caught:
            network.run(x)
        shape = np.asarray(x).shape
        assert str(caught.value) == (
            f"the images have shape {shape}: this network takes (B, 1, 12, 12), B ≥ 1"
        )


@pytest.mark.parametrize("kind", [np.float32, np.int64, bool])
def test_images_that_are_no_bytes_are_refused(kind, exported):
    for network in (Plain(), exported):
        with pytest.raises(UserError, match=f"^the images are {np.dtype(kind)}: give bytes, uint8, 0 to 255"):
            network.run(np.zeros((2, 1, 12, 12), kind))


def test_arrays_tensors_lists_and_views_are_taken(exported, pixels):
    mirrored = pixels[:5, :, ::-1, ::-1]
    expected = exported.run(mirrored.copy())
    for given in (mirrored, torch.from_numpy(mirrored.copy()), list(mirrored)):
        assert len(Plain().run(given).exit) == 5
        for ours, theirs in zip(exported.run(given), expected, strict=True):
            assert np.array_equal(ours, theirs)
    assert not np.array_equal(exported.run(pixels[:5]).uncertainty, expected.uncertainty)


def test_images_are_left_as_they_are(exported, pixels):
    given = pixels[:5].copy()
    exported.run(given)
    assert np.array_equal(given, pixels[:5])


@pytest.mark.parametrize("missing", ["classes", "input_shape", "thresholds", "run"])
def test_the_interface_is_all_of_it(missing):
    parts = {name: getattr(Plain, name) for name in ("classes", "input_shape", "thresholds", "run")}
    del parts[missing]
    with pytest.raises(TypeError, match=missing):
        type("Partial", (OnImages,), parts)()
