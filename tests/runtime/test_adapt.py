"""Thresholds for a new set: from how often early answers are not the last exit's."""

import numpy as np
import pytest

from branchynet.errors import UserError
from branchynet.runtime.adapt import adapt, estimated_accuracy
from branchynet.runtime.profile import Profile, exit_indices, validation_of


def answers(samples, hard, seed=0):
    """Two exits: exit 1 differs from the last the more often, the less sure it is, and more so on a hard set."""
    random = np.random.default_rng(seed)
    unsure = np.float32(random.uniform(0, 1, (samples, 2)))
    last = random.integers(0, 10, samples)
    differs = random.uniform(size=samples) < np.clip(unsure[:, 0] * (1.5 if hard else 0.5), 0, 1)
    return unsure, np.stack([np.where(differs, (last + 1) % 10, last), last], axis=1)


@pytest.fixture
def profile():
    unsure, prediction = answers(5000, hard=False)
    right = prediction == prediction[:, 1:]
    right[:500] = False  # a tenth is wrong everywhere
    return Profile((0.6,), {"macs": (1.0, 2.0)}, validation_of(unsure, prediction, right, (0.6,)), 1.0)


def test_a_harder_set_leaves_later_and_disagrees_no_more(profile):
    allowed = profile.validation.disagreement
    assert allowed == pytest.approx(0.5 * 0.6**2 / 2, abs=0.01)
    same = adapt(profile, *answers(5000, hard=False, seed=1))
    hard = adapt(profile, *answers(5000, hard=True, seed=1))
    assert same.thresholds[0] == pytest.approx(0.6, abs=0.03)
    # Of a set three times as hard, that share disagrees below a threshold by the root of 3 smaller.
    assert hard.thresholds[0] == pytest.approx(0.6 / 3**0.5, abs=0.03)
    for found in (same, hard):
        assert found.disagreement <= found.allowed == allowed < found.disagreement + 0.01
        assert sum(found.exit_rates) == pytest.approx(1)


def test_it_is_never_past_the_certified_thresholds(profile):
    certified = Profile(profile.thresholds, profile.costs, profile.validation, 1.0, certified=(0.4,))
    assert adapt(certified, *answers(5000, hard=False, seed=1)).thresholds == (0.4,)


def test_the_estimate_is_the_accuracy_on_images_like_validations(profile):
    for seed in (0, 1):
        unsure, prediction = answers(5000, hard=False, seed=seed)
        right = prediction == prediction[:, 1:]
        right[:500] = False
        for threshold in (0.0, 0.3, 0.6, 2.0):
            taken = exit_indices(unsure, (threshold,))
            real = right[np.arange(5000), taken].mean()
            assert estimated_accuracy(profile, unsure, taken) == pytest.approx(real, abs=0.02)


def test_the_estimate_falls_where_exits_are_less_sure(profile):
    unsure, _ = answers(5000, hard=False)
    everyone = np.zeros(5000, int)
    assert (
        estimated_accuracy(profile, unsure**0.3, everyone)
        < estimated_accuracy(profile, unsure, everyone) - 0.1
    )


def test_answers_of_another_network_are_refused(profile):
    with pytest.raises(UserError, match=r"not \(S, 2\) both"):
        adapt(profile, np.zeros((5, 3), np.float32), np.zeros((5, 3), int))
