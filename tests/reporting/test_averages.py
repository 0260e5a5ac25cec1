"""The numbers of many runs, and their means and deviations."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from many import write_finished

from branchynet.reporting.averages import groups_of, values_of
from branchynet.runs.gathered import gather
from branchynet.runs.result import result_dict

RESULTS = Path(__file__).parents[2] / "docs" / "results"


@pytest.fixture
def rows(report, make_report, tmp_path):
    """Two seeds of one setting: 7/8 and 5/8 of the samples are answered rightly; and another setting."""
    write_finished(tmp_path / "0", report, ["weights=equal"], seed=0)
    write_finished(tmp_path / "1", make_report(chosen=3), ["weights=equal"], seed=1)
    write_finished(tmp_path / "2", report, ["weights=early"], seed=0)
    return gather([tmp_path]).rows


def test_the_numbers_are_those_of_the_result(report, rows):
    values, result = values_of(rows[0]), result_dict(replace(report, seed=0))
    knee = result["knee"]
    assert values["accuracy"].value == knee["accuracy"] == 0.875
    assert [values["accuracy"].low, values["accuracy"].high] == knee["intervals"]["accuracy"]
    assert values["accuracy_minus_baseline"].value == 0.125
    assert values["exit_rate_2"].value == knee["exit_rates"][1]
    assert [values["exit_rate_2"].low, values["exit_rate_2"].high] == knee["intervals"]["exit_rates"][1]
    assert values["gain_macs"].value == 425 / 250
    assert values["last_exit_accuracy"].value == 7 / 8 and values["last_exit_minus_baseline"].value == 1 / 8
    assert values["exit_accuracy_1"].value == 5 / 8 and values["threshold_1"].value == knee["thresholds"][0]
    assert values["validation_gain_at_no_loss"].value == result["validation"]["gain_at_no_loss"]
    assert all(value.deviation is None for value in values.values())


def test_a_group_has_the_mean_and_the_deviation_from_run_to_run(rows):
    both, alone = groups_of(rows)
    assert (both.first.label, both.seeds, both.settings) == ("weights=equal", "0, 1", "weights=equal")
    accuracy = both.values["accuracy"]
    assert accuracy.value == 0.75
    assert accuracy.deviation == pytest.approx(0.25 / 2**0.5)  # of 7/8 and 5/8, n-1
    own = [values_of(row)["accuracy"] for row in both.rows]
    assert accuracy.low == (own[0].low + own[1].low) / 2 and accuracy.high == (own[0].high + own[1].high) / 2
    assert both.values["exit_rate_1"].value == (5 / 8 + 1) / 2
    assert alone.values["accuracy"].deviation is None


def test_what_a_run_of_a_group_does_not_have_has_no_mean(rows):
    """It would be the mean of the others."""
    rows[0].result["knee"]["gain_over_static"] = None
    rows[0].result["knee"]["measured"] = None
    both, alone = groups_of(rows)
    assert not {"gain_over_static", "gain_measured"} & both.values.keys()
    assert "gain_measured" in alone.values


def test_what_flatters_is_said(report, make_report, tmp_path):
    write_finished(tmp_path / "0", make_report(protocol="paper"))
    write_finished(tmp_path / "1", make_report(split="val"), ["weights=early"])
    groups = groups_of(gather([tmp_path]).rows)
    assert [group.settings for group in groups] == [
        "as in the experiment (protocol: paper)",
        "weights=early (on validation)",
    ]


def test_older_results_have_fewer_numbers():
    rows = gather([RESULTS / "b_lenet_mnist"]).rows
    values = values_of(rows[0])
    assert (
        values["accuracy"].value
        == json.loads((RESULTS / "b_lenet_mnist/result.json").read_text())["knee"]["accuracy"]
    )
    assert values["accuracy"].low is None and "validation_accuracy" not in values
