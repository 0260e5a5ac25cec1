from dataclasses import replace

import pytest
import torch

from branchynet.exits.sweep import evaluate
from branchynet.reporting.sentences import microseconds, sentences
from branchynet.reporting.tables import WIDTH, report_page, summary_table, table_one, trade_offs_table
from branchynet.runtime.costs import Latency, Macs


def row_of(table, name):
    """The numbers of the row that begins with `name`."""
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
    assert table.startswith("b_lenet_mnist, seed 3, on test; onnxruntime, 1 thread, batch 1, a machine\n")


def test_macs_are_in_millions(make_report):
    table = summary_table(
        make_report(macs=Macs(1_140_000, (147_800, 1_248_000), (147_800, 1_140_000), (1, 1)))
    )
    assert row_of(table, "baseline")[1] == "1.140"
    assert row_of(table, "exit 1 alone")[1] == "0.148"
    assert row_of(table, "operating point, predicted")[3] == "0.560"


@pytest.mark.parametrize("num_exits", [2, 5, 10, 34])
def test_the_summary_fits_the_terminal(report, make_report, num_exits):
    trace = report.trace_test
    wide = replace(
        trace,
        uncertainty=trace.uncertainty[:, :1].repeat(1, num_exits),
        prediction=trace.prediction[:, :1].repeat(1, num_exits),
    )
    points = evaluate(wide, torch.full((1, num_exits - 1), 0.45))
    long = tuple(Latency(123_456.7, 12_345.6, 10) for _ in range(num_exits))
    timed = replace(report.latencies["torch"], exits=long, static=long, trunk_only=long)
    big = (252_900_000,) * num_exits
    changed = make_report(
        machine="A processor with a very long name indeed @ 2.60GHz, of which this machine has two cores",
        trace_test=wide,
        points_val=points,
        points_test=points,
        frontier=torch.tensor([0]),
        selection=replace(report.selection, index=0),
        macs=Macs(252_900_000, big, big, big),
        latencies={"onnxruntime": timed},
        verified={
            "onnxruntime": replace(report.verified["onnxruntime"], exit_rates=(1 / num_exits,) * num_exits)
        },
    )
    lines = summary_table(changed).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert any(line.startswith("Exit rates %") for line in lines) == (num_exits > 4)


def test_sentences_of_an_ordinary_run(report):
    assert sentences(report) == [
        "The rule accuracy_floor chose T1 = 0.45 (entropy) on validation. Gain in MACs 1.70; gain in latency "
        "with the trunk's segments alone on the clock, as in the paper's Table I, 2.39.",
        "Gain over static 1.68: exit 2 alone is the cheapest that is at least as accurate.",
        "Run for real on onnxruntime: 8 samples, all as the sweep predicts (0 within rounding, 1e-5, of a "
        "threshold).",
        "On torch: baseline 120.0 µs, operating point 75.0 µs predicted (gain 1.60).",
    ]


def test_sentences_that_must_not_be_missing(report, make_report):
    verified = replace(report.verified["onnxruntime"], differences=3, near_threshold=2, unexplained=1)
    changed = make_report(
        protocol="paper",
        baseline_accuracy=0.5,
        selection=replace(report.selection, index=3, note="Nothing was feasible."),
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


def test_no_static_rival_in_words(report, make_report):
    texts = sentences(make_report(selection=replace(report.selection, index=1)))
    assert "No single exit alone is as accurate on test as the operating point." in texts


def test_inexact_images_in_words(make_report):
    right = torch.arange(8) < 6
    changed = make_report(baseline_correct=right, inexact_test=torch.tensor([3]), inexact_training=73)
    text = (
        "1 of the 8 test images and 73 of those of training and validation are not the published ones; on the "
        "other test images the baseline is right on 71.43 %, the operating point on 100.00 %."
    )
    assert text in sentences(changed)
    # In the summary, and so in report.md, on lines of their own.
    assert text in " ".join(summary_table(changed).split())
    assert text in " ".join(report_page(changed).split())
    text = "0 of the 8 test images and 73 of those of training and validation are not the published ones."
    assert text in sentences(make_report(inexact_training=73))


def test_trade_offs_by_hand(report):
    lines = trade_offs_table(report).splitlines()
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[:9])
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
    slow = replace(report.latencies["torch"], baseline=Latency(20.0, 1.0, 100))
    table = trade_offs_table(
        make_report(baseline_val_accuracy=1.02, latencies={"onnxruntime": slow}, protocol="validation")
    )
    assert "| loss ≤ 0: none, the most accurate instead | 100.00 |" in table
    assert "| gain ≥ 2: none, the fastest instead | 62.50 |" in table
    assert "the nearest stands in its place, and says so" in table


def test_no_static_rival_is_a_dash(report, make_report):
    table = trade_offs_table(make_report(baseline_val_accuracy=0.9))
    assert "| loss ≤ 0 | 100.00 | -25.00 | 37.5, 62.5 | 0.25 | 1.21 | 1.14 | – |" in table


def test_trade_offs_chosen_on_test_are_marked(make_report):
    assert trade_offs_table(make_report(protocol="paper")).startswith("| wanted on test |")


def test_the_page_has_both_tables_and_the_summary(report):
    page = report_page(report)
    for part in (table_one(report), trade_offs_table(report), summary_table(report)):
        assert part in page


def test_table_one_beside_the_papers(report):
    lines = table_one(report).splitlines()
    header, _, baseline, exits, paper_trunk, paper = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines[:6]
    )
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


@pytest.mark.parametrize(("value", "text"), [(13.94, "13.9"), (999.94, "999.9"), (11309.4, "11,309")])
def test_microseconds(value, text):
    assert microseconds(value) == text


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
