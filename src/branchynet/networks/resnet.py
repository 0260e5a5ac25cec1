"""ResNets for CIFAR-10 (He et al., 2016, section 4.2), with shortcuts without parameters (option A).

B batch, C channels, H, W pixels, K classes.
"""

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from branchynet.errors import check_choice, check_whole, not_allowed
from branchynet.networks.init import init_weights

STEMS = ("he", "released")
WIDTHS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with batch norm, and a shortcut around them.

    Where the block shrinks the image or widens it, the shortcut takes every `stride`-th pixel and adds channels
    of zeros after its own (option A). The convolutions have no biases, here and in the stem, since batch norm
    takes out what they add; the paper's authors have them, to no effect.

    Args:
        channels: of the input.
        width: channels of the output, at least those of the input.
        stride: of the first convolution.
    """

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = batch_norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = batch_norm(width)
        self.stride, self.more = stride, width - channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, width, ⌈H/stride⌉, ⌈W/stride⌉)."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.more:
            x = F.pad(x, (0, 0, 0, 0, 0, self.more))
        return F.relu(x + y)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """With the constants of the paper's authors: eps 2e-5, momentum 0.1 in PyTorch's sense."""
    return nn.BatchNorm2d(channels, eps=2e-5, momentum=0.1)


def resnet_cifar(
    depth: int = 110, in_channels: int = 3, num_classes: int = 10, stem: str = "he", init: str = "he"
) -> nn.Sequential:
    """A stem, three stages of (depth - 2) / 6 blocks with 16, 32 and 64 channels, pooling, one linear layer.

    Args:
        depth: 6n + 2, such as 20, 32, 44, 56, 110: the convolutions on the main path and the linear layer.
        in_channels: C.
        num_classes: K.
        stem: `he`: the first convolution has padding 1 and pooling at the end is global (252.9 M MACs at depth
            110 and 3×32×32); `released`, the paper's authors': no padding, and 6×6 average pooling with stride
            1, which leaves 3×3 pixels of a 32×32 image (232.4 M).
        init: the initial weights, see `branchynet.networks.init.init_weights`.

    Returns:
        (B, C, H, W) to logits (B, K). Its places: conv1, bn1, relu1, stage1.0 … stage3.<n-1>, stage1 … stage3.

    Raises:
        ArgumentError: a value that is not allowed.
    """
    check_whole("depth", depth)
    check_whole("in_channels", in_channels)
    check_whole("num_classes", num_classes)
    if depth < 8 or (depth - 2) % 6:
        raise not_allowed("depth", depth, "6n + 2, such as 20, 32, 44, 56 or 110")
    check_choice("stem", stem, STEMS)
    he = stem == "he"
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = WIDTHS[0]
    layers["conv1"] = nn.Conv2d(in_channels, channels, 3, padding=1 if he else 0, bias=False)
    layers["bn1"] = batch_norm(channels)
    layers["relu1"] = nn.ReLU()
    for n, width in enumerate(WIDTHS, start=1):
        blocks = []
        for block in range((depth - 2) // 6):
            blocks.append(BasicBlock(channels, width, stride=2 if n > 1 and block == 0 else 1))
            channels = width
        layers[f"stage{n}"] = nn.Sequential(*blocks)
    layers["pool"] = nn.AdaptiveAvgPool2d(1) if he else nn.AvgPool2d(6, 1)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(channels * (1 if he else 9), num_classes)
    trunk = nn.Sequential(layers)
    init_weights(trunk, init)
    return trunk
