"""What gives away timings that cannot be right, by hand."""

import pytest

from branchynet.evaluation.noise import Noise, company, difference, excess, spread, worst
from branchynet.runtime.costs import Latencies, Latency

CALM = Latency(100.0, 20.0)  # a spread of 0.2 is still one


def test_the_widest_spread_of_all_engines_is_named():
    calm = Latencies(CALM, (CALM, CALM), (CALM, CALM), (CALM, CALM))
    assert spread({"a": calm, "b": calm}) == ()
    wide = Latencies(CALM, (CALM, CALM), (Latency(100.0, 25.0), Latency(100.0, 30.0)), (CALM, CALM))
    assert spread({"a": calm, "b": wide}) == (
        Noise("the spread of exit 2 alone on b is 0.30 of its median", pytest.approx(1.5)),
    )
    nothing = Latencies(CALM, (CALM, CALM), (CALM, CALM), (Latency(0.0, 0.0), CALM))
    (found,) = spread({"a": nothing})
    assert found.reason.startswith("the spread of the trunk up to exit 1 on a is inf")


@pytest.mark.parametrize(
    ("measured", "times"), [(100, 0), (115, 1), (130, 2), (100 / 1.15, 1), (50, 1 / 0.15), (200, 1 / 0.15)]
)
def test_a_difference_counts_the_same_both_ways(measured, times):
    found = difference("gain on torch", 100, measured)
    assert found.times == pytest.approx(times)
    assert found.reason == f"the measured gain on torch is {measured / 100:.2f} times the predicted one"


def test_others_disturb_on_more_than_half_of_the_free_cores():
    assert company(0.5, 1).times == 1 and company(8.0, 63).times < 1
    assert company(0.9, 1) == Noise("others computed on 0.9 cores meanwhile", pytest.approx(1.8))


def test_the_worst_is_what_is_told_if_it_is_above_its_limit():
    a, b, c = Noise("a", 0.9), Noise("b", 3.0), Noise("c", 2.0)
    assert worst([a, c, b]) == (b,) and worst([a]) == worst([]) == ()
    assert excess([a, c]) == 2.0 and excess([]) == 0.0
