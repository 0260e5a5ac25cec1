"""What a multirun's folder says of its jobs."""

import json
from dataclasses import replace

import pytest

from branchynet.runs.jobs import FOLDER, Job, forget_jobs, jobs_of, plan, write_job
from branchynet.runs.started_run import start_run


def begun(sweep, name, *overrides, result=False):
    """A run's folder, as a job leaves it."""
    folder = sweep / name
    start_run(folder, {"seed": 0}, overrides)
    if result:
        (folder / "result.json").write_text("{}")
    return folder


def states(sweep):
    return {job.number: job.state for job in jobs_of(sweep)}


def test_a_new_multiruns_jobs_are_missing_until_they_begin_fail_or_finish(tmp_path):
    jobs = plan(tmp_path, [[f"seed={n}"] for n in range(4)])
    assert states(tmp_path) == dict.fromkeys(range(4), "missing")
    finished, failed, cut = (replace(job, folder=tmp_path / f"{job.number}") for job in jobs[:3])
    for job in (finished, failed, cut):
        write_job(tmp_path, job)
        begun(tmp_path, job.folder.name, *job.overrides)
    assert states(tmp_path) == {0: "cut off", 1: "cut off", 2: "cut off", 3: "missing"}
    (finished.folder / "result.json").write_text("{}")
    write_job(tmp_path, replace(failed, line="why", bug=True))
    assert jobs_of(tmp_path) == [
        replace(finished, state="finished"),
        replace(failed, state="failed", line="why", bug=True),
        replace(cut, state="cut off"),
        jobs[3],
    ]
    # One that failed, and was then resumed by itself, is finished.
    (failed.folder / "result.json").write_text("{}")
    assert states(tmp_path)[1] == "finished"


def test_jobs_are_known_by_their_overrides_and_new_ones_get_new_numbers(tmp_path):
    first = plan(tmp_path, [["weights=early", f"seed={n}", "cache=/a"] for n in (1, 2, 3)])
    for job in first[:2]:
        folder = begun(tmp_path, f"{job.number}-seed", *job.overrides, result=job.number == 0)
        write_job(tmp_path, replace(job, folder=folder, line="why" if job.number else None))
    # In another order and number, with the cache elsewhere; 3 is not wanted any more, 4 is new.
    wanted = [[f"seed={n}", "weights=early", "cache=/b"] for n in (4, 2, 1)]
    again = plan(tmp_path, wanted)
    assert [(job.number, job.state) for job in again] == [(3, "missing"), (1, "failed"), (0, "finished")]
    assert [list(job.overrides) for job in again] == wanted
    assert again[1].folder == tmp_path / "1-seed"
    # Failed no more until it fails again, and number 2 was never begun.
    assert states(tmp_path) == {0: "finished", 1: "cut off", 3: "missing"}


def test_equal_overrides_are_two_jobs(tmp_path):
    assert [job.number for job in plan(tmp_path, [["seed=1"], ["seed=1"]])] == [0, 1]
    assert [job.number for job in plan(tmp_path, [["seed=1"], ["seed=1"], ["seed=1"]])] == [0, 1, 2]


def test_an_older_versions_multirun_is_known_by_what_has_begun(tmp_path):
    begun(tmp_path, "0-seed=1", "seed=1", result=True)
    begun(tmp_path, "1-seed=2", "seed=2")
    (tmp_path / "2-seed=3").mkdir()
    (tmp_path / "multirun.yaml").write_text("{}")
    assert states(tmp_path) == {0: "finished", 1: "cut off"}
    again = plan(tmp_path, [[f"seed={n}"] for n in (1, 2, 3)])
    assert [(job.number, job.state) for job in again] == [(0, "finished"), (1, "cut off"), (2, "missing")]
    forget_jobs(tmp_path)
    assert states(tmp_path) == {0: "finished", 1: "cut off"}


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "[]",
        json.dumps({"overrides": [], "folder": "../other", "line": None, "bug": False}),
        json.dumps({"overrides": [], "folder": "/etc", "line": None, "bug": False}),
        json.dumps({"overrides": 1, "folder": None, "line": None, "bug": False}),
    ],
)
def test_a_damaged_record_tells_nothing_and_stops_nothing(damage, tmp_path):
    write_job(tmp_path, Job(0, ("seed=1",), begun(tmp_path, "0-seed=1", "seed=1")))
    (tmp_path / FOLDER / "0.json").write_text(damage)
    assert [(job.overrides, job.state) for job in jobs_of(tmp_path)] == [(("seed=1",), "cut off")]


def test_no_folder_has_no_jobs(tmp_path):
    assert jobs_of(tmp_path / "nowhere") == []
