"""Backbones of torchvision and timm as trunks."""

import sys

import pytest
import torch
from torch import nn

from branchynet.errors import UserError
from branchynet.networks.public import timm_trunk, torchvision_trunk, with_channels


def test_torchvisions_networks_take_other_channels_and_classes():
    trunk = torchvision_trunk("mobilenet_v3_small", num_classes=7, in_channels=1).eval()
    assert trunk(torch.randn(2, 1, 32, 32)).shape == (2, 7)
    assert torchvision_trunk("resnet18", num_classes=7).conv1.in_channels == 3
    vit = torchvision_trunk("vit_b_16", num_classes=3, image_size=32)
    assert vit.encoder.pos_embedding.shape[1] == 5
    # Of those with auxiliary classifiers, the trunk alone.
    assert torchvision_trunk("googlenet", num_classes=3).aux1 is None


def test_a_new_first_convolution_is_like_the_old_one():
    old = nn.Conv2d(3, 8, 5, stride=2, padding=2, bias=False)
    new = with_channels(nn.Sequential(nn.Sequential(old), nn.ReLU()), 4)[0][0]
    assert (
        new.weight.shape == (8, 4, 5, 5)
        and new.bias is None
        and (new.stride, new.padding) == ((2, 2), (2, 2))
    )
    with pytest.raises(UserError, match="no convolution"):
        with_channels(nn.Linear(3, 3), 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"model": "resnet19"}, "no such network"),
        ({"model": "resnet18", "weights": "DEFAULT"}, r"not downloaded.*model\.weights"),
        ({"model": "resnet18", "wide": 1}, "resnet18 refuses its arguments"),
        ({"model": "resnet18", "num_classes": 0}, "num_classes=0"),
    ],
)
def test_mistakes(arguments, words):
    with pytest.raises(UserError, match=words):
        torchvision_trunk(**arguments)


def test_without_timm_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install 'branchynet\[timm\]'"):
        timm_trunk("vit_tiny_patch16_224")


def test_timms_networks():
    pytest.importorskip("timm")
    trunk = timm_trunk("vit_tiny_patch16_224", num_classes=5, in_chans=1, img_size=32).eval()
    assert trunk(torch.randn(2, 1, 32, 32)).shape == (2, 5)
    with pytest.raises(UserError, match="no such network"):
        timm_trunk("vit_tiniest")
    with pytest.raises(UserError, match="not downloaded"):
        timm_trunk("convnext_atto", pretrained=True)
