"""A small encoder-decoder with skips, from an image to a map, in stages that one tensor goes through.

What the decoder takes of the encoder (a skip) goes along beside the features, as more channels of the same tensor:
at half the side, four pixels of it become four channels, which nothing computes with. So the network can be cut
after every stage, as exits, engines and exports want it, and a head in the middle sees the image's fine lines, too.

Source of the form: Ronneberger, Fischer and Brox, 2015, "U-Net".
Shapes: B batch, C channels, H, W, K classes.
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from branchynet.errors import ArgumentError, check_whole, is_whole, not_allowed


class Stage(nn.Sequential):
    """3×3 convolutions, each with batch norm and ReLU.

    Args:
        channels: of the input, then of each convolution.
        stride: of the first one.
    """

    def __init__(self, *channels: int, stride: int = 1) -> None:
        layers: list[nn.Module] = []
        for n, (before, after) in enumerate(pairwise(channels)):
            layers += [
                nn.Conv2d(before, after, 3, stride if n == 0 else 1, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        super().__init__(*layers)


class Down(nn.Module):
    """To half the side; a narrow copy of what comes in goes along, with what goes along already.

    Args:
        channels: of the features that come in.
        width: of those that go out.
        skip: channels of the copy.
    """

    def __init__(self, channels: int, width: int, skip: int) -> None:
        super().__init__()
        self.channels = channels
        self.stage = Stage(channels, width, width, stride=2)
        self.copy = nn.Conv2d(channels, skip, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels + A, H, W) to (B, width + 4 · (skip + A), H/2, W/2)."""
        features = x[:, : self.channels]
        along = torch.cat([self.copy(features), x[:, self.channels :]], dim=1)
        return torch.cat([self.stage(features), F.pixel_unshuffle(along, 2)], dim=1)


class Middle(nn.Module):
    """Residual convolutions that leave alone what goes along.

    Args:
        channels: of the features.
        blocks: how many times two convolutions.
    """

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.channels = channels
        self.blocks = nn.ModuleList(Stage(channels, channels, channels) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels + A, H, W) to the same."""
        features = x[:, : self.channels]
        for block in self.blocks:
            features = features + block(features)
        return torch.cat([features, x[:, self.channels :]], dim=1)


class Up(nn.Module):
    """To twice the side, with the copy that went along since the encoder was there.

    Args:
        channels: of the features that come in.
        width: of those that go out.
        skip: channels of the copy.
    """

    def __init__(self, channels: int, width: int, skip: int) -> None:
        super().__init__()
        self.channels, self.skip = channels, skip
        self.finer = nn.Conv2d(channels, 4 * width, 1)
        self.stage = Stage(width + skip, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels + 4 · (skip + A), H, W) to (B, width + A, 2 H, 2 W)."""
        features = F.pixel_shuffle(self.finer(x[:, : self.channels]), 2)
        along = F.pixel_shuffle(x[:, self.channels :], 2)
        joined = self.stage(torch.cat([features, along[:, : self.skip]], dim=1))
        return torch.cat([joined, along[:, self.skip :]], dim=1)


def unet(
    in_channels: int = 3,
    num_classes: int = 4,
    size: int = 48,
    widths: Sequence[int] = (8, 16, 32),
    blocks: int = 3,
    skip: int = 4,
) -> nn.Sequential:
    """An encoder-decoder: `stem`, `down1` …, `middle`, … `up1` and the `classifier` of every pixel.

    Args:
        in_channels: C.
        num_classes: K.
        size: H and W, in pixels: a multiple of what the encoder divides it by, 4 for three widths.
        widths: channels at each side, from the whole one; the side is halved between two of them.
        blocks: residual blocks at the smallest side, of two convolutions each.
        skip: channels of what the decoder takes of each stage of the encoder.

    Returns:
        (B, C, size, size) to logits (B, K, size, size).

    Raises:
        ArgumentError: a value that is not allowed.
    """
    for name, value in (("in_channels", in_channels), ("num_classes", num_classes), ("skip", skip)):
        check_whole(name, value)
    check_whole("blocks", blocks, 0)
    if not isinstance(widths, Sequence) or len(widths) < 2 or not all(is_whole(width) for width in widths):
        raise not_allowed("widths", widths, "a list of two or more whole numbers above 0, such as [8,16,32]")
    check_whole("size", size)
    most = 2 ** (len(widths) - 1)
    if size % most:
        raise ArgumentError(
            "size",
            f"={size}: with {len(widths)} widths the side is halved {len(widths) - 1} times: take a multiple "
            f"of {most}",
        )
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=Stage(in_channels, widths[0]))
    steps = list(enumerate(pairwise(widths), start=1))
    for n, (fine, coarse) in steps:
        layers[f"down{n}"] = Down(fine, coarse, skip)
    layers["middle"] = Middle(widths[-1], blocks)
    for n, (fine, coarse) in reversed(steps):
        layers[f"up{n}"] = Up(coarse, fine, skip)
    layers["classifier"] = nn.Conv2d(widths[0], num_classes, 1)
    return nn.Sequential(layers)
