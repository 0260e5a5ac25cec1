"""What is around the training images, and which settings for image files there are."""

import numpy as np
import pytest

from branchynet.data.image_files import Border, ImageFiles, around, background_of, border_of, is_far
from branchynet.errors import UserError


def test_the_outermost_pixels_once_each():
    x = np.arange(12).reshape(1, 3, 4)
    assert sorted(around(x)[0]) == [0, 1, 2, 3, 4, 7, 8, 9, 10, 11]
    assert sorted(around(x[:, :1])[0]) == [0, 0, 1, 1, 2, 2, 3, 3], "a single row is top and bottom"


def test_the_border_of_most_images_counts():
    x = np.zeros((1000, 1, 6, 6), np.uint8)
    x[:, :, 2:4, 2:4] = 255  # what they show
    assert border_of([x]) == Border((0,), 0, 0)
    x[:4] = 255  # less than 1 in 200
    assert border_of([x]) == Border((0,), 0, 0)
    x[:500] = 100
    assert border_of([x]) == Border((50,), 0, 100)
    colour = np.broadcast_to(np.uint8([1, 2, 200])[:, None, None], (7, 3, 6, 6))
    assert border_of([colour]) == Border((1, 2, 200), 67, 68)


def test_in_parts_it_is_what_it_is_of_all_at_once():
    x = np.random.default_rng(0).integers(0, 256, (41, 3, 5, 4), dtype=np.uint8)
    pixels = around(x)
    colour = tuple(int(np.median(pixels[:, channel])) for channel in range(3))
    darkest, lightest = np.quantile(pixels.mean(axis=(1, 2)), (0.005, 0.995))
    whole = Border(colour, int(darkest), int(np.ceil(lightest)))
    assert border_of([x]) == border_of([x[:7], x[7:8], x[8:]]) == whole
    odd = border_of([x[:1, :, :1, :3]])
    assert odd.colour == tuple(int(np.median(x[0, channel, 0, :3])) for channel in range(3))


def test_another_border_is_seen():
    light = np.full((3, 6, 6), 255, np.uint8)
    assert is_far(light, (0, 20)) and not is_far(light, (0, 200)) and not is_far(255 - light, (0, 20))
    assert is_far(255 - light, (230, 255)) and not is_far(light, (230, 255))


@pytest.mark.parametrize("rule", [{"size": "cut"}, {"channels": "drop"}, {"invert": 1}])
def test_wrong_settings_are_named(rule):
    ((name, value),) = rule.items()
    with pytest.raises(UserError, match=rf"image_files\.{name}={value}: it is "):
        ImageFiles(**rule)


def test_a_background_is_a_byte_or_one_per_channel():
    assert background_of(7, 3) == (7, 7, 7) and background_of([1, 2, 3], 3) == (1, 2, 3)
    for wrong in (256, -1, 0.5, True, "white", [1, 2], [1, 2, "x"]):
        with pytest.raises(UserError, match=r"image_files\.background=.*0 \(black\) … 255 \(white\)"):
            background_of(wrong, 3)
