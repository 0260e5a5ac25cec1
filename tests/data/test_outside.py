"""Images from outside: made, or of other sets, in the shape of a network's own."""

import pytest
import torch

from branchynet.data.outside import check_sources, in_form, noise, outside_images, shuffled
from branchynet.errors import ArgumentError, UserError

OWN = torch.arange(5 * 3 * 8 * 8).reshape(5, 3, 8, 8).remainder(251).to(torch.uint8)


def test_noise_is_of_all_bytes_and_the_same_every_time():
    large = torch.empty(20, 1, 50, 50, dtype=torch.uint8)
    counts = torch.bincount(noise(large).flatten().int(), minlength=256)
    assert counts.min() > 100 and counts.max() < 300  # 195 each
    assert torch.equal(noise(OWN), noise(OWN)) and noise(OWN).shape == OWN.shape


def test_shuffled_images_keep_their_pixels_and_each_has_an_order_of_its_own():
    found = shuffled(OWN)
    assert not torch.equal(found, OWN)
    for own, other in zip(OWN.flatten(2), found.flatten(2), strict=True):
        # Whole pixels move: their three channels stay together.
        assert sorted(map(tuple, own.T.tolist())) == sorted(map(tuple, other.T.tolist()))
    same = shuffled(OWN[:1].repeat(2, 1, 1, 1))
    assert not torch.equal(same[0], same[1])


def test_another_set_takes_the_form_of_the_networks_own():
    own = torch.zeros(7, 3, 20, 20, dtype=torch.uint8)
    found = outside_images("digits", own)
    assert found.shape == own.shape and found.dtype == torch.uint8
    assert torch.equal(found[:, 0], found[:, 2]) and found.amax() > 200
    grey = in_form(
        torch.tensor([255, 0, 0], dtype=torch.uint8).reshape(1, 3, 1, 1).repeat(1, 1, 4, 4), (1, 4, 4)
    )
    assert grey.shape == (1, 1, 4, 4) and grey.unique().tolist() == [76]  # 0.299 · 255


def test_mistakes(tmp_path):
    with pytest.raises(ArgumentError, match="outside="):
        check_sources("noise")
    with pytest.raises(ArgumentError, match="different names"):
        check_sources(["noise", "noise"])
    with pytest.raises(UserError, match=r"outside=nosuch.*noise"):
        check_sources(["nosuch"])
    with pytest.raises(UserError, match="no MNIST"):
        outside_images("mnist", OWN, tmp_path)
    with pytest.raises(ArgumentError, match="of 4 channels"):
        in_form(torch.zeros(1, 4, 8, 8, dtype=torch.uint8), (3, 8, 8))
