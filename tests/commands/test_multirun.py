"""Jobs of a multirun that fail, and jobs that other processes run."""

import importlib.util
import logging
import math
import os
import sys
from functools import partial
from pathlib import Path

import pytest
from hydra.core.plugins import Plugins

from branchynet.commands import app
from branchynet.commands.paths import quote_paths
from branchynet.commands.train import main, optimized
from branchynet.errors import UserError
from branchynet.runs.result import result_dict

JOBLIB = (
    importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher")
    if importlib.util.find_spec("hydra_plugins")
    else None
)


@pytest.fixture
def multirun(monkeypatch, tmp_path):
    """A function that starts a multirun and gives its exit code. Jobs fail by their number of threads:

    1 is a mistake of the user's, 2 a bug; the others write a file.
    """

    def task(config, folder):
        if config.threads == 1:
            raise UserError("one\n  mistake")
        if config.threads == 2:
            raise ZeroDivisionError("a bug")
        (folder / "done").write_text(str(os.getpid()))
        return 0.5

    def start():
        quote_paths()
        app.start(task, "predict")

    return partial(called, start, monkeypatch, tmp_path, "predict")


def called(main, monkeypatch, folder, command, *arguments):
    """The exit code of a multirun in `folder`."""
    app.register_resolvers()
    monkeypatch.setattr(logging.root, "handlers", [])  # Hydra's, of another test's stdout
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [f"branchynet {command}", "-m", *arguments])
    try:
        main()
    except SystemExit as exit:
        return exit.code
    return 0


def done():
    return sorted(str(path) for path in Path(".").rglob("done"))


def test_the_others_run_and_it_is_said_at_the_end_which_failed(multirun, capsys):
    assert multirun("threads=1,3,4", "output=${hydra:job.num}", "hydra.sweep.dir=s, t") == 2
    assert done() == ["s, t/1/done", "s, t/2/done"]
    error = capsys.readouterr().err
    assert error.splitlines() == [
        "branchynet: job 0 failed: one mistake",
        "branchynet: job 0 (threads=1) failed: one mistake",
        "branchynet: 1 job failed; the others are in s, t",
    ]
    # Nothing of it is left for the next one.
    assert multirun("threads=3", "hydra.sweep.dir=s, t") == 0 and capsys.readouterr().err == ""


def test_a_bug_keeps_its_traceback_and_its_exit_code(multirun, capsys):
    assert multirun("threads=2,1,3", "hydra.sweep.dir=s") == 1
    assert done() == ["s/2/done"]
    error = capsys.readouterr().err
    assert error.count("Traceback") == 1 and error.splitlines()[-3:] == [
        "branchynet: job 0 (threads=2) failed: ZeroDivisionError: a bug",
        "branchynet: job 1 (threads=1) failed: one mistake",
        "branchynet: 2 jobs failed; the others are in s",
    ]


def test_later_batches_run_too(multirun):
    assert multirun("threads=1,3", "hydra.sweeper.max_batch_size=1", "hydra.sweep.dir=s") == 2
    assert done() == ["s/1/done"]


def test_what_a_stopped_multirun_left_is_not_told_again(multirun, tmp_path):
    (tmp_path / "s" / ".failed").mkdir(parents=True)
    (tmp_path / "s" / ".failed" / "7.json").write_text("{}")
    assert multirun("threads=3", "hydra.sweep.dir=s") == 0


@pytest.mark.skipif(JOBLIB is None, reason="needs hydra-joblib-launcher")
def test_jobs_in_other_processes_share_a_folder_and_tell_of_failures(multirun, capfd):
    arguments = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=all-${pid:}"]
    assert multirun("threads=1,3,4", *arguments) == 2
    ran = done()
    assert ran == [f"all-{os.getpid()}/{job}/done" for job in (1, 2)]
    assert os.getpid() not in [int(Path(path).read_text()) for path in ran]
    assert capfd.readouterr().err.splitlines()[-2:] == [
        "branchynet: job 0 (threads=1) failed: one mistake",
        f"branchynet: 1 job failed; the others are in all-{os.getpid()}",
    ]


def test_hydras_sweeper_gets_the_number_that_is_asked_for(report, monkeypatch, tmp_path):
    """Of a job that failed none: that metric is of the test split."""
    returned = []
    Plugins.instance()  # has Hydra import its sweepers, once more if we had
    sweeper = sys.modules["hydra._internal.core_plugins.basic_sweeper"].BasicSweeper
    sweep = sweeper.sweep

    def watched(self, arguments):
        (jobs,) = sweep(self, arguments)
        returned.extend(job.return_value for job in jobs)

    monkeypatch.setattr(sweeper, "sweep", watched)
    monkeypatch.setattr("branchynet.commands.train.train", lambda config, folder, data: result_dict(report))
    metrics = "validation.accuracy,validation.gain_macs,null,knee.accuracy"
    assert (
        called(main, monkeypatch, tmp_path, "train", f"optimized_metric={metrics}", "hydra.sweep.dir=s") == 2
    )
    assert math.isnan(returned.pop()) and returned == [0.875, 1.7, None]


def test_an_older_run_has_no_number():
    assert optimized({"knee": {"accuracy": 1.0}}, "validation.accuracy") is None
