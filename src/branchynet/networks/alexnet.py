"""AlexNet for CIFAR-10, as the paper's authors released it."""

from collections import OrderedDict

from torch import nn

from branchynet.errors import check_whole, is_number, not_allowed
from branchynet.networks.init import init_weights
from branchynet.networks.lrn import released_lrn


def alexnet_cifar(
    in_channels: int = 3, num_classes: int = 10, size: int = 32, dropout: float = 0.5, init: str = "he"
) -> nn.Sequential:
    """Five convolutions and three fully-connected layers, 28.25 M MACs at 3×32×32.

    Args:
        in_channels: C.
        num_classes: K.
        size: H and W, in pixels, at least 8.
        dropout: of both hidden fully-connected layers, 0 … 1, 1 excluded.
        init: the initial weights, see `branchynet.networks.init.init_weights`.

    Returns:
        (B, C, size, size) to logits (B, K). Its places: conv1, relu1, pool1, norm1, conv2 … norm2, conv3, relu3,
        conv4, relu4, conv5, relu5, pool5, flatten, fc6, relu6, dropout6, fc7, relu7, dropout7.

    Raises:
        ArgumentError: a value that is not allowed.
    """
    check_whole("in_channels", in_channels)
    check_whole("num_classes", num_classes)
    check_whole("size", size)
    if size < 8:
        raise not_allowed("size", size, "at least 8 pixels, because pooling halves it three times")
    if not is_number(dropout) or not 0 <= dropout < 1:
        raise not_allowed("dropout", dropout, "between 0 and 1, 1 excluded")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, side = in_channels, size
    for n, (width, kernel) in enumerate(((32, 5), (64, 5), (96, 3), (96, 3), (64, 3)), start=1):
        layers[f"conv{n}"] = nn.Conv2d(channels, width, kernel, padding=kernel // 2)
        layers[f"relu{n}"] = nn.ReLU()
        if n in (1, 2, 5):
            layers[f"pool{n}"] = nn.MaxPool2d(3, 2, ceil_mode=True)
            side //= 2  # windows of 3 pixels, every 2; a last one may reach over the edge
        if n in (1, 2):
            layers[f"norm{n}"] = released_lrn()
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
