"""AlexNet for CIFAR-10, as the paper's authors released it."""

from collections import OrderedDict

from torch import nn

from branchynet.networks.init import check_init, check_whole, init_weights
from branchynet.networks.lrn import LocalResponseNorm


def alexnet_cifar(
    in_channels: int = 3, num_classes: int = 10, size: int = 32, dropout: float = 0.5, init: str = "he"
) -> nn.Sequential:
    """Five convolutions and three fully-connected layers, 28.25 M MACs at 3×32×32.

    Args:
        in_channels: C.
        num_classes: K.
        size: H and W, in pixels.
        dropout: of both hidden fully-connected layers.
        init: the initial weights, see `branchynet.networks.init.init_weights`.

    Returns:
        (B, C, size, size) to logits (B, K). Local response normalisation has the released constants.

    Raises:
        UserError: a value that is not allowed.
    """
    check_whole(in_channels=in_channels, num_classes=num_classes, size=size)
    check_init(init)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, side = in_channels, size
    for n, (width, kernel) in enumerate(((32, 5), (64, 5), (96, 3), (96, 3), (64, 3)), start=1):
        layers[f"conv{n}"] = nn.Conv2d(channels, width, kernel, padding=kernel // 2)
        layers[f"relu{n}"] = nn.ReLU()
        if n in (1, 2, 5):
            layers[f"pool{n}"] = nn.MaxPool2d(3, 2, ceil_mode=True)
            side = side // 2 if side > 1 else 1
        if n in (1, 2):
            # The original does not divide alpha by the window (5e-5 × 3), and its k is 2.
            layers[f"norm{n}"] = LocalResponseNorm(3, alpha=1.5e-4, beta=0.75, k=2.0)
        channels = width
    layers["flatten"] = nn.Flatten()
    features = channels * side * side
    for n, width in ((6, 256), (7, 128)):
        layers[f"fc{n}"] = nn.Linear(features, width)
        layers[f"relu{n}"] = nn.ReLU()
        layers[f"dropout{n}"] = nn.Dropout(dropout)
        features = width
    layers["fc8"] = nn.Linear(features, num_classes)
    trunk = nn.Sequential(layers)
    init_weights(trunk, init)
    return trunk
