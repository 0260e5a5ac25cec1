"""Images of files, decoded: in memory, or in a file on the disk that is made once and found again.

Such a file is known by the names, sizes and times of all image files, and by all that changes a pixel or its place.
It lies in a folder of its own, `<settings>-<files>`: `images`, the bytes of one split after the other, and
`about.json`. The folder appears with both of them or not at all; where image files have changed since, the new one
takes the place of the old.
S samples, C channels, H, W pixels.
"""

import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import PIL
from pydantic import TypeAdapter

from branchynet.data.decode import TOGETHER, Decoder, decode_into_file, decode_into_memory
from branchynet.data.files import FileProblem
from branchynet.data.mapped import STEP, map_images
from branchynet.data.memory import amount, check_disk
from branchynet.errors import UserError, counted
from branchynet.regular import ARRAYS, check_regular, read_regular

log = logging.getLogger(__name__)

VERSION = 1  # of what is below; another one finds none of these files
IMAGES, ABOUT = "images", "about.json"
NAMED = 100  # problems whose words are kept


class Decoded(NamedTuple):
    """By split: images (S, C, H, W) uint8, and the numbers of the files that cannot be read, which are not among
    them; and in words what is wrong with these, at least with the first."""

    images: dict[str, np.ndarray]
    missing: dict[str, list[int]]
    problems: list[str]


@dataclass(frozen=True)
class About:
    """What stands in about.json."""

    counts: dict[str, int]
    missing: dict[str, list[int]]
    problems: list[str]


def read_images(decoder: Decoder, files: Mapping[str, Sequence[str]], on_error: str) -> Decoded:
    """All files by split, decoded into memory. Arguments as of `map_decoded`."""
    names = [name for own in files.values() for name in own]
    images = np.empty((len(names), *decoder.shape), np.uint8)
    problems: dict[int, str] = {}
    with closing(decode_into_memory(decoder, names)) as decoded:
        for number, found in enumerate(decoded):
            if isinstance(found, FileProblem):
                _note(problems, number, found, on_error)
            else:
                images[number] = found
    missing = _by_split(problems, files)
    parts, start = {}, 0
    for split, own in files.items():
        part = images[start : start + len(own)]
        parts[split] = np.delete(part, missing[split], axis=0) if missing[split] else part
        start += len(own)
    return Decoded(parts, missing, [*problems.values()])


def map_decoded(
    decoder: Decoder,
    files: Mapping[str, Sequence[str]],
    apart: Sequence[object],
    cache: Path | None,
    processes: int,
    on_error: str,
) -> Decoded:
    """All files by split, in a mapped file, which is found or made.

    Args:
        decoder: what becomes of a file.
        files: their names, by split.
        apart: settings that divide them; with others there is another file beside it.
        cache: the folder of such files; None: `.branchynet` in the folder of the image files, or, where that cannot
            be written, `branchynet` in the user's folder of caches.
        processes: that decode; 0: this one does.
        on_error: what becomes of files that cannot be read: `skip` or `stop`.

    Raises:
        UserError: no room on the disk, or no folder that can be written; with `on_error=stop` a file that cannot
            be read.
    """
    settings, name = _names(decoder, files, apart)
    places = [cache] if cache else [decoder.folder / ".branchynet", _caches_of_user()]
    for place in places:
        found = _found(place / name, decoder, files)
        if found is not None:
            log.info("%s: they were decoded before, into %s", decoder.folder, place / name)
            return _checked(found, on_error)
    place = _writable(places)
    with _alone(place / f".lock-{settings}", decoder.folder) as alone:
        # Perhaps another run has made it while this one waited.
        found = _found(place / name, decoder, files)
        if found is None:
            if alone:
                _remove_old(place, settings)
            _make(place, name, settings, decoder, files, processes, on_error)
            found = _found(place / name, decoder, files)
    if found is None:
        raise UserError(f"{place / name} was changed while it was made: start again")
    return _checked(found, on_error)


def _names(decoder: Decoder, files: Mapping[str, Sequence[str]], apart: Sequence[object]) -> tuple[str, str]:
    """Of the settings, and of the folder of their decoded images."""
    what = [
        VERSION,
        PIL.__version__,
        str(decoder.folder.resolve()),
        decoder.shape,
        asdict(decoder.rule),
        *apart,
    ]
    settings = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
    digest, top = hashlib.sha256(), os.fspath(decoder.folder)
    for split, names in files.items():
        for name in names:
            try:
                found = os.stat(os.path.join(top, name))
                state = (found.st_size, found.st_mtime_ns)
            except OSError:  # told when it is read
                state = (0, 0)
            digest.update(os.fsencode(f"{split}\0{name}\0{state}\0"))
    return settings, f"{settings}-{digest.hexdigest()[:16]}"


def _caches_of_user() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "branchynet"


def _found(folder: Path, decoder: Decoder, files: Mapping[str, Sequence[str]]) -> Decoded | None:
    """What lies in a folder, None unless it is whole."""
    path = folder / IMAGES
    try:
        about = TypeAdapter(About).validate_json(read_regular(folder / ABOUT, ARRAYS), strict=True)
        check_regular(path)
        counts = {
            split: len(names) - len(set(about.missing[split]) & set(range(len(names))))
            for split, names in files.items()
        }
        size = sum(counts.values()) * math.prod(decoder.shape)
        if about.counts != counts or path.stat().st_size != size:
            raise ValueError("it is not whole")
        images, start = {}, 0
        with path.open("rb") as file:
            for split, count in counts.items():
                images[split] = map_images(file, folder.parent, (count, *decoder.shape), start)
                start += images[split].nbytes
    except (OSError, ValueError, KeyError):
        return None
    return Decoded(images, about.missing, about.problems)


def _checked(decoded: Decoded, on_error: str) -> Decoded:
    if decoded.problems and on_error == "stop":
        raise _stop(decoded.problems[0])
    return decoded


def _writable(places: Sequence[Path]) -> Path:
    """The first folder that can be written, made if it is not there."""
    for place in places:
        with suppress(OSError):
            place.mkdir(parents=True, exist_ok=True)
            if os.access(place, os.W_OK | os.X_OK):
                return place
    raise UserError(
        f"decoded images are to be kept on the disk, and {' and '.join(map(str, places))} cannot be written: set "
        "data.cache=<folder>"
    )


@contextmanager
def _alone(path: Path, folder: Path) -> Iterator[bool]:
    """Wait until no other run makes the same; whether it is so: not every system can tell."""
    with path.open("ab") as file:
        try:
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("%s: another run decodes these images; waiting for it", folder)
                fcntl.flock(file, fcntl.LOCK_EX)
            alone = True
        except (ImportError, OSError):
            alone = False
        yield alone


def _remove_old(place: Path, settings: str) -> None:
    """What was killed in the middle, images of files that have changed since; whoever maps them keeps them."""
    for old in (*place.glob(f".writing-{settings}-*"), *place.glob(f"{settings}-*")):
        shutil.rmtree(old, ignore_errors=True)


def _make(
    place: Path,
    name: str,
    settings: str,
    decoder: Decoder,
    files: Mapping[str, Sequence[str]],
    processes: int,
    on_error: str,
) -> None:
    """Decode all files into the folder `place / name`."""
    names = [each for own in files.values() for each in own]
    size = math.prod(decoder.shape)
    check_disk(
        place, len(names) * size, f"{decoder.folder}: {counted(len(names), 'image')}", "data.cache=<folder>"
    )
    processes = min(processes, math.ceil(len(names) / TOGETHER))
    by = f"{processes} processes" if processes > 1 else "1 process"
    log.info("%s: decoding into %s, %s, by %s", decoder.folder, place / name, amount(len(names) * size), by)
    scratch = place / f".writing-{settings}-{os.getpid()}"
    try:
        scratch.mkdir()
        with (scratch / IMAGES).open("w+b") as file:
            file.truncate(len(names) * size)
            problems: dict[int, str] = {}
            with closing(decode_into_file(decoder, names, scratch / IMAGES, processes)) as decoded:
                for number, problem in enumerate(decoded):
                    if problem is not None:
                        _note(problems, number, problem, on_error)
            _close_gaps(file, [*problems], len(names), size)
            os.fsync(file.fileno())
        missing = _by_split(problems, files)
        counts = {split: len(own) - len(missing[split]) for split, own in files.items()}
        about = About(counts, missing, [*problems.values()][:NAMED])
        (scratch / ABOUT).write_text(json.dumps(asdict(about)), encoding="utf-8")
        with suppress(OSError):  # another run was faster, where two cannot wait for each other
            scratch.rename(place / name)
    except OSError as error:
        raise UserError(f"{place} cannot be written ({error.strerror}): set data.cache=<folder>") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _close_gaps(file: BinaryIO, missing: Sequence[int], count: int, size: int) -> None:
    """Move images of a file forward, into the places of those that are missing."""
    if not missing:
        return
    place, step = missing[0], max(1, STEP // size)
    for gap, following in pairwise([*missing, count]):
        for start in range(gap + 1, following, step):
            file.seek(start * size)
            images = file.read(min(step, following - start) * size)
            file.seek(place * size)
            file.write(images)
            place += len(images) // size
    file.truncate(place * size)


def _note(problems: dict[int, str], number: int, problem: FileProblem, on_error: str) -> None:
    if on_error == "stop":
        raise _stop(str(problem))
    problems[number] = str(problem)


def _stop(problem: str) -> UserError:
    return UserError(f"{problem}: mend or remove it, or data.on_error=skip leaves it out")


def _by_split(numbers: Mapping[int, object], files: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """Numbers of files, rising, by split and counted in it."""
    found, start = {}, 0
    for split, own in files.items():
        found[split] = [number - start for number in numbers if start <= number < start + len(own)]
        start += len(own)
    return found
