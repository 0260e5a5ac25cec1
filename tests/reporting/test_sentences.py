"""What a report says in words."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from branchynet.evaluation.fitting import Fitting
from branchynet.evaluation.noise import Noise
from branchynet.exits.certificate import Certificate
from branchynet.exits.found import Found
from branchynet.exits.relaxation import Limit
from branchynet.reporting.sentences import (
    microseconds,
    million,
    percent,
    percent_within,
    rates_within,
    sentences,
    threads,
    within,
)
from branchynet.runtime.costs import Latency


def plain(texts):
    """Without the intervals."""
    return [re.sub(r" \[\d[^]]*\]", "", text) for text in texts]


def test_sentences_of_an_ordinary_run(report):
    assert plain(sentences(report)) == [
        "The rule accuracy_floor chose T1 = 0.45 (entropy) on validation. Gain in MACs 1.70; gain in latency "
        "with the trunk's segments alone on the clock, as in the paper's Table I, 2.39.",
        "Gain over static 1.68: exit 2 alone is the cheapest that is at least as accurate.",
        "Overhead to the end: a sample that goes through all side heads to the last exit costs 25.0 % more in time "
        "(onnxruntime) and 17.6 % more in MACs than the baseline.",
        "Headroom: perfect confidence (leaving at the first exit that agrees with the last one) would gain 1.33 in "
        "time and 1.42 in MACs at 87.50 %; perfect knowledge (the first exit that is right, where none is the "
        "first) 1.60 in time and 1.70 in MACs at 100.00 %.",
        "AUROC of each side exit's uncertainty for being right (0.5 guesses, 1 is perfect): 0.733.",
        "Run for real on onnxruntime: 8 samples, all as the sweep predicts (0 within rounding, 1e-5, of a "
        "threshold).",
        "On torch: baseline 120.0 µs, operating point 75.0 µs predicted (gain 1.60).",
    ]


def test_a_rule_that_looked_at_macs_says_so(report):
    by_macs = replace(report, selection=replace(report.selection, cost="macs"))
    assert sentences(by_macs)[0].startswith(
        "The rule accuracy_floor chose T1 = 0.45 (entropy) on validation, counting MACs. Gain in MACs 1.70 ["
    )


def test_gains_in_words_have_their_intervals(make_report):
    # All leave at exit 1, so that every draw gives the same.
    texts = sentences(make_report(chosen=3))
    for part in (
        "Gain in MACs 4.25 [4.25, 4.25]",
        "Table I, 10.00 [10.00, 10.00].",
        "takes 0.80 [0.80, 0.80] of the operating",
        "at 100.00 [100.00, 100.00] %.",
        "(gain 4.00 [4.00, 4.00])",
    ):
        assert any(part in text for text in texts), part
    assert "Gain over static 1.68 [" in sentences(make_report())[1]


def test_numbers_with_their_intervals():
    assert within(1.6, (1.1449, 2.667)) == "1.60 [1.14, 2.67]"
    assert percent_within(-0.0012, (-0.003, 0.0004)) == "-0.12 [-0.30, 0.04]"
    assert rates_within((0.9, 0.1), ((0.85, 0.95), (0.05, 0.15))) == "90.0 [85.0, 95.0], 10.0 [5.0, 15.0]"


def test_noisy_timings_come_first(make_report):
    first, *others = sentences(make_report(noise=(Noise("a reason", 2.0), Noise("another", 3.0))))
    assert first.startswith("NOISY TIMINGS: a reason; another. Measure when nothing else computes: a run")
    assert others == sentences(make_report())


def test_sentences_that_must_not_be_missing(report, make_report):
    verified = replace(report.verified["onnxruntime"], differences=3, near_threshold=2, unexplained=1)
    changed = make_report(
        protocol="paper",
        baseline={"test": torch.arange(8) < 4},
        chosen=3,
        note="Nothing was feasible.",
        verified={"onnxruntime": verified},
    )
    texts = sentences(changed)
    assert any("chosen on the test split itself" in text for text in texts)
    assert "Nothing was feasible." in texts
    assert any("does not pay for itself: exit 1 alone" in text and "takes 0.80" in text for text in texts)
    assert any(
        "A single exit beats the whole trunk: exit 1 alone is right on 62.50 %" in text for text in texts
    )
    assert any(
        "3 not as the sweep predicts, 1 of these not near a threshold (2 within" in text for text in texts
    )


def test_an_exit_that_is_always_right_has_no_auroc_and_the_end_may_cost_less(make_report, report):
    fast = {"onnxruntime": replace(report.latencies["torch"], baseline=Latency(200.0, 1.0))}
    texts = sentences(
        make_report(traces={"test": report.trace.at(report.trace.correct[:, 0])}, latencies=fast)
    )
    assert any(text.endswith("1 is perfect): –.") for text in texts)
    assert any("costs 25.0 % less in time (onnxruntime) and 17.6 % more in MACs" in text for text in texts)


def test_exits_where_no_threshold_tells_one_from_another_are_named(make_three):
    def said(blind):
        """With the same uncertainty for all at these exits."""
        trace = make_three().trace
        uncertainty = trace.uncertainty.clone()
        uncertainty[:, blind] = 1.0
        texts = sentences(make_three(traces={"test": replace(trace, uncertainty=uncertainty)}))
        return [text.partition(" finds")[0] for text in texts if "no threshold tells" in text]

    assert said([0]) == said([0, 2]) == ["At exit 1 the criterion entropy"]
    assert said([0, 1]) == ["At exits 1, 2 the criterion entropy"]
    assert not said([]) and not said([2]), "the last exit has no threshold"


def test_no_static_rival_in_words(make_report):
    texts = sentences(make_report(chosen=1))
    assert "No single exit alone is as accurate on test as the operating point." in texts


def test_inexact_images_in_words(make_report):
    changed = make_report(inexact_test=torch.tensor([3]), inexact_training=73)
    text = (
        "1 of the 8 test images and 73 of those of training and validation are not the published ones; on the "
        "other test images the baseline is right on 71.43 %, the operating point on 100.00 %."
    )
    assert text in sentences(changed)
    text = "0 of the 8 test images and 73 of those of training and validation are not the published ones."
    assert text in sentences(make_report(inexact_training=73))


def test_a_point_that_was_not_run_says_so(make_report):
    texts = sentences(make_report(verified={}))
    assert "Not run for real: chosen from the stored traces and the latencies measured with them." in texts
    assert not any(text.startswith("Run for real") for text in texts)


def test_another_engine_that_was_run_has_its_measured_gain(report, make_report):
    own = report.verified["onnxruntime"]
    both = {"onnxruntime": own, "torch": replace(own, latency_us=60.0, baseline_latency_us=90.0)}
    assert (
        "On torch: baseline 120.0 µs, operating point 75.0 µs predicted (gain 1.60), 60.0 µs measured (gain 1.50)."
        in plain(sentences(make_report(verified=both)))
    )


def test_on_validation_the_choice_flatters_and_test_is_not_named(make_report):
    texts = sentences(make_report(split="val"))
    assert any("validation split that is reported" in text and "flatter" in text for text in texts)
    assert not any("test" in text.lower().replace("fastest", "") for text in texts)


@pytest.mark.parametrize(("value", "text"), [(13.94, "13.9"), (999.94, "999.9"), (11309.4, "11,309")])
def test_microseconds(value, text):
    assert microseconds(value) == text


def test_percent_and_threads(make_report):
    assert percent(0.9921) == "99.21" and percent(1) == "100.00"
    assert [threads(make_report(threads=count)) for count in (1, 2)] == ["1 thread", "2 threads"]


def test_balanced_accuracies_where_classes_have_unlike_numbers_of_samples(make_report, report):
    assert not any("Balanced" in text for text in sentences(report))  # 2 to 3 samples
    # One sample of class 2 is left, the third: exit 1 is right about it, exit 2 is not.
    keep = torch.arange(8) != 5
    texts = sentences(make_report(traces={"test": report.trace.at(keep)}))
    assert (
        "The classes have 1 to 3 samples. Balanced accuracy, the mean of each class's, %: baseline 88.89, "
        "exits alone 77.78, 66.67, operating point 88.89."
    ) in texts


def test_small_networks_that_are_better_are_named_and_none_is_said_too(make_report, rivals):
    def said(rivals):
        return [text for text in sentences(make_report(rivals=rivals)) if "mall networks" in text]

    own = "the operating point is right on 87.50 % for 0.000 M MACs"
    assert said(()) == []
    assert said(rivals) == [
        "Small networks that are more accurate for no more MACs, as published: better (90.00 %, 0.000 M); "
        f"{own}. Counted in MACs, a plain small network is the better choice."
    ]
    assert said(rivals[1:]) == [f"Small networks known: 3, none more accurate for no more MACs: {own}."]
    assert said(rivals[2:]) == [
        f"Small networks known: 2, none with so few MACs: {own}; the smallest is dearer (99.00 %, 0.000 M), as "
        "published."
    ]


@pytest.mark.parametrize(("macs", "text"), [(108_000, "0.108"), (3_982_000, "3.98"), (125_750_000, "125.8")])
def test_millions(macs, text):
    assert million(macs) == text


def test_how_many_images_fitted_and_chose_is_one_sentence(report, make_report):
    def said(**changes):
        return [text for text in sentences(make_report(**changes)) if "fitted" in text]

    fitted = "What is fitted after training was fitted on 5"
    val = Fitting(5, torch.arange(13) < 5, 0.4)
    assert said(fitting=val) == [
        f"{fitted} validation images; the thresholds were chosen on 8 other validation images."
    ]
    assert said(fitting=val, protocol="paper") == [
        f"{fitted} validation images; the thresholds were chosen on 8 test images."
    ]
    assert said(fitting=Fitting(5)) == [
        f"{fitted} calibration images; the thresholds were chosen on 8 validation images."
    ]
    assert not said()
    noted = sentences(make_report(fitting=Fitting(5, notes=("temperature 1.2", ""))))
    assert [text for text in noted if "learned" in text] == [
        "What entropy has learned: exit 1: temperature 1.2."
    ]


def test_what_averaged_exits_answer_with_is_one_sentence(averaged, report):
    (text,) = [text for text in sentences(averaged) if text.startswith("Averaged")]
    assert text == (
        "Averaged exits, in log-probabilities: exit 2 with 0.75 of its own head and 0.25 of exit 1's answer. Of "
        "all samples exit 1, 2 … is right on 62.50, 87.50 %; by its head alone, which is what a single exit has, "
        "on 62.50, 75.00 %."
    )
    assert not [text for text in sentences(report) if "verage" in text]
    assert "No single exit alone" in " ".join(sentences(averaged))
    none = replace(averaged, shares=(0.0, 0.0))
    assert "none of them, for no earlier exit helps" in " ".join(sentences(none))


def test_a_promise_is_said(report):
    promise = Certificate("Little is lost.", "net", 0.01, 0.1, 500, 0, 0.0, 0.05)
    promised = replace(report, selection=replace(report.selection, certificate=promise))
    assert set(sentences(promised)) - set(sentences(report)) == {"Promised: Little is lost."}


def test_what_was_kept_of_a_large_grid_is_said(report):
    kept = replace(report, found=Found([torch.linspace(0, 1, 300_000)], report.view.points.thresholds))
    assert set(sentences(kept)) - set(sentences(report)) == {
        "Of 300,000 threshold vectors, 4 were kept, the frontier: on validation no other is more accurate at equal "
        "cost."
    }
    limit = Limit(np.array([1.0, 2.0]), [(0.0, report.selection.point.right + 2.0)])
    found = Found([torch.linspace(0, 1, 10**4)] * 4, report.view.points.thresholds, [limit], gap=0.5)
    (text,) = set(sentences(replace(report, found=found))) - set(sentences(report))
    assert text == (
        "Of 1.0e+16 threshold vectors, 4 were kept, found by local search. On validation no vector that costs no "
        "more than the operating point is more than 25.00 points more accurate; along the whole frontier, 50.00 "
        "points at most are proven."
    )
