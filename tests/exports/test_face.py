"""What users hold: one interface, and one wording for images that a network does not take."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from branchynet.errors import UserError
from branchynet.exports.face import OnImages
from branchynet.runtime.base import Outcome
from branchynet.runtime.profile import Profile, exit_indices, validation_of


class Plain(OnImages):
    """All that is needed to have the interface."""

    classes = ("a", "b")
    input_shape = (1, 12, 12)
    thresholds = ()
    profile = None

    def run_once(self, x):
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


INTERFACE = ("classes", "input_shape", "thresholds", "profile", "run_once")


@pytest.mark.parametrize("missing", INTERFACE)
def test_the_interface_is_all_of_it(missing):
    parts = {name: getattr(Plain, name) for name in INTERFACE}
    del parts[missing]
    with pytest.raises(TypeError, match=missing):
        type("Partial", (OnImages,), parts)()


class Unsure(OnImages):
    """Of two exits; an image's first byte is how unsure exit 1 is, exit 2 is always sure."""

    classes, input_shape = ("a", "b"), (1, 1, 1)

    def __init__(self):
        self.thresholds = (100.0,)
        unsure = np.float32([[n, 0] for n in range(256)])
        right = np.ones((256, 2), bool)
        costs = {"latency_us": (10.0, 30.0), "macs": (1.0, 3.0)}
        validation = validation_of(unsure, np.zeros((256, 2), int), right, self.thresholds)
        self.found = Profile(self.thresholds, costs, validation, 256.0)

    @property
    def profile(self):
        return self.found

    thresholds = None

    def run_once(self, x):
        unsure = np.float32(x[:, 0, 0, 0])
        late = unsure >= np.float32(self.thresholds[0])
        return Outcome(late.astype(np.int64), late + np.int64(1), np.where(late, 0, unsure))


def test_a_controller_sets_the_thresholds_while_images_come():
    images = np.random.default_rng(0).integers(128, 256, (4000, 1, 1, 1), np.uint8)
    one, other = Unsure(), Unsure()
    assert one.controller is None and one.run(images).exit.mean() == 2, "fixed, all of them go to the end"
    controller = one.hold("latency_us", 20.0, tell=print)
    found = one.run(images)
    assert one.controller is controller and controller.images == 4000
    assert found.exit[1000:].mean() == pytest.approx(1.5, abs=0.01)
    assert one.thresholds == controller.thresholds
    # In other batches it is the same stream.
    other.hold("latency_us", 20.0, tell=print)
    parts = [other.run(images[start : start + 37]).exit for start in range(0, 4000, 37)]
    assert np.concatenate(parts).tolist() == found.exit.tolist()
    one.controller = None
    assert len(one.run(images).exit) == 4000 and controller.images == 4000


def test_a_controller_of_another_network_is_refused():
    network, other = Unsure(), Unsure()
    other.found = replace(other.found, thresholds=(99.0,))
    network.controller = other.hold()
    with pytest.raises(UserError, match="of another network"):
        network.run(np.zeros((1, 1, 1, 1), np.uint8))


def test_what_every_exit_says(exported, pixels):
    before = exported.thresholds
    unsure, prediction = exported.every_exit(pixels[:20])
    assert unsure.shape == prediction.shape == (20, 3) and exported.thresholds == before
    taken = exit_indices(unsure, before)
    found = exported.run(pixels[:20])
    assert found.exit_index.tolist() == taken.tolist()
    assert found.prediction.tolist() == prediction[np.arange(20), taken].tolist()
