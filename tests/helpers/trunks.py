"""Public backbones made small, for the tests of what cuts them."""

import torch
from torch import nn
from torchvision.models.vgg import VGG, make_layers


def small_vgg11(classes: int = 5) -> VGG:
    """VGG-11, its layers and their names, an eighth as wide or less: its own weights are 500 MB."""
    features = make_layers([8, "M", 16, "M", 32, 32, "M", 64, 64, "M", 64, 64, "M"])
    with torch.device("meta"):
        trunk = VGG(features, classes, init_weights=False)
    trunk.classifier = nn.Sequential(
        nn.Linear(64 * 7 * 7, 32),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(32, 32),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(32, classes),
    )
    return trunk
