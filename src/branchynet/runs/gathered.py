"""Many runs' folders, read at once: what each was started with, what it found, and which were left out, and why.

Read as data alone, whoever the folders are of: nothing of them is built or called. Neither PyTorch nor Lightning is
imported, and a thousand runs take a second or two.
"""

import os
import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from branchynet.errors import UserError, one_line
from branchynet.runs.atomic import STAGING
from branchynet.runs.grouping import grouped
from branchynet.runs.jobs import FOLDER as JOBS
from branchynet.runs.jobs import Job, jobs_of
from branchynet.runs.result_schema import NAME as RESULT
from branchynet.runs.result_schema import TRIAL, find_result
from branchynet.runs.rows import (
    EVALUATION,
    NOT_OF_GROUP,
    PUBLISHED,
    RUN,
    SETTINGS,
    Row,
    run_of,
    settings_text,
)
from branchynet.runs.run_config import read_yaml
from branchynet.runs.started_run import CHECKPOINTS, OWN

# Of a run's folder, what holds no other run.
OWN_FOLDERS = (CHECKPOINTS, "figures")
# Groups whose settings go with an option where an evaluation chooses another.
OPTIONS = ("combine", "criterion", "engine", "sweep/rule")
AS_IN_RUN = "as_in_run-"  # before the overrides, in the name of an evaluation's folder


@dataclass(frozen=True)
class LeftOut:
    """A folder that gives no row, and why: one line."""

    folder: Path
    name: str
    reason: str


@dataclass(frozen=True)
class Gathered:
    """What `gather` found, both in the order of their names, `2-…` before `10-…`."""

    rows: tuple[Row, ...]
    left_out: tuple[LeftOut, ...]


def gather(folders: Sequence[Path]) -> Gathered:
    """Read every run and evaluation in and below these folders, each once.

    Links are followed, to a folder that was met before not again. Left out are runs that are not finished, damaged
    or of branchynet 0.1, and copies.

    Raises:
        UserError: one of them is no folder.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder: name one with runs in it, such as outputs")
    rows: list[Row] = []
    left_out: list[LeftOut] = []
    known: dict[tuple[str, int], list[Row]] = {}
    failures: dict[str, str] = {}  # of a multirun's jobs, by their folders
    for folder, below, entries in _walk(folders):
        name = below or folder.resolve().name
        if JOBS in entries:
            jobs = jobs_of(folder)
            everywhere = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
            for job in jobs:
                if job.folder is not None and job.line is not None:
                    failures[os.path.realpath(job.folder)] = f"failed: {job.line}"
                if (why := _no_folder(job, everywhere)) is not None:
                    own = f"{below}/{job.number}" if below else str(job.number)
                    left_out.append(LeftOut(folder, own, one_line(why)))
        try:
            row = _read(folder, name, entries)
        except UserError as error:
            reason = failures.get(os.path.realpath(folder), str(error))
            left_out.append(LeftOut(folder, name, one_line(reason)))
            continue
        if row is None:
            continue
        alike = known.setdefault((row.experiment, row.seed), [])
        same = next((other for other in alike if _is_copy(row, other)), None)
        if same is not None:
            left_out.append(LeftOut(folder, name, f"it is a copy of {same.name}"))
            continue
        alike.append(row)
        rows.append(row)
    return Gathered(tuple(grouped(rows)), tuple(left_out))


def _walk(folders: Sequence[Path]) -> Iterator[tuple[Path, str, set[str]]]:
    """Every folder that holds something of a run: itself, its name below the one asked for, its entries."""
    seen: set[str] = set()

    def below(path: str, real: str, name: str) -> Iterator[tuple[Path, str, set[str]]]:
        if real in seen:
            return
        seen.add(real)
        try:
            with os.scandir(path) as found:
                entries = sorted(found, key=lambda entry: natural(entry.name))
        except OSError:
            return  # not ours to read
        names = {entry.name for entry in entries}
        of_run = not names.isdisjoint((*OWN, "evaluate.yaml"))
        if of_run or JOBS in names or any(each.startswith(STAGING) for each in names):
            yield Path(path), name, names
        for entry in entries:
            if entry.name.startswith(".") or (of_run and entry.name in OWN_FOLDERS) or not _is_folder(entry):
                continue
            inside = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real, entry.name)
            yield from below(entry.path, inside, f"{name}/{entry.name}" if name else entry.name)

    for folder in folders:
        top = folder.resolve().name if len(folders) > 1 else ""
        yield from below(str(folder), os.path.realpath(folder), top)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Also behind a link; a link to itself is an error of the system's."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _no_folder(job: Job, everywhere: Set[str]) -> str | None:
    """Why a multirun's job left no run's folder; None where it did. `everywhere`: what all jobs have in common."""
    if job.folder is not None and (job.folder / SETTINGS[RUN]).exists():
        return None
    swept = " ".join(each for each in job.overrides if each not in everywhere)
    name = f"job {job.number} ({swept})" if swept else f"job {job.number}"
    return f"{name} failed: {job.line}" if job.line else f"{name} has not begun"


def natural(name: str) -> list[tuple[int, str]]:
    """To sort by: numbers as numbers."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _read(folder: Path, name: str, entries: set[str]) -> Row | None:
    """The row of a folder; None where it is none of a run.

    Raises:
        UserError: why there is none.
    """
    kind = next((kind for kind in (RUN, EVALUATION, PUBLISHED) if (folder / SETTINGS[kind]).is_file()), None)
    if RESULT not in entries:
        if TRIAL in entries:
            raise UserError(
                "it is a trial of a search, judged on validation alone, whose search.md tells of all trials; "
                "`train resume=` finishes it"
            )
        begun = kind == RUN or CHECKPOINTS in entries
        if begun or kind == EVALUATION or any(each.startswith(STAGING) for each in entries):
            raise UserError("it is not finished")
        return None
    if kind is None:
        # It was moved without them; or an evaluation was killed before it wrote them, its last file.
        raise UserError(f"it has a {RESULT} and no settings: neither {' nor '.join(SETTINGS.values())}")
    result = find_result(folder)
    if result is None:
        raise UserError("it is not finished")
    if kind == RUN and _is_old(settings_text(folder / SETTINGS[RUN])):
        raise UserError("it is of branchynet 0.1, whose settings cannot be read any more: train it again")
    split = result.get("split", "test")
    trace = folder / f"trace-{split}.npz"
    return Row(
        folder,
        name,
        kind,
        result["experiment"],
        result["seed"],
        tuple(_overrides(folder, kind)),
        result,
        trace if trace.name in entries else None,
    )


def _is_copy(row: Row, other: Row) -> bool:
    """Of a run that is published, nobody knows what was typed. Two evaluations may well find the same."""
    typed = (row.kind, row.overrides) == (other.kind, other.overrides)
    published = PUBLISHED in (row.kind, other.kind)
    return (typed or (published and EVALUATION not in (row.kind, other.kind))) and row.result == other.result


def _overrides(folder: Path, kind: str) -> Iterator[str]:
    """Of what was typed, what decides something; each setting once, as it was typed last."""
    run = run_of(folder) if kind == EVALUATION else folder
    typed: dict[str, str] = {}
    path = None if run is None else run / ".hydra" / "overrides.yaml"
    if path is not None and path.is_file():
        typed |= _by_name(read_yaml(path))
    path = folder / SETTINGS[EVALUATION]
    if path.is_file():  # of a run: its results were replaced, with other settings perhaps
        found = read_yaml(path)
        recorded = found.get("overrides") if isinstance(found, dict) else None
        older = _split(folder.name.removeprefix(AS_IN_RUN)) if folder.name.startswith(AS_IN_RUN) else []
        later = _by_name(older if recorded is None else recorded)
        gone = tuple(f"{group.replace('/', '.')}." for group in OPTIONS if group in later)
        typed = {name: each for name, each in typed.items() if not name.startswith(gone)} | later
    for name, override in typed.items():
        if not any(name == each or name.startswith(f"{each}.") for each in NOT_OF_GROUP):
            yield override


def _by_name(overrides: Any) -> dict[str, str]:
    listed = [one_line(each) for each in overrides or () if isinstance(each, str)]
    return {each.partition("=")[0].lstrip("+~"): each for each in listed}


def _split(text: str) -> list[str]:
    """At commas, but for those in brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{(") - (letter in ")}]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _is_old(settings: bytes) -> bool:
    """Whether settings are of branchynet 0.1: there a criterion had a name, and was not made by `_target_`."""
    block = re.search(rb"^criterion:\n((?:[ -].*\n?)*)", settings, re.M)
    return (
        block is not None
        and b"_target_:" not in block[1]
        and re.search(rb"^  name:", block[1], re.M) is not None
    )
