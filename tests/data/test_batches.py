"""Images a batch at a time: which ones, and never too many."""

import torch

from branchynet.data.batches import at_once, in_batches

X, Y = torch.arange(7 * 4).reshape(7, 1, 2, 2).to(torch.uint8), torch.arange(7)


def taken(*arguments):
    return [y.tolist() for x, y in in_batches(X, Y, *arguments) if torch.equal(x, X[y])]


def test_all_or_some_in_order():
    assert taken(3) == [[0, 1, 2], [3, 4, 5], [6]]
    assert taken(2, torch.tensor([5, 0, 1])) == [[5, 0], [1]]
    assert not list(in_batches(X[:0], Y[:0], 3)) and not taken(3, torch.empty(0, dtype=torch.int64))


def test_no_byte_is_copied_where_all_are_wanted():
    (x, _), _ = in_batches(X, Y, 4)
    assert x.data_ptr() == X.data_ptr()


def test_more_pixels_are_fewer_images():
    # The sets of the paper, and all that are as small, in the batches that their published traces are of.
    assert [at_once(shape) for shape in ((1, 28, 28), (3, 32, 32), (1, 64, 64))] == [1000] * 3
    for side in (65, 224, 1000, 3000):
        assert at_once((3, side, side)) >= 1 and at_once((3, side, side)) * 3 * side**2 <= max(
            1000 * 4096, 3 * side**2
        )
    assert (at_once((3, 224, 224)), at_once((3, 224, 224), 2000), at_once((1, 8, 8), 20)) == (27, 54, 20)
