"""A multirun some of whose jobs fail: the others run, and at its end it is said which did.

A job may run in another process or on another machine, see Hydra's launchers. So it leaves what went wrong as a
file in the multirun's folder, where the process that was called collects it.
"""

import json
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from branchynet.commands.terminal import tell

FOLDER = ".failed"


def is_multirun() -> bool:
    """Whether the job that is at work is one of a multirun."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


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
    folder = _folder(hydra.runtime.cwd, hydra.sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    failure = {"job": hydra.job.num, "overrides": _overrides(hydra), "line": line, "bug": bug}
    (folder / f"{hydra.job.num}.json").write_text(json.dumps(failure), encoding="utf-8")
    return float("nan")


class Failures(Callback):
    """In the process that was called: at the multirun's end, say which jobs failed, and leave with an exit code.

    That is 2 where all of them were the user's mistakes, 1 where one was a bug.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Forget a multirun that was in this folder before and was stopped."""
        shutil.rmtree(_folder(config.hydra.runtime.cwd, config.hydra.sweep.dir), ignore_errors=True)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """See the class."""
        folder = _folder(config.hydra.runtime.cwd, config.hydra.sweep.dir)
        files = sorted(folder.glob("*.json"), key=lambda path: int(path.stem))
        if not files:
            return
        failures = [json.loads(path.read_text(encoding="utf-8")) for path in files]
        shutil.rmtree(folder, ignore_errors=True)
        everywhere = _overrides(config.hydra)
        for failure in failures:
            swept = [each for each in failure["overrides"] if each not in everywhere]
            named = f"{failure['job']} ({' '.join(swept)})" if swept else str(failure["job"])
            tell(f"job {named} failed: {failure['line']}")
        jobs = "1 job" if len(failures) == 1 else f"{len(failures)} jobs"
        tell(f"{jobs} failed; the others are in {config.hydra.sweep.dir}")
        sys.exit(1 if any(failure["bug"] for failure in failures) else 2)


def _overrides(hydra: Any) -> list[str]:
    """As they were typed: what they refer to may be known to a job alone."""
    overrides: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    return overrides


def _folder(cwd: str, sweep: str) -> Path:
    return Path(cwd) / sweep / FOLDER
