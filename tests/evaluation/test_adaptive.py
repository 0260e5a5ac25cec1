"""Adapted thresholds beside the fixed ones, on the report that is worked out by hand."""

from dataclasses import replace

import pytest
import torch

from branchynet.evaluation.adaptive import adapted, adaptive


def test_nothing_was_adapted_where_it_was_not_asked_for(report):
    assert adaptive(report) is None


def test_easier_images_leave_earlier_and_no_label_is_looked_at(make_report, report):
    """At 0.45 three of five answers of exit 1 are the last exit's. Where all are, one may go on to the end."""
    trace = report.trace
    easy = replace(trace, prediction=trace.prediction[:, :1].repeat(1, 2), confidence=None)
    shown = make_report(traces={"val": trace, "test": easy})
    found = adapted(shown, most=2.0)
    assert found.disagreement == 0 and found.exit_rates == (1.0, 0.0)
    other = replace(shown, traces={"val": trace, "test": replace(easy, label=(easy.label + 1) % 3)})
    assert adapted(other, most=2.0) == replace(found, accuracy=adapted(other, most=2.0).accuracy)
    told = adaptive(replace(shown, adapted=found))
    assert told.accuracy == told.accuracy_minus_fixed + shown.point.accuracy == 5 / 8
    assert (told.latency_us, told.macs, told.exit_rates) == (10.0, 100.0, (1.0, 0.0))
    assert told.allowed == found.allowed > 0 and told.thresholds[0] > 0.7
    assert told.interval[0] <= told.accuracy_minus_fixed <= told.interval[1]


def test_on_validations_own_images_no_more_answers_differ_than_at_the_operating_point(report):
    found = adapted(report, most=2.0)
    assert (
        found.disagreement
        <= found.allowed
        == pytest.approx(
            float((report.trace.prediction[:5, 0] != report.trace.prediction[:5, 1]).double().sum() / 8)
        )
    )
    told = adaptive(replace(report, adapted=found))
    left = torch.tensor(told.exit_rates)
    assert told.macs == pytest.approx(float((left * torch.tensor([100.0, 500.0])).sum()))
