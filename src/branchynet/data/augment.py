"""Augmentation: whole batches, each sample with its own draw.

It works on bytes before normalisation, so that what a shift brings in from outside is background (pixel
value 0). The draws of an epoch are made at once, on the CPU: they are the same on every device, and
batch k of a resumed epoch needs no replay of the batches before it.

B batch, C channels, H, W pixels, S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from branchynet.errors import UserError


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training image.

    Args:
        shift: moved by up to so many pixels, both axes, every whole offset equally likely; 0 = none.
        flip: mirrored left to right with probability 1/2.
    """

    shift: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.shift, bool) or not isinstance(self.shift, int) or self.shift < 0:
            raise UserError(f"data.augment.shift={self.shift!r} must be a whole number of pixels, 0 or more")
        if not isinstance(self.flip, bool):
            raise UserError(f"data.augment.flip={self.flip!r} must be true or false")


@dataclass(frozen=True)
class Draws:
    """Per sample: offsets (S, 2) int64, down and right in pixels; flips (S,) bool. None where never drawn."""

    offsets: Tensor | None = None
    flips: Tensor | None = None

    def at(self, part: slice) -> Draws:
        """The draws of some of the samples."""
        return self._each(lambda draws: draws[part])

    def to(self, device: torch.device) -> Draws:
        """The draws on a device."""
        return self._each(lambda draws: draws.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Draws:
        return Draws(*(None if draws is None else change(draws) for draws in (self.offsets, self.flips)))


def parse_augmentation(config: Mapping[str, Any] | None) -> Augmentation:
    """`{shift: 2, flip: false}`, or None for no augmentation. UserError for anything else."""
    if config is None:
        return Augmentation()
    if not isinstance(config, Mapping):
        raise UserError(f"data.augment={config!r} must be null or like {{shift: 2, flip: false}}")
    unknown = sorted(str(key) for key in config if key not in ("shift", "flip"))
    if unknown:
        raise UserError(f"data.augment.{unknown[0]} is unknown; there are shift and flip")
    return Augmentation(**{str(key): value for key, value in config.items()})


def draw(augmentation: Augmentation, samples: int, rng: np.random.Generator) -> Draws:
    """Independent draws for so many samples."""
    offsets, flips = None, None
    if augmentation.shift:
        reach = augmentation.shift
        offsets = torch.from_numpy(rng.integers(-reach, reach, (samples, 2), endpoint=True))
    if augmentation.flip:
        flips = torch.from_numpy(rng.integers(0, 2, samples) == 1)
    return Draws(offsets, flips)


def augment(x: Tensor, draws: Draws, augmentation: Augmentation) -> Tensor:
    """Apply the draws of a batch to its bytes x (B, C, H, W)."""
    if draws.offsets is not None:
        x = shift(x, draws.offsets, augmentation.shift)
    if draws.flips is not None:
        x = flip(x, draws.flips)
    return x


def shift(x: Tensor, offsets: Tensor, reach: int) -> Tensor:
    """Move each image of x (B, C, H, W) down and right by its offsets (B, 2), |offset| ≤ reach; fill with 0.

    One gather: in a batch padded by `reach`, each shifted image is a window, and where it begins in memory is
    one number. So the windows of all images at all offsets are rows of one overlapping view.
    """
    batch, channels, height, width = x.shape
    padded = torch.nn.functional.pad(x, (reach, reach, reach, reach)).contiguous()
    image, plane, row = padded.stride()[:3]
    windows = padded.as_strided(
        # The last row is the last image's window at the far corner: it ends where the memory ends.
        ((batch - 1) * image + 2 * reach * (row + 1) + 1, channels, height, width),
        (1, plane, row, 1),
    )
    down, right = (reach - offsets).unbind(1)
    starts = torch.arange(batch, device=x.device) * image + down * row + right
    return windows.index_select(0, starts)


def flip(x: Tensor, flips: Tensor) -> Tensor:
    """Mirror the images of x (B, C, H, W) where flips (B,) is true."""
    return torch.where(flips[:, None, None, None], x.flip(-1), x)
