"""The points for wanted losses and gains, against a loop over all points, and by hand."""

from dataclasses import replace

import pytest
import torch

from branchynet.evaluation.trade_offs import GAINS, LOSSES, on_validation, scalars, trade_offs
from branchynet.exits.trace import Trace
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
def make_random(make_three):
    """Validation and test differ, so that a choice on the wrong one shows."""
    steps = torch.linspace(0, 1.1, 12)

    def make(**changes):
        return make_three(
            traces={"val": random_trace(0), "test": random_trace(1)},
            thresholds=torch.cartesian_prod(steps, steps),
            baseline={"val": torch.arange(60) < 47, "test": torch.arange(60) < 48},
            **changes,
        )

    return make


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


EXITS_US = [10, 30, 60]


@pytest.mark.parametrize(("protocol", "split", "right"), [("validation", "val", 47), ("paper", "test", 48)])
def test_the_choice_is_the_slow_loops_on_the_protocols_split(make_random, protocol, split, right):
    report = make_random(protocol=protocol)
    trace, points = report.traces[split], report.swept_on(split)
    rows = trade_offs(report)
    assert [(row.wanted, row.value) for row in rows] == [
        *(("loss", value) for value in LOSSES),
        *(("gain", value) for value in GAINS),
    ]
    for row in rows:
        assert row.feasible
        best, spent = slow_choice(trace, points, EXITS_US, row.wanted, row.value, right / 60, 40.0)
        found = row.val if protocol == "validation" else row.point
        assert found.right == best
        assert found.mean_cost(EXITS_US) * 60 == pytest.approx(spent)


def test_the_numbers_are_of_test_and_of_the_very_point(make_random):
    report = make_random()
    alone = report.traces["test"].correct.sum(0).tolist()
    of_test, of_val = report.swept_on("test"), report.swept_on("val")
    for row in trade_offs(report):
        # The point by its thresholds: among those swept, float32 for float32.
        wanted = torch.tensor(row.point.thresholds, dtype=torch.float32)
        (index,) = (of_test.thresholds == wanted).all(1).nonzero()[:, 0].tolist()
        rates, accuracy = of_test.exit_rates[index].tolist(), float(of_test.accuracy[index])
        mean_us = sum(rate * us for rate, us in zip(rates, EXITS_US, strict=True))
        assert row.val.thresholds == row.point.thresholds
        assert row.point.accuracy == accuracy
        assert row.val.accuracy == float(of_val.accuracy[index])
        assert row.loss == pytest.approx(0.8 - accuracy)
        assert list(row.point.exit_rates) == rates
        assert row.savings.gain_latency == pytest.approx(40 / mean_us)
        val_us = float(of_val.mean_cost(torch.tensor(EXITS_US))[index])
        assert row.val_gain_latency == pytest.approx(40 / val_us)
        assert row.savings.gain_macs == pytest.approx(
            425 / sum(rate * macs for rate, macs in zip(rates, [100, 300, 600], strict=True))
        )
        static = [(us, n) for n, us in enumerate([8, 25, 42]) if alone[n] >= round(60 * accuracy)]
        if static:
            assert row.savings.best_static == min(static)[1]
            assert row.savings.gain_over_static == pytest.approx(min(static)[0] / mean_us)
        else:
            assert row.savings.best_static is row.savings.gain_over_static is None
    rows = trade_offs(report)
    assert {row.savings.best_static is None for row in rows} == {True, False}
    assert any(row.point.accuracy != row.val.accuracy for row in rows)


def test_by_hand(report):
    rows = {(row.wanted, row.value): row for row in trade_offs(report)}
    # T = 0.45: 25 µs against 40, and 7 of 8 right against 6. T = 0.9 is the only point below 20 µs.
    none, third = rows["loss", 0.0], rows["gain", 3.0]
    assert none.point.thresholds == (0.45,)
    assert (none.savings.gain_latency, none.loss) == (1.6, -0.125)
    assert (none.savings.best_static, none.savings.gain_over_static) == (1, 42 / 25)
    assert rows["gain", 1.5].point.thresholds == (0.45,)
    assert rows["gain", 2.0].point.thresholds == third.point.thresholds == (0.9,)
    assert (third.point.accuracy, third.savings.gain_latency) == (0.625, 4.0)


def many(report, times, wrong=0):
    """Validation with the same rates and accuracies, each sample so many times; the first ones made wrong."""
    trace = report.traces["val"].at(torch.arange(8).repeat(times))
    prediction = trace.prediction.clone()
    prediction[:wrong] = (trace.label[:wrong, None] + 1) % 3
    return replace(trace, prediction=prediction)


def test_a_point_of_loss_buys_time(report, make_report):
    """0.5 and 1 point are 0.005 and 0.01: the faster point is just within the second."""
    val = many(report, 1250)  # 10,000 samples; the faster point is right about 8,750
    changed = make_report(traces={"val": val}, baseline={"val": torch.arange(10_000) < 8750 + 99})
    assert [row.point.thresholds for row in trade_offs(changed)[:3]] == [(0.25,), (0.25,), (0.45,)]


def test_what_no_point_reaches_is_marked_and_the_nearest_given(report, make_report):
    timed = replace(report.latencies["onnxruntime"], baseline=Latency(20.0, 1.0))
    # No point is right about seven of a thousand, the baseline about all.
    changed = make_report(
        traces={"val": many(report, 125, wrong=7)},
        baseline={"val": torch.ones(1000, dtype=torch.bool)},
        latencies={"onnxruntime": timed},
    )
    rows = trade_offs(changed)
    assert [row.feasible for row in rows] == [False, False, True, True, True, False, False]
    # The most accurate point, and the fastest.
    assert [row.point.thresholds for row in rows[:2]] == [(0.25,)] * 2
    assert [row.point.thresholds for row in rows[5:]] == [(0.9,)] * 2
    assert rows[5].savings.gain_latency == 2 < rows[5].value
    # Nothing is drawn as if it were there.
    assert sorted(scalars(changed)) == [
        "trade_off/accuracy_at_gain_1.5",
        "trade_off/accuracy_at_gain_2",
        "trade_off/gain_at_loss_1",
    ]


def test_settings_are_chosen_by_validation_alone(make_report, report):
    """By hand: T = 0.45 is right on 7 of 8 there, as the baseline is on 6; 25 µs and 250 MACs on average."""
    expected = {"baseline_accuracy": 0.75, "accuracy": 0.875, "gain_macs": 1.7, "gain_latency": 1.6}
    worse = replace(
        report.traces["test"], prediction=(report.traces["test"].label[:, None] + 1).expand(-1, 2) % 3
    )
    for each in (report, make_report({"test": worse})):
        assert on_validation(each) == pytest.approx({**expected, "gain_at_no_loss": 1.6})
    # All leave at exit 1: too many are wrong. And no point at all is as good as a baseline that is always right.
    assert on_validation(make_report(chosen=3))["gain_latency"] == pytest.approx(4)
    always = make_report(thresholds=[[0.45], [0.9]], chosen=0, baseline={"val": [True] * 8})
    assert on_validation(always)["gain_at_no_loss"] == 0
