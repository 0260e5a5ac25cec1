"""What a manifest says in words is what happens."""

import numpy as np
import pytest
from PIL import Image

from branchynet.data.image_files import ImageFiles
from branchynet.data.pictures import read_image
from branchynet.exports.wording import LOOP, STOP_RULE, loop, picture_steps

KEEP = ImageFiles("refuse", "convert")


def test_the_loop_has_six_lines_and_the_rule_is_strict():
    assert loop("segments") == loop("torch") == list(LOOP) and len(LOOP) == 6
    assert "uncertainty < thresholds[n - 1]" in LOOP[3] and "strictly below" in STOP_RULE
    assert "model(image, thresholds)" in loop("single", ["state"])[0]
    handing = loop("segments", ["answer", "state"])
    assert handing[2].endswith("confidence, features, answer, state = segment_n(features, answer, state)")
    assert handing[3] == "    (answer and state only where segment_n has such an input or output)"
    assert [*handing[:2], *handing[4:]] == [*LOOP[:2], *LOOP[3:]]


def test_grey_is_made_of_colour_as_it_says(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "colours.png")
    found = read_image(tmp_path / "colours.png", (1, 16, 16), KEEP)
    red, green, blue = colours.astype(int).transpose(2, 0, 1)
    expected = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    assert np.array_equal(found[0], expected)
    assert "(19595 R + 38470 G + 7471 B + 32768) >> 16" in picture_steps((1, 16, 16), KEEP)[2]


@pytest.mark.parametrize("size", [(9, 21), (40, 7)])
def test_it_is_resized_as_it_says(size, tmp_path):
    """By hand: a triangle around the middle of each new pixel, as wide as the step where the picture shrinks."""
    old = np.random.default_rng(1).integers(0, 256, size, np.uint8)
    Image.fromarray(old).save(tmp_path / "old.png")
    found = read_image(tmp_path / "old.png", (1, 12, 12), ImageFiles())[0]

    def weights(before, after):
        step = before / after
        middles = (np.arange(after)[:, None] + 0.5) * step
        triangle = np.clip(1 - np.abs(np.arange(before) + 0.5 - middles) / max(step, 1), 0, None)
        return triangle / triangle.sum(axis=1, keepdims=True)

    expected = weights(size[0], 12) @ old @ weights(size[1], 12).T
    assert np.abs(found - expected).max() < 1.01, "Pillow rounds twice"
    assert "triangle" in picture_steps((1, 12, 12), ImageFiles())[3]


def test_what_is_refused_is_said_so():
    steps = picture_steps((3, 8, 6), ImageFiles("refuse", "refuse"))
    assert steps[1:4] == [
        "refused unless it is RGB",
        "refused if any of it is transparent",
        "refused unless it is 8 × 6 (H × W)",
    ]
    assert "R = G = B = L" in picture_steps((3, 8, 6), ImageFiles())[2]
    assert picture_steps((4, 8, 6), ImageFiles()) == ["none: no image file has 4 channels"]


def test_transparency_and_swapping_happen_as_it_says(tmp_path):
    """A pixel of colour 100, half transparent, on 40, swapped: 255 - (100 + 215) / 2."""
    Image.new("LA", (8, 8), (100, 128)).save(tmp_path / "half.png")
    rule = ImageFiles(background=(40,), invert=True)
    found = read_image(tmp_path / "half.png", (1, 8, 8), rule)
    assert np.abs(found.astype(int) - 97).max() <= 1
    steps = picture_steps((1, 8, 8), rule)
    assert steps[1] == "laid on the colour 215 where it is transparent"
    assert steps[3] == "dark and light swapped: 255 less each byte"
