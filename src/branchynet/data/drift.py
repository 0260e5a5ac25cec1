"""Images that become harder: turned, blurred, noisy, faded; for streams that drift.

Each takes bytes (S, C, H, W) and for every image a strength, 0 (as it was) … 1. Shapes: S images, C channels, H, W.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from branchynet.data.batches import at_once
from branchynet.errors import check_choice, is_number, not_allowed

# At strength 1.
ANGLE = 45.0  # degrees
SIGMA = 1.5  # pixels, of 28: wider on larger images
NOISE = 80.0  # of 255, standard deviation
FADED = 0.3  # the contrast that is left


def turned(images: Tensor, strength: Tensor, random: torch.Generator) -> Tensor:
    """Turned by up to 45 degrees, one way or the other; what comes in from outside is the edge, stretched."""
    side = torch.where(torch.rand(len(images), generator=random) < 0.5, -1.0, 1.0)
    angle = strength * side * math.radians(ANGLE)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    turn = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = F.affine_grid(turn, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def blurred(images: Tensor, strength: Tensor, random: torch.Generator) -> Tensor:
    """A Gaussian blur, of a standard deviation up to 1.5 pixels of 28."""
    sigma = (strength * SIGMA * images.shape[-1] / 28).clamp(min=1e-3)
    reach = math.ceil(3 * SIGMA * images.shape[-1] / 28)
    offsets = torch.arange(-reach, reach + 1)
    window = torch.exp(-((offsets / sigma[:, None]) ** 2) / 2)
    window = window / window.sum(dim=1, keepdim=True)
    count, channels, height, width = images.shape
    # Every image by its own window: a convolution with a group per image and channel, along one side, then along
    # the other.
    window = window.repeat_interleave(channels, dim=0)[:, None, None]
    x = images.reshape(1, count * channels, height, width)
    x = F.conv2d(F.pad(x, (reach, reach, 0, 0), "replicate"), window, groups=count * channels)
    window = window.transpose(2, 3)
    x = F.conv2d(F.pad(x, (0, 0, reach, reach), "replicate"), window, groups=count * channels)
    return x.reshape(images.shape)


def noisy(images: Tensor, strength: Tensor, random: torch.Generator) -> Tensor:
    """Gaussian noise over every value, of a standard deviation up to 80 of 255."""
    return images + NOISE * strength[:, None, None, None] * torch.randn(images.shape, generator=random)


def faded(images: Tensor, strength: Tensor, random: torch.Generator) -> Tensor:
    """Less contrast around the image's mean: down to 30 % of what there was."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    left = 1 - (1 - FADED) * strength[:, None, None, None]
    return mean + (images - mean) * left


DRIFTS: dict[str, Callable[[Tensor, Tensor, torch.Generator], Tensor]] = {
    "rotation": turned,
    "blur": blurred,
    "noise": noisy,
    "contrast": faded,
}
MANY = 500  # images at once, where they are small


def drifted(images: Tensor, kind: str, strength: Tensor, seed: int = 0) -> Tensor:
    """Images (S, C, H, W) uint8, each made harder by its strength (S,), 0 … 1; the same for the same seed."""
    check_choice("drift", kind, tuple(DRIFTS))
    random = torch.Generator().manual_seed(seed)
    parts = []
    size = at_once(images.shape[1:], MANY)
    for part, how_much in zip(images.split(size), strength.float().split(size), strict=True):
        x = DRIFTS[kind](part.float(), how_much, random).clamp(0, 255).round().to(torch.uint8)
        # At strength 0 an image is what it was, byte by byte.
        parts.append(torch.where((how_much == 0)[:, None, None, None], part, x))
    return torch.cat(parts)


def rising(images: int, begin: float, end: float, most: float = 1.0) -> Tensor:
    """The strengths of a stream (S,): 0 up to the share `begin` of it, then rising evenly, `most` from `end` on.

    Raises:
        ArgumentError: these are no shares in this order.
    """
    for name, value in (("begin", begin), ("end", end), ("strength", most)):
        if not is_number(value) or not 0 <= value <= 1:
            raise not_allowed(name, value, "a number from 0 to 1")
    if begin > end:
        raise not_allowed("begin", begin, f"at most end={end}")
    place = torch.arange(images, dtype=torch.float64) / images
    if begin == end:
        return most * (place >= begin).double()
    return most * ((place - begin) / (end - begin)).clamp(0, 1)
