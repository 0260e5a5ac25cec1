"""Images that `predict` cannot take: one line, nothing hangs, no output is lost. A row of CASES is a case."""

import os
import resource
import struct
import zlib

import child
import numpy as np
import pytest
from PIL import Image

LIMIT = 12 * 2**30


def bounded():
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))


def png(width, height, data=b""):
    """A PNG of that size by its header, whatever its data."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def array(values):
    return lambda path: np.save(path, values)


def npy(shape, size=100):
    header = str({"descr": "|u1", "fortran_order": False, "shape": shape}).ljust(117) + "\n"
    return lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + header.encode() + b"\0" * size)


def written(content):
    return lambda path: path.write_bytes(content)


def folder(**files):
    def write(path):
        path.mkdir()
        for name, make in files.items():
            make(path / name)

    return write


CASES = {
    "gone.png": lambda path: None,
    "empty.png": written(b""),
    "cut.png": written(png(28, 28, bytes(29 * 28))[:50]),
    "text.png": written(b"hello"),
    "enormous.png": written(png(100_000, 100_000)),
    "bomb.png": written(png(30_000, 30_000, bytes(30_001 * 300))),
    "lying.png": written(png(28, 28, b"")),
    "fifo.png": os.mkfifo,
    "zero.png": lambda path: path.symlink_to("/dev/zero"),
    "loop.png": lambda path: path.symlink_to("loop.png"),
    "empty": folder(),
    "texts": folder(a=written(b"hello")),
    "damaged": folder(**{"a.png": written(b"hello")}),
    "fifos": folder(**{"a.png": os.mkfifo}),
    "empty.npy": written(b""),
    "text.npy": written(b"hello"),
    "fifo.npy": os.mkfifo,
    "zero.npy": lambda path: path.symlink_to("/dev/zero"),
    "lying.npy": npy((10, 1, 28, 28)),
    "petabyte.npy": npy((10**9, 1, 1000, 1000)),
    "negative.npy": npy((-1, 1, 28, 28)),
    "objects.npy": lambda path: np.save(path, np.array([{}], dtype=object), allow_pickle=True),
    "floats.npy": array(np.full((2, 1, 28, 28), np.nan, np.float32)),
    "complex.npy": array(np.zeros((2, 1, 28, 28), complex)),
    "another_size.npy": array(np.zeros((2, 1, 27, 28), np.uint8)),
    "one_number.npy": array(np.uint8(3)),
    "none.npy": array(np.zeros((0, 1, 28, 28), np.uint8)),
    "table.csv": written(b"a,b\n"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_in_a_line_and_an_old_output_is_kept(name, export, tmp_path):
    CASES[name](tmp_path / name)
    (tmp_path / "old.csv").write_text("old")
    done = child.call(
        ["predict", f"export={export}", f"input={name}", "output=old.csv", "overwrite=true"],
        tmp_path,
        seconds=60,
        at_start=bounded,
    )
    done.refused()
    assert (tmp_path / "old.csv").read_text() == "old"


def picture(path, size=(28, 28), mode="L"):
    Image.new(mode, size).save(path)


@pytest.mark.parametrize(
    "name",
    ["a b.png", "a,b=c.png", "'a'.png", "数字.png", "a\nb.png", "\x1b[31mred.png", "a\udcff.png", "-a.png"],
)
def test_odd_names_are_classified_and_no_escape_code_reaches_the_terminal(name, export, tmp_path):
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / name
    with open(os.fsencode(file), "wb") as opened:
        Image.new("L", (28, 28)).save(opened, "PNG")
    done = child.call(["predict", f"export={export}", "input=in"], tmp_path)
    assert done.code == 0, done.err
    assert "\x1b" not in done.out + done.err
