"""What memory and disk this machine has, looked at before something large is read, built or written."""

import os
import shutil
import sys
from pathlib import Path

from branchynet.errors import UserError

CGROUP = Path("/sys/fs/cgroup")
MIB, GIB = 2**20, 2**30


def available_memory() -> int:
    """The bytes that can still be had: of the machine, or of the container where that has fewer."""
    limits = [_of_the_system()]
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "")):
        if (most := _number(CGROUP / limit)) is not None:
            # What the second version counts as used has the files in it that the system keeps at hand.
            cached = _field(CGROUP / "memory.stat", "inactive_file") if used else 0
            limits.append(most - max(0, (_number(CGROUP / used) or 0) - cached if used else 0))
    return max(0, min(limits))


def gib(count: float) -> str:
    """A number of bytes in words."""
    return f"{count / GIB:,.1f} GiB"


def amount(count: float) -> str:
    """The same, of few bytes, too."""
    return gib(count) if count >= GIB / 10 else f"{count / MIB:,.1f} MiB"


def check_disk(folder: Path, needed: int, what: str, cure: str) -> None:
    """A UserError if a folder has no room for so many bytes more.

    Args:
        folder: it, or the first above it that is there.
        needed: bytes.
        what: they are of.
        cure: what to do about it, first.
    """
    there = next((place for place in (folder, *folder.absolute().parents) if place.is_dir()), Path("/"))
    free = shutil.disk_usage(there).free
    if needed > free:
        raise UserError(
            f"{what} takes {amount(needed)} on the disk, and {amount(free)} are free in {folder}: set {cure}, or "
            "make data.size smaller"
        )


def _of_the_system() -> int:
    """Linux says what is free; elsewhere what there is has to do."""
    free = _field(Path("/proc/meminfo"), "MemAvailable:")
    if free:
        return free * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return sys.maxsize


def _field(path: Path, name: str) -> int:
    """The number that stands behind a name in a file of the system; 0 where there is none."""
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
        return next(int(row[1]) for row in rows if len(row) > 1 and row[0] == name)
    except (OSError, ValueError, StopIteration):
        return 0


def _number(path: Path) -> int | None:
    """What a file of the system says, None where there is no such file or no such limit."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
