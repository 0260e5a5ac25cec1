"""Thresholds that are known: the point is theirs, whatever was swept."""

import pytest

from branchynet.errors import ArgumentError
from branchynet.exits.given import Given
from branchynet.exits.rules import check_rule, select


def test_the_point_is_at_these_thresholds_which_need_not_be_among_the_swept(report, three_exits):
    # The first five of eight leave at exit 1, one of them wrongly; all others are right at exit 2.
    found = select(Given([0.42]), report.view)
    assert found.point.thresholds == pytest.approx((0.42,))
    assert (found.point.left, found.point.right, found.feasible) == ((5, 3), 7, True)
    assert select(Given([0, 0.21]), three_exits.view).point.left == (0, 5, 3)
    # Strictly below, in float32 as an engine compares.
    assert select(Given([float(report.trace.uncertainty[3, 0])]), report.view).point.left == (3, 5)


def test_as_many_as_the_network_has(report):
    check_rule(Given([0.1]), 2)
    for thresholds in ([], [0.1, 0.2]):
        with pytest.raises(
            ArgumentError, match=r"^thresholds has \d: the network's 2 exits have 1, the last"
        ):
            check_rule(Given(thresholds), 2)
        with pytest.raises(ArgumentError, match="the network's 2 exits have 1"):
            Given(thresholds).choose(report.view)


@pytest.mark.parametrize("wrong", [0.3, "0.3", None, [-0.1], ["a"], [float("nan")], [float("inf")], [True]])
def test_what_is_no_list_of_thresholds_is_refused(wrong):
    with pytest.raises(ArgumentError, match=r"^thresholds(=| has )"):
        Given(wrong)
