"""Many folders read at once: every run and evaluation once, in groups, and what was left out."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from many import write_evaluation, write_finished

from branchynet.errors import UserError
from branchynet.runs.gathered import gather, natural
from branchynet.runs.jobs import plan, write_job

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def names(gathered):
    return [row.name for row in gathered.rows]


def reasons(gathered):
    return {each.name: each.reason for each in gathered.left_out}


@pytest.fixture
def swept(report, tmp_path):
    """A multirun over weights and seeds, its jobs' numbers as Hydra gives them."""
    jobs = [(weights, seed) for weights in ("equal", "early") for seed in (0, 1, 10)]
    for number, (weights, seed) in enumerate(jobs):
        folder = tmp_path / "sweep" / f"{number}-weights={weights},seed={seed}"
        write_finished(folder, report, ["experiment=b_lenet_mnist", f"weights={weights}"], seed=seed)
    (tmp_path / "sweep" / "multirun.yaml").touch()
    return tmp_path / "sweep"


def test_a_multirun_is_a_group_for_each_setting_but_the_seed(swept):
    found = gather([swept])
    assert not found.left_out
    assert names(found)[0] == "0-weights=equal,seed=0"
    assert [(row.label, row.seed, row.kind) for row in found.rows] == [
        (f"weights={weights}", seed, "run") for weights in ("equal", "early") for seed in (0, 1, 10)
    ]
    assert {row.group for row in found.rows} == {"b_lenet_mnist weights=equal", "b_lenet_mnist weights=early"}
    # What all have in common is in no name, and neither is where something lies.
    assert found.rows[0].overrides == ("weights=equal",)
    assert found.rows[0].result == json.loads((swept / names(found)[0] / "result.json").read_text())
    assert found.rows[0].trace is None


def test_folders_are_read_once_however_they_are_named(swept, tmp_path):
    (swept / "again").symlink_to(swept / "0-weights=equal,seed=0")
    (swept / "3-weights=early,seed=0" / "loop").symlink_to(swept)
    (tmp_path / "other").symlink_to(swept)
    (swept / "itself").symlink_to(swept / "itself")
    (swept / "nothing").symlink_to(tmp_path / "nosuch")
    found = gather([swept, tmp_path / "other", swept / "1-weights=equal,seed=1", tmp_path])
    assert len(found.rows) == 6 and not found.left_out


def test_links_out_of_the_folder_are_followed(swept, tmp_path):
    (tmp_path / "chosen").mkdir()
    (tmp_path / "chosen" / "best").symlink_to(swept / "2-weights=equal,seed=10")
    assert names(gather([tmp_path / "chosen"])) == ["best"]


def test_a_copy_is_named_and_left_out(swept, tmp_path):
    shutil.copytree(swept / "0-weights=equal,seed=0", tmp_path / "copy")
    found = gather([swept, tmp_path / "copy"])
    assert len(found.rows) == 6
    assert reasons(found) == {"copy": "it is a copy of sweep/0-weights=equal,seed=0"}


def test_what_is_not_finished_damaged_or_old_is_named_and_left_out(swept):
    half, damaged, old, killed = sorted(swept.iterdir(), key=lambda path: natural(path.name))[:4]
    (half / "result.json").unlink()
    (damaged / "result.json").write_text('{"experiment": "b_lenet_mnist", "seed": -1}')
    config = old / ".hydra" / "config.yaml"
    config.write_text(
        config.read_text().replace("_target_: branchynet.exits.criteria.Entropy", "name: entropy")
    )
    (killed / "result.json").rename(
        killed / ".writing-abc"
    )  # what a killed writer leaves is no result either
    (swept / "empty").mkdir()
    found = gather([swept])
    assert len(found.rows) == 2
    reason = reasons(found)
    assert list(reason) == [half.name, damaged.name, old.name, killed.name]
    assert reason[half.name] == reason[killed.name] == "it is not finished"
    assert "result.json is damaged" in reason[damaged.name] and "resume=" in reason[damaged.name]
    assert "branchynet 0.1" in reason[old.name] and "\n" not in "".join(reason.values())


def test_of_a_multirun_it_is_said_which_jobs_failed_and_which_have_not_begun(report, tmp_path):
    jobs = plan(tmp_path, [["seed=1", f"weights={each}"] for each in ("equal", "early", "late", "nosuch")])
    write_finished(tmp_path / "0-weights=equal", report, ["weights=equal"])
    cut = write_finished(tmp_path / "1-weights=early", report, ["weights=early"])
    (cut / "result.json").unlink()
    write_job(tmp_path, replace(jobs[0], folder=tmp_path / "0-weights=equal"))
    write_job(tmp_path, replace(jobs[1], folder=cut, line="no memory"))
    write_job(tmp_path, replace(jobs[3], line="there is no such\noption"))
    found = gather([tmp_path])
    assert names(found) == ["0-weights=equal"]
    assert reasons(found) == {
        "1-weights=early": "failed: no memory",
        "2": "job 2 (weights=late) has not begun",
        "3": "job 3 (weights=nosuch) failed: there is no such option",
    }


def test_a_trial_of_a_search_is_named_until_it_is_finished(swept):
    first, second = sorted(swept.iterdir())[:2]
    for folder in (first, second):
        (folder / "trial.json").write_text("{}")
    (first / "result.json").unlink()
    found = gather([swept])
    assert len(found.rows) == 5 and list(reasons(found)) == [first.name]
    assert reasons(found)[first.name].startswith("it is a trial of a search")


def test_a_result_without_settings_is_none(report, tmp_path):
    write_finished(tmp_path / "run", report)
    (tmp_path / "run" / ".hydra" / "config.yaml").unlink()
    found = gather([tmp_path])
    assert not found.rows and "no settings" in found.left_out[0].reason


def test_evaluations_have_their_runs_overrides_and_their_own(swept, make_report):
    run = swept / "0-weights=equal,seed=0"
    found = make_report(rule="knee", seed=0)
    overrides = [f"run={run}", "sweep/rule=knee", "weights=x"]
    write_evaluation(run / "evaluate" / "as_in_run-sweep_rule=knee", found, overrides, run="elsewhere")
    rows = [row for row in gather([swept]).rows if row.kind == "evaluation"]
    assert [row.overrides for row in rows] == [("weights=x", "sweep/rule=knee")]
    assert rows[0].label == "weights=x sweep/rule=knee"
    assert rows[0].name == f"{run.name}/evaluate/as_in_run-sweep_rule=knee"


def test_another_rule_has_none_of_the_settings_of_the_runs_own(swept, make_report):
    run = swept / "0-weights=equal,seed=0"
    typed = "[sweep/rule=latency_budget, sweep.rule.budget_us=40, sweep.protocol=paper]"
    (run / ".hydra" / "overrides.yaml").write_text(typed)
    for name, overrides in (
        ("a", ["sweep/rule=gain_floor", "sweep.rule.gain=3"]),
        ("b", ["criterion=margin"]),
    ):
        write_evaluation(run / "evaluate" / name, make_report(rule=name), overrides)
    rows = {row.name[-1]: row.overrides for row in gather([run]).rows if row.kind == "evaluation"}
    assert rows["a"] == ("sweep/rule=gain_floor", "sweep.protocol=paper", "sweep.rule.gain=3")
    assert rows["b"][:2] == ("sweep/rule=latency_budget", "sweep.rule.budget_us=40")


def test_an_older_evaluation_is_known_by_its_folders_name(swept, report):
    run = swept / "0-weights=equal,seed=0"
    name = "as_in_run-criterion=beem,sweep.thresholds=[0.1,0.5],outside=[noise]"
    folder = write_evaluation(run / "evaluate" / name, report, [])
    (folder / "evaluate.yaml").write_text("split: test\n")
    (row,) = [row for row in gather([swept]).rows if row.kind == "evaluation"]
    assert row.overrides == ("weights=equal", "criterion=beem", "sweep.thresholds=[0.1,0.5]")


def test_an_evaluation_elsewhere_names_its_run(swept, report, tmp_path):
    run = swept / "5-weights=early,seed=10"
    write_evaluation(tmp_path / "elsewhere", report, ["split=val"], run=str(run))
    (row,) = gather([tmp_path / "elsewhere"]).rows
    assert row.overrides == ("weights=early", "split=val")


def test_results_replaced_in_place_are_of_other_settings(swept):
    folder = swept / "0-weights=equal,seed=0"
    (folder / "evaluate.yaml").write_text("overrides: [sweep/rule=knee, in_place=true]\n")
    (row,) = [row for row in gather([swept]).rows if row.name == folder.name]
    assert row.kind == "run" and row.label == "weights=equal sweep/rule=knee"


def test_published_results_are_rows_too():
    found = gather([RESULTS])
    assert len(found.rows) == len(list(RESULTS.glob("*/result.json"))) and not found.left_out
    assert {row.kind for row in found.rows} == {"published"}
    assert all(row.trace == row.folder / "trace-test.npz" for row in found.rows)


def test_a_run_itself_and_no_folder(swept, tmp_path):
    assert names(gather([swept / "0-weights=equal,seed=0"])) == ["0-weights=equal,seed=0"]
    with pytest.raises(UserError, match="nosuch is no folder"):
        gather([swept, tmp_path / "nosuch"])


def test_a_folder_that_may_not_be_read_is_passed_by(swept, monkeypatch):
    closed = os.fspath(swept / "0-weights=equal,seed=0")
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path) == closed:
            raise PermissionError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert len(gather([swept]).rows) == 5


def test_nothing_large_is_imported():
    code = (
        "import sys, branchynet.runs.gathered; print({'torch', 'lightning', 'matplotlib'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
