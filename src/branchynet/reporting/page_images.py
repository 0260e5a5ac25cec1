"""A page's images: some of each kind, small, all on one sheet. Shapes: C channels, H, W, N exits, S samples."""

import base64
import io
import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from branchynet.data.mapped import forget
from branchynet.exits.trace import Trace

PER_KIND = 20  # images of a class that leave at one exit, rightly or wrongly
SIDE = 64  # pixels of an image, at most
SHEET = 350_000  # bytes of all of them, about
PIXELS = 3_000_000  # of all of them, at most


def sheet_of(trace: Trace, taken: Tensor, images: Tensor) -> dict[str, Any]:
    """A sheet of thumbnails and what is on it, in a form that JSON can say.

    Args:
        trace: of S samples.
        taken: (S,) int64, 0-based: where they leave at the operating point, by which they are picked.
        images: (S, C, H, W) uint8, in the trace's order.

    Returns:
        `sheet` (a data URL), `width` and `height` of an image, `wide` and `high` of its place there, `columns`,
        `samples` (their numbers) and what the N exits predict for each.
    """
    samples = pick(trace, taken)
    width, height = _size(images.shape[3], images.shape[2])
    samples = samples[: max(1, PIXELS // (width * height))]
    while True:
        columns = math.ceil(math.sqrt(len(samples)))
        kept = np.sort(samples)
        url, size = _sheet(images, kept, width, height, columns)
        if size <= SHEET or len(samples) < 2:
            break
        samples = samples[: max(1, min(len(samples) - 1, int(0.95 * len(samples) * SHEET / size)))]
    return {
        "sheet": url,
        "width": width,
        "height": height,
        "wide": _place(width),
        "high": _place(height),
        "columns": columns,
        "samples": kept.tolist(),
        "predicted": trace.prediction[torch.from_numpy(kept)].tolist(),
    }


def pick(trace: Trace, taken: Tensor) -> np.ndarray:
    """Numbers of samples: of every class, exit and of right and wrong ones at most 20, those kinds in turn, so that
    any first part of them has of each kind as many as it can. Of a kind first the surest, then the least sure."""
    label, exits = trace.label.numpy(), taken.numpy()
    rows = np.arange(len(label))
    right = trace.correct.numpy()[rows, exits]
    kind = (label * trace.num_exits + exits) * 2 + right
    order = np.lexsort((trace.uncertainty.numpy()[rows, exits], kind))
    starts = np.flatnonzero(np.diff(kind[order], prepend=-1))
    sizes = np.diff(np.append(starts, len(order)))
    place = rows - np.repeat(starts, sizes)
    from_end = np.repeat(sizes, sizes) - 1 - place
    turn = 2 * np.minimum(place, from_end) + (place > from_end)
    # Where not even one of each kind has room, chance says of which: any fixed order would leave out some classes.
    chance = np.random.RandomState(0).permutation(len(order))
    picked = np.lexsort((chance, turn))
    return order[picked[turn[picked] < PER_KIND]]


def _size(width: int, height: int) -> tuple[int, int]:
    shrink = min(1.0, SIDE / max(width, height))
    return max(1, round(shrink * width)), max(1, round(shrink * height))


def _place(side: int) -> int:
    """JPEG works in squares of 8: none is shared by two images."""
    return 8 * math.ceil(side / 8)


def _sheet(images: Tensor, samples: np.ndarray, width: int, height: int, columns: int) -> tuple[str, int]:
    """A data URL, and how many bytes are in it."""
    coloured = images.shape[1] == 3
    wide, high = _place(width), _place(height)
    rows = math.ceil(len(samples) / columns)
    sheet = Image.new("RGB" if coloured else "L", (columns * wide, rows * high))
    for place, sample in enumerate(samples.tolist()):
        x = images[sample]
        pixels = (x.permute(1, 2, 0) if coloured else x.float().mean(0).round().to(torch.uint8)).numpy()
        small = Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), Image.Resampling.BOX)
        sheet.paste(small, (place % columns * wide, place // columns * high))
    forget(images)
    written = []
    forms: list[tuple[str, dict[str, Any]]] = [("jpeg", {"quality": 85, "subsampling": 0})]
    if not coloured:  # drawn digits are smaller without loss
        forms.append(("png", {}))
    for form, settings in forms:
        file = io.BytesIO()
        sheet.save(file, form, **settings)
        written.append((len(file.getvalue()), form, file.getvalue()))
    size, form, content = min(written)
    return f"data:image/{form};base64,{base64.b64encode(content).decode()}", size
