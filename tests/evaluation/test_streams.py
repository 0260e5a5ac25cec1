"""Streams that drift: each way of setting thresholds, and what is said of it, against numbers by hand."""

from functools import partial

import numpy as np
import pytest

from branchynet.evaluation.streams import (
    Course,
    Stream,
    adaptive,
    bandit,
    distance,
    fixed,
    held,
    outcome,
    rewards,
    rolling,
    to_the_end,
    weight_for,
    what_is_held,
)
from branchynet.runtime.controller import Controller
from branchynet.runtime.profile import Profile, validation_of

COSTS = (10.0, 50.0)


def answers(samples, hard, seed):
    """Exit 1 is wrong the more often, the less sure it is; exit 2 is always right."""
    random = np.random.default_rng(seed)
    first = random.beta(2.0 if hard else 0.5, 2.0, samples)
    unsure = np.float32(np.stack([first, np.full(samples, 0.01)], axis=1))
    wrong = random.uniform(size=samples) < first / 2
    return unsure, np.stack([wrong.astype(np.int64), np.zeros(samples, np.int64)], axis=1)


@pytest.fixture(scope="module")
def validation():
    return answers(4000, False, 9)


@pytest.fixture(scope="module")
def profile(validation):
    unsure, prediction = validation
    found = validation_of(unsure, prediction, prediction == 0, (0.3,))
    return Profile((0.3,), {"latency_us": COSTS, "macs": (1.0, 5.0)}, found, 1.0)


@pytest.fixture(scope="module")
def stream():
    parts = answers(3000, False, 1), answers(5000, True, 2)
    unsure, prediction = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Stream("noise", unsure, prediction, np.zeros(8000, np.int64), 3000, 3000)


def make(profile, tell, **settings):
    return Controller(profile, tell=tell, **settings)


def test_held_meets_its_budget_where_fixed_misses_it(stream, profile):
    controller = Controller(profile)
    course = held(stream, partial(make, profile))
    found = outcome(stream, course, controller, 500)
    missed = outcome(stream, fixed(stream, profile), controller, 500)
    assert max(found.missed) < 0.02 < 0.2 < missed.missed[1] and missed.missed[0] < 0.05
    assert found.settled <= 1000 and missed.settled is None
    assert found.accuracy[1] < missed.accuracy[1], "the budget is kept at a price"
    assert [3000 < number < 3500 for number, said in found.told.items() if "validation" in said] == [True]


def test_all_to_the_end(stream, profile):
    found = outcome(stream, to_the_end(stream, profile), Controller(profile), 500)
    assert found.means == (50, 50) and found.accuracy == (1, 1)
    budget = profile.mean_cost("latency_us")
    assert found.worst == pytest.approx(50 / budget - 1) and found.settled is None


def test_numbers_by_hand(profile):
    controller = Controller(profile, target=20.0)
    stream = Stream("blur", np.zeros((8, 2), np.float32), np.zeros((8, 2), int), np.array([0, 1] * 4), 2, 4)
    course = Course("fixed", np.array([0, 0, 1, 1, 1, 0, 0, 0]))
    assert what_is_held(course, controller)[:, 0].tolist() == [10, 10, 50, 50, 50, 10, 10, 10]
    means = rolling(what_is_held(course, controller), 4)
    assert means[:, 0].tolist() == [30, 40, 40, 30, 20]
    assert distance(means, controller).tolist() == pytest.approx([0.5, 1, 1, 0.5, 0])
    found = outcome(stream, course, controller, 4)
    assert (found.means, found.accuracy, found.worst) == ((10, 20), (0.5, 0.5), 1)
    assert found.settled == 6, (
        "the window that ends with the last of 8 images is the first that is met; 2 were easy"
    )
    rates = Controller(profile, "exit_rates", [0.5])
    assert distance(rolling(what_is_held(course, rates), 4), rates).tolist() == [0, 0.25, 0.25, 0, 0.25]


def test_adaptive_leaves_later_on_hard_images_and_sends_its_probes_to_the_end(stream, profile):
    course = adaptive(stream, profile, 1000)
    assert (course.taken[:200] == 1).all() and (course.taken[7000:7200] == 1).all()
    early = [(course.taken[start + 200 : start + 1000] == 0).mean() for start in range(0, 8000, 1000)]
    assert min(early[:3]) > max(early[3:])
    right = stream.prediction[np.arange(8000), course.taken] == 0
    assert right[3000:].mean() > 1 - 2 * profile.validation.disagreement


def test_the_bandit_is_the_rewards_and_nothing_else(stream, profile, validation):
    unsure = np.float32([[0.25, 0.01], [0.75, 0.01]])
    taken = np.array([[0, 1], [0, 1]])
    assert rewards(unsure, taken, profile, COSTS, 0.5) == pytest.approx(
        np.array([[0.75, 0.49], [0.25, 0.49]]), abs=1e-6
    )
    budget = profile.mean_cost("latency_us")
    weight = weight_for(validation[0], profile, COSTS, budget)
    course = bandit(stream, profile, COSTS, weight)
    assert set(course.taken.tolist()) == {0, 1}
    easy = np.asarray(COSTS)[course.taken[:3000]].mean()
    assert easy == pytest.approx(budget, rel=0.3)
    assert course.taken.tolist() == bandit(stream, profile, COSTS, weight).taken.tolist()
    # What going on costs too much is not done.
    assert (bandit(stream, profile, COSTS, 5.0).taken[4000:] == 0).mean() > 0.9
