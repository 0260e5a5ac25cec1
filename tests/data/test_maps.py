"""Labels of every pixel, in the shapes that people store."""

import numpy as np
import pytest

from branchynet.data.files import FileProblem
from branchynet.data.maps import LEFT_OUT, as_maps, check_ignore, without
from branchynet.errors import ArgumentError

Y = np.arange(60).reshape(3, 4, 5) % 7


@pytest.mark.parametrize("y", [Y, Y[:, None], Y[..., None], Y.astype(np.uint8)])
def test_maps_with_and_without_a_channel_are_maps(y):
    assert np.array_equal(as_maps(y, (4, 5), "y"), Y)


def test_images_of_one_row_or_column_lose_only_their_channel():
    assert as_maps(np.ones((3, 1, 1, 5), int), (1, 5), "y").shape == (3, 1, 5)
    assert as_maps(np.ones((3, 1, 1, 1), int), (1, 1), "y").shape == (3, 1, 1)


@pytest.mark.parametrize("y", [Y / 2, Y[:, :3], np.stack([Y, Y], axis=-1)])
def test_what_is_no_map_of_the_images_is_refused_with_their_size(y):
    with pytest.raises(FileProblem, match=r"y is .* of every pixel of these images \(S, 4, 5\)"):
        as_maps(y, (4, 5), "y")


@pytest.mark.parametrize(("dtype", "ignore"), [(np.uint8, 3), (np.int64, -1), (np.int8, -1), (np.uint8, 255)])
def test_pixels_that_do_not_count_are_of_one_number(dtype, ignore):
    away = Y == 3
    y = np.where(away, np.array(ignore).astype(dtype), Y.astype(dtype))
    assert np.array_equal(without(y, ignore, "y"), np.where(away, LEFT_OUT, Y))


def test_what_cannot_be_left_out():
    blank = Y.copy()
    blank[1] = 3
    for y, ignore, says in (
        (blank, 3, "y: of image 1, counted from 0, no pixel counts"),
        (np.where(Y == 2, 255, Y), 3, "with data.ignore=3 no class can be 255"),
        (Y[:, 0, 0], 3, "y has one label for an image: data.ignore is for labels of every pixel"),
    ):
        with pytest.raises(FileProblem, match=says):
            without(y, ignore, "y")
    for wrong in ("255", True, 2.5):
        with pytest.raises(ArgumentError, match=r"ignore=.*null or a whole number, such as 255"):
            check_ignore(wrong)
