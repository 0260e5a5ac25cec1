"""scikit-learn's 1,797 handwritten digits as image sets that need no file: plain, and with easy and hard images.

S samples, H, W pixels. All draws are NumPy's RandomState's, which keeps its numbers for ever.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 28  # pixels
SEED = 2016
# Images of the cluttered set. No two parts share an original.
CLUTTERED = {"train": 12_000, "val": 2_000, "test": 4_000}
PATCHES = 4  # of clutter, at most
PATCH = 9  # pixels, their side
LEAST = 0.1  # of the hardness by which a digit is turned, scaled and moved


class Arrays(NamedTuple):
    """A part of a set: images (S, H, W) uint8, labels (S,) int64."""

    x: np.ndarray
    y: np.ndarray


def plain_digits() -> dict[str, Arrays]:
    """8×8 with values 0 … 16, as bytes at 28×28; 1,437 for training, 360 for test."""
    values, labels, test = _originals()
    x = F.interpolate(values, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    images = _bytes(x)
    return {"train": Arrays(images[~test], labels[~test]), "test": Arrays(images[test], labels[test])}


def cluttered_digits() -> dict[str, Arrays]:
    """12,000 for training, 2,000 for validation and 4,000 for test, from easy to hard.

    Every image is one of the originals, turned, scaled and moved, with pieces of other digits around it and noise
    over it. How much of each is drawn per image: a third are clean, and only turned, scaled and moved a little, so
    that no two images are the same. An original is in one part alone: otherwise validation would be easier than
    test, and promise too much. Within a part some ten images share each original.
    """
    values, labels, test = _originals()
    val = np.zeros_like(test)
    val[_every(7, labels, ~test)] = True
    originals = {"train": ~test & ~val, "val": val, "test": test}
    random = np.random.RandomState(SEED)
    return {
        part: clutter(values[torch.from_numpy(chosen)], labels[chosen], CLUTTERED[part], random)
        for part, chosen in originals.items()
    }


def _originals() -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Images (S, 1, 8, 8) float32 of 0 … 255, labels, and which are for test: every fifth of each class."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    labels = bunch.target.astype(np.int64)
    test = np.zeros(len(labels), bool)
    test[_every(5, labels, np.ones(len(labels), bool))] = True
    values = torch.from_numpy(bunch.images).to(torch.float32)[:, None] * (255 / 16)
    return values, labels, test


def _every(step: int, labels: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The numbers of every `step`-th image of each class, in a random order, of those that `among` (S,) marks."""
    order = np.lexsort((np.random.RandomState(SEED).random_sample(len(labels)), labels))
    return order[among[order]][::step]


def clutter(values: Tensor, labels: np.ndarray, count: int, random: np.random.RandomState) -> Arrays:
    """Draw `count` images, each from one of the S originals, from easy to hard.

    Args:
        values: (S, 1, 8, 8) float32, 0 … 255.
        labels: (S,) int64.
        count: of the images that are made, (count, 28, 28).
        random: what all is drawn from.
    """
    chosen = random.randint(len(labels), size=count)
    # How hard an image is, 0 … 1.
    hardness = np.clip(random.uniform(-0.5, 1.0, count), 0, 1)
    # A third have a hardness of 0: in the same place they would be copies of their originals.
    most = np.maximum(hardness, LEAST)
    angle = most * random.uniform(-1, 1, count) * math.radians(40)
    size = 1.6 + most * random.uniform(-0.2, 0.5, count)  # the image's side over the digit's
    moved = 0.45 * most[:, None] * random.uniform(-1, 1, (count, 2))
    x = _placed(values[chosen], angle, size, moved)
    # Pieces of other digits, up to PATCHES of them.
    for n in range(PATCHES):
        other = values[random.randint(len(labels), size=count)]
        middle = random.uniform(-1, 1, (count, 2))
        piece = _placed(other, random.uniform(-math.pi, math.pi, count), np.full(count, 2.4), 1.2 * middle)
        window = _window(count, middle, random)
        there = torch.from_numpy((hardness * PATCHES > n + random.random_sample(count)).astype(np.float32))
        x = torch.maximum(x, piece * window * there[:, None, None, None])
    noise = random.standard_normal((count, 1, SIDE, SIDE)).astype(np.float32)
    x = x + 60 * torch.from_numpy(hardness.astype(np.float32))[:, None, None, None] * torch.from_numpy(noise)
    return Arrays(_bytes(x), labels[chosen])


def _placed(x: Tensor, angle: np.ndarray, size: np.ndarray, moved: np.ndarray) -> Tensor:
    """Images (S, 1, 8, 8) turned by `angle`, on a canvas `size` times as wide, `moved` by shares of half of it."""
    cos, sin = np.cos(angle) * size, np.sin(angle) * size
    rows = np.stack(
        [
            np.stack([cos, -sin, -cos * moved[:, 0] + sin * moved[:, 1]], axis=1),
            np.stack([sin, cos, -sin * moved[:, 0] - cos * moved[:, 1]], axis=1),
        ],
        axis=1,
    )
    grid = F.affine_grid(torch.from_numpy(rows).float(), [len(x), 1, SIDE, SIDE], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", align_corners=False)


def _window(count: int, middle: np.ndarray, random: np.random.RandomState) -> Tensor:
    """(S, 1, H, W) of 0 and 1: a square of PATCH pixels around each middle, -1 … 1, a little beside it."""
    centre = (middle + 1) / 2 * SIDE + random.uniform(-3, 3, (count, 2))
    along = np.arange(SIDE)[None]
    inside = [np.abs(along - centre[:, axis, None]) <= PATCH / 2 for axis in (1, 0)]
    return torch.from_numpy((inside[0][:, :, None] & inside[1][:, None, :]).astype(np.float32))[:, None]


def _bytes(x: Tensor) -> np.ndarray:
    return x.clamp(0, 255).round().to(torch.uint8)[:, 0].numpy()
