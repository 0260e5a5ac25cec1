"""Intervals, against a slow and obvious bootstrap, the binomial distribution, and by hand."""

import time

import numpy as np
import pytest
import torch
from scipy.stats import binom

from branchynet.evaluation.headroom import perfect_knowledge
from branchynet.evaluation.intervals import (
    answer_intervals,
    draw,
    interval,
    over_static,
    point_intervals,
    scaled,
)
from branchynet.evaluation.report import savings, taken_at_point

SIDE, BASELINE, COSTS = 3, 40.0, [10.0, 30.0, 60.0]


def samples(count):
    """What an answer and the baseline are right about, the two dependent, and where samples leave."""
    generator = torch.Generator().manual_seed(1)
    hard = torch.rand(count, generator=generator)
    baseline = hard + 0.3 * torch.rand(count, generator=generator) < 0.95
    right = hard + 0.3 * torch.rand(count, generator=generator) < 0.93
    return right, baseline, (hard * SIDE).long()


def test_against_a_bootstrap_sample_by_sample():
    right, baseline, taken = samples(400)
    drawn = draw(right, baseline, taken, SIDE)
    rng = np.random.default_rng(7)
    slow = []
    for _ in range(4000):
        index = torch.from_numpy(rng.integers(0, 400, 400))
        rates = [float((taken[index] == n).double().mean()) for n in range(SIDE)]
        slow.append(
            [
                float(right[index].double().mean()),
                float(right[index].double().mean() - baseline[index].double().mean()),
                *rates,
                BASELINE / np.dot(rates, COSTS),
            ]
        )
    fast = [
        drawn.accuracy(),
        drawn.accuracy_minus_baseline(),
        *drawn.exit_rates(),
        drawn.gain(BASELINE, COSTS),
    ]
    for ends, values in zip(fast, np.array(slow).T, strict=True):
        # Either's ends wander by some 0.04 standard deviations; an end that is unpaired would be wide of it.
        np.testing.assert_allclose(ends, np.quantile(values, [0.025, 0.975]), atol=0.2 * values.std())


def test_an_accuracy_is_binomial():
    right, baseline, taken = samples(10_000)
    drawn = draw(right, baseline, taken, SIDE, draws=20_000)
    for ends, share in (
        (drawn.accuracy(), right.double().mean()),
        *zip(drawn.exit_rates(), torch.bincount(taken).double() / 10_000, strict=True),
    ):
        exact = binom.ppf([0.025, 0.975], 10_000, float(share)) / 10_000
        np.testing.assert_allclose(ends, exact, atol=0.15 * float((share * (1 - share) / 10_000) ** 0.5))


def test_a_difference_is_paired():
    right, _, taken = samples(1000)
    # The very same answers differ by nothing, however uncertain each accuracy is.
    same = draw(right, right, taken, SIDE)
    assert same.accuracy_minus_baseline() == (0, 0)
    assert same.accuracy()[0] < same.accuracy()[1]
    # One of 1000 samples differs: Poisson of mean 1, so none to three.
    other = right.clone()
    other[int(right.nonzero()[0])] = False
    assert draw(right, other, taken, SIDE).accuracy_minus_baseline() == (0, 3 / 1000)


def test_rates_add_up_and_every_draw_is_of_all_samples():
    right, baseline, taken = samples(500)
    drawn = draw(right, baseline, taken, 5, draws=50)
    assert drawn.left.shape == (50, 5) and (drawn.left.sum(1) == 500).all()
    assert (drawn.left[:, SIDE:] == 0).all()
    assert drawn.exit_rates()[SIDE:] == ((0, 0), (0, 0))


def test_the_same_at_every_call_and_whatever_the_order():
    right, baseline, taken = samples(300)
    order = torch.randperm(300)
    first, again = draw(right, baseline, taken, SIDE), draw(right[order], baseline[order], taken[order], SIDE)
    assert (first.left == again.left).all() and (first.right == again.right).all()
    assert again is first, "drawn once for all who speak of the point"
    with pytest.raises(ValueError, match="read-only"):
        first.left[0] = 0
    assert draw(right, baseline, taken, SIDE, draws=10).left.shape == (10, SIDE)


def test_ten_thousand_samples_take_less_than_a_second():
    right, baseline, taken = samples(10_000)
    start = time.perf_counter()
    drawn = draw(right, baseline, taken, SIDE)
    drawn.accuracy(), drawn.accuracy_minus_baseline(), drawn.exit_rates(), drawn.gain(BASELINE, COSTS)
    assert time.perf_counter() - start < 1


def test_the_middle_of_known_values():
    values = np.random.default_rng(0).permutation(np.arange(1, 1001))
    assert interval(values) == (25, 975)


def test_the_operating_point_by_hand(report):
    found = point_intervals(report, taken_at_point(report))
    # 7 of 8 are right: of 8 draws 5 or fewer with 6.7 %, 4 or fewer with 1.1 %.
    assert found.accuracy == (5 / 8, 1)
    # 5 of 8 leave at exit 1: of 8 draws 2 or fewer with 3.6 %, 1 or none with 0.6 %, all with 2.3 %.
    ends, last = found.exit_rates
    assert ends[0] == 2 / 8 and ends[1] in (7 / 8, 1)
    assert last == (1 - ends[1], 1 - ends[0])
    assert found.gain_macs == tuple(425 / (rate * 100 + (1 - rate) * 500) for rate in ends)
    assert found.gain_latency == tuple(40 / (rate * 10 + (1 - rate) * 50) for rate in ends)
    assert found.gain_trunk_only == tuple(40 / (rate * 4 + (1 - rate) * 38) for rate in ends)
    low, high = found.accuracy_minus_baseline
    assert low < 1 / 8 < high


def test_other_points_engines_and_splits(make_report, report):
    assert point_intervals(report, perfect_knowledge(report.trace)).accuracy == (1, 1)
    taken = taken_at_point(report)
    slow = make_report(latencies={**report.latencies, "torch": report.latencies["onnxruntime"]})
    assert point_intervals(report, taken, "torch") == point_intervals(slow, taken, "torch")
    always = make_report(traces={"val": report.trace.at(report.trace.correct.all(dim=1))})
    kept = always.traces["val"].num_samples
    assert point_intervals(always, torch.zeros(kept, dtype=torch.int64), split="val").accuracy == (1, 1)


def test_an_exit_alone_and_the_baseline(report):
    right = report.trace.correct
    assert (
        answer_intervals(report, right[:, 1])[0] == point_intervals(report, taken_at_point(report)).accuracy
    )
    baseline = report.baseline_correct["test"]
    accuracy, difference = answer_intervals(report, baseline)
    assert accuracy[0] in (3 / 8, 4 / 8) and accuracy[1] == 1 and difference == (0, 0)


def test_the_gain_over_static_follows_the_gain(report, make_report):
    found = point_intervals(report, taken_at_point(report))
    # Exit 2 alone takes 42 µs, the baseline 40.
    low, high = over_static(savings(report, report.point), found)
    assert (low, high) == pytest.approx((42 / 40 * found.gain_latency[0], 42 / 40 * found.gain_latency[1]))
    alone = make_report(chosen=1)
    assert over_static(savings(alone, alone.point), found) is None


def test_points_that_are_alike_have_the_same_interval(make_report):
    # All leave at exit 1.
    report = make_report(chosen=3)
    found = point_intervals(report, taken_at_point(report))
    alone = answer_intervals(report, report.trace.correct[:, 0])
    assert (found.accuracy, found.accuracy_minus_baseline) == alone
    assert found.gain_latency == (4, 4)


def test_scaling_keeps_the_order():
    assert scaled((1.0, 3.0), 2) == (2, 6) and scaled((-1.0, 3.0), -1) == (-3, 1)
