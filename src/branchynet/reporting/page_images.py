"""A page's images: some of each kind, small, all on one sheet. Shapes: C channels, H, W, N exits, S samples."""

import base64
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from branchynet.exits.trace import Trace

PER_KIND = 20  # images of a class that leave at one exit, rightly or wrongly
SIDE = 64  # pixels of an image, at most
SHEET = 350_000  # bytes of all of them, about
PIXELS = 3_000_000  # of all of them, at most


def sheet_of(trace: Trace, taken: Tensor, image: Callable[[int], Tensor]) -> dict[str, Any]:
    """A sheet of thumbnails and what is on it, in a form that JSON can say.

    Args:
        trace: of S samples.
        taken: (S,) int64, 0-based: where they leave at the operating point, by which they are picked.
        image: (C, H, W) uint8, of a sample of the trace.

    Returns:
        `sheet` (a data URL), `width` and `height` of an image, `wide` and `high` of its place there, `columns`,
        `samples` (their numbers) and what the N exits predict for each.
    """
    samples = pick(trace, taken)
    width, height = thumbnail(image(int(samples[0]))).size
    samples = samples[: max(1, PIXELS // (width * height))]
    small = {sample: thumbnail(image(sample)) for sample in samples.tolist()}
    while True:
        kept = sorted(small)
        columns = math.ceil(math.sqrt(len(kept)))
        url, size = _sheet([small[sample] for sample in kept], columns)
        if size <= SHEET or len(small) < 2:
            break
        fewer = max(1, min(len(small) - 1, int(0.95 * len(small) * SHEET / size)))
        small = {sample: small[sample] for sample in samples[:fewer].tolist()}
    return {
        "sheet": url,
        "width": width,
        "height": height,
        "wide": _place(width),
        "high": _place(height),
        "columns": columns,
        "samples": kept,
        "predicted": main_class(trace.prediction[torch.tensor(kept)], 2).tolist(),
    }


def good_of(trace: Trace) -> Tensor:
    """(S, N) bool: whether leaving at exit n does sample s no harm; but of maps, whether it is right."""
    good: Tensor = getattr(trace, "good", trace.correct)
    return good


def main_class(values: Tensor, dimensions: int) -> Tensor:
    """Classes as they are; of maps, which have a dimension more with each class's pixels, the class of most."""
    return values if values.ndim == dimensions else values.argmax(dim=-1)


def thumbnail(image: Tensor) -> Image.Image:
    """(C, H, W) uint8 as a picture of at most 64 pixels a side: three channels are colours, others shown grey."""
    coloured = len(image) == 3
    pixels = image.permute(1, 2, 0) if coloured else image.float().mean(0).round().to(torch.uint8)
    picture = Image.fromarray(np.ascontiguousarray(pixels.numpy()))
    shrink = min(1.0, SIDE / max(picture.size))
    width, height = (max(1, round(shrink * side)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BOX)


def pick(trace: Trace, taken: Tensor) -> np.ndarray:
    """Numbers of samples: of every class, exit and of right and wrong ones at most 20, those kinds in turn, so that
    any first part of them has of each kind as many as it can. Of a kind first the surest, then the least sure."""
    label, exits = main_class(trace.label, 1).numpy(), taken.numpy()
    rows = np.arange(len(label))
    right = good_of(trace).numpy()[rows, exits]
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


def _place(side: int) -> int:
    """JPEG works in squares of 8: none is shared by two images."""
    return 8 * math.ceil(side / 8)


def _sheet(pictures: Sequence[Image.Image], columns: int) -> tuple[str, int]:
    """A data URL, and how many bytes are in it."""
    wide, high = (_place(side) for side in pictures[0].size)
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new(pictures[0].mode, (columns * wide, rows * high))
    for place, picture in enumerate(pictures):
        sheet.paste(picture, (place % columns * wide, place // columns * high))
    forms: list[tuple[str, dict[str, Any]]] = [("jpeg", {"quality": 85, "subsampling": 0})]
    if sheet.mode == "L":  # drawn digits are smaller without loss
        forms.append(("png", {}))
    written = []
    for form, settings in forms:
        file = io.BytesIO()
        sheet.save(file, form, **settings)
        written.append((len(file.getvalue()), form, file.getvalue()))
    size, form, content = min(written)
    return f"data:image/{form};base64,{base64.b64encode(content).decode()}", size
