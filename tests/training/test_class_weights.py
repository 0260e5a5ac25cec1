"""Weights of classes: scaled by the training images, refused in a line."""

import pytest

from branchynet.errors import ArgumentError
from branchynet.training.class_weights import check_class_weights, class_weights

COUNTS = (90, 9, 1)


def test_balanced_classes_count_alike_and_the_mean_over_images_is_1():
    found = class_weights("balanced", COUNTS)
    sums = [weight * count for weight, count in zip(found, COUNTS, strict=True)]
    assert sums == pytest.approx([100 / 3] * 3)
    assert class_weights("balanced", (5, 5)) == pytest.approx((1, 1))
    assert class_weights("balanced", (5, 0, 5)) == pytest.approx((1, 0, 1))


def test_a_list_keeps_its_ratios():
    found = class_weights([1, 1, 10], COUNTS)
    assert found[2] / found[0] == pytest.approx(10)
    assert sum(weight * count for weight, count in zip(found, COUNTS, strict=True)) == pytest.approx(100)
    assert class_weights(None, COUNTS) is None


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("balance", "class_weights=balance: it is null, balanced, or a list"),
        ([1, 2], "2 numbers for 3 classes"),
        ([1, -1, 2], "a list of one number for each class, 0 or more"),
        ([1, float("inf"), 2], "0 or more"),
        ([1, True, 2], "0 or more"),
        ([0, 0, 0], "no training image would count"),
        (2, "null, balanced, or a list"),
    ],
)
def test_what_is_not_allowed(spec, says):
    with pytest.raises(ArgumentError, match=says):
        class_weights(spec, COUNTS)


def test_an_objective_takes_numbers_alone():
    assert check_class_weights((1, 2.5)) == [1.0, 2.5]
    with pytest.raises(ArgumentError, match="class_weights"):
        check_class_weights("balanced")
