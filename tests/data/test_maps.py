"""Labels of every pixel, in the shapes that people store."""

import numpy as np
import pytest

from branchynet.data.files import FileProblem
from branchynet.data.maps import as_maps

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
