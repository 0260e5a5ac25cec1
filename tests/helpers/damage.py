"""Ways to damage a file, by name: what a full disk, a careless hand or bad intentions leave behind."""

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any


def _middle(path: Path, content: bytes) -> int:
    if not zipfile.is_zipfile(path):
        return len(content) // 2
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda part: part.compress_size)
    # Before the data: 30 bytes, the name, and more, whose lengths stand in the last four of the 30.
    lengths = content[largest.header_offset + 26 : largest.header_offset + 30]
    begin = (
        largest.header_offset
        + 30
        + int.from_bytes(lengths[:2], "little")
        + int.from_bytes(lengths[2:], "little")
    )
    return begin + largest.compress_size // 2


def damage(path: Path, how: str) -> None:
    """Damage the file at `path`.

    Args:
        path: of a file that is there.
        how: gone, empty, cut (its first half is left), flipped (a byte in its middle, of an archive in that of its
            largest part: between parts lie times and the like, which nobody reads), folder, fifo, device,
            huge (a hole of 1 TB), `text <what>` (that instead), `set <dotted name> <JSON>` or `drop <dotted name>`
            in a JSON file, or `swap <old> <new>` in a text.
    """
    kind, _, rest = how.partition(" ")
    content = path.read_bytes()
    if kind in ("gone", "folder", "fifo", "device", "huge"):
        path.unlink()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "flipped":
        middle = _middle(path, content)
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "huge":
        path.touch()
        os.truncate(path, 10**12)
    elif kind == "text":
        path.write_text(rest.encode().decode("unicode_escape"), encoding="utf-8")
    elif kind in ("set", "drop"):
        name, _, value = rest.partition(" ")
        values = change(json.loads(content), name, DROP if kind == "drop" else json.loads(value))
        path.write_text(json.dumps(values), encoding="utf-8")
    elif kind == "swap":
        old, new = rest.split(" ", 1)
        text = content.decode()
        assert old in text, f"there is no {old} in {path}"
        path.write_text(text.replace(old, new), encoding="utf-8")
    else:
        assert kind == "gone", f"there is no damage {kind!r}"


DROP = object()


def change(values: Any, place: str, value: Any) -> Any:
    """Set what stands at a dotted place, `exits.0.macs`, in lists and mappings; DROP takes it away.

    Returns:
        The same lists and mappings.
    """
    inner = values
    *above, last = [int(step) if step.isdigit() else step for step in place.split(".")]
    for step in above:
        inner = inner[step]
    if value is DROP:
        del inner[last]
    else:
        inner[last] = value
    return values


def copy_damaged(source: Path, target: Path, file: str, how: str) -> Path:
    """A copy of a folder with one file damaged; the folder."""
    shutil.copytree(source, target)
    damage(target / file, how)
    return target
