"""Multiruns of `branchynet train` that go on where they were stopped; what trains is a stand-in."""

import logging
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig

from branchynet.commands import app
from branchynet.commands.multirun import job_begins
from branchynet.commands.sweeper import left_out
from branchynet.commands.train import main
from branchynet.errors import UserError
from branchynet.runs.jobs import jobs_of
from branchynet.runs.started_run import start_run

SETTINGS = ("data=digits",)


@pytest.fixture
def multirun(monkeypatch, tmp_path):
    """A function that starts a multirun and gives its exit code; and what has run, [folder, number, seed].

    A job of seed 3 fails as long as there is no file `mended`, one of seed 4 with a bug.
    """
    ran = []

    def train(config, folder, data):
        ran.append([folder.name, HydraConfig.get().job.num, config.seed])
        if config.seed == 3 and not Path("mended").exists():
            raise UserError("not\n mended")
        if config.seed == 4:
            raise ZeroDivisionError("a bug")
        (folder / "result.json").write_text("{}")
        return {}

    def start(*arguments):
        ran.clear()
        app.register_resolvers()
        monkeypatch.setattr(logging.root, "handlers", [])
        monkeypatch.setattr(sys, "argv", ["branchynet train", *arguments, *SETTINGS])
        try:
            main()
        except SystemExit as exit:
            return exit.code
        except Exception as error:  # as `app.run` would
            message = app.user_message(error)
            if message is None:
                raise
            print(message, file=sys.stderr)
            return 2
        return 0

    monkeypatch.setattr("branchynet.commands.train.train", train)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # as `app.run` does
    return start, ran


def test_only_what_is_not_finished_runs_again_in_its_own_folder(multirun, capsys):
    start, ran = multirun
    assert start("-m", "seed=1,2,3", "hydra.sweep.dir=s") == 2 and len(ran) == 3
    assert capsys.readouterr().out.splitlines() == [f"job {n}: s/{n}-seed={n + 1}" for n in range(3)]
    assert [(job.state, job.line) for job in jobs_of(Path("s"))] == [
        ("finished", None),
        ("finished", None),
        ("failed", "not mended"),
    ]
    Path("s/1-seed=2/result.json").unlink()  # as if it had been killed
    Path("mended").touch()
    # Without -m, too; the settings in another order, and the cache elsewhere.
    assert start("seed=3,2,1", "epochs.joint=40", "resume_sweep=s") == 2 and not ran, "an override more"
    error = capsys.readouterr().err
    assert error.startswith("none of the jobs in ") and "seed=1 data=digits; repeat" in error
    assert start("seed=3,2,1", "cache=c", "resume_sweep=s") == 0
    assert ran == [["2-seed=3", 2, 3], ["1-seed=2", 1, 2]]
    # The jobs have the multirun's numbers, not those of what is launched.
    assert capsys.readouterr().out.splitlines() == [
        "the multirun in s: 3 jobs, 1 finished, 1 failed, 1 cut off; 2 to run",
        "job 2: s/2-seed=3",
        "job 1: s/1-seed=2",
        "all in one table: branchynet report s",
    ]
    assert {job.state for job in jobs_of(Path("s"))} == {"finished"}
    assert start("seed=1,2,3", "resume_sweep=s") == 0 and not ran
    told, where = capsys.readouterr().out.splitlines()
    assert told == "the multirun in s: 3 jobs, 3 finished; nothing is left to run"
    assert where == "all in one table: branchynet report s"


def test_new_jobs_get_new_numbers_and_those_that_refer_to_theirs_keep_it(multirun, capsys):
    start, ran = multirun
    several = ("-m", "seed=${hydra:job.num}", "hydra.sweep.dir=s")
    assert start(*several, "epochs.joint=5,6,7,8,9") == 1  # seeds 3 and 4 fail
    *_, third, fourth, last = capsys.readouterr().err.splitlines()
    assert third.endswith("epochs.joint=8) failed: not mended")
    assert fourth.endswith("epochs.joint=9) failed: ZeroDivisionError: a bug")
    assert last == (
        "branchynet: 2 jobs failed; the others are in s; the same command with resume_sweep=s tries again"
    )
    Path("mended").touch()
    assert start(*several[:2], "epochs.joint=10,8,5", "resume_sweep=s") == 0
    assert ran == [["5-epochs.joint=10", 5, 5], ["3-epochs.joint=8", 3, 3]]
    # The failure that nobody asks for any more is not told again, and its folder is still there.
    assert capsys.readouterr().err == ""
    assert [job.state for job in jobs_of(Path("s"))] == ["finished"] * 4 + ["cut off", "finished"]


def test_numbers_and_folders_hold_where_the_folders_have_other_names(multirun):
    start, ran = multirun
    named = ("hydra.sweep.subdir='job ${hydra.job.num}'", "hydra.sweeper.max_batch_size=1")
    assert start("-m", "seed=1,3", "hydra.sweep.dir=s", *named) == 2
    Path("mended").touch()
    assert start("seed=5,3,1,6", "resume_sweep=s", *named) == 0
    assert ran == [["job 2", 2, 5], ["job 1", 1, 3], ["job 3", 3, 6]]


def test_one_folder_holds_all_jobs_whatever_they_are_called(multirun, tmp_path):
    start, ran = multirun
    assert start("-m", "model=b_lenet,b_lenet_efficient", "seed=1") == 0 and len(ran) == 2
    (sweep,) = tmp_path.glob("outputs/*/*-multirun")
    assert {job.state for job in jobs_of(sweep)} == {"finished"} and len(jobs_of(sweep)) == 2


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["resume_sweep=nowhere"], "resume_sweep=nowhere: no job of a multirun is in this folder"),
        (["resume_sweep=s", "hydra.sweep.dir=t"], "leave hydra.sweep.dir='t' out"),
        (["resume_sweep='s','t'"], "names several folders"),
        (["resume_sweep=s", "resume=s/0"], "leave one of them out"),
    ],
)
def test_what_cannot_be_gone_on_with_is_said_in_one_line(settings, says, multirun, capsys):
    start, ran = multirun
    assert start("-m", "seed=1", "hydra.sweep.dir=s") == 0
    assert start("seed=1,2", *settings) == 2 and not ran
    error = capsys.readouterr().err
    assert says in error and len(error.splitlines()) == 1
    assert sorted(path.name for path in Path(".").iterdir()) == ["s"]


def worker():
    """What other processes do: it fails for seed 2, and is killed at seed 3, until there is a file `mended`.

    Made here, for they cannot import this file.
    """

    def work(config, folder):
        job_begins()
        start_run(folder, {"seed": config.seed}, [])
        if not Path("mended").exists():
            if config.seed == 2:
                raise UserError("not mended")
            if config.seed == 3:
                while [job.state for job in jobs_of(folder.parent)] != ["finished", "failed", "cut off"]:
                    time.sleep(0.05)
                os.kill(os.getpid(), signal.SIGKILL)
        (folder / "threads").write_text(os.environ.get("OMP_NUM_THREADS", ""))
        (folder / "result.json").write_text("{}")

    return work


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """A function that starts a multirun of that work by another launcher, and gives its exit code."""

    def start(*words, resumes=False):
        monkeypatch.setattr(sys, "argv", ["branchynet train", "-m", "hydra.sweep.dir=s", *words])
        try:
            with left_out(resumes):
                app.start(worker(), "train")
        except SystemExit as exit:
            return exit.code
        return 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.root, "handlers", [])
    app.register_resolvers()
    return start


def test_jobs_side_by_side_that_fail_and_that_are_killed_run_again(elsewhere, capfd):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    loky = pytest.importorskip("joblib.externals.loky")
    command = ("seed=1,2,3", "hydra/launcher=cores")
    try:
        assert elsewhere(*command) == 1
        failed, killed = capfd.readouterr().err.splitlines()[-2:]
        assert failed == "branchynet: job 1 (seed=2) failed: not mended"
        assert killed.startswith("branchynet: the process of a job was killed") and "resume_sweep=s" in killed
        assert [job.state for job in jobs_of(Path("s"))] == ["finished", "failed", "cut off"]
        Path("mended").touch()
        assert elsewhere(*command, resumes=True) == 0
        assert [job.state for job in jobs_of(Path("s"))] == ["finished"] * 3
    finally:
        loky.get_reusable_executor().shutdown()  # its processes stay in this folder


def test_settings_that_joblib_refuses(elsewhere, monkeypatch):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # as the command does
    with pytest.raises(UserError, match="the launcher cannot begin the jobs: n_jobs == 0"):
        elsewhere("seed=1,2", "hydra/launcher=cores", "hydra.launcher.n_jobs=0")


def test_jobs_by_submitit_have_their_threads_and_tell_of_failures(elsewhere, capfd):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    assert elsewhere("seed=1,2", "hydra/launcher=slurm_local", "hydra.launcher.cpus_per_task=3") == 2
    told = capfd.readouterr()
    assert told.out == "2 jobs to begin; what they print is in s/.submitit/*/*_log.out\n"
    assert len(list(Path().glob("s/.submitit/*/*_log.out"))) == 2
    failed, _ = told.err.splitlines()[-2:]
    assert failed == "branchynet: job 1 (seed=2) failed: not mended"
    assert Path("s/0-seed=1/threads").read_text() == "3"
