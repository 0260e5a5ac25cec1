import gzip

import numpy as np
import pytest

from branchynet.data.files import FileProblem, read_idx, read_npz


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


def test_npz_never_unpickles(tmp_path):
    path = tmp_path / "f.npz"
    objects = np.array([{}, {}], dtype=object)
    np.savez(path, x_train=objects, y_train=objects, x_test=objects, y_test=objects)
    with pytest.raises(FileProblem, match="allow_pickle"):
        read_npz(path)
