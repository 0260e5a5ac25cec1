"""The numbers of a report, by hand, and what a report may not be."""

from dataclasses import replace

import pytest
import torch

from branchynet.evaluation.report import (
    balanced_accuracies,
    better_rivals,
    exit_accuracies,
    exits_beating_trunk,
    gain_measured,
    overhead_to_the_end,
    savings,
    static_accuracies,
    taken_at_point,
    without_inexact,
)
from branchynet.evaluation.rivals import Rival
from branchynet.exits.point import OperatingPoint
from branchynet.exits.rules import Selection
from branchynet.runtime.costs import Latency


def of_point(report, chosen):
    """What another of the swept points saves, on the engine of the choice."""
    return savings(report, report.points[chosen])


def test_the_operating_point_by_hand(report):
    assert report.point.thresholds == (0.45,) and report.index == 2
    assert report.point.accuracy == 7 / 8
    assert report.point.exit_rates == (5 / 8, 3 / 8)
    assert exit_accuracies(report) == (5 / 8, 7 / 8)
    assert report.baseline_accuracy == 6 / 8
    assert taken_at_point(report).tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    saved = savings(report, report.point)
    assert saved.macs == 250  # 5/8 × 100 + 3/8 × 500
    assert saved.latency_us == 25  # 5/8 × 10 + 3/8 × 50
    assert savings(report, report.point, "torch").latency_us == 75


def test_the_gains_by_hand(report):
    saved = savings(report, report.point)
    assert saved.gain_macs == 425 / 250
    assert saved.gain_latency == 40 / 25
    assert saved.gain_trunk_only == 40 / (5 / 8 * 4 + 3 / 8 * 38)
    assert gain_measured(report) == 45 / 30
    # Only exit 2 is right on 7 of 8, and alone it takes 42 µs.
    assert saved.best_static == 1
    assert saved.gain_over_static == 42 / 25


def test_the_overhead_to_the_end_by_hand(report):
    # Leaving at the last exit takes 50 µs and 500 MACs, the baseline 40 and 425.
    overhead = overhead_to_the_end(report)
    assert (overhead.macs, overhead.latency) == pytest.approx((75 / 425, 10 / 40))


def test_balanced_accuracies_by_hand(report):
    # Three samples of class 0, three of 1, two of 2.
    found = balanced_accuracies(report)
    assert found.exits == pytest.approx(((1 / 3 + 1 + 1 / 2) / 3, (1 + 1 + 1 / 2) / 3))
    assert found.point == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert found.baseline == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)


def test_a_class_without_samples_does_not_count_in_balanced_accuracies(make_report, report):
    kept = make_report(traces={"test": report.trace.at(report.trace.label != 1)})
    assert balanced_accuracies(kept).exits == pytest.approx(((1 / 3 + 1 / 2) / 2, (1 + 1 / 2) / 2))


def test_any_other_point_by_hand(report):
    # T = 0.25: exit 1 takes the first three samples, rightly, and exit 2 is right about the other five.
    point = report.points[1]
    assert point.thresholds == (0.25,)
    assert point.accuracy == 1
    assert point.exit_rates == (3 / 8, 5 / 8)
    saved = savings(report, point)
    assert saved.gain_macs == 425 / (3 / 8 * 100 + 5 / 8 * 500)
    assert saved.gain_latency == savings(report, point, "torch").gain_latency == 40 / 35
    assert saved.best_static is saved.gain_over_static is None
    # T = 0.9: all leave at exit 1, which alone is as good and leaves out the decision.
    assert of_point(report, 3).best_static == 0
    assert of_point(report, 3).gain_over_static == 8 / 10
    # The first point is a point like any other, and not the operating point.
    assert report.points[0].thresholds == (0,)
    assert of_point(report, 0).macs == 500
    assert of_point(report, 0).latency_us == 50


def test_thresholds_that_were_not_swept_have_savings_too(report):
    """T = 0.05 lets the first sample out, rightly: exit 2 is wrong about the third alone."""
    own = OperatingPoint((0.05,), right=5, left=(5, 3))  # of some other split
    found = report.reported(own)
    assert (found.thresholds, found.right, found.left) == ((0.05,), 7, (1, 7))
    assert savings(report, found).latency_us == 1 / 8 * 10 + 7 / 8 * 50


@pytest.mark.parametrize(
    ("inexact", "accuracies"),
    [
        ([], None),
        # The baseline is right about the first six samples, the operating point about all but the fourth.
        ([3], (5 / 7, 7 / 7)),
        ([0, 7], (5 / 6, 5 / 6)),
        ([3, 6, 7], (5 / 5, 5 / 5)),
        (list(range(8)), None),
    ],
)
def test_accuracies_without_the_inexact_images(make_report, inexact, accuracies):
    changed = make_report(inexact_test=torch.tensor(inexact, dtype=torch.int64))
    assert without_inexact(changed) == accuracies


def test_no_single_exit_is_as_good(make_report):
    # At T = 0.25 all eight samples are answered rightly.
    best = make_report(chosen=1)
    assert best.point.accuracy == 1
    assert savings(best, best.point).best_static is None
    assert savings(best, best.point).gain_over_static is None


def test_the_cheapest_of_several_exits_that_are_good_enough(make_three):
    # All samples leave at exit 1, right on 5 of 8: every exit alone is as good, and exit 1 is the cheapest.
    loosest = make_three(chosen=2)
    assert savings(loosest, loosest.point).best_static == 0
    assert savings(loosest, loosest.point).gain_over_static == 8 / 10


@pytest.mark.parametrize(
    ("baseline", "static_us", "beating"),
    [
        (5, 8.0, [0]),
        (6, 8.0, []),  # less accurate
        (5, 40.0, []),  # as slow as the baseline
    ],
)
def test_which_single_exits_beat_the_trunk(report, make_report, baseline, static_us, beating):
    timed = report.latencies["onnxruntime"]
    changed = make_report(
        baseline={"test": torch.arange(8) < baseline},
        latencies={"onnxruntime": replace(timed, static=(Latency(static_us, 1.0), timed.static[1]))},
    )
    assert exits_beating_trunk(changed) == beating


def test_a_report_that_contradicts_itself_is_refused(report, make_report):
    with pytest.raises(ValueError, match="'test' is none of"):
        replace(report, protocol="test")
    with pytest.raises(ValueError, match=r"latencies has .'torch'., but not the engine 'onnxruntime'"):
        replace(report, latencies={"torch": report.latencies["torch"]})
    with pytest.raises(ValueError, match=r"verified has .'torch'., but not the engine 'onnxruntime'"):
        replace(report, verified={"torch": report.verified["onnxruntime"]})
    for split in ("val", "test"):
        for wrong in (torch.ones(7, dtype=torch.bool), torch.ones(8), torch.ones(8, 1, dtype=torch.bool)):
            with pytest.raises(ValueError, match=f"not of the 8 samples of {split}"):
                make_report(baseline={split: wrong})
    for number in (8, -1):
        with pytest.raises(ValueError, match="images that are not there"):
            make_report(inexact_test=torch.tensor([0, number]))


def test_where_thresholds_are_chosen(make_report):
    assert make_report().chosen_on == "validation"
    assert make_report(protocol="paper").chosen_on == "test"


def test_only_latencies_are_needed(report):
    assert replace(report, verified={}).verified == {}
    with pytest.raises(ValueError, match=r"latencies has .., but not the engine"):
        replace(report, latencies={})


def test_reported_is_one_of_two_splits(report, make_report):
    assert make_report().reported_on == "test" and make_report(split="val").reported_on == "validation"
    for wrong in ({"split": "train"}, {"split": "val", "protocol": "paper"}):
        with pytest.raises(ValueError, match="split="):
            replace(report, **wrong)


def test_numbers_are_of_the_reported_split(make_report):
    """On validation the answers are others: all that is not on validation has to show test's."""
    two = make_report().trace
    other = replace(two, prediction=(two.prediction + 1) % 3)
    both = {"val": other, "test": two}
    found = make_report(traces=both, baseline={"val": torch.arange(8) < 2})
    assert (found.trace, found.baseline_accuracy, found.point.accuracy) == (two, 6 / 8, 7 / 8)
    assert (
        found.selection.point.accuracy
        == other.correct.float().mul(torch.tensor([[1, 0]] * 5 + [[0, 1]] * 3)).sum() / 8
    )
    found = make_report(traces=both, baseline={"val": torch.arange(8) < 2}, split="val")
    assert (found.trace, found.baseline_accuracy) == (other, 2 / 8)
    assert found.point == found.selection.point
    assert exit_accuracies(found) == tuple(other.correct.double().mean(0).tolist())


def test_the_frontier_is_of_the_choices_split(make_report):
    """By hand: 50, 35, 25 and 10 µs. On test 7, 8, 7 and 5 of 8 are right, so only the first point is beaten."""
    two = make_report().trace
    # On validation exit 1 is always wrong: the slower, the better.
    wrong = replace(two, prediction=torch.stack([(two.label + 1) % 3, two.prediction[:, 1]], 1))
    assert make_report().frontier.tolist() == [3, 2, 1]
    assert make_report(traces={"val": wrong}).frontier.tolist() == [3, 2, 1, 0]
    assert make_report(traces={"val": wrong}, protocol="paper").frontier.tolist() == [3, 2, 1]


def test_the_point_need_not_be_one_of_those_swept(report):
    """A rule may find thresholds of its own."""
    free = Selection(OperatingPoint((0.31,), 0, (0, 8)), feasible=True, cheaper=True, note="")
    changed = replace(report, selection=free)
    assert changed.index is None
    assert changed.point.left == (4, 4)  # 0, 0.1, 0.2 and 0.3 leave


def test_rivals_that_are_better_cost_no_more_and_are_more_accurate(make_report, rivals):
    assert [rival.name for rival in better_rivals(make_report(rivals=rivals))] == ["better"]
    assert better_rivals(make_report()) == []
    # The point where all leave at exit 1: 100 MACs, 62.5 %.
    assert better_rivals(make_report(rivals=rivals, chosen=3)) == []
    cheap = [
        Rival("one", 100, 0.7, "a page"),
        Rival("two", 99, 0.8, "a page"),
        Rival("three", 1, 0.625, "a page"),
    ]
    found = better_rivals(make_report(rivals=tuple(cheap), chosen=3))
    assert [rival.name for rival in found] == ["two", "one"]


def test_a_single_exit_stands_for_its_head_alone_and_the_point_for_averaged_answers(averaged, report):
    assert exit_accuracies(averaged) == exit_accuracies(report) == (5 / 8, 7 / 8)
    assert static_accuracies(averaged) == (5 / 8, 6 / 8) and static_accuracies(report) == (5 / 8, 7 / 8)
    # The point is right on 7, as exit 2's answers are; no head by itself is.
    assert savings(averaged, averaged.point).gain_over_static is None
    assert savings(report, report.point).gain_over_static is not None
    # On 6 of 8 the last head alone is as good as the baseline, but not faster.
    assert exits_beating_trunk(averaged) == []


def test_what_heads_alone_say_belongs_to_averaged_exits(averaged, make_report):
    with pytest.raises(ValueError, match="alone"):
        replace(averaged, shares=None)
    with pytest.raises(ValueError, match="alone"):
        make_report(shares=(0.0, 0.25))
