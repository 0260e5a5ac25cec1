"""Files that may be anybody's: read only where they are regular files of a bounded size.

A FIFO or a device would let a reader wait forever, or fill the memory.
"""

import os
import stat
import zipfile
from pathlib import Path
from typing import BinaryIO

TEXT = 10_000_000  # bytes, of a file of settings or numbers in JSON or CSV
ARRAYS = 1_000_000_000  # bytes, of arrays and of what they unfold to


def check_regular(path: Path, most: int | None = None) -> None:
    """See that a file can be read to its end.

    Args:
        path: the file.
        most: bytes that it may have; None: whoever reads it looks at that.

    Raises:
        OSError: there is none, or it cannot be looked at.
        ValueError: it is no regular file, or has more than `most` bytes.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
        raise ValueError(f"it is {kind}")
    if most is not None and found.st_size > most:
        raise ValueError(f"it has more than {most:,} bytes")


def open_regular(path: Path, most: int) -> BinaryIO:
    """Open a file for reading. Raises as `check_regular`."""
    check_regular(path, most)
    return path.open("rb")


def read_regular(path: Path, most: int = TEXT) -> bytes:
    """All of a file. Raises as `check_regular`."""
    with open_regular(path, most) as file:
        return file.read()


def check_archive(file: BinaryIO | Path, most: int) -> None:
    """See that a zip archive, such as NumPy and PyTorch write, is whole, and unfolds to at most `most` bytes.

    Raises:
        ValueError: it is not, or a checksum is another one.
        zipfile.BadZipFile: it is cut short, or no archive.
    """
    with zipfile.ZipFile(file) as archive:
        if sum(member.file_size for member in archive.infolist()) > most:
            raise ValueError(f"it unfolds to more than {most:,} bytes")
        damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} is another one")
