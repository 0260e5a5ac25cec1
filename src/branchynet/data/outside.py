"""Images that a network should not know: of other data sets, or noise, in the form of its own.

S samples, C channels, H, W pixels.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from branchynet.data.datasets import EMBEDDED, PUBLISHED, load_dataset
from branchynet.errors import check_choice, not_allowed


def noise(own: Tensor, seed: int = 0) -> Tensor:
    """Every byte drawn by itself, 0 … 255 equally often; as many and as large as `own` (S, C, H, W) uint8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, own.shape, dtype=torch.uint8, generator=generator)


def shuffled(own: Tensor, seed: int = 0) -> Tensor:
    """The network's own images with their pixels in a random order, another one for each: as dark and as light as
    they were, and nothing to be seen."""
    generator = torch.Generator().manual_seed(seed)
    pixels = own.flatten(2)
    order = torch.rand(len(own), 1, pixels.shape[2], generator=generator).argsort(dim=2)
    return pixels.gather(2, order.expand_as(pixels)).reshape(own.shape)


MADE = {"noise": noise, "shuffled": shuffled}
NAMES = (*MADE, *PUBLISHED, *EMBEDDED)


def check_sources(names: object) -> None:
    """An ArgumentError unless these are names of `outside_images`."""
    if not isinstance(names, Sequence) or isinstance(names, str) or len(set(map(str, names))) < len(names):
        raise not_allowed("outside", names, f"a list of different names out of {', '.join(NAMES)}")
    for name in names:
        check_choice("outside", name, NAMES)


def outside_images(name: str, own: Tensor, root: str | Path | None = None) -> Tensor:
    """(S, C, H, W) uint8, no more than the network's own and of their shape.

    Args:
        name: `noise`, `shuffled`, or a data set, of which it is the test images.
        own: the network's own images, (S, C, H, W) uint8.
        root: the folder of published data sets; nothing is downloaded.

    Raises:
        UserError: unknown name, or a data set that cannot be read.
    """
    check_choice("outside", name, NAMES)
    if name in MADE:
        return MADE[name](own)
    return in_form(load_dataset(name, root).test.x[: len(own)], tuple(own.shape[1:]))


def in_form(images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Images (S, C, H, W) uint8 in another shape (C, H, W): grey by ITU-R 601, colour by three equal channels, the
    size by bilinear interpolation, smoothed where it shrinks."""
    from torchvision.transforms.v2.functional import resize, rgb_to_grayscale  # slow to import, so only here

    channels = shape[0]
    if channels == 1 and images.shape[1] == 3:
        images = rgb_to_grayscale(images)
    elif images.shape[1] == 1:
        images = images.expand(-1, channels, -1, -1)
    if images.shape[1] != channels:
        raise not_allowed("outside", f"images of {images.shape[1]} channels", f"of {channels}, of 1 or of 3")
    return images if images.shape[2:] == shape[1:] else resize(images, list(shape[1:]), antialias=True)
