"""Images that become harder: as they were at strength 0, the same for the same seed, and each kind what it says."""

import pytest
import torch

from branchynet.data.drift import ANGLE, DRIFTS, FADED, NOISE, drifted, rising
from branchynet.errors import UserError


@pytest.fixture(scope="module")
def images():
    return torch.randint(60, 196, (40, 3, 16, 20), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.mark.parametrize("kind", DRIFTS)
def test_an_image_is_drifted_by_its_own_strength(kind, images):
    strength = torch.linspace(0, 1, 40)
    found = drifted(images, kind, strength)
    assert found.dtype == torch.uint8 and found.shape == images.shape
    assert torch.equal(found[0], images[0]) and torch.equal(found, drifted(images, kind, strength))
    differs = (found.float() - images.float()).abs().mean(dim=(1, 2, 3))
    assert differs[30:].mean() > differs[1:20].mean() > 0


def test_what_each_kind_does(images):
    most, flat = torch.ones(40), torch.full((40, 1, 21, 21), 100, dtype=torch.uint8)
    dot = flat.clone()
    dot[:, :, 10, 10] = 255
    # A blur moves nothing and loses nothing.
    found = drifted(dot, "blur", most).float() - 100
    assert found.sum(dim=(1, 2, 3)) == pytest.approx([155.0] * 40, rel=0.15)
    assert (found.flatten(1).argmax(dim=1) == 10 * 21 + 10).all() and found.max() < 20
    assert (drifted(flat, "noise", most / 4).float() - 100).std() == pytest.approx(NOISE / 4, rel=0.05)
    spread = images.float().std(dim=(1, 2, 3))
    assert (drifted(images, "contrast", most).float().std(dim=(1, 2, 3)) / spread).mean() == pytest.approx(
        FADED, rel=0.1
    )
    # A point to the right of the middle goes round it, one way or the other.
    flat[:, :, 10, 18] = 255
    places = drifted(flat, "rotation", most).float().flatten(1).argmax(dim=1)
    angles = torch.atan2((places // 21 - 10).float(), (places % 21 - 10).float()).rad2deg()
    assert set(angles.sign().tolist()) == {-1, 1} and angles.abs().tolist() == pytest.approx(
        [ANGLE] * 40, abs=5
    )


def test_a_stream_rises_from_easy_to_hard():
    assert rising(8, 0.25, 0.75, 0.5).tolist() == [0, 0, 0, 0.125, 0.25, 0.375, 0.5, 0.5]
    assert rising(4, 0.5, 0.5).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("begin", "end", "most", "words"),
    [
        (0.5, 0.4, 1, "begin=0.5: it is at most end=0.4"),
        (-1, 1, 1, "begin"),
        (0, 1, 2, "strength=2"),
        (0, "a", 1, "end"),
    ],
)
def test_misuse_is_one_line(begin, end, most, words):
    with pytest.raises(UserError, match=words):
        rising(10, begin, end, most)


def test_an_unknown_kind_is_refused(images):
    with pytest.raises(UserError, match="drift=rain: it is one of rotation, blur, noise, contrast"):
        drifted(images, "rain", torch.ones(40))
