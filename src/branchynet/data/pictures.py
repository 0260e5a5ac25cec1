"""Images from outside, for a network that is already there: image files and .npy arrays to its bytes.

S samples, C channels, H, W pixels. Nothing here needs PyTorch.
"""

import os
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageOps

from branchynet.data.files import FileProblem, check_there, kind_and_reason
from branchynet.data.image_files import ImageFiles

# What Pillow opens and is not read: these start a program, or hold no picture that it could decode by itself.
NOT_READ = {"EPS", "WMF", "MPEG", "PDF", "BUFR", "GRIB", "HDF5"}
MODES = {1: "L", 3: "RGB"}  # Pillow's names, by number of channels
FAINT = 16  # of 255: with less between its darkest and lightest pixel a picture shows nothing
MAX_HEADER = 10_000  # bytes, of an .npy file


def formats() -> list[str]:
    """Pillow's names of the formats that are read."""
    Image.init()
    return [name for name in Image.OPEN if name not in NOT_READ]


def endings() -> list[str]:
    """The ends of these formats' files' names, `.png`; those that a plugin has registered, too."""
    known = {*formats(), "MPO"}  # read as the JPEG that it begins with
    return sorted(end for end, name in Image.registered_extensions().items() if name in known)


def find_images(folder: Path, problems: list[FileProblem] | None = None) -> list[Path]:
    """The image files in `folder` and below it, by their names' ends, in order; hidden ones are left out.

    Args:
        folder: links to folders in it are not followed.
        problems: what cannot be looked into is added here.

    Raises:
        FileProblem: there are none.
    """
    names, _ = image_names(folder, problems)
    if not names:
        if problems:
            raise problems[0]
        raise FileProblem(f"{folder} holds no image files: known are {', '.join(endings())}")
    return [folder / name for name in names]


def left_out(folder: Path) -> str:
    """How many files below `folder` are left out for their names' ends, hidden ones aside: `2 .heic, 1 .txt`."""
    return in_words(image_names(folder)[1])


def in_words(others: Counter[str]) -> str:
    """`2 .heic, 1 .txt`."""
    return ", ".join(f"{count} {end}" for end, count in sorted(others.items()))


def image_names(folder: Path, problems: list[FileProblem] | None = None) -> tuple[list[str], Counter[str]]:
    """The image files in `folder` and below it, as they are called in it, in order; how many others have which end.

    There may be millions: so these are texts and no paths. Arguments as of `find_images`.
    """

    def unreadable(error: OSError) -> None:
        if problems is not None:
            problems.append(FileProblem(f"{error.filename} cannot be read ({error.strerror})"))

    known, top = set(endings()), os.fspath(folder)
    found: list[str] = []
    others: Counter[str] = Counter()
    for place, below, names in os.walk(top, onerror=unreadable):
        below[:] = [name for name in below if not name.startswith(".")]
        within = place.removeprefix(top).lstrip(os.sep)
        for name in names:
            end = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                continue
            if end in known:
                found.append(os.path.join(within, name))
            else:
                others[end if len(end) > 1 else "without an ending"] += 1
    return sorted(found, key=lambda name: name.split(os.sep)), others


def read_image(path: Path, shape: tuple[int, int, int], rule: ImageFiles) -> np.ndarray:
    """One image file as (C, H, W) uint8, turned upright as its own data say.

    Args:
        shape: (C, H, W) that is wanted.
        rule: what becomes of other sizes, other channels (ITU-R 601 makes grey of colour), of transparency.

    Raises:
        FileProblem: no image, a damaged one, or one that the rule refuses.
    """
    if shape[0] not in MODES:
        raise FileProblem(
            f"{path}: the network takes {shape[0]} channels, which no image file has: use an .npy file"
        )
    return in_shape(upright(path), path, shape, rule)


def in_shape(
    image: Image.Image, path: Path | str, shape: tuple[int, int, int], rule: ImageFiles
) -> np.ndarray:
    """An opened picture as (C, H, W) uint8, C 1 or 3; arguments and exceptions as of `read_image`."""
    count, height, width = shape
    if image.mode.startswith(("I", "F")):
        raise FileProblem(f"{path} has more than 8 bits a channel ({image.mode}): make it one of 8 bits")
    if image.mode != MODES[count] and rule.channels == "refuse":
        raise FileProblem(f"{path} is {image.mode}, must be {MODES[count]}")
    if image.has_transparency_data:
        image = _on_background(path, image, rule)
    if image.mode != MODES[count]:
        try:
            image = image.convert(MODES[count])
        except ValueError as error:
            raise FileProblem(f"{path} cannot be read as {MODES[count]} ({error})") from None
    if rule.invert:
        image = ImageChops.invert(image)
    if image.size != (width, height):
        if rule.size == "refuse":
            raise FileProblem(f"{path} is {image.height}×{image.width}, must be {height}×{width}")
        if rule.size == "crop":
            image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
        else:
            image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return np.ascontiguousarray(pixels[None] if count == 1 else pixels.transpose(2, 0, 1))


def upright(path: Path) -> Image.Image:
    """The picture in a file, decoded and upright."""
    check_there(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=formats()) as opened:
                opened.load()
                return ImageOps.exif_transpose(opened)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise FileProblem(
            f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels: make it smaller"
        ) from None
    except Exception as error:  # a decoder raises about anything on a damaged file
        raise FileProblem(f"{path} cannot be read ({kind_and_reason(error)})") from error


def _on_background(path: Path | str, image: Image.Image, rule: ImageFiles) -> Image.Image:
    """A picture with transparency as RGB, on the rule's background."""
    above = image.convert("RGBA")
    least, most = above.getchannel("A").getextrema()
    if least == 255:
        return above.convert("RGB")
    if rule.background is None:
        raise FileProblem(
            f"{path} is transparent, and on what it lies is not known: set image_files.background, from 0 (black) "
            "to 255 (white)"
        )
    colour = [255 - value if rule.invert else value for value in rule.background]
    below = Image.new("RGBA", image.size, (*(colour * 3)[:3], 255))
    flat = Image.alpha_composite(below, above).convert("RGB")
    if least != most and _is_faint(flat):
        raise FileProblem(
            f"{path} vanishes on the background {', '.join(map(str, colour))}: set image_files.invert=true if dark "
            "and light are to be swapped, else image_files.background"
        )
    return flat


def _is_faint(image: Image.Image) -> bool:
    """Whether one can see nothing on an RGB picture."""
    return all(int(np.ptp(np.asarray(band))) < FAINT for band in image.split())


def read_array(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """An .npy file of S images as (S, C, H, W) uint8, mapped and not read: it may be larger than memory.

    Args:
        shape: (C, H, W); the file has (S, C, H, W), (S, H, W, C) or, where C is 1, (S, H, W). Nothing is
            resized or converted.

    Raises:
        FileProblem: no such file, a damaged one, or other shapes or types.
    """
    check_there(path)
    try:
        with path.open("rb") as file:
            beginning = file.read(12)
        # NumPy looks at its length when it has read it. Version 1 has two bytes for that.
        if beginning[6:7] > b"\1" and int.from_bytes(beginning[8:12], "little") > MAX_HEADER:
            raise ValueError(f"its header has more than {MAX_HEADER:,} bytes")
        x = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # OSError, ValueError and more, on a damaged file
        raise FileProblem(f"{path} cannot be read ({kind_and_reason(error)})") from error
    count, height, width = shape
    if x.dtype == np.uint8 and len(x.shape) > 2 and len(x):
        if x.shape[1:] == shape:
            return x
        if x.shape[1:] == (height, width, count):
            return x.transpose(0, 3, 1, 2)
        if (count, *x.shape[1:]) == shape:
            return x[:, None]
    forms = [shape, (height, width, count), *([(height, width)] if count == 1 else [])]
    allowed = " or ".join(f"(S, {', '.join(map(str, form))})" for form in forms)
    raise FileProblem(
        f"{path} is {x.dtype} {x.shape}, must be uint8 of shape {allowed}: arrays are not resized"
    )
