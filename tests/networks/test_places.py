"""Where exits can hang, what the trunk has cost by then, and exits that are placed by it."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, swin_t, vit_b_16

from branchynet.errors import ArgumentError, UserError
from branchynet.networks.attach import attach
from branchynet.networks.lenet import lenet5
from branchynet.networks.places import auto_exits, default_head, head_macs, survey
from branchynet.runtime.costs import count_macs


@pytest.fixture(scope="module")
def lenet():
    return survey(lenet5(), (1, 28, 28))


def test_macs_and_parameters_so_far_are_those_of_the_cut_network(lenet):
    trunk = lenet5()
    assert (
        lenet.macs == count_macs(attach(trunk, [{"after": "conv1"}], (1, 28, 28), 10), (1, 28, 28)).baseline
    )
    assert lenet.parameters == sum(p.numel() for p in trunk.parameters())
    for place in lenet.places:
        network = attach(trunk, [{"after": place.name}], (1, 28, 28), 10)
        head = head_macs(place, {"after": place.name}, 10, (28, 28))
        assert count_macs(network, (1, 28, 28)).exits[0] == place.macs + head
        assert place.parameters == sum(p.numel() for p in network.segments[0].parameters())
        assert place.shape == network.feature_shapes((1, 28, 28))[0] and place.takes_exit
    assert [place.name for place in lenet.places][:3] == ["input", "conv1", "pool1"]


class Inside(nn.Module):
    """A stage that is no Sequential, with a place in it; and one with none."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.side = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))

    def forward(self, x):
        return self.second(self.first(x)) + 1


class Crossed(Inside):
    def forward(self, x):
        return self.second(self.first(x)) + self.side(x)


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.open, self.crossed = nn.Conv2d(1, 4, 3, padding=1), Inside(), Crossed()
        self.left, self.right, self.end = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.ReLU()
        self.classifier = nn.Linear(4, 3)

    def forward(self, x):
        x = self.crossed(self.open(self.stem(x)))
        return self.classifier(self.end(self.left(x) + self.right(x)).mean((2, 3)))


def test_modules_are_looked_into_and_where_two_tensors_cross_the_next_place_is_named():
    found = {place.name: place for place in survey(Whole(), (1, 8, 8)).places}
    assert {"open.first", "open.second", "crossed"} <= found.keys() and "crossed.first" not in found
    assert not found["left"].takes_exit and found["left"].nearest == "end"
    assert found["end"].takes_exit and not found["end"].nearest
    network = attach(Whole(), [{"after": "open.first", "global_pool": True}], (1, 8, 8), 3)
    assert network.places == ("open.first",)


def test_default_heads_are_for_the_kind_and_size_of_the_place():
    for trunk, image, kinds in (
        (resnet18(num_classes=5), 64, {"maps"}),
        (swin_t(num_classes=5), 64, {"maps"}),
        (vit_b_16(num_classes=5, image_size=32), 32, {"tokens"}),
    ):
        found = survey(trunk, (3, image, image))
        exits = auto_exits(found, {"count": 3}, (image, image))
        chosen = [place for place in found.places if place.name in [each["after"] for each in exits]]
        assert {place.kind for place in chosen} == kinds
        network = attach(trunk.eval(), exits, (3, image, image), 5).eval()
        x = torch.randn(2, 3, image, image)
        with torch.no_grad():
            logits = network(x)
            assert torch.equal(logits[-1], trunk(x)) and all(each.shape == (2, 5) for each in logits)
        # Small against the trunk, each of them.
        assert all(
            head_macs(place, default_head(place, (image, image)), 5, (image, image)) < 0.06 * found.macs
            for place in chosen
        )


def test_exits_stand_where_the_shares_are(lenet):
    at = [0.3, 0.6]
    exits = auto_exits(lenet, {"at": at}, (28, 28))
    by_name = {place.name: place for place in lenet.places}
    for share, each in zip(at, exits, strict=True):
        far = abs(by_name[each["after"]].macs / lenet.macs - share)
        assert all(far <= abs(place.macs / lenet.macs - share) for place in lenet.places if place.macs)
    assert auto_exits(lenet, {"at": at, "count": 5}, (28, 28)) == exits
    assert auto_exits(lenet, "auto", (28, 28)) == auto_exits(lenet, {"count": 2}, (28, 28))
    every = [place.name for place in lenet.places if place.macs]
    assert [each["after"] for each in auto_exits(lenet, {"count": len(every)}, (28, 28))] == every


@pytest.mark.parametrize(
    ("exits", "words"),
    [
        ({"count": 0}, r"exits\.count=0: it is a whole number"),
        ({"number": 2}, r"exits\.number: automatic exits have count or at"),
        ({"at": [0.5, 0.2]}, r"exits\.at=.*rising shares"),
        ({"at": []}, "rising shares"),
        ({"count": 99}, "99 side exits, but the trunk has"),
    ],
)
def test_mistakes(lenet, exits, words):
    with pytest.raises(ArgumentError, match=words):
        auto_exits(lenet, exits, (28, 28))


def test_images_that_do_not_fit_are_told():
    with pytest.raises(UserError, match=r"does not take images of shape \(3, 28, 28\)"):
        survey(lenet5(), (3, 28, 28))
