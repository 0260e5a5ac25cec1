import gzip
import io
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from branchynet.data import files
from branchynet.data.files import FileProblem, class_names, read_idx, read_npz
from branchynet.errors import ArgumentError


def idx(values: np.ndarray, magic: bytes | None = None) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return (magic or bytes((0, 0, 8, values.ndim))) + sizes + values.tobytes()


@pytest.mark.parametrize("packed", [False, True])
def test_idx_gives_back_what_was_written(tmp_path, packed):
    images = np.arange(2 * 3 * 5, dtype=np.uint8).reshape(2, 3, 5)
    path = tmp_path / ("images.gz" if packed else "images")
    path.write_bytes(gzip.compress(idx(images), mtime=0) if packed else idx(images))
    np.testing.assert_array_equal(read_idx(path, 3), images)


def test_idx_has_the_bytes_of_the_format(tmp_path):
    (tmp_path / "labels").write_bytes(bytes.fromhex("00000801 00000003 070001"))
    assert read_idx(tmp_path / "labels", 1).tolist() == [7, 0, 1]


GOOD = idx(np.zeros((2, 3, 3), np.uint8))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("f", b"", "nothing"),
        ("f", GOOD[:3], "000008"),
        ("f", GOOD[:9], "00000803"),  # the header itself is cut
        ("f", GOOD[:-1], "33 bytes, its header says 34"),
        ("f", GOOD + b"x", "35 bytes, its header says 34"),
        ("f", b"\0\0\x0d\3" + GOOD[4:], "00000d03"),
        ("f", b"<html>" + GOOD, "3c68746d"),
        ("f", b"\0\0\x08\3" + b"\xff" * 12 + b"x" * 9, "its header says"),
        ("f.gz", gzip.compress(GOOD, mtime=0)[:-9], "EOFError"),
        ("f.gz", gzip.compress(GOOD[:-1], mtime=0), "33 bytes, its header says 34"),
        ("f.gz", gzip.compress(GOOD + b"xx", mtime=0), "35 bytes or more, its header says 34"),
        ("f.gz", gzip.compress(b"\0\0\x08\3" + b"\xff" * 12, mtime=0), "GiB of memory"),
        ("f.gz", b"not gzip", "BadGzipFile"),
        ("f.gz", gzip.compress(GOOD, mtime=0)[:10] + b"\xff" * 30, "invalid block type"),
    ],
)
def test_bad_idx_is_one_line_that_names_the_file(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FileProblem) as caught:
        read_idx(path, 3)
    assert says in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


# .npz: whatever is in it, one line, and no more memory than its arrays say

X, Y = np.zeros((6, 4, 4), np.uint8), np.arange(6) % 3
MANY = 64 * 2**20  # bytes, which take some kilobytes where they are packed


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def header(shape: tuple[int, ...], dtype: str = "|u1") -> bytes:
    """The beginning of an .npy file that may say anything."""
    stream = io.BytesIO()
    described = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.getvalue()


def written(path: Path, packed: int = zipfile.ZIP_DEFLATED, **members: bytes) -> Path:
    """An .npz file of six images, of which some members are as given."""
    arrays = {"x_train": npy(X), "y_train": npy(Y), "x_test": npy(X), "y_test": npy(Y)}
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, content in (arrays | members).items():
            archive.writestr(f"{name}.npy", content)
    return path


def the_problem(path: Path) -> str:
    """What is wrong, said with little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(FileProblem) as caught:
            read_npz(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    line = str(caught.value)
    assert line.startswith(str(path)) and "\n" not in line
    assert peak < MANY / 8
    return line


BOMBS = {
    "an array of 100 GB": ({"x_train": header((10**8, 32, 32))}, "GiB of memory, and"),
    "labels of 100 GB": ({"y_test": header((10**11,))}, "GiB of memory, and"),
    "names of 100 GB": ({"classes": header((50,), "<U500000000")}, "GiB of memory, and"),
    "names of no letters": ({"classes": header((10**12,), "<U0")}, "GiB of memory, and"),
    "a header of 4 GB": (
        {"x_train": b"\x93NUMPY\2\0" + b"\xff" * 4 + b" " * MANY},
        "cannot be read",
    ),
    "more than the header says": (
        {"x_train": npy(X) + bytes(MANY)},
        "x_train is longer than its header says",
    ),
    "no array, but much": ({"x_test": bytes(MANY)}, "cannot be read"),
    "a form of structures": ({"x_test": b"\x93NUMPY\3\0" + npy(X)[8:]}, "x_test has format (3, 0)"),
    "an array that is cut": ({"x_test": npy(X)[:-1]}, "cannot be read"),
    "objects": ({"y_test": header((6,), "|O")}, "y_test holds Python objects"),
    "objects for names": ({"classes": header((3,), "|O")}, "classes holds Python objects"),
    "a single name": ({"classes": npy(np.array("a"))}, "classes is <U1 (), must be text of shape (K,)"),
    "numbers for names": ({"classes": npy(np.array([0.5, 1, 2]))}, "classes is float64 (3,), must be text"),
    "a name twice": ({"classes": npy(np.array(["a", "b", "a"]))}, "classes has 'a' twice"),
    "very many names": ({"classes": npy(np.arange(200_000))}, "200000 names, more than 100000"),
    "images without labels": ({"x_val": npy(X)}, "has no y_val"),
}


@pytest.mark.parametrize(("members", "says"), BOMBS.values(), ids=BOMBS)
def test_bad_npz_is_one_line_in_bounded_memory(tmp_path, members, says):
    assert says in the_problem(written(tmp_path / "f.npz", **members))


def test_the_memory_that_a_run_needs_is_looked_at_before_anything_is_read(tmp_path, monkeypatch):
    path = written(tmp_path / "f.npz")
    needed = 2 * X.nbytes + 2 * Y.nbytes + X.nbytes  # all arrays, and the training images once more
    monkeypatch.setattr(files, "available_memory", lambda: needed)
    read_npz(path)
    monkeypatch.setattr(files, "available_memory", lambda: needed - 1)
    monkeypatch.delattr(files, "_array")
    assert "needs 0.0 GiB of memory, and 0.0 GiB are free here" in the_problem(path)


def test_other_ways_to_pack_are_refused(tmp_path):
    """LZMA may ask for 4 GB to unpack a byte."""
    path = written(tmp_path / "f.npz", zipfile.ZIP_LZMA)
    assert "x_train is packed in another way" in the_problem(path)


def test_a_packed_idx_file_is_not_unpacked_beyond_its_header(tmp_path):
    (tmp_path / "f.gz").write_bytes(gzip.compress(GOOD + bytes(MANY), 1))
    tracemalloc.start()
    try:
        with pytest.raises(FileProblem, match="or more"):
            read_idx(tmp_path / "f.gz", 3)
        assert tracemalloc.get_traced_memory()[1] < MANY / 8
    finally:
        tracemalloc.stop()


def test_only_files_are_read(tmp_path):
    """A pipe would be waited for, a device never ends."""
    os.mkfifo(tmp_path / "pipe.npz")
    for path, says in (
        (tmp_path / "pipe.npz", "it is no regular file"),
        (Path("/dev/zero"), "it is no regular file"),
        (tmp_path, "it is a folder"),
        (tmp_path / "none.npz", "is not there"),
        (tmp_path / "pipe.npz" / "f.npz", "is not there"),
        (tmp_path / ("x" * 300), "cannot be read"),
    ):
        assert says in the_problem(path)
        with pytest.raises(FileProblem, match=says):
            read_idx(path, 3)


def test_names_may_be_bytes_and_validation_images_may_come_along(tmp_path):
    names = npy(np.array(["ä".encode(), b"b", b"c"]))
    file = read_npz(written(tmp_path / "f.npz", classes=names, x_val=npy(X[:2]), y_val=npy(Y[:2])))
    assert file.classes == ("ä", "b", "c")
    assert {part: len(x) for part, (x, _) in file.parts.items()} == {"train": 6, "test": 6, "val": 2}


def test_npz_never_unpickles(tmp_path):
    path = tmp_path / "f.npz"
    objects = np.array([{}, {}], dtype=object)
    np.savez(path, x_train=objects, y_train=objects, x_test=objects, y_test=objects)
    with pytest.raises(FileProblem, match="x_train holds Python objects"):
        read_npz(path)


# Names of classes, in a setting


def test_class_names_from_a_list_or_a_file(tmp_path):
    (tmp_path / "names.txt").write_text("wren\r\n grey heron \ngull\n\n", encoding="utf-8")
    assert class_names(None) is None
    assert class_names(["wren", 7]) == ("wren", "7")
    assert class_names(str(tmp_path / "names.txt")) == ("wren", "grey heron", "gull")


def test_class_names_that_cannot_be(tmp_path):
    (tmp_path / "twice.txt").write_text("wren\ngull\nwren\n")
    (tmp_path / "gap.txt").write_text("wren\n\ngull\n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xff")
    for value, says in (
        (str(tmp_path / "twice.txt"), "it has 'wren' twice"),
        (str(tmp_path / "gap.txt"), "name 2 is empty"),
        (str(tmp_path / "bytes.txt"), "it cannot be read"),
        (str(tmp_path), "it cannot be read (ValueError: it is a folder)"),
        ("nowhere.txt", "it cannot be read"),
        ([], "it has no names"),
        (7, "a list of names, or a text file"),
    ):
        with pytest.raises(ArgumentError) as caught:
            class_names(value)
        assert says in str(caught.value) and "\n" not in str(caught.value)
