"""Images that a network should not know: of other data sets, or noise, in the form of its own.

S samples, C channels, H, W pixels.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from branchynet.data.datasets import EMBEDDED, load_dataset
from branchynet.data.mapped import forgetting
from branchynet.data.published import PUBLISHED
from branchynet.errors import check_choice, not_allowed


def noise(own: Iterable[Tensor]) -> Iterator[Tensor]:
    """Every byte drawn by itself, 0 … 255 equally often; as many and as large as the network's own images."""
    generator = torch.Generator().manual_seed(0)
    for x in own:
        yield torch.randint(256, x.shape, dtype=torch.uint8, generator=generator)


def shuffled(own: Iterable[Tensor]) -> Iterator[Tensor]:
    """The network's own images with their pixels in a random order, another one for each: as dark and as light as
    they were, and nothing to be seen."""
    generator = torch.Generator().manual_seed(0)
    for x in own:
        pixels = x.flatten(2)
        order = torch.rand(len(x), 1, pixels.shape[2], generator=generator).argsort(dim=2)
        yield pixels.gather(2, order.expand_as(pixels)).reshape(x.shape)


MADE: dict[str, Callable[[Iterable[Tensor]], Iterator[Tensor]]] = {"noise": noise, "shuffled": shuffled}
NAMES = (*MADE, *PUBLISHED, *EMBEDDED)


def check_sources(names: object) -> None:
    """An ArgumentError unless these are names of `OutsideImages`."""
    if not isinstance(names, Sequence) or isinstance(names, str) or len(set(map(str, names))) < len(names):
        raise not_allowed("outside", names, f"a list of different names out of {', '.join(NAMES)}")
    for name in names:
        check_choice("outside", name, NAMES)


class OutsideImages:
    """Images from outside, no more than the network's own and of their shape: made as they are asked for.

    Args:
        name: `noise`, `shuffled`, or a data set, of which it is the test images.
        own: the network's own images, (S, C, H, W) uint8.
        root: the folder of published data sets; nothing is downloaded.

    Raises:
        UserError: unknown name, or a data set that cannot be read or has no such form.
    """

    def __init__(self, name: str, own: Tensor, root: str | Path | None = None) -> None:
        check_choice("outside", name, NAMES)
        if name in MADE:
            self._images, self._made = own, MADE[name]
        else:
            self._images = load_dataset(name, root).test.x[: len(own)]
            self._made = partial(_formed, shape=tuple(own.shape[1:]))
            in_form(self._images[:1], tuple(own.shape[1:]))

    def __len__(self) -> int:
        return len(self._images)

    def batches(self, size: int) -> Iterator[Tensor]:
        """(B, C, H, W) uint8, `size` at a time: the same ones whenever they are asked for, in whatever batches."""
        return forgetting(self._images, self._made(self._images.split(size)))


def _formed(images: Iterable[Tensor], shape: tuple[int, ...]) -> Iterator[Tensor]:
    for x in images:
        yield in_form(x, shape)


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
