"""Images from outside: made, or of other sets, in the shape of a network's own."""

import pytest
import torch

from branchynet.data.outside import OutsideImages, check_sources, in_form
from branchynet.errors import ArgumentError, UserError

OWN = torch.arange(5 * 3 * 8 * 8).reshape(5, 3, 8, 8).remainder(251).to(torch.uint8)


def made(name, own, size=2):
    return torch.cat(list(OutsideImages(name, own).batches(size)))


@pytest.mark.parametrize("name", ["noise", "shuffled", "digits"])
def test_images_are_the_same_in_whatever_batches_and_as_often_as_they_are_asked_for(name):
    source = OutsideImages(name, OWN)
    one, other, again = (list(source.batches(size)) for size in (5, 2, 2))
    assert len(source) == 5 and [len(part) for part in other] == [2, 2, 1]
    assert torch.equal(one[0], torch.cat(other)) and torch.equal(one[0], torch.cat(again))


def test_noise_is_of_all_bytes_and_the_same_every_time():
    large = torch.empty(20, 1, 50, 50, dtype=torch.uint8)
    counts = torch.bincount(made("noise", large).flatten().int(), minlength=256)
    assert counts.min() > 100 and counts.max() < 300  # 195 each
    assert made("noise", OWN).shape == OWN.shape


def test_shuffled_images_keep_their_pixels_and_each_has_an_order_of_its_own():
    found = made("shuffled", OWN)
    assert not torch.equal(found, OWN)
    for own, other in zip(OWN.flatten(2), found.flatten(2), strict=True):
        # Whole pixels move: their three channels stay together.
        assert sorted(map(tuple, own.T.tolist())) == sorted(map(tuple, other.T.tolist()))
    same = made("shuffled", OWN[:1].repeat(2, 1, 1, 1))
    assert not torch.equal(same[0], same[1])


def test_another_set_takes_the_form_of_the_networks_own():
    own = torch.zeros(7, 3, 20, 20, dtype=torch.uint8)
    found = torch.cat(list(OutsideImages("digits", own).batches(3)))
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
        OutsideImages("mnist", OWN, tmp_path)
    with pytest.raises(ArgumentError, match="of 4 channels"):
        in_form(torch.zeros(1, 4, 8, 8, dtype=torch.uint8), (3, 8, 8))
