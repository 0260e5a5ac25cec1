"""The encoder-decoder: shapes at every stage, cuts that change nothing, the heads that give maps."""

import pytest
import torch

from branchynet.errors import UserError
from branchynet.networks.attach import attach, legal_places
from branchynet.networks.places import auto_exits, head_macs, survey
from branchynet.networks.unet import Down, Up, unet
from branchynet.runtime.costs import count_macs

SHAPE = (3, 16, 16)


def small():
    return unet(size=16, widths=(4, 6, 8), blocks=1, skip=2)


def heads(*places, **more):
    return [{"after": place, "convs": [5], "norm": "batch", **more} for place in places]


def test_one_tensor_goes_through_all_stages_and_keeps_the_skips_values():
    trunk = small().eval()
    assert legal_places(trunk)[-5:] == ["down1", "down2", "middle", "up2", "up1"]
    x = torch.randn(2, *SHAPE)
    shapes = []
    for stage in trunk:
        x = stage(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [
        *((4, 16, 16), (14, 8, 8), (8 + 4 * (2 + 8), 4, 4), (48, 4, 4)),
        *((6 + 8, 8, 8), (4, 16, 16), (4, 16, 16)),
    ]


def test_what_goes_down_along_comes_up_as_it_was():
    down, up = Down(3, 5, 2).eval(), Up(5, 4, 2).eval()
    x = torch.randn(1, 3 + 7, 6, 6)
    assert torch.equal(up(down(x))[:, 4:], x[:, 3:])


def test_exits_give_maps_and_the_trunk_is_as_it_was():
    trunk = small().eval()
    network = attach(trunk, heads("stem", "middle"), SHAPE, 4).eval()
    x = torch.randn(2, *SHAPE)
    with torch.no_grad():
        answers = network(x)
        assert [tuple(answer.shape) for answer in answers] == [(2, 4, 16, 16)] * 3
        assert torch.allclose(answers[-1], trunk(x), atol=1e-6)
    macs = count_macs(network, SHAPE)
    assert macs.exits[0] < macs.exits[1] < macs.exits[2] and macs.baseline == macs.static[-1]


def test_a_pixel_of_the_place_gives_those_of_the_image_there():
    """A head of 1×1 alone: what is changed in one place of the features changes the map there and nowhere else."""
    head = attach(small(), [{"after": "down1"}], SHAPE, 4).heads[0].eval()
    x = torch.zeros(1, 14, 8, 8)
    other = x.clone()
    other[:, :, 2, 5] = 1
    with torch.no_grad():
        changed = (head(x) != head(other)).any(dim=1)[0].nonzero()
    assert changed[:, 0].unique().tolist() == [4, 5] and changed[:, 1].unique().tolist() == [10, 11]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"global_pool": True}, "allowed are convolutions, with fc"),
        ({"fc": [3]}, "allowed are convolutions, with fc"),
        ({"stride": 3}, "are no multiple"),
        ({"after": "flat"}, "no place 'flat'"),
    ],
)
def test_heads_that_give_no_map_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        attach(small(), heads("down1", **settings), SHAPE, 4)


def test_a_head_of_ones_own_gives_a_map_or_is_refused():
    def own(shape, num_classes, wrong=0):
        return torch.nn.Sequential(
            torch.nn.Conv2d(shape[0], num_classes + wrong, 1), torch.nn.Upsample(scale_factor=2)
        )

    assert attach(small(), [{"after": "down1", "head": own}], SHAPE, 4).num_exits == 2
    with pytest.raises(UserError, match=r"gives \(5, 16, 16\): it gives logits, \(4, 16, 16\)"):
        attach(small(), [{"after": "down1", "head": lambda **given: own(**given, wrong=1)}], SHAPE, 4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": 18}, "size=18: with 3 widths the side is halved 2 times: take a multiple of 4"),
        ({"widths": [8]}, "widths=.*two or more"),
        ({"skip": 0}, "skip=0"),
        ({"blocks": -1}, "blocks=-1"),
    ],
)
def test_settings_that_make_no_network_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        unet(**settings)


def test_exits_are_placed_and_counted_where_maps_can_be_made():
    """On a side that does not divide the image's there is no place; all others carry the default head."""
    trunk = small()
    found = survey(trunk, SHAPE)
    assert found.maps and [place.name for place in found.places if place.takes_exit][-5:] == [
        "down1",
        "down2",
        "middle",
        "up2",
        "up1",
    ]
    made = auto_exits(found, {"count": 2}, (16, 16))
    network = attach(trunk, made, SHAPE, 4)
    macs, place = count_macs(network, SHAPE), next(p for p in found.places if p.name == made[0]["after"])
    assert macs.static[0] - macs.trunk_only[0] == head_macs(place, made[0], 4, (16, 16), maps=True)
