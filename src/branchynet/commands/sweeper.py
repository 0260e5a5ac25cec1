"""Which jobs a multirun of `branchynet train` runs: of those asked for the ones that are not finished.

A job is known by its overrides. So a multirun goes on where it was stopped, whatever was added to its list or left
out, and every job finds its own folder again.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from branchynet.commands.multirun import NUMBER, sweep_folder, tell_failures
from branchynet.commands.paths import quoted
from branchynet.commands.terminal import tell
from branchynet.errors import UserError, counted, printable, reason_of
from branchynet.runs.jobs import STATES, Job, jobs_of, plan

Plugins.instance()  # imports Hydra's own: before the next line, or there would be two of each
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # noqa: E402


@contextmanager
def left_out(resumes: bool) -> Iterator[None]:
    """Inside, Hydra takes the sweeper below for its basic one; sweepers of other names stay what they are.

    By itself Hydra takes a sweeper from packages called `hydra_plugins` alone, for all programs that use it.

    Args:
        resumes: whether there have to be jobs in the multirun's folder.
    """
    known = Plugins.instance().class_name_to_class
    name = f"{BasicSweeper.__module__}.{BasicSweeper.__name__}"
    known[name] = Resumed if resumes else Remaining
    try:
        yield
    finally:
        known[name] = BasicSweeper


class Remaining(BasicSweeper):
    """Hydra's basic sweeper, which leaves out what is finished and keeps a list of its jobs, see `runs.jobs`."""

    resumes = False

    @property
    def hydra(self) -> Any:
        """The settings of that name."""
        assert self.config is not None
        return self.config.hydra

    def sweep(self, arguments: list[str]) -> Any:
        """As Hydra's; ends with exit code 1 where the process of a job was killed."""
        try:
            return super().sweep(arguments)
        except Exception as error:
            if _is_refused(error):
                raise UserError(f"the launcher cannot begin the jobs: {reason_of(error, 500)}") from error
            if not _is_killed_job(error):
                raise
        folder = sweep_folder(self.hydra)
        tell_failures(self.hydra)
        open_jobs = [job for job in jobs_of(folder) if job.state in ("cut off", "missing")]
        tell(
            "the process of a job was killed: by hand, by a limit, or because the memory did not suffice; "
            f"{counted(len(open_jobs), 'job')} did not come to an end. The same command with "
            f"resume_sweep={self.hydra.sweep.dir} goes on with them"
        )
        sys.exit(1)

    def split_arguments(  # type: ignore[override]  # Hydra's needs no self
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """The jobs to launch, in batches: their overrides, and what leads them to their folder."""
        (wanted,) = BasicSweeper.split_arguments(overrides, None)
        folder = sweep_folder(self.hydra)
        before = len(jobs_of(folder))
        jobs = plan(folder, wanted, self.resumes)
        remaining = [job for job in jobs if job.state != "finished"]
        if before:
            print(_told(self.hydra.sweep.dir, jobs, len(remaining)), flush=True)
        files = self.hydra.launcher.get("submitit_folder")
        if files is not None and remaining:
            begin = f"{counted(len(remaining), 'job')} to begin; what they print is in"
            print(printable(f"{begin} {files.replace('%j', '*')}/*_log.out"), flush=True)
        launched = [[*job.overrides, *self._place(job, index)] for index, job in enumerate(remaining)]
        return list(self.split_overrides_to_chunks(launched, max_batch_size)) if launched else []

    def _place(self, job: Job, index: int) -> list[str]:
        """Overrides that lead a job to the multirun's folder, and to its own, where it would get another.

        By itself, the default folder would be named by each job's own model and images.
        """
        here = [f"hydra.sweep.dir={quoted(self.hydra.sweep.dir)}"]
        if job.folder is None and job.number == index:
            return here
        if job.folder is None:
            sweep: Any = OmegaConf.to_container(self.hydra.sweep, resolve=False)
            pattern = sweep["subdir"]
            for number in ("${hydra.job.num}", "${hydra:job.num}"):
                pattern = pattern.replace(number, str(job.number))
        else:
            pattern = str(job.folder.relative_to(sweep_folder(self.hydra)))
        return [*here, f"hydra.sweep.subdir={quoted(pattern)}", f"hydra.job.env_set.{NUMBER}={job.number}"]


class Resumed(Remaining):
    """The same for `resume_sweep`: some of the jobs have to be in the folder."""

    resumes = True


def _told(folder: str, jobs: Sequence[Job], remaining: int) -> str:
    states = Counter(job.state for job in jobs)
    found = ", ".join(f"{states[state]} {state}" for state in STATES if states[state])
    run = f"{remaining} to run" if remaining else "nothing is left to run"
    return printable(f"the multirun in {folder}: {counted(len(jobs), 'job')}, {found}; {run}")


def _is_killed_job(error: Exception) -> bool:
    """Whether a launcher says that a job's process has left without an answer: joblib's, or submitit's."""
    return isinstance(error, BrokenExecutor) or _is_of_submitit(error, "UncompletedJobError")


def _is_refused(error: Exception) -> bool:
    """Whether Slurm does not take a job, there is no Slurm, or joblib does not take its settings."""
    if isinstance(error, ValueError) and _raised_in(error).startswith("joblib."):
        return True
    return _is_of_submitit(error, "FailedSubmissionError") or "are you indeed on a slurm cluster" in str(
        error
    )


def _raised_in(error: Exception) -> str:
    """The module. Jobs' own errors do not come here: they are told as their jobs end."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return "" if traceback is None else str(traceback.tb_frame.f_globals.get("__name__"))


def _is_of_submitit(error: Exception, name: str) -> bool:
    """By its name: submitit need not be there."""
    return any(cls.__module__.startswith("submitit.") and cls.__name__ == name for cls in type(error).__mro__)
