"""The test for drift: quiet on images like validation's, whatever the threshold; loud on others."""

import math

import numpy as np
import pytest

from branchynet.runtime.drift import DriftTest
from branchynet.runtime.ladder import Rail

RAIL = Rail(np.linspace(0, 1, 101).tolist(), 1.0)  # validation's uncertainties are uniform


def alarm(unsure, thresholds, every=1e6, samples=5000):
    """The image with the first alarm; None: there is none."""
    test = DriftTest(RAIL, samples, every)
    for number, (value, threshold) in enumerate(zip(unsure.tolist(), thresholds, strict=True)):
        test.set_threshold(threshold)
        if test.see(value < threshold, value):
            return number, test.harder
    return None


@pytest.mark.parametrize("moving", [False, True])
def test_it_is_quiet_on_images_like_validations(moving):
    """Also where the threshold follows the images: up after unsure ones, as a controller's does."""
    random = np.random.default_rng(0)
    unsure = random.uniform(size=20_000)
    thresholds = np.full(len(unsure), 0.4)
    if moving:
        thresholds[1:] = np.clip(np.cumsum(np.where(unsure[:-1] > 0.5, 0.01, -0.01)) % 1, 0, 1)
    assert alarm(unsure, thresholds) is None


def test_false_alarms_are_as_rare_as_stated():
    """At a rate of one in 50, and without a tolerance for a validation that is too small: still no more."""
    random = np.random.default_rng(1)
    test = DriftTest(RAIL, 10**12, 50)
    waited = []
    for _ in range(200):
        test.restore([1.0] * 6)
        number = 1
        while not test.see(True, random.uniform()):
            number += 1
        waited.append(number)
    assert np.mean(waited) > 50


@pytest.mark.parametrize("threshold", [0.3, 0.7, math.inf])
@pytest.mark.parametrize(("power", "harder"), [(0.3, True), (3.0, False)])
def test_it_is_loud_soon_after_they_change(threshold, power, harder):
    random = np.random.default_rng(2)
    unsure = random.uniform(size=6000)
    unsure[5000:] **= power
    number, told = alarm(unsure, [threshold] * len(unsure))
    assert 5000 < number < 5800 and told is harder


def test_images_that_all_go_to_the_end_show_nothing():
    assert alarm(np.ones(5000), [0.0] * 5000) is None


def test_it_goes_on_from_its_state_and_never_overflows():
    random = np.random.default_rng(3)
    one, other = DriftTest(RAIL, 100, 1e6), DriftTest(RAIL, 100, 1e6)
    for value in random.uniform(0.9, 1, 5000).tolist():
        one.see(True, value)
    assert all(math.isfinite(bet) for bet in one.state())
    other.restore(one.state())
    assert one.see(True, 0.5) == other.see(True, 0.5) and one.state() == other.state()
