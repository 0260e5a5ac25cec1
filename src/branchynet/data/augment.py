"""Augmentation: whole batches, each sample with its own draw.

Crops, shifts and flips work on bytes before normalisation, so that what a shift brings in from outside can be
background (pixel value 0); a cutout works after it, so that what is cut out can be the mean, which is 0 there.
The draws of an epoch are made at once, on the CPU: they are the same on every device, and batch k of a resumed
epoch needs no replay of the batches before it.

B batch, C channels, H, W pixels, S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from branchynet.errors import (
    ArgumentError,
    check_choice,
    check_flag,
    check_whole,
    is_number,
    not_allowed,
    settings_of,
)

FILLS = ("zero", "reflect")
TRIES = 10  # to draw a part that lies within the image


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training image.

    Args:
        shift: moved by up to this number of pixels, both axes, every whole offset equally likely; 0 = none. The
            same as a random crop of the image padded by as many.
        fill: what comes in from outside: `zero`, pixel value 0, or `reflect`, the image mirrored at its edge.
        flip: mirrored left to right with probability 1/2.
        cutout: side in pixels of a square around a random pixel that is set to the training split's mean, its
            part outside of the image cut off; 0 = none (DeVries and Taylor, 2017).
        crop_scale: a part of the image, of such a share of its area (least, most), is taken from anywhere and
            resized to the whole; None = none. torchvision's RandomResizedCrop, as are its usual values, 0.08 and 1.
        crop_ratio: that part's width over its height, as times the image's own (least, most), drawn evenly in
            its logarithm.
    """

    shift: int = 0
    fill: str = "zero"
    flip: bool = False
    cutout: int = 0
    crop_scale: Sequence[float] | None = None
    crop_ratio: Sequence[float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        for name in ("shift", "cutout"):
            check_whole(name, getattr(self, name), 0, hint=", of pixels")
        check_choice("fill", self.fill, FILLS)
        check_flag("flip", self.flip)
        if self.crop_scale is not None:
            _check_span("crop_scale", self.crop_scale, 1, "of the image's area, 1 at most")
        _check_span("crop_ratio", self.crop_ratio, None, "of width to height, as times the image's own")

    @property
    def moves(self) -> bool:
        """Whether pixels come to stand elsewhere: what is told of each of them is then of another one."""
        return bool(self.shift or self.flip or self.crop_scale)

    @property
    def draws(self) -> bool:
        """Whether anything is drawn: else an image is the same in every epoch."""
        return bool(self.moves or self.cutout)


@dataclass(frozen=True)
class Draws:
    """Per sample: offsets (S, 2) int64, down and right in pixels; flips (S,) bool; centres (S, 2) of the
    cutouts, 0 … 1 of height and width; crops (S, 4), 0 … 1: the part's height and width, and where in the room that
    is left it lies, down and right. None where never drawn."""

    offsets: Tensor | None = None
    flips: Tensor | None = None
    centres: Tensor | None = None
    crops: Tensor | None = None

    def at(self, part: slice) -> Draws:
        """The draws of some of the samples."""
        return self._each(lambda draws: draws[part])

    def to(self, device: torch.device) -> Draws:
        """The draws on a device."""
        return self._each(lambda draws: draws.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Draws:
        return Draws(*(None if draws is None else change(draws) for draws in self._all()))

    def _all(self) -> tuple[Tensor | None, ...]:
        return self.offsets, self.flips, self.centres, self.crops


def parse_augmentation(config: Mapping[str, Any] | None) -> Augmentation:
    """`{shift: 4, flip: true}`, or None for no augmentation. ArgumentError for anything else."""
    if config is None:
        return Augmentation()
    if not isinstance(config, Mapping):
        raise not_allowed("augment", config, "null or such as {shift: 4, flip: true}")
    known = [field.name for field in fields(Augmentation)]
    unknown = sorted(str(key) for key in config if key not in known)
    if unknown:
        raise ArgumentError("augment", f".{unknown[0]} is unknown; there are {', '.join(known)}")
    with settings_of("augment"):
        return Augmentation(**{str(key): value for key, value in config.items()})


def draw(augmentation: Augmentation, samples: int, rng: np.random.Generator) -> Draws:
    """Independent draws for a number of samples."""
    offsets, flips, centres, crops = None, None, None, None
    if augmentation.shift:
        reach = augmentation.shift
        offsets = torch.from_numpy(rng.integers(-reach, reach, (samples, 2), endpoint=True))
    if augmentation.flip:
        flips = torch.from_numpy(rng.integers(0, 2, samples) == 1)
    if augmentation.cutout:
        centres = torch.from_numpy(rng.random((samples, 2), dtype=np.float32))
    if augmentation.crop_scale:
        crops = _draw_crops(augmentation.crop_scale, augmentation.crop_ratio, samples, rng)
    return Draws(offsets, flips, centres, crops)


def augment(x: Tensor, draws: Draws, augmentation: Augmentation) -> Tensor:
    """Apply a batch's crops, shifts and flips to its bytes x (B, C, H, W)."""
    if draws.crops is not None:
        x = crop(x, draws.crops)
    if draws.offsets is not None:
        x = shift(x, draws.offsets, augmentation.shift, augmentation.fill)
    if draws.flips is not None:
        x = flip(x, draws.flips)
    return x


def crop(x: Tensor, crops: Tensor) -> Tensor:
    """Of each image of x (B, C, H, W) uint8 a part, resized to the whole: bilinear, as bytes again.

    Args:
        x: the bytes.
        crops: (B, 4), see `Draws`.
    """
    batch, _, height, width = x.shape
    rows, columns = (_places(crops[:, axis], crops[:, 2 + axis], x.shape[2 + axis]) for axis in (0, 1))
    size = (batch, height, width)
    grid = torch.stack((columns[:, None, :].expand(size), rows[:, :, None].expand(size)), dim=-1)
    parts = torch.nn.functional.grid_sample(x.float(), grid, padding_mode="border", align_corners=True)
    return parts.round_().to(torch.uint8)


def _places(share: Tensor, room: Tensor, size: int) -> Tensor:
    """(B, size): where in the image the `size` pixels of a part come from along one axis, -1 … 1 from the middle of
    its first pixel to that of its last; they stay within the part."""
    length = (share * size).round().clamp(min=1)[:, None]
    start = (room[:, None] * (size - length + 1)).floor().minimum(size - length)
    pixel = torch.arange(size, device=share.device)
    within = ((pixel + 0.5) * length / size - 0.5).clamp(min=0).minimum(length - 1)
    return (start + within) * 2 / max(size - 1, 1) - 1


def _draw_crops(
    scale: Sequence[float], ratio: Sequence[float], samples: int, rng: np.random.Generator
) -> Tensor:
    """(S, 4), see `Draws`: a part that would reach over the edge is drawn again, and at last cut off."""
    (least, most), (narrow, wide) = scale, np.log(ratio)
    sides = np.empty((samples, 2))
    left = np.arange(samples)
    for _ in range(TRIES):
        area = rng.uniform(least, most, len(left))
        shape = np.exp(rng.uniform(narrow, wide, len(left)))
        sides[left] = np.sqrt(np.stack((area / shape, area * shape), axis=1))
        left = left[(sides[left] > 1).any(axis=1)]
    return torch.from_numpy(np.hstack((sides.clip(max=1), rng.random((samples, 2)))).astype(np.float32))


def _check_span(name: str, value: Any, most: float | None, what: str) -> None:
    """An ArgumentError unless these are two numbers, the first above 0, the second not below it."""
    fine = isinstance(value, Sequence) and len(value) == 2 and all(map(is_number, value))
    if not fine or not 0 < value[0] <= value[1] or value[1] > (most or float("inf")):
        raise not_allowed(
            name, value, f"[least, most], such as {'[0.35, 1]' if most else '[0.75, 1.33]'}: {what}"
        )


def shift(x: Tensor, offsets: Tensor, reach: int, fill: str = "zero") -> Tensor:
    """Move each image of x (B, C, H, W) down and right by its offsets (B, 2), |offset| ≤ reach.

    One gather: in a batch padded by `reach`, each shifted image is a window, and where it begins in memory is
    one number. So the windows of all images at all offsets are rows of one overlapping view.
    """
    batch, channels, height, width = x.shape
    if fill == "reflect":  # by index: PyTorch's own padding does not take bytes
        rows, columns = _mirrored(height, reach, x.device), _mirrored(width, reach, x.device)
        padded = x.index_select(2, rows).index_select(3, columns).contiguous()
    else:
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


def cutout(x: Tensor, centres: Tensor, side: int) -> Tensor:
    """Set a square of `side` pixels in each normalised image of x (B, C, H, W) to 0, which is the mean.

    Args:
        x: changed in place.
        centres: (B, 2), 0 … 1: the pixel around which the square lies; it may reach over the edge.
        side: pixels; an even side has one pixel more above and left of the centre than below and right.
    """
    rows, columns = (_within(centres[:, axis], x.shape[2 + axis], side) for axis in (0, 1))
    return x.masked_fill_((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


def _within(centres: Tensor, size: int, side: int) -> Tensor:
    """(B, size) bool: which of `size` pixels lie in the `side` pixels around the centres (B,), 0 … 1."""
    start = ((centres * size).floor() - side // 2)[:, None]
    pixel = torch.arange(size, device=centres.device)
    return (pixel >= start) & (pixel < start + side)


def _mirrored(size: int, reach: int, device: torch.device) -> Tensor:
    """Indices of `size` pixels with `reach` (below `size`) more on either side, mirrored at the edge, which is
    not repeated."""
    places = torch.arange(-reach, size + reach, device=device).abs()
    return torch.where(places < size, places, 2 * (size - 1) - places)
