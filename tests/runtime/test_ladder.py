"""The ladder of thresholds: in order from safest to fastest, and through the network's own."""

import math

import numpy as np
import pytest

from branchynet.runtime.ladder import Ladder, Rail
from branchynet.runtime.profile import Profile, exit_indices, validation_of

MOST = math.log(10)


def made(exits=3, samples=2000, seed=0, quantile=0.6, thresholds=None):
    random = np.random.default_rng(seed)
    unsure = np.float32(random.beta(0.3, 1 + np.arange(exits), (samples, exits)) * MOST)
    if thresholds is None:
        thresholds = tuple(np.quantile(unsure[:, :-1], quantile, axis=0).tolist())
    answers = random.integers(0, 10, (samples, exits))
    costs = {"latency_us": tuple(10.0 * (n + 1) for n in range(exits))}
    validation = validation_of(unsure, answers, answers == answers[:, -1:], thresholds)
    return Profile(thresholds, costs, validation, MOST), unsure


def test_no_sample_leaves_later_higher_up():
    profile, unsure = made()
    ladder = Ladder(profile)
    before = exit_indices(unsure, ladder.thresholds(0))
    assert (before == 2).all()
    for position in np.linspace(0, 1, 101)[1:]:
        taken = exit_indices(unsure, ladder.thresholds(position))
        assert (taken <= before).all()
        before = taken
    assert (before == 0).all() and ladder.thresholds(1.5)[0] == math.inf
    assert ladder.thresholds(-1) == [0, 0]


@pytest.mark.parametrize("quantile", [0.05, 0.6, 0.99])
def test_it_goes_through_the_networks_own_thresholds(quantile):
    profile, _ = made(quantile=quantile)
    ladder = Ladder(profile)
    assert ladder.thresholds(ladder.start) == pytest.approx(profile.thresholds, rel=1e-6)
    for n, rail in enumerate(ladder.rails):
        for position in (0.1, ladder.start, 0.8):
            height = ladder.heights(position)[n]
            assert ladder.position(n, height) == pytest.approx(position)
            assert rail.height(rail.threshold(height)) == pytest.approx(height)


@pytest.mark.parametrize(("thresholds", "start"), [((0.0, 0.0), 0.0), ((9.0, 9.0), 1.0)])
def test_it_begins_at_an_end_where_the_thresholds_lie_there(thresholds, start):
    ladder = Ladder(made(thresholds=thresholds)[0])
    assert ladder.start == start
    assert 0 < ladder.thresholds(0.5)[0] < MOST


def test_beyond_validation_there_is_room_for_harder_images():
    """Validation is surer than 0.1; still, half of the height tells apart what is less sure."""
    rail = Rail(np.linspace(0, 0.1, 101).tolist(), MOST)
    assert rail.height(0.1) == pytest.approx(0.5 + 0.1 / MOST / 2)
    assert rail.threshold(0.75) == pytest.approx(MOST / 2, rel=0.01)
    unknown = Rail(np.linspace(0, 0.1, 101).tolist(), None)
    assert unknown.threshold(0.999) == pytest.approx(1.2, rel=0.01), "twice the largest and 1 more"


def test_ranks_of_samples_that_are_as_unsure():
    """A fifth of them is at 0, the others evenly up to 1."""
    rail = Rail([0.0] * 21 + np.linspace(0, 1, 81)[1:].tolist(), 1.0)
    assert (rail.share_below(0), rail.rank(0)) == (0, pytest.approx(0.1))
    assert rail.share_below(1e-9) == pytest.approx(0.2) and rail.rank(0.5) == pytest.approx(0.6)
    assert (rail.rank(-1), rail.rank(2), rail.share_below(2)) == (0, 1, 1)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_exit_that_is_always_as_sure(value):
    """A threshold takes all or none there; the ladder still goes from one to the other."""
    rail = Rail([value] * 101, 1.0)
    taken = [value < rail.threshold(height) for height in (0.0, 0.3, 0.99, 1.0)]
    assert taken == [False, value < 0.3, value < 0.99, True]
