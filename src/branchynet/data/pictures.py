"""Images from outside, for a network that is already there: image files and .npy arrays to its bytes.

S samples, C channels, H, W pixels. Nothing here needs PyTorch.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from branchynet.data.files import FileProblem, NotThere, one_line

# Formats that Pillow reads by itself: others would start a program, or are no pictures.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
MODES = {1: "L", 3: "RGB"}  # Pillow's names, by number of channels


def find_images(folder: Path) -> list[Path]:
    """The image files in `folder` and below it, by their names' ends, in order; hidden ones are left out.

    Raises:
        FileProblem: there are none.
    """
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    if not files:
        raise FileProblem(f"{folder} holds no image files: known are {', '.join(SUFFIXES)}")
    return files


def read_image(path: Path, shape: tuple[int, int, int], size: str, channels: str) -> np.ndarray:
    """One image file as (C, H, W) uint8.

    It is turned upright as its own data say; transparency is dropped.

    Args:
        shape: (C, H, W) that is wanted.
        size: `bilinear` resizes another size to H × W, whatever its proportions; `refuse` does not.
        channels: `convert` makes grey (ITU-R 601) of colour and colour of grey; `refuse` does not.

    Raises:
        FileProblem: no image, a damaged one, or one that the rule refuses.
    """
    count, height, width = shape
    if count not in MODES:
        raise FileProblem(
            f"{path}: the network takes {count} channels, which no image file has: use an .npy file"
        )
    try:
        with Image.open(path, formats=FORMATS) as opened:
            opened.load()
            image: Image.Image = ImageOps.exif_transpose(opened)
    except FileNotFoundError:
        raise NotThere(f"there is no file {path}") from None
    except Exception as error:  # a decoder raises about anything on a damaged file
        raise FileProblem(f"{path} cannot be read ({one_line(error)})") from error
    if image.mode.startswith(("I", "F")):
        raise FileProblem(f"{path} has more than 8 bits a channel ({image.mode}): make it one of 8 bits")
    if image.mode != MODES[count]:
        if channels == "refuse":
            raise FileProblem(f"{path} is {image.mode}, must be {MODES[count]}")
        if "transparency" in image.info:
            image = image.convert("RGBA")
        image = image.convert(MODES[count])
    if image.size != (width, height):
        if size == "refuse":
            raise FileProblem(f"{path} is {image.height}×{image.width}, must be {height}×{width}")
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return np.ascontiguousarray(pixels[None] if count == 1 else pixels.transpose(2, 0, 1))


def read_array(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """An .npy file of S images as (S, C, H, W) uint8, mapped and not read: it may be larger than memory.

    Args:
        shape: (C, H, W); the file has (S, C, H, W), (S, H, W, C) or, where C is 1, (S, H, W). Nothing is
            resized or converted.

    Raises:
        FileProblem: no such file, a damaged one, or other shapes or types.
    """
    try:
        x = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise NotThere(f"there is no file {path}") from None
    except Exception as error:  # OSError, ValueError and more, on a damaged file
        raise FileProblem(f"{path} cannot be read ({one_line(error)})") from error
    count, height, width = shape
    if isinstance(x, np.ndarray) and x.dtype == np.uint8 and len(x.shape) > 2 and len(x):
        if x.shape[1:] == shape:
            return x
        if x.shape[1:] == (height, width, count):
            return x.transpose(0, 3, 1, 2)
        if (count, *x.shape[1:]) == shape:
            return x[:, None]
    found = f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else "no array"
    forms = [shape, (height, width, count), *([(height, width)] if count == 1 else [])]
    allowed = " or ".join(f"(S, {', '.join(map(str, form))})" for form in forms)
    raise FileProblem(f"{path} is {found}, must be uint8 of shape {allowed}: arrays are not resized")
