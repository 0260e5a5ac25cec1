"""The sweep against a slow loop over samples that follows the paper's Figure 2 line by line."""

import itertools
import math
import struct
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from branchynet.errors import UserError
from branchynet.exits import sweep
from branchynet.exits.point import OperatingPoint
from branchynet.exits.sweep import (
    Differences,
    check_grid,
    compare,
    evaluate,
    evaluate_grid,
    exit_taken,
    point_at,
    threshold_grid,
)
from branchynet.exits.trace import Outputs, Trace


def fast_inference(uncertainty, thresholds):
    """Figure 2: for n = 1 … N: if e < T_n: return exit n; after the loop: return exit N."""
    for n, threshold in enumerate(thresholds):
        e = uncertainty[n]
        if e < threshold:
            return n
    return len(thresholds)


def reference(trace, vectors):
    """(V,) accuracies and (V, N) exit rates, counted one by one."""
    counts = [count(trace, vector) for vector in vectors]
    accuracy = [right / trace.num_samples for right, _ in counts]
    return accuracy, [[number / trace.num_samples for number in left] for _, left in counts]


def count(trace, vector):
    """How many samples are answered rightly, and how many leave at each exit."""
    right, left = 0, [0] * trace.num_exits
    for s in range(trace.num_samples):
        n = fast_inference(trace.uncertainty[s].tolist(), vector)
        left[n] += 1
        right += trace.prediction[s, n].item() == trace.label[s].item()
    return right, left


def float32(value: float) -> float:
    return struct.unpack("f", struct.pack("f", value))[0]


# Few values, shared by uncertainties and thresholds, so that ties are frequent; 0.1 is not a float32 number,
# and 3 is above the entropy of ten classes.
LEVELS = [0.0, 1e-4, 0.1, 0.25, 0.3, 1.0, 2.3]
THRESHOLDS = [*LEVELS, 3.0, 10.0]


@st.composite
def traces(draw, exits=(1, 4), levels=LEVELS):
    shape = (draw(st.integers(1, 12)), draw(st.integers(*exits)))
    size = shape[0] * shape[1]
    uncertainty = draw(st.lists(st.sampled_from(levels), min_size=size, max_size=size))
    prediction = draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    label = draw(st.lists(st.integers(0, 2), min_size=shape[0], max_size=shape[0]))
    return Trace(
        torch.tensor(uncertainty).reshape(shape), torch.tensor(prediction).reshape(shape), torch.tensor(label)
    )


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_grid_and_vectors_equal_figure_2(data):
    trace = data.draw(traces())
    # In any order, with repetitions.
    values = st.lists(st.sampled_from(THRESHOLDS), min_size=1, max_size=4)
    grid = [data.draw(values) for _ in range(trace.num_exits - 1)]
    vectors = list(itertools.product(*grid))

    by_grid = evaluate_grid(trace, [torch.tensor(values, dtype=torch.float64) for values in grid])
    product = torch.tensor(vectors, dtype=torch.float64).reshape(len(vectors), -1)
    by_vector = evaluate(trace, product)
    accuracy, rates = reference(trace, [[float32(value) for value in vector] for vector in vectors])

    for points in (by_grid, by_vector):
        assert points.thresholds.dtype == torch.float32
        assert torch.equal(points.thresholds, product.float())
        assert points.accuracy.tolist() == accuracy
        assert points.exit_rates.tolist() == rates
        torch.testing.assert_close(points.exit_rates.sum(dim=1), torch.ones(len(vectors)).double())
        assert points.right.dtype == points.left.dtype == torch.int64
        for index, vector in enumerate(product.float().tolist()):
            right, left = count(trace, vector)
            assert (points.right[index], points.left[index].tolist()) == (right, left)


@settings(deadline=None)
@given(traces(), st.data())
def test_exit_taken_equals_figure_2(trace, data):
    vector = [data.draw(st.sampled_from(THRESHOLDS)) for _ in range(trace.num_exits - 1)]
    taken = exit_taken(trace.uncertainty, torch.tensor(vector, dtype=torch.float64))
    expected = [
        fast_inference(row, [float32(value) for value in vector]) for row in trace.uncertainty.tolist()
    ]
    assert taken.tolist() == expected and taken.dtype == torch.int64


def trace_of(uncertainty, right) -> Trace:
    """(S, N-1) uncertainties of the side exits; (S, N) 1 where an exit is right."""
    right = torch.tensor(right)
    uncertainty = torch.tensor(uncertainty, dtype=torch.float32)
    last = torch.ones(len(uncertainty), 1)
    return Trace(torch.cat([uncertainty, last], 1), right, torch.ones(len(right), dtype=torch.int64))


# 4 samples, 3 exits.
HAND = trace_of(
    [[0.1, 0.2], [0.5, 0.2], [0.5, 0.9], [0.0, 0.0]],
    [[1, 1, 1], [0, 1, 0], [0, 0, 1], [0, 1, 1]],
)


@pytest.mark.parametrize(
    ("thresholds", "accuracy", "rates"),
    [
        ([0.0, 0.0], 0.75, [0.0, 0.0, 1.0]),  # nobody leaves, not even at uncertainty 0
        ([1e-30, 0.0], 0.5, [0.25, 0.0, 0.75]),  # exit 2 is never taken; sample 4 errs at exit 1
        ([0.1, 0.3], 0.75, [0.25, 0.5, 0.25]),  # sample 1 is not strictly below
        ([0.11, 0.3], 0.75, [0.5, 0.25, 0.25]),
        ([0.0, 0.9], 1.0, [0.0, 0.75, 0.25]),  # exit 1 is never taken
        ([3.0, 0.0], 0.25, [1.0, 0.0, 0.0]),  # above ln K: everybody leaves at once
        ([math.inf, math.inf], 0.25, [1.0, 0.0, 0.0]),
    ],
)
def test_worked_out_by_hand(thresholds, accuracy, rates):
    vectors = torch.tensor([thresholds])
    for points in (evaluate(HAND, vectors), evaluate_grid(HAND, list(vectors.T))):
        assert points.accuracy.tolist() == [accuracy]
        assert points.exit_rates.tolist() == [rates]


def random_trace(samples: int, exits: int, right: float = 0.9) -> Trace:
    generator = torch.Generator().manual_seed(0)
    uncertainty = 2.3 * torch.rand(samples, exits, generator=generator) ** 4
    correct = torch.rand(samples, exits, generator=generator) < right
    return Trace(uncertainty, correct.long(), torch.ones(samples, dtype=torch.int64))


def test_forced_exits_give_each_exits_own_accuracy():
    trace = random_trace(1000, 4)
    never, always = 0.0, 10.0
    vectors = torch.tensor(
        [[always, never, never], [never, always, never], [never, never, always], [never] * 3]
    )
    assert evaluate(trace, vectors).accuracy.tolist() == [
        int(trace.correct[:, n].sum()) / 1000 for n in range(4)
    ]


def test_vectors_in_chunks_equal_the_whole(monkeypatch):
    trace = random_trace(50, 3)
    vectors = torch.rand(31, 2)
    whole = evaluate(trace, vectors)
    monkeypatch.setattr(sweep, "CHUNK", 200)  # 4 vectors
    parts = evaluate(trace, vectors)
    assert torch.equal(parts.accuracy, whole.accuracy) and torch.equal(parts.exit_rates, whole.exit_rates)
    assert torch.equal(parts.right, whole.right) and torch.equal(parts.left, whole.left)


def test_a_large_grid_equals_single_vectors():
    trace = random_trace(2000, 3)
    grid = threshold_grid(trace, 40_000)
    points = evaluate_grid(trace, grid)
    assert len(points) == 40_000
    some = torch.randint(len(points), (50,), generator=torch.Generator().manual_seed(1))
    single = evaluate(trace, points.thresholds[some])
    assert torch.equal(points.subset(some).accuracy, single.accuracy)
    assert torch.equal(points.subset(some).exit_rates, single.exit_rates)
    assert torch.equal(points.subset(some).thresholds, single.thresholds)


def test_mean_cost():
    points = evaluate(HAND, torch.tensor([[0.11, 0.3], [3.0, 0.0]]))
    assert points.mean_cost(torch.tensor([10, 20, 40])).tolist() == [20.0, 10.0]
    with pytest.raises(ValueError, match=r"cost is \(1,\), not \(3,\)"):
        points.mean_cost(torch.tensor([10]))


def test_equal_rates_cost_the_same_wherever_they_stand():
    """Ties are broken by other keys, so rounding must not tell equal rows apart."""
    points = evaluate(random_trace(997, 3), torch.tensor([[0.3, 0.2]]).expand(1003, 2))
    assert len(points.mean_cost(torch.tensor([27.1, 48.3, 81.7])).unique()) == 1


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"not \(V, 2\)"):
        evaluate(HAND, torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"not \(2,\)"):
        exit_taken(HAND.uncertainty, torch.zeros(1))
    with pytest.raises(ValueError, match="1 sets of thresholds, not 2"):
        evaluate_grid(HAND, [torch.zeros(1)])


def test_a_grid_too_large_is_one_line_that_says_how_to_reduce_it():
    with pytest.raises(UserError, match=r"3000 × 3000 .* 9,000,000 .*max_vectors$"):
        evaluate_grid(HAND, [torch.zeros(3000)] * 2)


# threshold_grid

# Neighbours in float32 among them.
CLOSE = [0.0, 1e-45, 0.3, math.nextafter(0.3, 1), float32(0.3) + 2**-25, float32(0.3) + 2**-24, 1.0, 2.3]


@settings(max_examples=200, deadline=None)
@given(traces(exits=(2, 2), levels=[float32(value) for value in CLOSE]))
def test_every_operating_point_of_two_exits_is_in_the_grid(trace):
    distinct = trace.uncertainty[:, 0].unique()
    (thresholds,) = threshold_grid(trace, max_vectors=len(distinct) + 1)
    assert len(thresholds) == len(distinct) + 1
    rates = {rate for rate, _ in evaluate_grid(trace, [thresholds]).exit_rates.tolist()}
    possible = {
        (trace.uncertainty[:, 0] <= value).sum().item() / trace.num_samples for value in distinct.tolist()
    }
    assert rates == possible | {0.0}


@given(traces(exits=(2, 4)), st.integers(1, 200))
def test_a_grid_has_both_ends_and_no_more_vectors_than_allowed(trace, max_vectors):
    grid = threshold_grid(trace, max_vectors)
    assert math.prod(map(len, grid)) <= max(max_vectors, 2 ** len(grid))
    for n, thresholds in enumerate(grid):
        assert thresholds.dtype == torch.float32
        assert thresholds[0] == 0 and thresholds[-1] > trace.uncertainty[:, n].max()
        assert (thresholds.diff() > 0).all()


def test_thresholds_stand_midway_between_observed_uncertainties():
    trace = trace_of([[0.5], [0.25], [0.5], [1.0]], [[1, 1]] * 4)
    (thresholds,) = threshold_grid(trace, 100)
    assert thresholds.tolist() == [0.0, 0.375, 0.75, 3.0]


def test_too_many_are_thinned_out_evenly_in_rank():
    trace = random_trace(5001, 2)
    (thresholds,) = threshold_grid(trace, 102)
    rates = evaluate_grid(trace, [thresholds]).exit_rates[:, 0]
    assert len(rates) == 102
    assert rates.diff()[1:-1].max() < 0.0103 and rates.diff()[1:-1].min() > 0.0097


def test_the_number_per_exit_shrinks_with_the_exits():
    for exits, per_exit in ((2, 40_000), (3, 200), (4, 34), (5, 14)):
        grid = threshold_grid(random_trace(45_000, exits), 40_000)
        # Duplicates among 45,000 random numbers are rare.
        assert {len(values) for values in grid} == {per_exit}


def test_given_values_are_tried_at_every_exit():
    grid = threshold_grid(HAND, 1, [0.5, 0.1, 0.5, 3])
    # 3 is above every uncertainty already.
    assert [values.tolist() for values in grid] == [[0.0, float32(0.1), 0.5, 3.0]] * 2
    low, high = threshold_grid(HAND, 1, [0.6])
    assert low.tolist() == [0.0, float32(0.6)]
    assert high.tolist() == pytest.approx([0.0, 0.6, 2.8])


@pytest.mark.parametrize("values", [[], [-0.1], [math.nan], [math.inf], ["0.1"], [True], "0.1", 0.1])
def test_given_values_are_checked(values):
    for refuse in (partial(threshold_grid, HAND), check_grid, partial(sweep.sweep, HAND)):
        with pytest.raises(UserError, match=r"^thresholds[^\n]*$"):
            refuse(100, values)


@pytest.mark.parametrize("max_vectors", [0, -1, 1.5, True, None, "many"])
def test_max_vectors_is_checked(max_vectors):
    for refuse in (partial(threshold_grid, HAND), check_grid, partial(sweep.sweep, HAND)):
        with pytest.raises(UserError, match=rf"^max_vectors={max_vectors}: it is [^\n]*$"):
            refuse(max_vectors, None)


def test_a_grid_from_one_split_fits_another():
    """A grid taken from one split is evaluated on another, whose uncertainties may be higher."""
    grid = threshold_grid(HAND, 100)
    other = random_trace(100, 3)
    points = evaluate_grid(other, grid)
    accuracy, rates = reference(other, points.thresholds.tolist())
    assert points.accuracy.tolist() == accuracy and points.exit_rates.tolist() == rates


# One point


def test_a_point_of_many_is_the_point_of_its_row():
    points = evaluate(HAND, torch.tensor([[0.11, 0.3], [3.0, 0.0]]))
    assert points[0] == OperatingPoint((0.11, 0.3), right=3, left=(2, 1, 1))
    assert points[1] == points[-1] == OperatingPoint((3.0, 0.0), right=1, left=(4, 0, 0))
    assert list(points) == [points[0], points[1]] and len(points) == 2
    assert points.subset(torch.tensor([1]))[0] == points[1]


@settings(max_examples=100, deadline=None)
@given(traces(), st.data())
def test_point_at_equals_figure_2(trace, data):
    vector = [data.draw(st.sampled_from(THRESHOLDS)) for _ in range(trace.num_exits - 1)]
    point = point_at(trace, vector)
    right, left = count(trace, [float32(value) for value in vector])
    assert point == OperatingPoint(tuple(map(float, vector)), right, tuple(left))


@settings(max_examples=50, deadline=None)
@given(traces(exits=(2, 4)), st.integers(1, 60), st.data())
def test_any_point_swept_is_found_again_from_its_thresholds(trace, max_vectors, data):
    points = sweep.sweep(trace, max_vectors)
    index = data.draw(st.integers(0, len(points) - 1))
    assert point_at(trace, points[index].thresholds) == points[index]


def test_point_at_wants_a_threshold_for_every_side_exit():
    for thresholds in ([0.1], [0.1] * 3, []):
        with pytest.raises(ValueError, match=r"not \(V, 2\)"):
            point_at(HAND, thresholds)


@settings(max_examples=100, deadline=None)
@given(traces(exits=(1, 3)), st.data())
def test_sweep_is_every_combination_of_the_thresholds_tried(trace, data):
    values = data.draw(st.none() | st.lists(st.sampled_from(THRESHOLDS), min_size=1, max_size=3))
    max_vectors = data.draw(st.integers(1, 40))
    points = sweep.sweep(trace, max_vectors, values)
    vectors = list(
        itertools.product(*(tried.tolist() for tried in threshold_grid(trace, max_vectors, values)))
    )
    assert points.thresholds.tolist() == [list(vector) for vector in vectors]
    accuracy, rates = reference(trace, vectors)
    assert points.accuracy.tolist() == accuracy and points.exit_rates.tolist() == rates


def test_sweep_takes_forty_thousand_vectors_from_the_data_unless_it_is_told_otherwise():
    trace = random_trace(2000, 3)
    assert len(sweep.sweep(trace)) == 40_000
    assert len(sweep.sweep(trace, 100)) == 100
    # 0, 0.1, 0.2 and one above every uncertainty.
    assert len(sweep.sweep(trace, thresholds=[0.1, 0.2])) == 16


# compare

# Samples: sure at 1; sure at 2; sure at neither; on the threshold of 1, which is not below it.
SAID = Trace(
    torch.tensor([[0.1, 0.9, 0.9], [0.9, 0.2, 0.9], [0.9, 0.9, 0.9], [0.5, 0.1, 0.9]]),
    torch.tensor([[1, 2, 3]] * 4),
    torch.zeros(4, dtype=torch.int64),
)


@pytest.mark.parametrize(
    ("exit", "prediction", "numbers"),
    [
        ({}, {}, (0, 1, 0)),
        ({3: 0}, {3: 1}, (1, 1, 0)),  # the one on the threshold: rounding
        ({0: 1}, {0: 2}, (1, 1, 1)),  # far from it: a difference that nothing explains
        ({}, {2: 7}, (1, 1, 1)),  # the right exit, another answer
        ({3: 0, 1: 2}, {}, (2, 1, 1)),
    ],
)
def test_differences_worked_out_by_hand(exit, prediction, numbers):
    taken, answered = torch.tensor([0, 1, 2, 1]), torch.tensor([1, 2, 3, 2])
    for changed, changes in ((taken, exit), (answered, prediction)):
        for sample, value in changes.items():
            changed[sample] = value
    assert compare(SAID, [0.5, 0.5], taken, answered) == Differences(*numbers)


def compare_slowly(uncertainty, said, thresholds, exit, prediction, tolerance):
    """Sample by sample: (differences, near a threshold, differences that are not)."""
    differences = near = unexplained = 0
    for s in range(len(exit)):
        should = fast_inference(uncertainty[s], thresholds)
        met = range(min(max(should, exit[s]) + 1, len(thresholds)))
        close = any(abs(uncertainty[s][n] - thresholds[n]) <= tolerance for n in met)
        differs = exit[s] != should or prediction[s] != said[s][should]
        differences, near, unexplained = (
            differences + differs,
            near + close,
            unexplained + (differs and not close),
        )
    return differences, near, unexplained


# Around a threshold of ¼: on it, within the tolerance of 1e-3 on both sides, outside of it.
AROUND = [0.0, 0.24, 0.2495, 0.25, 0.2505, 0.26, 1.0]


@settings(max_examples=300, deadline=None)
@given(traces(exits=(1, 4), levels=AROUND), st.data())
def test_differences_are_those_of_a_slow_loop(trace, data):
    thresholds = [data.draw(st.sampled_from([0.0, 0.25, 2.0])) for _ in range(trace.num_exits - 1)]

    def draw(values, most):
        size = {"min_size": trace.num_samples, "max_size": trace.num_samples}
        changes = data.draw(st.lists(st.none() | st.integers(0, most), **size))
        return [value if change is None else change for value, change in zip(values, changes, strict=True)]

    taken = exit_taken(trace.uncertainty, torch.tensor(thresholds))
    exit = draw(taken.tolist(), trace.num_exits - 1)
    prediction = draw(trace.prediction.gather(1, taken[:, None])[:, 0].tolist(), 2)
    expected = compare_slowly(
        trace.uncertainty.tolist(), trace.prediction.tolist(), thresholds, exit, prediction, 1e-3
    )
    outputs = Outputs(trace.prediction, trace.uncertainty, torch.ones_like(trace.uncertainty))
    for said in (trace, outputs):
        found = compare(said, thresholds, torch.tensor(exit), torch.tensor(prediction), tolerance=1e-3)
        assert found == Differences(*expected)


def test_a_threshold_behind_the_exit_taken_explains_nothing():
    """At exit 2 the uncertainty lies on the threshold, but nobody gets there."""
    said = Trace(torch.tensor([[0.1, 0.5, 0.9]]), torch.tensor([[1, 2, 3]]), torch.tensor([1]))
    found = compare(said, [0.5, 0.5], torch.tensor([0]), torch.tensor([9]))
    assert found == Differences(differences=1, near_threshold=0, unexplained=1)
    assert compare(said, [0.5, 0.5], torch.tensor([0]), torch.tensor([1])) == Differences(0, 0, 0)
    # A run that went on to exit 2 met it.
    found = compare(said, [0.5, 0.5], torch.tensor([1]), torch.tensor([2]))
    assert found == Differences(differences=1, near_threshold=1, unexplained=0)


def test_an_uncertainty_as_near_as_rounding_explains_a_difference_by_default():
    for away, explained in ((0.9e-5, True), (1.2e-5, False)):
        said = Trace(torch.tensor([[0.5 + away, 0.0]]), torch.tensor([[1, 2]]), torch.tensor([1]))
        found = compare(said, [0.5], torch.tensor([0]), torch.tensor([1]))
        assert found.differences == 1 and found.unexplained == int(not explained)
