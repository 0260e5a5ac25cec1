"""The tables, every number by hand."""

import re
from dataclasses import replace

import pytest
import torch

from branchynet.evaluation.intervals import point_intervals
from branchynet.evaluation.noise import Noise
from branchynet.evaluation.report import taken_at_point
from branchynet.reporting import tables
from branchynet.reporting.sentences import sentences
from branchynet.reporting.tables import (
    WIDTH,
    criterion_table,
    recall_table,
    report_page,
    rivals_table,
    summary_table,
    table_one,
    trade_offs_table,
)
from branchynet.runtime.costs import Latency, Macs


def without_intervals(cell):
    return re.sub(r" \[[^]]*\]", "", cell)


def cells_of(line):
    return [without_intervals(cell).strip() for cell in line.strip("|").split("|")]


def row_of(table, name):
    """The numbers of the row of the first table that begins with `name`."""
    table = table.partition("95 % intervals")[0]
    found = [line for line in table.splitlines() if line.startswith(name + "  ")]
    assert len(found) == 1, table
    return found[0].removeprefix(name).split()


def test_the_summary_by_hand(report):
    table = summary_table(report)
    assert row_of(table, "baseline") == ["75.00", "0.000", "40.0", "5.0", "1.00"]
    assert row_of(table, "exit 1 alone") == ["62.50", "0.000", "8.0", "1.0", "5.00"]
    assert row_of(table, "exit 2 alone") == ["87.50", "0.000", "42.0", "5.2", "0.95"]
    assert row_of(table, "operating point, predicted") == ["87.50", "62.5", "37.5", "0.000", "25.0", "1.60"]
    assert row_of(table, "operating point, measured") == ["87.50", "62.5", "37.5", "30.0", "2.0", "1.50"]
    # Exits agree on samples 0, 1, 4 and 7; exit 1 is right on these and on 2, and either exit on all.
    assert row_of(table, "perfect confidence") == ["87.50", "0.000", "30.0", "1.33"]
    assert row_of(table, "perfect knowledge") == ["100.00", "0.000", "25.0", "1.60"]
    assert table.startswith("b_lenet_mnist, seed 3, on test; onnxruntime, 1 thread, batch 1, a machine\n")


def test_every_accuracy_rate_and_gain_has_its_interval(report):
    found = point_intervals(report, taken_at_point(report))

    def text(ends, digits=2, factor=1):
        return f"[{factor * ends[0]:.{digits}f}, {factor * ends[1]:.{digits}f}]"

    accuracy, less = text(found.accuracy, factor=100), text(found.accuracy_minus_baseline, factor=100)
    gain, macs = text(found.gain_latency), text(found.gain_macs)
    rates = ", ".join(
        f"{rate} {text(ends, 1, 100)}" for rate, ends in zip(("62.5", "37.5"), found.exit_rates, strict=True)
    )
    table = summary_table(report).partition("95 % intervals")[2]
    (row,) = (line for line in table.splitlines() if line.startswith("operating point "))
    assert " ".join(row.split()) == f"operating point 87.50 {accuracy} 12.50 {less} 1.60 {gain}"
    assert f"Exit rates with their intervals, %: {rates}." in table
    ours = table_one(report).splitlines()[3]
    for part in (f"87.50 {accuracy}", f"1.60 {gain} onnxruntime", f"1.70 {macs}", rates):
        assert f"| {part} " in ours
    row = trade_offs_table(report).splitlines()[2]
    low, high = (-100 * end for end in reversed(found.accuracy_minus_baseline))
    assert f"| 87.50 {accuracy} | -12.50 [{low:.2f}, {high:.2f}] | {rates} |" in row


def test_noisy_timings_are_marked_in_every_text(report, make_report):
    noisy = make_report(noise=(Noise("a reason", 2.0),))
    # Right below the numbers, before anything is said of them.
    below = summary_table(noisy).rpartition("---\n")[2]
    assert below.startswith("NOISY TIMINGS: a reason. ")
    assert "\n" not in table_one(noisy).partition("NOISY TIMINGS: a reason.")[2].rstrip()
    assert report_page(noisy).count("NOISY TIMINGS: a reason.") == 2
    assert "NOISY" not in report_page(report)


def test_macs_are_in_millions(make_report):
    table = summary_table(
        make_report(macs=Macs(1_140_000, (147_800, 1_248_000), (147_800, 1_140_000), (1, 1)))
    )
    assert row_of(table, "baseline")[1] == "1.140"
    assert row_of(table, "exit 1 alone")[1] == "0.148"
    assert row_of(table, "operating point, predicted")[3] == "0.560"


@pytest.mark.parametrize("num_exits", [2, 5, 10, 34])
def test_the_summary_fits_the_terminal(report, make_report, num_exits):
    trace = report.trace
    wide = replace(
        trace,
        uncertainty=trace.uncertainty[:, :1].repeat(1, num_exits),
        prediction=trace.prediction[:, :1].repeat(1, num_exits),
    )
    long = tuple(Latency(123_456.7, 12_345.6) for _ in range(num_exits))
    timed = replace(report.latencies["torch"], exits=long, static=long, trunk_only=long)
    big = (252_900_000,) * num_exits
    changed = make_report(
        machine="A processor with a very long name indeed @ 2.60GHz, of which this machine has two cores",
        traces={"val": wide, "test": wide},
        thresholds=torch.full((1, num_exits - 1), 0.45),
        chosen=0,
        macs=Macs(252_900_000, big, big, big),
        latencies={"onnxruntime": timed},
        verified={
            "onnxruntime": replace(report.verified["onnxruntime"], exit_rates=(1 / num_exits,) * num_exits)
        },
    )
    lines = summary_table(changed).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert any(line.startswith("Exit rates %") for line in lines) == (num_exits > 4)


def test_inexact_images_stand_below_the_summary_and_on_the_page(make_report):
    changed = make_report(inexact_test=torch.tensor([3]), inexact_training=73)
    (text,) = (text for text in sentences(changed) if "not the published ones" in text)
    # On lines of their own, broken where they are too long.
    assert text in " ".join(summary_table(changed).split())
    assert text in " ".join(report_page(changed).split())


def test_trade_offs_by_hand(report):
    lines = trade_offs_table(report).splitlines()
    header, _, *rows = map(cells_of, lines[:9])
    assert [row[0] for row in rows] == [
        "loss ≤ 0",
        "loss ≤ 0.5",
        "loss ≤ 1",
        "gain ≥ 1.5",
        "gain ≥ 2",
        "gain ≥ 2.4",
        "gain ≥ 3",
    ]
    assert dict(zip(header, rows[0], strict=True)) == {
        "wanted on validation": "loss ≤ 0",
        "accuracy %": "87.50",
        "loss, points": "-12.50",
        "exit rates %": "62.5, 37.5",
        "thresholds": "0.45",
        "gain, MACs": "1.70",
        "gain, time": "1.60",
        "gain over static": "1.68 (exit 2)",
    }
    assert rows[6][1:] == ["62.50", "12.50", "100.0, 0.0", "0.9", "4.25", "4.00", "0.80 (exit 1)"]
    assert "chosen on validation" in lines[-1] and "sweep.csv" in lines[-1]
    assert "says so" not in lines[-1]


def test_what_cannot_be_had_is_named_in_the_table(report, make_report):
    slow = replace(report.latencies["torch"], baseline=Latency(20.0, 1.0))
    # On validation both exits are wrong about the first sample, and the baseline about none.
    prediction = report.trace.prediction.clone()
    prediction[0] = 1
    changed = make_report(
        traces={"val": replace(report.trace, prediction=prediction)},
        baseline={"val": torch.ones(8, dtype=torch.bool)},
        latencies={"onnxruntime": slow},
    )
    table = without_intervals(trade_offs_table(changed))
    assert "| loss ≤ 0: none, the most accurate instead | 100.00 |" in table
    assert "| gain ≥ 2: none, the fastest instead | 62.50 |" in table
    assert "the nearest stands in its place, and says so" in table


def test_no_static_rival_is_a_dash(make_report):
    table = trade_offs_table(make_report(baseline={"val": torch.ones(8, dtype=torch.bool)}))
    table = without_intervals(table)
    assert "| loss ≤ 0 | 100.00 | -25.00 | 37.5, 62.5 | 0.25 | 1.21 | 1.14 | – |" in table


def test_trade_offs_chosen_on_test_are_marked(make_report):
    assert trade_offs_table(make_report(protocol="paper")).startswith("| wanted on test |")


def test_the_page_has_both_tables_and_the_summary(report):
    page = report_page(report)
    for part in (table_one(report), trade_offs_table(report), summary_table(report)):
        assert part in page


def test_table_one_beside_the_papers(report):
    lines = table_one(report).splitlines()
    header, _, baseline, exits, paper_trunk, paper = map(cells_of, lines[:6])
    ours = dict(zip(header, exits, strict=True))
    assert ours == {
        "network": "b_lenet_mnist: with exits",
        "accuracy %": "87.50",
        "time, µs": "25.0 onnxruntime / 75.0 torch",
        "gain, time": "1.60 onnxruntime / 1.60 torch",
        "gain, MACs": "1.70",
        "thresholds": "0.45",
        "exit rates %": "62.5, 37.5",
        "gain, time of the trunk alone": "2.39 onnxruntime / 2.39 torch",
    }
    assert baseline[:3] == ["b_lenet_mnist: baseline", "75.00", "40.0 onnxruntime / 120.0 torch"]
    assert paper_trunk[:2] == ["paper: LeNet", "99.20"]
    theirs = dict(zip(header, paper, strict=True))
    assert theirs["accuracy %"] == "99.25"
    assert theirs["thresholds"] == "0.025" and theirs["exit rates %"] == "94.3, 5.6"
    assert theirs["gain, time of the trunk alone"] == "5.4 CPU / 4.7 GPU"
    assert lines[-1].startswith("Thresholds chosen on validation, numbers on test. onnxruntime and torch")


def test_table_one_of_another_experiment_and_protocol(make_report):
    table = table_one(make_report(experiment="b_lenet_digits", protocol="paper"))
    assert "paper: LeNet" not in table
    assert "protocol: paper (thresholds chosen on test, numbers on test)." in table


def test_a_point_that_was_not_run_has_no_measured_row(make_report):
    with_row, without = summary_table(make_report()), summary_table(make_report(verified={}))
    assert "operating point, measured" in with_row and "Not run for real" not in with_row
    assert "operating point, measured" not in without and "Not run for real" in without
    # The table itself is the same without that row.
    kept = [line for line in with_row.splitlines() if "measured " not in line][:8]
    assert without.splitlines()[:8] == kept


def test_on_validation_no_word_is_of_test(make_report):
    page = report_page(make_report(split="val")).lower().replace("fastest", "")
    assert "on validation" in page and "test" not in page


def test_rivals_stand_by_cost_beside_the_operating_point(report, make_report, rivals):
    assert rivals_table(report) == ""
    page = make_report(rivals=rivals, macs=Macs(425_000, (100_000, 500_000), (90_000, 445_000), (1, 2)))
    lines = rivals_table(page).splitlines()
    assert [cells_of(row) for row in lines[2:4]] == [
        ["as good", "0.000", "87.50", "a page"],
        ["better", "0.000", "90.00", "a page"],
    ]
    assert cells_of(lines[6]) == ["**operating point**", "**0.250**", "**87.50**", "**this run**"]
    assert rivals_table(page) in report_page(page)


def test_exits_alone_are_their_heads_where_exits_average(averaged):
    table = summary_table(averaged)
    assert row_of(table, "exit 2 alone") == ["75.00", "0.000", "42.0", "5.2", "0.95"]
    assert row_of(table, "operating point, predicted")[0] == "87.50"
    assert re.search(r"exit 2 alone +75\.00 \[", table.partition("95 % intervals")[2])


def test_the_table_of_the_criterion(report, make_report, make_three):
    lines = criterion_table(report).splitlines()
    assert lines[0] == "| criterion | AUROC | calibration error | area | MACs | time, µs |"
    assert lines[2] == "| entropy, exit 1 | 0.733 | – | 0.455 | 10 | 2.0 |"
    assert "No calibration error" in lines[-1] and criterion_table(report) in report_page(report)
    sure = replace(report.trace, confidence=torch.full((8, 2), 0.75))
    told = criterion_table(make_report(traces={"val": sure, "test": sure}))
    assert "| 0.125 |" in told and "how far the largest softmax probability is" in told
    three = criterion_table(make_three()).splitlines()
    assert three[3].startswith("| entropy, exit 2 |") and three[3].endswith("| – |")


def test_the_table_of_recalls_names_classes_and_of_many_those_known_least(report, monkeypatch):
    table = recall_table(report)
    assert "| class | samples | baseline | exit 1 | exit 2 | operating point |" in table
    rows = {
        row.split(" | ")[0].strip("| "): row.split(" | ") for row in table.splitlines() if row.startswith("|")
    }
    assert rows["a"][1] == "3" and rows["a"][5].startswith("66.67") and rows["b"][3].startswith("100.00")
    assert rows["**balanced accuracy**"][5].startswith("88.89")
    assert "knows least" not in table
    monkeypatch.setattr(tables, "MOST_CLASSES", 1)
    assert "\n| b |" not in recall_table(report)
    assert "Of 3 classes the 1 that the operating point knows least." in recall_table(report)
