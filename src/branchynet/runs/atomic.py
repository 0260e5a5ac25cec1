"""Files that appear whole or not at all."""

import csv
import ctypes
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from branchynet.errors import UserError

STAGING = ".writing-"


@contextmanager
def together(folder: Path, last: str) -> Iterator[Path]:
    """A folder to write files into that then take their places in `folder`, all of them or none.

    A reader that finds the file `last` finds all others of the same writing: it is taken away first and put back at
    the end. Whoever is killed in between leaves `folder` without it, and so unfinished.
    """
    folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=folder))
    try:
        yield staging
        written = [part for part in staging.rglob("*") if part.is_file()]
        for part in written:
            target = folder / part.relative_to(staging)
            if target.is_dir() and not target.is_symlink():
                raise UserError(f"{target} is a folder, and a file is to be written there: move it away")
        # Through a link no file elsewhere is written.
        for part in staging.rglob("*"):
            if part.is_dir():
                path = folder / part.relative_to(staging)
                if path.is_symlink() or (path.exists() and not path.is_dir()):
                    path.unlink()
                path.mkdir(exist_ok=True)
        (folder / last).unlink(missing_ok=True)
        for part in sorted(written, key=lambda part: part.name == last):
            part.replace(folder / part.relative_to(staging))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def put_in_place(new: Path, target: Path) -> None:
    """Let the folder `new` take the place of the folder `target`, which stays whole until then; it is then removed.

    Where the system cannot exchange two folders at once, there is a moment without either.
    """
    if not target.exists():
        new.rename(target)
        return
    if not _exchange(new, target):
        aside = new.with_name(f"{new.name}.old")
        target.rename(aside)
        new.rename(target)
        new = aside
    shutil.rmtree(new, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Linux' renameat2 with RENAME_EXCHANGE; False where there is none."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        return libc.renameat2(-100, os.fsencode(first), -100, os.fsencode(second), 2) == 0
    except (OSError, AttributeError):
        return False


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers have left in a folder; what cannot be removed stays."""
    for path in folder.glob(f"{STAGING}*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.rglob(".*.tmp"):
        if _TEMPORARY(path.name) and (path.is_symlink() or path.is_file()):
            with suppress(OSError):
                path.unlink()


_TEMPORARY = re.compile(r"\..+\.\d+\.tmp").fullmatch


def check_links(folder: Path, top: Path) -> None:
    """A UserError for a link, `folder` itself or below it, that leads out of `top`: what is written there would lie
    elsewhere, and perhaps replace what is somebody's."""
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(top.resolve()):
            raise UserError(
                f"{path} is a link to {path.readlink()}, and what is written there would lie outside of the run: "
                "put what it names in its place"
            )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place at the end, or vanishes if anything fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)  # a link would be written through
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """A line of names, then a line for every row."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
