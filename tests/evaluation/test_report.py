from dataclasses import replace

import pytest
import torch

from branchynet.reporting import report as derive
from branchynet.evaluation.report import decimal
from branchynet.runtime.costs import Latency


def test_the_operating_point_by_hand(report):
    assert derive.thresholds(report) == (0.45,)
    assert derive.accuracy(report) == 7 / 8
    assert derive.exit_rates(report) == (5 / 8, 3 / 8)
    assert derive.exit_accuracies(report) == (5 / 8, 7 / 8)
    assert derive.mean_macs(report) == 250  # 5/8 × 100 + 3/8 × 500
    assert derive.mean_latency_us(report) == 25  # 5/8 × 10 + 3/8 × 50
    assert derive.mean_latency_us(report, "torch") == 75


def test_the_gains_by_hand(report):
    assert derive.gain_macs(report) == 425 / 250
    assert derive.gain_latency(report) == 40 / 25
    assert derive.gain_trunk_only(report) == 40 / (5 / 8 * 4 + 3 / 8 * 38)
    assert derive.gain_macs_trunk_only(report) == 425 / (5 / 8 * 40 + 3 / 8 * 400)
    assert derive.gain_measured(report) == 45 / 30
    # Only exit 2 is right on 7 of 8, and alone it takes 42 µs.
    assert derive.best_static(report) == 1
    assert derive.gain_over_static(report) == 42 / 25


def test_any_other_point_by_hand(report):
    # T = 0.25: exit 1 takes the first three samples, rightly, and exit 2 is right about the other five.
    assert derive.thresholds(report, 1) == (0.25,)
    assert derive.accuracy(report, 1) == 1
    assert derive.exit_rates(report, 1) == (3 / 8, 5 / 8)
    assert derive.gain_macs(report, 1) == 425 / (3 / 8 * 100 + 5 / 8 * 500)
    assert derive.gain_latency(report, index=1) == derive.gain_latency(report, "torch", 1) == 40 / 35
    assert derive.best_static(report, index=1) is derive.gain_over_static(report, index=1) is None
    # T = 0.9: all leave at exit 1, which alone is as good and leaves out the decision.
    assert derive.best_static(report, index=3) == 0
    assert derive.gain_over_static(report, index=3) == 8 / 10
    # The first point is a point like any other, and not the operating point.
    assert derive.thresholds(report, 0) == (0,)
    assert derive.mean_macs(report, 0) == 500
    assert derive.mean_latency_us(report, index=0) == 50


# The baseline is right about the first six samples, the operating point about all but the fourth.
BASELINE_CORRECT = torch.arange(8) < 6


@pytest.mark.parametrize(
    ("inexact", "accuracies"),
    [
        ([], None),
        ([3], (5 / 7, 7 / 7)),
        ([0, 7], (5 / 6, 5 / 6)),
        ([3, 6, 7], (5 / 5, 5 / 5)),
        (list(range(8)), None),
    ],
)
def test_accuracies_without_the_inexact_images(make_report, inexact, accuracies):
    numbers = torch.tensor(inexact, dtype=torch.int64)
    changed = make_report(baseline_correct=BASELINE_CORRECT, inexact_test=numbers)
    assert derive.without_inexact(changed) == accuracies


def test_no_single_exit_is_as_good(report, make_report):
    # At T = 0.25 all eight samples are answered rightly.
    best = make_report(selection=replace(report.selection, index=1))
    assert derive.accuracy(best) == 1
    assert derive.best_static(best) is None
    assert derive.gain_over_static(best) is None


def test_the_cheapest_of_several_exits_that_are_good_enough(three_exits):
    # All samples leave at exit 1, right on 5 of 8: every exit alone is as good, and exit 1 is the cheapest.
    loosest = replace(three_exits, selection=replace(three_exits.selection, index=2))
    assert derive.best_static(loosest) == 0
    assert derive.gain_over_static(loosest) == 8 / 10


@pytest.mark.parametrize(
    ("baseline", "static_us", "beating"),
    [
        (0.625, 8.0, [0]),
        (0.6250001, 8.0, [0]),  # the same five of eight, in float32 arithmetic
        (0.75, 8.0, []),  # less accurate
        (0.625, 40.0, []),  # as slow as the baseline
    ],
)
def test_which_single_exits_beat_the_trunk(report, make_report, baseline, static_us, beating):
    timed = report.latencies["onnxruntime"]
    changed = replace(timed, static=(Latency(static_us, 1.0, 100), timed.static[1]))
    changed_report = make_report(baseline_accuracy=baseline, latencies={"onnxruntime": changed})
    assert derive.exits_beating_trunk(changed_report) == beating


@pytest.mark.parametrize("value", [0.3, 1e-4, 0.025, 2.302585, 10.0, 0.0])
def test_a_decimal_is_the_same_threshold(value):
    single = torch.tensor(value, dtype=torch.float32)
    assert decimal(single.item()) == pytest.approx(value, rel=1e-6)
    assert torch.tensor(decimal(single.item()), dtype=torch.float32) == single
    assert len(str(decimal(single.item()))) <= 12


def test_a_report_that_contradicts_itself_is_refused(report, make_report):
    with pytest.raises(ValueError, match="'test' is none of"):
        make_report(protocol="test")
    with pytest.raises(ValueError, match=r"latencies has .'torch'., but not the engine 'onnxruntime'"):
        make_report(latencies={"torch": report.latencies["torch"]})
    with pytest.raises(ValueError, match="not of the same thresholds"):
        make_report(points_val=report.points_val.subset(torch.tensor([0, 1])))
    with pytest.raises(ValueError, match="not of the test samples, or not of baseline_accuracy"):
        make_report(baseline_correct=BASELINE_CORRECT[1:])
    with pytest.raises(ValueError, match="not of the test samples, or not of baseline_accuracy"):
        make_report(baseline_correct=~BASELINE_CORRECT)
    with pytest.raises(ValueError, match="inexact_test needs baseline_correct"):
        make_report(inexact_test=torch.tensor([0]))
    with pytest.raises(ValueError, match="images that are not there"):
        make_report(baseline_correct=BASELINE_CORRECT, inexact_test=torch.tensor([0, 8]))


def test_where_thresholds_are_chosen(make_report):
    assert make_report().chosen_on == "validation"
    assert make_report(protocol="paper").chosen_on == "test"


def test_only_latencies_are_needed(make_report):
    assert make_report(verified={}).verified == {}
    with pytest.raises(ValueError, match=r"latencies has .., but not the engine"):
        make_report(latencies={})


def test_reported_is_one_of_two_splits(make_report):
    assert make_report().reported_on == "test" and make_report(split="val").reported_on == "validation"
    for wrong in ({"split": "train"}, {"split": "val", "protocol": "paper"}):
        with pytest.raises(ValueError, match="split="):
            make_report(**wrong)
