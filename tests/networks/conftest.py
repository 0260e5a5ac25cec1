"""B-LeNet, and trunks of every kind that `attach` takes."""

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v3_small, resnet18
from trunks import small_vgg11

from branchynet.networks.lenet import lenet5

B_LENET_EXIT = {"after": "conv1", "before": ["pool2", "relu"], "convs": [10], "pool": 2}


class Residual(nn.Module):
    """Not a Sequential: two branches that meet again."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.left = nn.Conv2d(4, 4, 1)
        self.right = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.norm = nn.BatchNorm2d(4)
        self.classifier = nn.Linear(4, 5)

    def forward(self, x):
        x = self.stem(x).relu()
        x = self.norm(self.left(x) + self.right(x))
        return self.classifier(x.mean((2, 3)))


# name: (trunk, places, input shape, number of classes)
TRUNKS = {
    "lenet5": (lenet5, ["conv1"], (1, 28, 28), 10),
    "lenet5_input": (lenet5, ["input", "relu2"], (1, 28, 28), 10),
    "residual": (Residual, ["stem", "norm"], (3, 8, 8), 5),
    "resnet18": (
        lambda: resnet18(weights=None, num_classes=5),
        ["relu", "layer2.0"],
        (3, 32, 32),
        5,
    ),
    "vgg11": (small_vgg11, ["features.5"], (3, 32, 32), 5),
    "mobilenet": (
        lambda: mobilenet_v3_small(weights=None, num_classes=5),
        ["features.3", "features.8"],
        (3, 32, 32),
        5,
    ),
}


@pytest.fixture(params=list(TRUNKS))
def case(request):
    """(trunk in eval mode, places, input shape, number of classes)."""
    make, places, shape, classes = TRUNKS[request.param]
    torch.manual_seed(0)
    return make().eval(), places, shape, classes
