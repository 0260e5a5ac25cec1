"""What is known of a network at run time, worked out by hand."""

import numpy as np
import pytest
import torch

from branchynet.exits.certificate import Certificate
from branchynet.runtime.profile import Profile, bin_of, certified_by, exit_indices, validation_of

UNSURE = np.float32([[0.1, 0.3], [0.2, 0.1], [0.4, 0.2], [0.9, 0.5]])
PREDICTION = np.array([[1, 1], [2, 0], [0, 0], [1, 2]])
RIGHT = np.array([[1, 1], [0, 1], [1, 1], [0, 1]], bool)


def test_validation_by_hand():
    for given in (UNSURE, torch.from_numpy(UNSURE)):
        found = validation_of(given, PREDICTION, RIGHT, [0.25])
        assert (found.samples, found.exit_rates) == (4, (0.5, 0.5))
        assert found.disagreement == 0.25, "of the two that leave early, one gets another class"
        (quantiles,) = found.uncertainty
        assert len(quantiles) == 101 and (quantiles[0], quantiles[-1]) == (0.1, 0.9)
        assert quantiles[26] == 0.2 and quantiles[51] == 0.4
        assert [len(each) for each in (*found.bins, *found.right)] == [19, 19, 20, 20]
        by_sample = [np.asarray(found.right[n])[bin_of(UNSURE[:, n], found.bins[n])].tolist() for n in (0, 1)]
        assert by_sample == [[1, 0, 1, 0], [1, 1, 1, 1]], "each of the four is a part of its own"


def test_the_comparison_is_strict_and_one_of_float32():
    assert exit_indices(
        np.float32([[0.3, 1], [np.nextafter(np.float32(0.3), np.float32(0)), 1]]), [0.3]
    ).tolist() == [
        1,
        0,
    ]


def test_costs_and_fingerprint():
    validation = validation_of(UNSURE, PREDICTION, RIGHT, [0.25])
    profile = Profile((0.25,), {"macs": (1.0, 5.0)}, validation)
    assert profile.mean_cost("macs") == 3 and profile.num_exits == 2
    other = Profile((0.3,), {"macs": (1.0, 5.0)}, validation)
    assert profile.fingerprint != other.fingerprint
    assert profile.fingerprint == Profile((0.25,), {"macs": (1, 9)}, validation).fingerprint


@pytest.mark.parametrize(("against", "found"), [("last", (0.25,)), ("", None)])
def test_a_certificate_of_a_cost_is_no_limit_to_thresholds(against, found):
    promise = Certificate("…", "harmful", 0.01, 0.1, 1000, 1000, 0.005, 0.05, against)
    assert certified_by(promise, (0.25,)) == found
    assert certified_by(None, (0.25,)) is None
