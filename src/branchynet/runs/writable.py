"""Folders that cannot be written, found out before the work and not after it."""

import os
import tempfile
from pathlib import Path

from branchynet.errors import UserError


def check_writable(folder: Path, cure: str) -> None:
    """A UserError unless files can be made in a folder, or in what is there of the path to it; it leaves nothing.

    By making one: permissions do not say all, a disk may be mounted for reading only.

    Args:
        folder: the one to write into.
        cure: what to do, for the message.
    """
    try:
        there = next(path for path in (folder, *folder.parents) if os.path.exists(path))
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"\0")
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be written ({error.strerror}): {cure}") from None
