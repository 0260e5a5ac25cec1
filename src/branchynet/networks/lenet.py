"""LeNet-5 as the paper's authors released it for MNIST."""

from collections import OrderedDict

from torch import nn

from branchynet.errors import check_whole
from branchynet.networks.init import init_weights


def lenet5(
    in_channels: int = 1, num_classes: int = 10, size: int = 28, init: str = "default"
) -> nn.Sequential:
    """Three 5×5 convolutions and two fully-connected layers, 1.140 M MACs at 1×28×28.

    Args:
        in_channels: C.
        num_classes: K.
        size: H and W, in pixels.
        init: the initial weights, see `branchynet.networks.init.init_weights`.

    Returns:
        (B, C, size, size) to logits (B, K). Pooling comes before ReLU, as released: same numbers, cheaper.
        There is no activation between the two fully-connected layers, as released.

    Raises:
        ArgumentError: a value that is not allowed.
    """
    check_whole("in_channels", in_channels)
    check_whole("num_classes", num_classes)
    check_whole("size", size)
    side = size
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = in_channels
    for n, width in enumerate((5, 10, 20), start=1):
        layers[f"conv{n}"] = nn.Conv2d(channels, width, 5, padding=3)
        layers[f"pool{n}"] = nn.MaxPool2d(2, 2, ceil_mode=True)
        layers[f"relu{n}"] = nn.ReLU()
        side = (side + 2 + 1) // 2  # padding 3 widens by 2; pooling halves, rounding up
        channels = width
    layers["flatten"] = nn.Flatten()
    layers["fc1"] = nn.Linear(channels * side * side, 84)
    layers["fc2"] = nn.Linear(84, num_classes)
    trunk = nn.Sequential(layers)
    init_weights(trunk, init)
    return trunk
