"""What a manifest says in words: how its host decides, and what becomes of a picture before the network sees it."""

from collections.abc import Sequence

from branchynet.data.image_files import ImageFiles

STOP_RULE = (
    "exit n, n = 1 … N-1, is taken where uncertainty_n < thresholds[n - 1]: strictly below, both float32; "
    "exit N takes whatever comes to it"
)
LOOP = (
    "features = image",
    "for n = 1 … N:",
    "    prediction, uncertainty, confidence, features = segment_n(features)",
    "    if n == N or uncertainty < thresholds[n - 1]:",
    "        break",
    "answer: classes[prediction], at exit n",
)
LOOP_INSIDE = (
    "prediction, exit, uncertainty, confidence = model(image, thresholds)",
    "answer: classes[prediction[0]], at exit exit[0]",
)


def loop(format: str, beside: Sequence[str] = ()) -> list[str]:
    """What the host of an export of this format does for one image.

    Args:
        beside: the names of what goes from segment to segment beside the features.
    """
    if format == "single":
        return list(LOOP_INSIDE)
    if not beside:
        return list(LOOP)
    handed, only = ", ".join(beside), " and ".join(beside)
    call = f"    prediction, uncertainty, confidence, features, {handed} = segment_n(features, {handed})"
    return [*LOOP[:2], call, f"    ({only} only where segment_n has such an input or output)", *LOOP[3:]]


def picture_steps(shape: tuple[int, int, int], rule: ImageFiles) -> list[str]:
    """What `branchynet predict` does to an image file, step by step; another host has to do the same.

    Args:
        shape: (C, H, W).
        rule: what becomes of image files.
    """
    count, height, width = shape
    if count not in (1, 3):
        return [f"none: no image file has {count} channels"]
    form = "grey" if count == 1 else "RGB"
    converted = (
        "grey of colour: L = (19595 R + 38470 G + 7471 B + 32768) >> 16, which is ITU-R 601"
        if count == 1
        else "colour of grey: R = G = B = L"
    )
    resized = (
        f"resized to {height} × {width} (H × W), whatever its proportions: bilinear, and where it shrinks with a "
        f"triangle as wide as the step between pixels (Pillow's BILINEAR), on bytes, rounded"
    )
    if rule.background is None:
        below = "refused if any of it is transparent"
    else:
        colour = [255 - value if rule.invert else value for value in rule.background]
        below = f"laid on the colour {', '.join(map(str, colour))} where it is transparent"
    return [
        "decoded, 8 bits a channel, and turned upright as its EXIF data say",
        *([] if rule.channels == "convert" else [f"refused unless it is {form}"]),
        below,
        *([converted] if rule.channels == "convert" else []),
        *(["dark and light swapped: 255 less each byte"] if rule.invert else []),
        {
            "bilinear": resized,
            "crop": f"resized in its proportions so that it covers {height} × {width} (H × W), and cut to its "
            "middle (Pillow's ImageOps.fit with BILINEAR)",
            "refuse": f"refused unless it is {height} × {width} (H × W)",
        }[rule.size],
        "its bytes, 0 … 255, as NCHW: the models normalise them themselves",
    ]
