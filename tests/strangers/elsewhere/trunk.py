"""A trunk: any function that gives a module."""

from collections import OrderedDict

from torch import nn


def two_convs(width: int = 8, num_classes: int = 10) -> nn.Sequential:
    """(B, 1, 28, 28) to logits (B, K)."""
    layers = OrderedDict(
        conv1=nn.Conv2d(1, width, 5, stride=2),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(width, 2 * width, 5, stride=2),
        relu2=nn.ReLU(),
        flatten=nn.Flatten(),
        classifier=nn.Linear(2 * width * 16, num_classes),
    )
    return nn.Sequential(layers)
