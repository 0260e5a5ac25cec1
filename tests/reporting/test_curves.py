"""A run's trade-off, read again."""

import csv
from pathlib import Path

from many import write_finished

from branchynet.reporting.curves import curve_of
from branchynet.runs.gathered import gather

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_the_frontier_by_rising_cost(three_exits, tmp_path):
    write_finished(tmp_path, three_exits)
    curve = curve_of(gather([tmp_path]).rows[0])
    # Of three vectors, all at exit 1 and that of the operating point are on the frontier.
    assert curve.macs == (100, 3 / 8 * 100 + 2 / 8 * 300 + 3 / 8 * 600)
    assert curve.accuracy == tuple(three_exits.points.accuracy[[2, 1]].tolist())
    assert curve.latency_us == (10, 3 / 8 * 10 + 2 / 8 * 30 + 3 / 8 * 60)


def test_published_ones_as_csv_reads_them():
    for row in gather([RESULTS]).rows:
        with (row.folder / "sweep.csv").open(newline="") as file:
            there = [each for each in csv.DictReader(file) if each["on_frontier"] == "1"]
        pairs = sorted((float(each["test_macs"]), float(each["test_accuracy"])) for each in there)
        curve = curve_of(row)
        assert sorted(zip(curve.macs, curve.accuracy, strict=True)) == pairs


def test_a_run_without_or_with_a_damaged_one_has_none(report, tmp_path):
    write_finished(tmp_path, report)
    row = gather([tmp_path]).rows[0]
    for text in ("", "a,b\n1,2\n", "test_accuracy,test_macs,test_latency_us\nx,1,1\n"):
        (tmp_path / "sweep.csv").write_text(text)
        assert curve_of(row) is None
    (tmp_path / "sweep.csv").unlink()
    assert curve_of(row) is None
