"""Shapes on textures, with a class for every pixel: a set of maps that needs no file, from easy to hard.

S samples, H, W pixels. All draws are NumPy's RandomState's, which keeps its numbers for ever.
"""

from typing import NamedTuple

import numpy as np

SIDE = 48  # pixels
SEED = 2015
PARTS = {"train": 2_400, "val": 800, "test": 1_000}
CLASSES = ("background", "disc", "square", "triangle")
MOST = 4  # shapes in an image
AT_ONCE = 100  # images


class Maps(NamedTuple):
    """A part of the set: images (S, 3, H, W) uint8, and the class of every pixel, (S, H, W) uint8."""

    x: np.ndarray
    y: np.ndarray


def shapes() -> dict[str, Maps]:
    """Training, validation and test images.

    How hard an image is, is drawn: a third are easy, one or two large shapes of another colour than the ground. The
    harder, the more shapes there are, the smaller, the more of the ground's colour and texture, the more noise.
    """
    random = np.random.RandomState(SEED)
    found = {}
    for part, count in PARTS.items():
        drawn = [draw(min(AT_ONCE, count - start), random) for start in range(0, count, AT_ONCE)]
        found[part] = Maps(*(np.concatenate(each) for each in zip(*drawn, strict=True)))
    return found


def draw(count: int, random: np.random.RandomState) -> Maps:
    """So many images."""
    hardness = np.clip(random.uniform(-0.5, 1.0, count), 0, 1).astype(np.float32)
    ground = random.uniform(40, 215, (count, 3)).astype(np.float32)
    x = _textured(ground, hardness, random)
    y = np.zeros((count, SIDE, SIDE), np.uint8)
    for n in range(MOST):
        # The first one always.
        there = (random.uniform(0, 1, count) < (1 if n == 0 else 0.25 + 0.5 * hardness)).nonzero()[0]
        if not len(there):
            continue
        kind = random.randint(1, len(CLASSES), len(there))
        inside = _inside(kind, hardness[there], random)
        # Away from the ground's colour, less so where it is hard; beyond black and white it is turned around.
        away = random.normal(0, 1, (len(there), 3)).astype(np.float32)
        away *= ((110 - 85 * hardness[there]) / np.linalg.norm(away, axis=1))[:, None]
        colour = ground[there] + away
        colour = np.where((colour < 10) | (colour > 245), ground[there] - away, colour)
        x[there] = np.where(inside[:, None], _textured(colour, hardness[there], random), x[there])
        y[there] = np.where(inside, kind[:, None, None].astype(np.uint8), y[there])
    noise = random.standard_normal((count, 1, SIDE, SIDE)).astype(np.float32)
    x += (4 + 26 * hardness)[:, None, None, None] * noise
    return Maps(np.clip(np.rint(x), 0, 255).astype(np.uint8), y)


def _textured(colour: np.ndarray, hardness: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """(S, 3, H, W) float32: waves of a direction and length of its own around each image's colour (S, 3)."""
    count = len(colour)
    angle, phase = random.uniform(0, 2 * np.pi, (2, count, 1, 1)).astype(np.float32)
    length = random.uniform(4, 14, (count, 1, 1)).astype(np.float32)
    along = np.arange(SIDE, dtype=np.float32)
    waves = np.sin(2 * np.pi / length * (np.cos(angle) * along + np.sin(angle) * along[:, None]) + phase)
    return colour[:, :, None, None] + ((8 + 22 * hardness)[:, None, None] * waves)[:, None]


def _inside(kind: np.ndarray, hardness: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """(S, H, W) bool: the pixels of one shape each, of these kinds (S,), somewhere and turned somehow."""
    count = len(kind)
    radius = SIDE * (random.uniform(0.16, 0.3, count) - 0.08 * hardness)
    middle = random.uniform(0.15, 0.85, (2, count)) * SIDE
    angle = random.uniform(0, 2 * np.pi, count)
    size, down, right, turn = (
        each.astype(np.float32)[:, None, None] for each in (radius, middle[0], middle[1], angle)
    )
    along = np.arange(SIDE, dtype=np.float32)
    v, h = along[:, None] - down, along - right
    a, b = np.cos(turn) * h + np.sin(turn) * v, np.cos(turn) * v - np.sin(turn) * h
    disc = a**2 + b**2 <= size**2
    square = np.maximum(abs(a), abs(b)) <= 0.88 * size
    # Three sides, 120° apart.
    side = np.maximum(-b, np.maximum(0.866 * a + 0.5 * b, -0.866 * a + 0.5 * b))
    triangle = side <= 0.62 * size
    return np.choose(kind[:, None, None] - 1, [disc, square, triangle])
