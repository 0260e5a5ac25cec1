"""What a multirun's folder says of its jobs: which are finished, failed, cut off or missing.

`.jobs/<number>.json` stands there for every job, `{"overrides": [], "folder": null, "line": null, "bug": false}`:
written before the first job begins, and again as the job begins (its folder) and fails (why). Whether its run is
finished, the run's own folder says. A folder without them is an older version's: there, a job is what has begun.
"""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from branchynet.errors import UserError
from branchynet.regular import read_regular
from branchynet.runs.atomic import replacing
from branchynet.runs.differences import WHERE
from branchynet.runs.run_config import read_yaml
from branchynet.runs.started_run import FOLDER as SETTINGS
from branchynet.runs.started_run import RESULT

FOLDER = ".jobs"
State = Literal["finished", "failed", "cut off", "missing"]
STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True)
class Job:
    """One of a multirun's.

    Args:
        number: that its folder's name begins with.
        overrides: its settings as they were typed, `seed=1`.
        folder: its run's; None where it never got one.
        state: finished: it has its result; failed: it ended with an error; cut off: it began and did not come to
            an end (or is at work at this moment); missing: it has not begun.
        line: what it failed with.
        bug: whether that was a bug, not a mistake of the user's.
    """

    number: int
    overrides: tuple[str, ...]
    folder: Path | None = None
    state: State = "missing"
    line: str | None = None
    bug: bool = False


def jobs_of(sweep: Path) -> list[Job]:
    """The jobs of the multirun in a folder, by number; none where it holds no multirun."""
    found = [job for path in (sweep / FOLDER).glob("*.json") if (job := _read(sweep, path)) is not None]
    known = {job.folder for job in found}
    for settings in sorted(sweep.glob(f"*/{SETTINGS}/overrides.yaml")):
        folder = settings.parents[1]
        if folder not in known:
            number = re.match(r"\d+", folder.name)
            job = Job(int(number[0]) if number else 0, _overrides(settings), folder)
            found.append(replace(job, state=_state(job)))
    return sorted(found, key=lambda job: (job.number, job.folder or sweep))


def plan(sweep: Path, wanted: Sequence[Sequence[str]], resumes: bool = False) -> list[Job]:
    """The job of each list of overrides: the folder's own with the same, else a new one with the next number.

    From then on the folder's jobs are these; of the others those stay known that have a folder.

    Args:
        sweep: the multirun's folder.
        wanted: overrides of each job.
        resumes: whether some of them have to be the folder's own.

    Raises:
        UserError: none of them is; nothing was changed.
    """
    there = jobs_of(sweep)
    own = [_what(job.overrides) for job in there]
    if resumes and not any(_what(overrides) in own for overrides in wanted):
        example = f": the first of them had {' '.join(there[0].overrides) or 'none'}" if there else ""
        raise UserError(
            f"none of the jobs in {sweep} has these settings{example}; repeat them to go on, or begin a multirun "
            "in a new folder, without resume_sweep"
        )
    free = max((job.number for job in there), default=-1) + 1
    planned = []
    for overrides in wanted:
        same = next((job for job in there if _what(job.overrides) == _what(overrides)), None)
        if same is None:
            planned.append(Job(free, tuple(overrides)))
            free += 1
        else:
            there.remove(same)
            planned.append(replace(same, overrides=tuple(overrides)))
    for job in there:
        if job.state != "finished":
            _file(sweep, job.number).unlink(missing_ok=True)
    for job in planned:
        if job.state != "finished":
            write_job(sweep, replace(job, line=None, bug=False))
    return planned


def write_job(sweep: Path, job: Job) -> None:
    """Keep what is known of a job."""
    folder = None if job.folder is None else str(job.folder.relative_to(sweep))
    record = {"overrides": list(job.overrides), "folder": folder, "line": job.line, "bug": job.bug}
    with replacing(_file(sweep, job.number)) as temporary:
        temporary.write_text(json.dumps(record) + "\n", encoding="utf-8")


def forget_jobs(sweep: Path) -> None:
    """Remove what is kept of jobs, and nothing else."""
    shutil.rmtree(sweep / FOLDER, ignore_errors=True)


def _file(sweep: Path, number: int) -> Path:
    return sweep / FOLDER / f"{number}.json"


def _read(sweep: Path, path: Path) -> Job | None:
    """The job that a file tells of; None where it is damaged: then its folder alone tells of it."""
    try:
        record: Any = json.loads(read_regular(path))
        folder, line = record["folder"], record["line"]
        if folder is not None and (Path(folder).is_absolute() or ".." in Path(folder).parts):
            return None
        job = Job(
            int(path.stem),
            tuple(map(str, record["overrides"])),
            None if folder is None else sweep / folder,
            line=None if line is None else str(line),
            bug=record["bug"] is True,
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return replace(job, state=_state(job))


def _state(job: Job) -> State:
    if job.folder is not None and (job.folder / RESULT).exists():
        return "finished"
    if job.line is not None:
        return "failed"
    begun = job.folder is not None and (job.folder / SETTINGS / "config.yaml").exists()
    return "cut off" if begun else "missing"


def _overrides(settings: Path) -> tuple[str, ...]:
    try:
        found = read_yaml(settings)
    except UserError:
        return ()
    return tuple(map(str, found)) if isinstance(found, list) else ()


def _what(overrides: Sequence[str]) -> list[str]:
    """What a job does: its overrides in any order, without those that say where things lie."""
    return sorted(each for each in overrides if each.partition("=")[0].lstrip("+") not in WHERE)
