"""A lock that only one process holds at a time, on this machine or, where the file system knows locks, on several.

The operating system holds it for the process: whoever is killed has given it back.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)


class Held(Exception):
    """Another process has the lock."""


@contextmanager
def locked(path: Path, waiting: str | None = None, without: str | None = None) -> Iterator[None]:
    """Hold the lock with this name; its file is there as long as somebody has it, or was killed.

    Args:
        path: the lock's file.
        waiting: said once if another process has it, and then it is waited for; None: not waited.
        without: said where the file system has no locks, if anything; all goes on without.

    Raises:
        Held: another process has it, and it is not to be waited for.
    """
    try:
        file = _acquire(path, waiting)
    except OSError as error:
        file = None
        if without is not None:
            log.warning("%s: no lock can be held there (%s): %s", path.parent, error.strerror, without)
    try:
        yield
    finally:
        if file is not None:
            with suppress(OSError):
                path.unlink()  # while it is held: whoever waits sees that it is another file now
            os.close(file)


def _acquire(path: Path, waiting: str | None) -> int | None:
    if fcntl is None:
        raise OSError(0, "this system has none")
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except OSError:
            return None  # whoever writes into that folder will say so
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is None:
                    raise Held from None
                if waiting:
                    log.info("%s", waiting)
                    waiting = ""
                fcntl.flock(file, fcntl.LOCK_EX)
            if _is(file, path):
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _is(file: int, path: Path) -> bool:
    """Whether an open file is still the one at this path."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False
