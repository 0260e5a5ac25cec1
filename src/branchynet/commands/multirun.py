"""A multirun some of whose jobs fail: the others run, and at its end it is said which did.

A job may run in another process or on another machine, see Hydra's launchers. So it leaves what went wrong as a
file in the multirun's folder, where the process that was called collects it, see `branchynet.runs.jobs`.
"""

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write

from branchynet.commands.terminal import tell
from branchynet.errors import counted, printable
from branchynet.runs.jobs import Job, forget_jobs, jobs_of, write_job

NUMBER = "BRANCHYNET_JOB"  # the variable with the number of a job, where it is not the launcher's


def is_multirun() -> bool:
    """Whether the job that is at work is one of a multirun."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


def settle_number() -> None:
    """Let the job's number be the one that its folder has, in settings that refer to it, too."""
    hydra: Any = HydraConfig.get()
    number = hydra.job.env_set.get(NUMBER)
    if number:
        with read_write(hydra):
            hydra.job.num = int(number)


@contextmanager
def quiet_launchers() -> Iterator[None]:
    """Inside, Hydra's launchers do not say what they begin: they count what they are given, which is not the jobs'
    numbers, and do so before the terminal is theirs. The jobs say it themselves, see `tell_job`."""
    launchers = [logging.getLogger(package) for package in ("hydra", "hydra_plugins")]
    levels = [each.level for each in launchers]
    for each in launchers:
        each.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for each, level in zip(launchers, levels, strict=True):
            each.setLevel(level)


def job_begins() -> None:
    """Keep that the job is at work, and where, for who looks at its multirun's folder."""
    hydra = HydraConfig.get()
    write_job(sweep_folder(hydra), _job(hydra))


def tell_job() -> None:
    """Say which job begins, and where."""
    hydra = HydraConfig.get()
    folder = Path(hydra.sweep.dir) / hydra.sweep.subdir
    print(printable(f"job {hydra.job.num}: {folder}"), flush=True)


def job_failed(error: Exception, message: str | None) -> float:
    """Tell of an error that ended a job, and keep it for the multirun's end.

    Args:
        error: what the job raised.
        message: one line if it is a mistake of the user's; None for a bug, whose traceback is printed.

    Returns:
        What the job returns to Hydra's sweeper: not a number.
    """
    hydra = HydraConfig.get()
    bug = message is None
    if bug:
        traceback.print_exception(error)
    line = f"{type(error).__name__}: {error}" if message is None else message
    tell(f"job {hydra.job.num} failed: {line}")
    write_job(sweep_folder(hydra), _job(hydra, line=line, bug=bug))
    return float("nan")


class Failures(Callback):
    """In the process that was called: at the multirun's end, say which jobs failed, and leave with an exit code.

    That is 2 where all of them were the user's mistakes, 1 where one was a bug.

    Args:
        kept: whether what is known of the jobs stays in the folder, for `resume_sweep`.
    """

    def __init__(self, kept: bool = False) -> None:
        self.kept = kept

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Forget a multirun that was in this folder before and was stopped."""
        if not self.kept:
            forget_jobs(sweep_folder(config.hydra))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """See the class."""
        failed = tell_failures(config.hydra)
        if not self.kept:
            forget_jobs(sweep_folder(config.hydra))
        if failed:
            again = f"; the same command with resume_sweep={config.hydra.sweep.dir} tries again"
            others = f"{counted(len(failed), 'job')} failed; the others are in {config.hydra.sweep.dir}"
            tell(others + (again if self.kept else ""))
            sys.exit(1 if any(job.bug for job in failed) else 2)
        if self.kept:
            print(printable(f"all in one table: branchynet report {quote(config.hydra.sweep.dir)}"))


def tell_failures(hydra: Any) -> list[Job]:
    """Say of each job that failed why, and give them back."""
    failed = [job for job in jobs_of(sweep_folder(hydra)) if job.line is not None]
    everywhere = typed(hydra)
    for job in failed:
        swept = [each for each in job.overrides if each not in everywhere]
        named = f"{job.number} ({' '.join(swept)})" if swept else str(job.number)
        tell(f"job {named} failed: {job.line}")
    return failed


def sweep_folder(hydra: Any) -> Path:
    """The multirun's, whatever folder the process is in by now.

    Args:
        hydra: the settings of that name.
    """
    return Path(os.path.abspath(os.path.join(hydra.runtime.cwd, hydra.sweep.dir)))


def _job(hydra: Any, **what: Any) -> Job:
    """The job at work; without a folder where that is not the multirun's."""
    folder = Path(hydra.runtime.output_dir)
    inside = folder.is_relative_to(sweep_folder(hydra))
    return Job(hydra.job.num, tuple(typed(hydra)), folder if inside else None, **what)


def typed(hydra: Any) -> list[str]:
    """The overrides as they were typed, with what they refer to, which may be known to a job alone."""
    overrides: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    return overrides
