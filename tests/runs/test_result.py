"""result.json, to the letter."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from branchynet.evaluation.fitting import Fitting
from branchynet.evaluation.headroom import perfect_confidence
from branchynet.evaluation.intervals import answer_intervals, point_intervals
from branchynet.evaluation.noise import Noise
from branchynet.evaluation.report import taken_at_point
from branchynet.exits.certificate import Certificate
from branchynet.exits.found import Found
from branchynet.exits.relaxation import Limit
from branchynet.runs.result import result_dict, write_result
from branchynet.runs.result_schema import Result

PROMISE = Certificate("nothing is lost.", "harmful", 0.01, 0.1, 500, 0, 0.0, 0.0066, "last", 0, 0)

# DESIGN.md's form of result.json, with the tiny report's numbers.
EXPECTED = {
    "experiment": "b_lenet_mnist",
    "seed": 3,
    "protocol": "validation",
    "engine": "onnxruntime",
    "threads": 1,
    "machine": "a machine",
    "versions": {"torch": "2.15.0"},
    "noisy": False,
    "noise": [],
    "baseline": {
        "accuracy": 0.75,
        "macs": 425,
        "latency_us": 40.0,
        "balanced_accuracy": (2 / 3 + 2 / 3 + 1) / 3,
    },
    "exits": [
        {
            "accuracy": 0.625,
            "macs": 100,
            "latency_us": 10.0,
            "static_macs": 90,
            "static_latency_us": 8.0,
            "balanced_accuracy": (1 / 3 + 1 + 1 / 2) / 3,
        },
        {
            "accuracy": 0.875,
            "macs": 500,
            "latency_us": 50.0,
            "static_macs": 445,
            "static_latency_us": 42.0,
            "balanced_accuracy": (1 + 1 + 1 / 2) / 3,
        },
    ],
    "knee": {
        "rule": "accuracy_floor",
        "criterion": "entropy",
        "thresholds": [0.45],
        "accuracy": 0.875,
        "exit_rates": [0.625, 0.375],
        "macs": 250.0,
        "latency_us": 25.0,
        "gain_macs": 1.7,
        "gain_latency": 1.6,
        "gain_trunk_only": 40 / 16.75,
        "gain_over_static": 1.68,
        "measured": {"accuracy": 0.875, "latency_us": 30.0, "gain_latency": 1.5},
        "balanced_accuracy": (2 / 3 + 1 + 1) / 3,
    },
    "validation": {
        "baseline_accuracy": 0.75,
        "accuracy": 0.875,
        "gain_macs": 1.7,
        "gain_latency": 1.6,
        "gain_at_no_loss": 1.6,
    },
    "overhead_to_the_end": {"macs": 500 / 425 - 1, "latency": 0.25},
    "headroom": {
        "perfect_confidence": {
            "accuracy": 0.875,
            "exit_rates": [0.5, 0.5],
            "macs": 300.0,
            "latency_us": 30.0,
            "gain_macs": 425 / 300,
            "gain_latency": 40 / 30,
        },
        "perfect_knowledge": {
            "accuracy": 1.0,
            "exit_rates": [0.625, 0.375],
            "macs": 250.0,
            "latency_us": 25.0,
            "gain_macs": 1.7,
            "gain_latency": 1.6,
        },
        "auroc": [11 / 15],
    },
    # Exit 1 wins sample 3 and loses 4, 6 and 7; the best order would let 3 leave first, and those three last.
    "criterion_quality": {
        "calibrated": "",
        "exits": [
            {
                "auroc": 11 / 15,
                "calibration_error": None,
                "area": (1.5 - 0.5 + 1.5 + 2.5) / (3.5 + 1.5 + 2.5 + 3.5),
                "macs": 10,
                "latency_us": 2.0,
            }
        ],
    },
    "recall": {
        "classes": ["a", "b", "c"],
        "samples": [3, 3, 2],
        "baseline": {"recall": [2 / 3, 2 / 3, 1.0]},
        "exits": [{"recall": [1 / 3, 1.0, 1 / 2]}, {"recall": [1.0, 1.0, 1 / 2]}],
        "knee": {"recall": [2 / 3, 1.0, 1.0]},
    },
}


def without_intervals(result):
    """The result but for the intervals, which have a test of their own."""
    if isinstance(result, dict):
        kept = {key: value for key, value in result.items() if not key.endswith(("interval", "intervals"))}
        return {key: without_intervals(value) for key, value in kept.items()}
    return [without_intervals(each) for each in result] if isinstance(result, list) else result


def result_of(report):
    return without_intervals(result_dict(report))


def test_the_intervals(report):
    result = result_dict(report)
    found = point_intervals(report, taken_at_point(report))
    static = found.gain_latency[0] * 1.05, found.gain_latency[1] * 1.05
    intervals = result["knee"]["intervals"]
    assert intervals.pop("gain_over_static") == pytest.approx(list(static))
    expected = {
        name: json.loads(json.dumps(getattr(found, name)))
        for name in (
            "accuracy",
            "accuracy_minus_baseline",
            "exit_rates",
            "gain_macs",
            "gain_latency",
            "gain_trunk_only",
        )
    }
    assert intervals == expected
    for each, right in (
        (result["baseline"], report.baseline_correct["test"]),
        *zip(result["exits"], report.trace.correct.T, strict=True),
    ):
        assert each["interval"] == list(answer_intervals(report, right)[0])
    # Validation has the same samples here.
    del expected["gain_trunk_only"]
    assert result["validation"]["intervals"] == expected
    perfect = point_intervals(report, perfect_confidence(report.trace))
    confidence = result["headroom"]["perfect_confidence"]["intervals"]
    assert confidence["gain_latency"] == list(perfect.gain_latency) and set(confidence) == set(expected)
    assert result["headroom"]["perfect_knowledge"]["intervals"]["accuracy"] == [1, 1]


def test_no_static_rival_has_no_interval(make_report):
    assert result_dict(make_report(chosen=1))["knee"]["intervals"]["gain_over_static"] is None


def test_the_form_to_the_letter(report):
    result = result_of(report)
    assert result == EXPECTED
    # The order of the keys and the types, too: 250.0 and not 250.
    assert json.dumps(result) == json.dumps(EXPECTED)


def test_noisy_timings_are_named(make_report):
    result = result_of(make_report(noise=(Noise("a reason", 2.0), Noise("another", 3.0))))
    assert result == {**EXPECTED, "noisy": True, "noise": ["a reason", "another"]}


def test_what_was_not_run_for_real_is_null(make_report):
    result = result_of(make_report(verified={}))
    assert result["knee"].pop("measured") is None
    assert result == {**EXPECTED, "knee": {k: v for k, v in EXPECTED["knee"].items() if k != "measured"}}


def test_another_split_than_test_is_named(make_report):
    assert result_of(make_report(split="val")) == {**EXPECTED, "split": "val"}


def test_no_static_rival_is_null(make_report):
    result = result_dict(make_report(chosen=1))
    assert result["knee"]["gain_over_static"] is None


def test_three_exits_have_two_thresholds(three_exits):
    knee = result_dict(three_exits)["knee"]
    assert knee["thresholds"] == [0.25, 0.21]
    assert knee["exit_rates"] == [0.375, 0.25, 0.375]
    assert knee["latency_us"] == 0.375 * 10 + 0.25 * 30 + 0.375 * 60


def test_inexact_images_only_add_keys(make_report):
    result = result_of(make_report(inexact_test=torch.tensor([0, 7]), inexact_training=73))
    added = {
        "inexact_test_images": 2,
        "inexact_training_images": 73,
        "without_inexact": {"baseline_accuracy": 5 / 6, "accuracy": 5 / 6},
    }
    assert json.dumps(result) == json.dumps(EXPECTED | added)


def test_inexact_images_in_training_alone(make_report):
    result = result_dict(make_report(inexact_training=4))
    assert (result["inexact_test_images"], result["inexact_training_images"]) == (0, 4)
    assert result["without_inexact"] is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_cannot_say_is_refused_by_name(report, make_report, value):
    verified = {"onnxruntime": replace(report.verified["onnxruntime"], latency_us=value)}
    with pytest.raises(ValueError, match=r"knee\.measured\.latency_us is (nan|inf)"):
        result_dict(make_report(verified=verified))


def test_it_is_written_as_plain_json(report, tmp_path):
    write_result(tmp_path / "result.json", report)
    text = (tmp_path / "result.json").read_text(encoding="utf-8")
    assert without_intervals(json.loads(text)) == EXPECTED and text.endswith("}\n")


def test_a_failure_leaves_the_old_file_and_no_scraps(report, make_report, tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    verified = {"onnxruntime": replace(report.verified["onnxruntime"], latency_us=float("nan"))}
    with pytest.raises(ValueError, match="nan"):
        write_result(path, make_report(verified=verified))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_rivals_only_add_a_key(report, make_report, rivals):
    found = result_dict(make_report(rivals=rivals))
    Result.model_validate(found)
    assert found.pop("rivals")[0] == {"name": "better", "macs": 240, "accuracy": 0.9, "source": "a page"}
    assert found == result_dict(report)


def test_what_was_fitted_only_adds_a_key(report, make_report):
    found = result_dict(make_report(fitting=Fitting(5)))
    Result.model_validate(found)
    assert found.pop("fitting") == {"split": "calibration", "images": 5, "images_of_choice": 8}
    assert found == result_dict(report)


def test_averaged_exits_only_add_keys(averaged, report):
    found = result_dict(averaged)
    Result.model_validate(found)
    assert found.pop("shares") == [0.0, 0.25]
    assert [each.pop("static_accuracy") for each in found["exits"]] == [5 / 8, 6 / 8]
    plain = result_dict(report)
    for each in (found, plain):  # the head alone is less accurate than the point: no single exit is its rival
        del each["knee"]["gain_over_static"], each["knee"]["intervals"]["gain_over_static"]
    assert found == plain


def test_a_promise_of_the_rule_stands_beside_the_point(report):
    assert "certificate" not in result_dict(report)["knee"]
    promised = replace(report, selection=replace(report.selection, certificate=PROMISE))
    found = result_dict(promised)["knee"]["certificate"]
    assert Certificate(**found) == PROMISE
    assert Result.model_validate(result_dict(promised)).knee.certificate.model_dump() == found


def test_what_was_kept_of_a_large_grid_is_told(report):
    assert "sweep" not in result_dict(report)
    grid = [torch.linspace(0, 1, 300_000)]
    assert "sweep" not in result_dict(replace(report, found=Found(grid)))
    kept = replace(report, found=Found(grid, report.view.points.thresholds))
    assert result_dict(kept)["sweep"] == {"vectors": 300_000, "kept": 4, "gap": 0.0, "gap_at_point": 0.0}
    # At most so many right answers, whatever the cost: two more than the point's.
    limit = Limit(np.array([1.0, 2.0]), [(0.0, report.selection.point.right + 2.0)])
    bounded = replace(report, found=Found(grid, report.view.points.thresholds, [limit], gap=0.5))
    swept = Result.model_validate(result_dict(bounded)).sweep
    assert swept.gap == 0.5 and swept.gap_at_point == 2 / report.view.trace.num_samples
