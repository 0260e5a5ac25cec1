"""Images in two splits, counted; classes that a split lacks, named."""

import numpy as np
import torch

from branchynet.data.doubts import digests, doubts


class Made:
    """Splits of random images, calibration empty, with labels in turn."""

    classes = ("wren", "gull", "heron")

    def __init__(self, **counts):
        rng = np.random.default_rng(0)
        self.x = {
            which: torch.from_numpy(rng.integers(0, 256, (counts.get(which, 0), 1, 4, 5), dtype=np.uint8))
            for which in ("train", "val", "test", "calibration")
        }
        self.y = {which: torch.arange(len(x)) % 3 for which, x in self.x.items()}

    def images(self, which):
        return self.x[which]

    def labels(self, which):
        return self.y[which]


def test_nothing_is_said_of_a_set_that_is_as_it_should_be():
    assert doubts(Made(train=30, val=9, test=9)) == []


def test_images_of_two_splits_are_counted():
    made = Made(train=30, val=9, test=9)
    made.x["test"][:4] = made.x["train"][3]  # one image four times
    made.x["test"][5] = made.x["val"][0]
    made.x["val"][1] = made.x["train"][7]
    made.x["val"][1, 0, 0, 0] ^= 1  # all but one bit
    assert doubts(made) == [
        "4 of 9 test images are among the training images, too, byte by byte: what is known by heart flatters "
        "accuracy there",
        "1 of 9 test images is among the validation images, too, byte by byte: what is known by heart flatters "
        "accuracy there",
    ]


def test_classes_that_a_split_lacks_are_named():
    made = Made(train=30, val=9, test=9)
    made.y["val"][:] = 1
    assert doubts(made) == ["no validation image is of wren, heron: accuracy there says nothing of it"]
    made.y["val"][0] = 255  # no class: it does not count
    assert doubts(made) == ["no validation image is of wren, heron: accuracy there says nothing of it"]


def test_digests_are_of_all_bytes():
    x = torch.zeros(3, 2, 2, 2, dtype=torch.uint8)
    x[1, 1, 1, 1] = 1
    first, second, third = digests(x)
    assert first == third != second
