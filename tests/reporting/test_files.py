import csv
import json
from dataclasses import replace

import pytest
import torch
from matplotlib.figure import Figure

from branchynet.exits.sweep import evaluate
from branchynet.reporting import files
from branchynet.reporting.tables import report_page
from branchynet.evaluation.trade_offs import trade_offs


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
    points = three_exits.points_test
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
    trace = replace(report.trace_val, prediction=(report.trace_val.prediction + 1) % 3)
    changed = make_report(trace_val=trace, points_val=evaluate(trace, report.points_val.thresholds))
    files.write_sweep(tmp_path / "sweep.csv", changed)
    rows = rows_of(tmp_path / "sweep.csv")
    assert [float(row["val_accuracy"]) for row in rows] == changed.points_val.accuracy.tolist()
    assert [float(row["test_accuracy"]) for row in rows] == changed.points_test.accuracy.tolist()
    assert rows[2]["val_accuracy"] != rows[2]["test_accuracy"]


@pytest.mark.parametrize(("count", "written"), [(2000, 2000), (2001, 3)])
def test_of_a_large_sweep_the_frontier_and_the_knee_are_written(
    report, make_report, tmp_path, count, written
):
    points = evaluate(report.trace_test, torch.linspace(0, 1, count)[:, None])
    changed = make_report(
        points_val=points,
        points_test=points,
        frontier=torch.tensor([1999, 7]),
        selection=replace(report.selection, index=500),
    )
    files.write_sweep(tmp_path / "sweep.csv", changed)
    rows = rows_of(tmp_path / "sweep.csv")
    assert len(rows) == written
    knees = [float(row["threshold_1"]) for row in rows if row["knee"] == "1"]
    assert torch.tensor(knees) == points.thresholds[500]
    frontier = [float(row["threshold_1"]) for row in rows if row["on_frontier"] == "1"]
    assert torch.equal(torch.tensor(frontier), points.thresholds[[7, 1999], 0])


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
        assert [float(row[f"threshold_{n}"]) for n in (1, 2)] == list(made.thresholds)
        assert [float(row[f"test_exit_rate_{n}"]) for n in (1, 2, 3)] == list(made.exit_rates)
        numbers = [row["test_accuracy"], row["test_loss"], row["test_gain_macs"], row["test_gain_latency"]]
        assert list(map(float, numbers)) == [made.accuracy, made.loss, made.gain_macs, made.gain_latency]
        assert row["test_static_exit"] == ("" if made.best_static is None else str(made.best_static))
    # T = (0.25, 0.21) is right about all eight samples, which no single exit is.
    assert (rows[0]["test_accuracy"], rows[0]["test_gain_over_static"]) == ("1.0", "")
    assert (rows[-1]["test_accuracy"], rows[-1]["test_gain_over_static"]) == ("0.625", "0.8")


def test_the_costs(report, tmp_path):
    files.write_costs(tmp_path / "costs.csv", report)
    rows = rows_of(tmp_path / "costs.csv")
    assert [(row["engine"], row["exit"]) for row in rows] == [
        (engine, exit_name) for engine in ("onnxruntime", "torch") for exit_name in ("baseline", "1", "2")
    ]
    assert rows[0]["macs"] == "425" and float(rows[0]["latency_us"]) == 40 and rows[0]["static_macs"] == ""
    exit_two = {name: float(value) for name, value in rows[5].items() if name not in ("engine", "exit")}
    assert exit_two == {
        "macs": 500,
        "latency_us": 150,
        "latency_iqr_us": 18.75,
        "static_macs": 445,
        "static_latency_us": 126,
        "static_latency_iqr_us": 15.75,
        "trunk_only_macs": 400,
        "trunk_only_latency_us": 114,
        "trunk_only_latency_iqr_us": 14.25,
    }


def test_what_a_run_leaves(report, tmp_path):
    files.write_run(tmp_path, report, {"empty": Figure()})
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert written == [
        "costs.csv",
        "figures/empty.png",
        "report.md",
        "result.json",
        "sweep.csv",
        "trace-test.npz",
        "trace-val.npz",
        "trade_offs.csv",
    ]
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == report_page(report)
    assert (tmp_path / "figures/empty.png").read_bytes().startswith(b"\x89PNG")
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert result["knee"]["thresholds"] == [0.45]


def test_a_failure_leaves_the_old_file_and_no_scraps(report, make_report, tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    verified = {"onnxruntime": replace(report.verified["onnxruntime"], latency_us=float("nan"))}
    with pytest.raises(ValueError, match="nan"):
        files.write_result(path, make_report(verified=verified))
    with pytest.raises(RuntimeError), files.replacing(path) as temporary:
        temporary.write_text("half of the ne")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
