"""The files that a run leaves for people and other programs."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from branchynet.evaluation.trade_offs import trade_offs
from branchynet.exits.point import OperatingPoint
from branchynet.exits.rules import Selection
from branchynet.exits.sweep import evaluate
from branchynet.reporting import files
from branchynet.reporting.tables import report_page
from branchynet.runs.stored import StoredCriterion

PICTURES = {"empty": np.arange(24, dtype=np.uint8).reshape(3, 2, 4)}
CRITERION = StoredCriterion({"_target_": "branchynet.exits.criteria.Entropy"}, "torch", [{}, {}])


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_sweep_is_read_back(three_exits, tmp_path):
    files.write_sweep(tmp_path / "sweep.csv", three_exits)
    rows = rows_of(tmp_path / "sweep.csv")
    per_split = ["accuracy", "exit_rate_1", "exit_rate_2", "exit_rate_3", "macs", "latency_us"]
    assert list(rows[0]) == [
        "threshold_1",
        "threshold_2",
        *(f"val_{name}" for name in per_split),
        *(f"test_{name}" for name in per_split),
        "on_frontier",
        "knee",
    ]
    points = three_exits.points
    thresholds = [[float(row["threshold_1"]), float(row["threshold_2"])] for row in rows]
    assert torch.equal(torch.tensor(thresholds), points.thresholds)
    rates = [[float(row[f"val_exit_rate_{n}"]) for n in (1, 2, 3)] for row in rows]
    assert torch.equal(torch.tensor(rates, dtype=torch.float64), points.exit_rates)
    assert [float(row["test_accuracy"]) for row in rows] == points.accuracy.tolist()
    # No sample, three of eight and all eight leave at exit 1; 60, 30 and 10 µs.
    assert [float(row["test_latency_us"]) for row in rows] == [60, 3 / 8 * 10 + 2 / 8 * 30 + 3 / 8 * 60, 10]
    assert [float(row["val_macs"]) for row in rows] == [600, 3 / 8 * 100 + 2 / 8 * 300 + 3 / 8 * 600, 100]
    assert [row["on_frontier"] for row in rows] == ["0", "1", "1"]
    assert [row["knee"] for row in rows] == ["0", "1", "0"]


def test_validation_and_test_are_not_mixed_up(report, make_report, tmp_path):
    trace = replace(report.trace, prediction=(report.trace.prediction + 1) % 3)
    changed = make_report(traces={"val": trace})
    files.write_sweep(tmp_path / "sweep.csv", changed)
    rows = rows_of(tmp_path / "sweep.csv")
    for split, its in (("val", trace), ("test", report.trace)):
        accuracies = evaluate(its, report.points.thresholds).accuracy
        assert [float(row[f"{split}_accuracy"]) for row in rows] == accuracies.tolist()
    assert rows[2]["val_accuracy"] != rows[2]["test_accuracy"]


@pytest.mark.parametrize(("count", "written"), [(2000, 2000), (2001, 5)])
def test_of_a_large_sweep_the_frontier_and_the_knee_are_written(
    report, make_report, tmp_path, count, written
):
    thresholds = torch.linspace(0, 1, count)
    changed = make_report(thresholds=thresholds[:, None], chosen=500)
    files.write_sweep(tmp_path / "sweep.csv", changed)
    rows = rows_of(tmp_path / "sweep.csv")
    assert len(rows) == written
    knees = [float(row["threshold_1"]) for row in rows if row["knee"] == "1"]
    assert torch.tensor(knees) == thresholds[500]
    # With 0 to 8 samples leaving at exit 1, 7, 7, 7, 8, 7, 7, 6, 5 and 5 of 8 are right: four of these are not
    # beaten, and of equal points the first stays.
    leaving = (report.trace.uncertainty[:, 0] < thresholds[:, None]).sum(1).tolist()
    firsts = thresholds[[leaving.index(number) for number in (3, 5, 6, 8)]]
    frontier = [float(row["threshold_1"]) for row in rows if row["on_frontier"] == "1"]
    assert torch.equal(torch.tensor(frontier), firsts)


def test_thresholds_that_were_not_swept_are_no_row(report, tmp_path):
    """As a rule may find them: then no row is the operating point's."""
    free = Selection(OperatingPoint((0.31,), 0, (0, 8)), feasible=True, cheaper=True, note="")
    files.write_sweep(tmp_path / "sweep.csv", replace(report, selection=free))
    assert [row["knee"] for row in rows_of(tmp_path / "sweep.csv")] == ["0"] * 4


def test_the_trade_offs_are_read_back(three_exits, tmp_path):
    files.write_trade_offs(tmp_path / "trade_offs.csv", three_exits)
    rows = rows_of(tmp_path / "trade_offs.csv")
    assert list(rows[0]) == [
        "wanted",
        "value",
        "chosen_on",
        "feasible",
        "threshold_1",
        "threshold_2",
        "val_accuracy",
        "val_gain_latency",
        "test_accuracy",
        "test_loss",
        "test_exit_rate_1",
        "test_exit_rate_2",
        "test_exit_rate_3",
        "test_gain_macs",
        "test_gain_latency",
        "test_static_exit",
        "test_gain_over_static",
    ]
    expected = trade_offs(three_exits)
    assert [(row["wanted"], float(row["value"])) for row in rows] == [
        (row.wanted, row.value) for row in expected
    ]
    for row, made in zip(rows, expected, strict=True):
        assert row["chosen_on"] == "validation"
        assert row["feasible"] == ("1" if made.feasible else "0")
        point, saved = made.point, made.savings
        assert [float(row[f"threshold_{n}"]) for n in (1, 2)] == list(point.thresholds)
        assert [float(row[f"test_exit_rate_{n}"]) for n in (1, 2, 3)] == list(point.exit_rates)
        numbers = [row["test_accuracy"], row["test_loss"], row["test_gain_macs"], row["test_gain_latency"]]
        assert list(map(float, numbers)) == [point.accuracy, made.loss, saved.gain_macs, saved.gain_latency]
        # Counted from 1, as people do.
        assert row["test_static_exit"] == ("" if saved.best_static is None else str(saved.best_static + 1))
    # T = (0.25, 0.21) is right about all eight samples, which no single exit is.
    assert (rows[0]["test_accuracy"], rows[0]["test_gain_over_static"]) == ("1.0", "")
    assert (rows[-1]["test_accuracy"], rows[-1]["test_gain_over_static"]) == ("0.625", "0.8")
    assert rows[-1]["test_static_exit"] == "1"


def test_the_curves_over_thresholds_are_read_back(three_exits, tmp_path):
    files.write_thresholds(tmp_path / "thresholds.csv", three_exits)
    rows = rows_of(tmp_path / "thresholds.csv")
    for n in (1, 2):
        its = [row for row in rows if row["exit"] == str(n)]
        values = [float(row["threshold"]) for row in its]
        assert values == sorted(values)
        (chosen,) = [row for row in its if row["at"] == "chosen"]
        assert float(chosen["threshold"]) == three_exits.point.thresholds[n - 1]
        assert float(chosen["accuracy"]) == three_exits.point.accuracy
        assert [float(chosen[f"exit_rate_{k}"]) for k in (1, 2, 3)] == list(three_exits.point.exit_rates)
        # 3, 2 and 3 of 8 samples, 100, 300 and 600 MACs, and 425 of the baseline.
        assert float(chosen["gain_macs"]) == pytest.approx(425 / ((3 * 100 + 2 * 300 + 3 * 600) / 8))
        assert its[0]["accuracy_leaving"] == "", "at a threshold of 0 nobody leaves here"
        assert len([row for row in its if row["at"] == "knee"]) == 1


def test_what_a_run_leaves(report, tmp_path):
    files.write_run(tmp_path, report, PICTURES, CRITERION)
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert written == [
        "baseline.npz",
        "costs.csv",
        "criterion.pt",
        "figures/empty.png",
        "report.md",
        "result.json",
        "sweep.csv",
        "thresholds.csv",
        "trace-test.npz",
        "trace-val.npz",
        "trade_offs.csv",
    ]
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == report_page(report)
    with Image.open(tmp_path / "figures/empty.png") as picture:
        assert picture.format == "PNG"
        assert (np.asarray(picture).transpose(2, 0, 1) == PICTURES["empty"]).all()
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert result["knee"]["thresholds"] == [0.45]


def test_of_a_run_reported_on_validation_nothing_of_test_is_left(make_report, tmp_path):
    report = make_report(split="val")
    files.write_run(tmp_path, report, PICTURES, CRITERION)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert "baseline.npz" not in {
        path.name for path in written
    }  # it holds what the baseline gets right on test
    for path in written:
        assert "test" not in path.name
        if path.suffix != ".png":
            content = path.read_bytes().lower().replace(b"fastest", b"")
            assert b"test" not in content, path


def test_a_failure_on_the_way_leaves_the_old_files_and_no_scraps(report, make_report, tmp_path, monkeypatch):
    """Where result.json is, all is, and of one writing."""
    files.write_run(tmp_path, report, PICTURES, CRITERION)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def stopped(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "write_result", stopped)
    with pytest.raises(KeyboardInterrupt):
        files.write_run(tmp_path, make_report(chosen=1), PICTURES, CRITERION)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
