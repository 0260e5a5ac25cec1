"""The points for wanted losses and gains, against a loop over all points, and by hand."""

from dataclasses import replace

import pytest
import torch

from branchynet.exits.sweep import evaluate
from branchynet.exits.trace import Trace
from branchynet.evaluation.trade_offs import GAINS, LOSSES, scalars, trade_offs
from branchynet.runtime.costs import Latency


def random_trace(seed: int, samples: int = 60) -> Trace:
    """Three exits, later ones better, each surer where it is right."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 3, (samples,), generator=generator)
    right = torch.rand(samples, 3, generator=generator) < torch.tensor([0.6, 0.7, 0.75])
    prediction = torch.where(right, label[:, None], (label[:, None] + 1) % 3)
    uncertainty = torch.rand(samples, 3, generator=generator) * torch.where(right, 0.4, 1.0)
    return Trace(uncertainty, prediction, label)


@pytest.fixture
def random_report(three_exits):
    """Validation and test differ, so that a choice on the wrong one shows."""
    val, test = random_trace(0), random_trace(1)
    steps = torch.linspace(0, 1.1, 12)
    grid = torch.cartesian_prod(steps, steps)
    return replace(
        three_exits,
        trace_val=val,
        trace_test=test,
        points_val=evaluate(val, grid),
        points_test=evaluate(test, grid),
        baseline_accuracy=48 / 60,
        baseline_val_accuracy=47 / 60,
    )


def slow_choice(trace, points, exits_us, wanted, value, baseline_accuracy, baseline_us):
    """Sample by sample (Figure 2 of the paper), point by point; (right answers, total µs) of the choice."""
    outcomes = []
    for vector in points.thresholds.tolist():
        right = spent = 0
        for sample in range(trace.num_samples):
            leaves = [n for n in range(2) if float(trace.uncertainty[sample, n]) < vector[n]]
            exit_index = min(leaves, default=2)
            right += int(trace.prediction[sample, exit_index] == trace.label[sample])
            spent += exits_us[exit_index]
        outcomes.append((right, spent))
    samples = trace.num_samples
    if wanted == "loss":
        enough = [each for each in outcomes if each[0] >= samples * (baseline_accuracy - value) - 1e-6]
        return min(enough, key=lambda each: (each[1], -each[0]))
    enough = [each for each in outcomes if each[1] <= samples * baseline_us / value + 1e-6]
    return max(enough, key=lambda each: (each[0], -each[1]))


@pytest.mark.parametrize("protocol", ["validation", "paper"])
def test_the_choice_is_the_slow_loops_on_the_protocols_split(random_report, protocol):
    report = replace(random_report, protocol=protocol)
    trace, points, baseline = (
        (report.trace_val, report.points_val, report.baseline_val_accuracy)
        if protocol == "validation"
        else (report.trace_test, report.points_test, report.baseline_accuracy)
    )
    rows = trade_offs(report)
    assert [(row.wanted, row.value) for row in rows] == [
        *(("loss", value) for value in LOSSES),
        *(("gain", value) for value in GAINS),
    ]
    exits_us = [10, 30, 60]
    for row in rows:
        assert row.feasible
        right, spent = slow_choice(trace, points, exits_us, row.wanted, row.value, baseline, 40.0)
        found = points.subset(torch.tensor([row.index]))
        assert round(float(found.accuracy[0]) * 60) == right
        assert float(found.mean_cost(torch.tensor(exits_us))[0]) * 60 == pytest.approx(spent)


def test_the_numbers_are_of_test_and_of_the_very_point(random_report):
    report = random_report
    alone = report.trace_test.correct.sum(0).tolist()
    for row in trade_offs(report):
        rates = report.points_test.exit_rates[row.index].tolist()
        accuracy = float(report.points_test.accuracy[row.index])
        mean_us = sum(rate * us for rate, us in zip(rates, [10, 30, 60], strict=True))
        assert row.accuracy == accuracy
        assert row.val_accuracy == float(report.points_val.accuracy[row.index])
        assert row.loss == pytest.approx(0.8 - accuracy)
        assert list(row.exit_rates) == rates
        assert row.gain_latency == pytest.approx(40 / mean_us)
        val_us = float(report.points_val.mean_cost(torch.tensor([10, 30, 60]))[row.index])
        assert row.val_gain_latency == pytest.approx(40 / val_us)
        assert row.gain_macs == pytest.approx(
            425 / sum(rate * macs for rate, macs in zip(rates, [100, 300, 600], strict=True))
        )
        static = [(us, n) for n, us in enumerate([8, 25, 42], 1) if alone[n - 1] >= round(60 * accuracy)]
        if static:
            assert row.best_static == min(static)[1]
            assert row.gain_over_static == pytest.approx(min(static)[0] / mean_us)
        else:
            assert row.best_static is row.gain_over_static is None
    assert {row.best_static is None for row in trade_offs(report)} == {True, False}
    assert any(row.accuracy != row.val_accuracy for row in trade_offs(report))


def test_by_hand(report):
    rows = {(row.wanted, row.value): row for row in trade_offs(report)}
    # T = 0.45: 25 µs against 40, and 7 of 8 right against 6. T = 0.9 is the only point below 20 µs.
    assert rows["loss", 0.0].thresholds == (0.45,)
    assert (rows["loss", 0.0].gain_latency, rows["loss", 0.0].loss) == (1.6, -0.125)
    assert (rows["loss", 0.0].best_static, rows["loss", 0.0].gain_over_static) == (2, 42 / 25)
    assert rows["gain", 1.5].thresholds == (0.45,)
    assert rows["gain", 2.0].thresholds == rows["gain", 3.0].thresholds == (0.9,)
    assert (rows["gain", 3.0].accuracy, rows["gain", 3.0].gain_latency) == (0.625, 4.0)


def test_a_point_of_loss_buys_time(report, make_report):
    """0.5 and 1 point are 0.005 and 0.01: the faster point is just within the second."""
    changed = make_report(baseline_val_accuracy=0.875 + 0.0099)
    assert [row.thresholds for row in trade_offs(changed)[:3]] == [(0.25,), (0.25,), (0.45,)]


def test_what_no_point_reaches_is_marked_and_the_nearest_given(report, make_report):
    timed = replace(report.latencies["onnxruntime"], baseline=Latency(20.0, 1.0, 100))
    changed = make_report(baseline_val_accuracy=1.007, latencies={"onnxruntime": timed})
    rows = trade_offs(changed)
    assert [row.feasible for row in rows] == [False, False, True, True, True, False, False]
    # The most accurate point, and the fastest.
    assert [row.thresholds for row in rows[:2]] == [(0.25,)] * 2
    assert [row.thresholds for row in rows[5:]] == [(0.9,)] * 2
    assert rows[5].gain_latency == 2 < rows[5].value
    # Nothing is drawn as if it were there.
    assert sorted(scalars(changed)) == [
        "trade_off/accuracy_at_gain_1.5",
        "trade_off/accuracy_at_gain_2",
        "trade_off/gain_at_loss_1",
    ]
