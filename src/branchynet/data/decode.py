"""Image files decoded side by side: by threads into memory, by processes into a file.

Shapes: C channels, H, W pixels. Nothing here needs PyTorch: a process that decodes is small.
"""

import logging
import math
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from branchynet.data.files import FileProblem
from branchynet.data.image_files import ImageFiles
from branchynet.data.pictures import read_image
from branchynet.errors import UserError

log = logging.getLogger(__name__)

TOGETHER = 32  # files that a process decodes before it says so
OFTEN = 10.0  # seconds between two lines of how far it is

S = TypeVar("S")
T = TypeVar("T")


class Decoder(NamedTuple):
    """What becomes of image files."""

    folder: Path  # the files' names are of it
    shape: tuple[int, int, int]  # (C, H, W)
    rule: ImageFiles

    def decode(self, name: str) -> np.ndarray | FileProblem:
        """(C, H, W) uint8, or what is wrong with the file."""
        try:
            return read_image(self.folder / name, self.shape, self.rule)
        except FileProblem as problem:
            return problem


def cores() -> int:
    """Of this machine, those that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def decode_into_memory(
    decoder: Decoder, names: Sequence[str]
) -> Generator[np.ndarray | FileProblem, None, None]:
    """Each file's image or problem, in their order. Pillow lets other threads run meanwhile."""
    with ThreadPoolExecutor(cores()) as pool:
        try:
            yield from told(pool.map(decoder.decode, names), len(names))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def decode_into_file(
    decoder: Decoder, names: Sequence[str], path: Path, processes: int
) -> Generator[FileProblem | None, None, None]:
    """Write each file's image into its place of a file, one after the other.

    Args:
        decoder: see there.
        names: of the image files.
        path: of the file that is written; it is there.
        processes: that decode; 0: this one does.

    Yields:
        For each file, in their order: None, or what is wrong with it; then its place is left as it is.

    Raises:
        OSError: the file cannot be written.
        UserError: a process has died.
    """
    parts = ((start, names[start : start + TOGETHER]) for start in range(0, len(names), TOGETHER))
    work = partial(_decode_some, decoder, path)
    found = _by_processes(work, parts, processes) if processes else map(work, parts)
    yield from told((each for some in found for each in some), len(names))


def _decode_some(decoder: Decoder, path: Path, part: tuple[int, Sequence[str]]) -> list[FileProblem | None]:
    """A few files, the first of them with this number, into their places."""
    start, names = part
    size = math.prod(decoder.shape)
    problems: list[FileProblem | None] = []
    with path.open("r+b", buffering=0) as file:
        for number, name in enumerate(names, start=start):
            image = decoder.decode(name)
            if isinstance(image, FileProblem):
                problems.append(image)
                continue
            file.seek(number * size)
            # A disk that becomes full takes a part of it.
            left = memoryview(image.tobytes())
            while left:
                left = left[file.write(left) :]
            problems.append(None)
    return problems


def _by_processes(work: Callable[[S], T], parts: Iterable[S], processes: int) -> Iterator[T]:
    """`map`, by processes of their own; some parts ahead and no more, so that memory stays what it is."""
    parts = iter(parts)
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(processes, context, _begin, (theirs,))
    try:
        ahead = deque(pool.submit(work, part) for part in islice(parts, 4 * processes))
        while ahead:
            yield ahead.popleft().result()
            ahead.extend(pool.submit(work, part) for part in islice(parts, 1))
    except BrokenProcessPool as error:
        raise UserError(
            "a process that decodes images has died, of too little memory perhaps: set data.num_workers to fewer, "
            "or to 0 in a script that has no `if __name__ == '__main__':`"
        ) from error
    except BaseException:
        ours.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        ours.close()


def _begin(pipe: Connection) -> None:
    """In a process that decodes: Ctrl-C is for the one that waits for it; it ends when that one is done or dead."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(pipe,), daemon=True).start()


def _follow(pipe: Connection) -> None:
    with suppress(EOFError, OSError):
        pipe.recv_bytes()  # nothing is ever sent
    os._exit(1)


def told(items: Iterable[T], count: int) -> Iterator[T]:
    """The same, and every ten seconds a line that says how many of them there have been."""
    begin = said = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - said >= OFTEN:
            said, rate = now, number / (now - begin)
            left = (count - number) / rate
            log.info(
                "decoded %s of %s images (%d %%), %s a second, %s to go",
                *(f"{number:,}", f"{count:,}", 100 * number // count, f"{rate:,.0f}"),
                f"{left / 60:,.0f} min" if left >= 100 else f"{left:.0f} s",
            )
