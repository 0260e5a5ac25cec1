"""Many runs side by side, as tables."""

import csv
import re
from pathlib import Path

import pytest
from many import write_evaluation, write_finished

from branchynet.reporting.averages import groups_of
from branchynet.reporting.comparison import (
    MOST_ON_THE_TERMINAL,
    comparison_page,
    table_one,
    terminal_table,
    write_groups,
    write_runs,
)
from branchynet.runs.gathered import gather

RESULTS = Path(__file__).parents[2] / "docs" / "results"


@pytest.fixture
def found(report, make_report, make_three, tmp_path):
    """Two seeds of one setting, one of another, an evaluation, a network with another number of exits, and half a
    run."""
    write_finished(tmp_path / "0", report, ["weights=equal"], seed=0)
    write_finished(tmp_path / "1", make_report(chosen=3), ["weights=equal"], seed=1)
    run = write_finished(tmp_path / "2", report, ["weights=early", "+a=b|c"], seed=0)
    write_evaluation(run / "evaluate" / "x", make_report(rule="knee", seed=0), ["sweep/rule=knee"])
    write_finished(tmp_path / "3", make_three())
    (write_finished(tmp_path / "4", report, seed=4) / "result.json").unlink()
    return gather([tmp_path])


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def cells_of(page, first):
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {first} |")]
    return re.split(r" (?<!\\)\| ", line.strip("| "))


def test_the_page_has_a_table_for_every_experiment(found):
    page = comparison_page("outputs/a_b", found, groups_of(found.rows), ["trade_offs"])
    assert page.startswith(
        "# outputs/a\\_b\n\n4 runs and 1 evaluation, 4 groups of equal settings; 1 left out."
    )
    assert "\n## b\\_lenet\\_mnist\n" in page and "\n## three\n" in page
    _, runs, baseline, accuracy, less, *_ = cells_of(page, "weights=equal")
    assert (runs, baseline) == ("2", "75.00 ± 0.00")
    assert (accuracy, less) == ("75.00 ± 17.68", "+0.00 ± 17.68")
    alone = cells_of(page, r"weights=early +a=b\|c")
    assert alone[1] == "1" and alone[3].startswith("87.50 [") and alone[-2:] == ["62.5, 37.5", "62.5"]
    assert "![trade_offs](figures/trade_offs.png)" in page
    assert "## Left out\n\n- 4: it is not finished" in page


def test_the_terminal_shows_the_same_shorter(found):
    text = terminal_table(found, groups_of(found.rows))
    assert "[" not in text and "75.00 ± 17.68" in text
    assert text.endswith("left out:\n  4: it is not finished")
    many = [groups_of(found.rows)[0]] * (MOST_ON_THE_TERMINAL + 2)
    assert "\n2 more groups: see groups.csv\n" in terminal_table(found, many)


def test_names_of_others_stay_text(found, report, tmp_path):
    """In Markdown as on the terminal."""
    write_finished(tmp_path / "x\u001b[31m <b>", report, ["weights=<b>\u001b"], seed=9)
    (tmp_path / "x\u001b[31m <b>" / "result.json").unlink()
    again = gather([tmp_path])
    page = comparison_page("t", again, groups_of(again.rows))
    assert "\\<b\\>" in page and "\u001b" not in page + terminal_table(again, groups_of(again.rows))


def test_every_run_is_a_line_with_its_settings(found, tmp_path):
    write_runs(tmp_path / "runs.csv", found.rows)
    rows = rows_of(tmp_path / "runs.csv")
    assert [row["name"] for row in rows] == [row.name for row in found.rows]
    assert [row["kind"] for row in rows] == ["run", "run", "run", "evaluation", "run"]
    assert [row["set.weights"] for row in rows] == ["equal", "equal", "early", "early", ""]
    assert [row["set.sweep/rule"] for row in rows] == ["", "", "", "knee", ""]
    assert [row["rule"] for row in rows] == ["accuracy_floor"] * 3 + ["knee", "accuracy_floor"]
    for row, own in zip(rows, found.rows, strict=True):
        knee = own.result["knee"]
        assert float(row["accuracy"]) == knee["accuracy"] and float(row["gain_macs"]) == knee["gain_macs"]
        assert float(row["accuracy_low"]) == knee["intervals"]["accuracy"][0]
        rates = [float(row[f"exit_rate_{n}"]) for n in (1, 2, 3) if row[f"exit_rate_{n}"]]
        assert rates == knee["exit_rates"]
    columns = list(rows[0])
    assert columns.index("exit_rate_3") < columns.index("exit_accuracy_1")


def test_every_group_is_a_line_with_its_deviations(found, tmp_path):
    groups = groups_of(found.rows)
    write_groups(tmp_path / "groups.csv", groups)
    rows = rows_of(tmp_path / "groups.csv")
    assert [(row["settings"], row["runs"], row["seeds"]) for row in rows] == [
        ("weights=equal", "2", "0, 1"),
        ("weights=early +a=b|c", "1", "0"),
        ("weights=early +a=b|c sweep/rule=knee", "1", "0"),
        ("as in the experiment", "1", "0"),
    ]
    assert float(rows[0]["accuracy"]) == 0.75
    assert float(rows[0]["accuracy_deviation"]) == pytest.approx(0.25 / 2**0.5)
    assert rows[1]["accuracy_deviation"] == "" and rows[0]["exit_rate_3"] == ""


def test_table_one_has_the_papers_rows_once_below_those_that_repeat_them(found):
    text = table_one(groups_of(found.rows))
    lines = [line.split(" | ")[0].strip("| ") for line in text.splitlines() if line.startswith("|")][2:]
    assert lines[:2] == [
        r"b\_lenet\_mnist weights=equal, 2 runs: baseline",
        r"b\_lenet\_mnist weights=equal, 2 runs: with exits",
    ]
    assert lines[-2:] == ["paper: LeNet", "paper: B-LeNet"] and len(lines) == 8
    assert "three" not in text, "that repeats none"
    with_exits = cells_of(text, lines[1])
    assert with_exits[2] == "17.5 ± 10.6 onnxruntime" and with_exits[3] == "2.80 ± 1.70"


def test_table_one_of_published_results():
    text = table_one(groups_of(gather([RESULTS]).rows))
    lines = [line.split(" | ")[0].strip("| ") for line in text.splitlines() if line.startswith("|")]
    papers = [line for line in lines if line.startswith("paper: B-")]
    assert papers == ["paper: B-AlexNet", "paper: B-LeNet", "paper: B-ResNet"]


def test_table_one_of_others_says_that_none_repeats_the_paper(make_three, tmp_path):
    write_finished(tmp_path, make_three())
    text = table_one(groups_of(gather([tmp_path]).rows))
    assert "three: with exits" in text and "None of these experiments repeats a row of the paper." in text


def test_doubtful_timings_are_told(report, make_report, tmp_path):
    write_finished(tmp_path / "0", report)
    write_finished(tmp_path / "1", make_report(machine="another", noise=()), seed=1)
    found = gather([tmp_path])
    page = comparison_page("t", found, groups_of(found.rows))
    assert "2 combinations of machine, engine and threads" in page and "NOISY" not in page
    found.rows[1].result["noisy"] = True
    assert "**NOISY TIMINGS** in 1 run, 1 among them" in comparison_page("t", found, groups_of(found.rows))
    assert "\nNOISY TIMINGS in 1 run, 1 among them" in terminal_table(found, groups_of(found.rows))
