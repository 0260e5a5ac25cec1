"""Data files that hold something else: refused in one line, in bounded memory, before any work. A row is a case."""

import gzip
import os
import resource
import zipfile

import child
import numpy as np
import pytest

LIMIT = 12 * 2**30  # bytes of address space: PyTorch alone takes some 5 GiB of it
OVERRIDES = ("experiment=b_lenet_digits", "data=arrays", "trainer=cpu", "logger=none", "hydra.run.dir=run")


def arrays(**changes):
    """60 + 20 images of 28 × 28 and ten classes, with some arrays changed; None leaves one out."""
    random = np.random.default_rng(0)
    parts = {}
    for split, count in (("train", 60), ("test", 20)):
        parts[f"x_{split}"] = random.integers(0, 256, (count, 1, 28, 28), np.uint8)
        parts[f"y_{split}"] = np.arange(count) % 10
    return {name: value for name, value in {**parts, **changes}.items() if value is not None}


def saved(**changes):
    return lambda path: np.savez(path, **arrays(**changes))


def text(content):
    return lambda path: path.write_bytes(content)


def cut(path):
    np.savez(path, **arrays())
    path.write_bytes(path.read_bytes()[:-200])


def claims(shape):
    """An array whose header promises more than there is."""

    def write(path):
        np.savez(path, **arrays(x_train=None))
        header = str({"descr": "|u1", "fortran_order": False, "shape": shape})
        header = header.ljust(117) + "\n"
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("x_train.npy", b"\x93NUMPY\x01\x00\x76\x00" + header.encode() + b"\0" * 100)

    return write


def bomb(path):
    """3 MB that hold 3 GB of zeros, where 60 images are enough."""
    np.savez(path, **arrays(x_train=None))
    shape = (3_000_000, 1, 32, 32)
    header = str({"descr": "|u1", "fortran_order": False, "shape": shape}).ljust(117) + "\n"
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x_train.npy", "w", force_zip64=True) as member,
    ):
        member.write(b"\x93NUMPY\x01\x00\x76\x00" + header.encode())
        zeros = bytes(2**24)
        for _ in range(3_072_000_000 // len(zeros) + 1):
            member.write(zeros)


CASES = {
    "empty": text(b""),
    "no archive": text(b"hello"),
    "gzip": text(gzip.compress(b"hello")),
    "cut": cut,
    "a folder": lambda path: path.mkdir(),
    "a fifo": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "no x_train": saved(x_train=None),
    "no y_test": saved(y_test=None),
    "objects": saved(x_train=np.array([{}] * 60, dtype=object)),
    "texts": saved(y_train=np.array(["a"] * 60)),
    "float images": saved(x_train=np.full((60, 1, 28, 28), np.nan)),
    "complex images": saved(x_train=np.zeros((60, 1, 28, 28), complex)),
    "float labels": saved(y_train=np.arange(60) % 10 + 0.5),
    "negative labels": saved(y_train=np.arange(60) % 10 - 1),
    "labels of another length": saved(y_train=np.arange(50) % 3),
    "huge labels": saved(y_train=np.full(60, 2**40)),
    "no images": saved(x_train=np.zeros((0, 1, 28, 28), np.uint8), y_train=np.zeros(0, int)),
    "no test images": saved(x_test=np.zeros((0, 1, 28, 28), np.uint8), y_test=np.zeros(0, int)),
    "images of no pixels": saved(x_train=np.zeros((60, 1, 0, 28), np.uint8)),
    "another size in test": saved(x_test=np.zeros((20, 1, 27, 28), np.uint8)),
    "another number of channels in test": saved(x_test=np.zeros((20, 3, 28, 28), np.uint8)),
    "one number": saved(x_train=np.uint8(1)),
    "two dimensions": saved(x_train=np.zeros((60, 784), np.uint8)),
    "five dimensions": saved(x_train=np.zeros((60, 1, 28, 28, 1), np.uint8)),
    "one class": saved(y_train=np.zeros(60, int), y_test=np.zeros(20, int)),
    "labels from 1": saved(y_train=np.arange(60) % 10 + 1, y_test=np.arange(20) % 10 + 1),
    "classes with gaps": saved(y_train=np.arange(60) % 2 * 5, y_test=np.arange(20) % 2 * 5),
    "a header that promises too much": claims((60, 1, 28, 28)),
    "a header that promises a petabyte": claims((10**9, 1, 1000, 1000)),
    "a header with a negative length": claims((-1, 1, 28, 28)),
    "a header that overflows": claims((2**62, 4, 28, 28)),
    "a bomb": bomb,
}


def bounded():
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))


def test_the_same_undamaged_is_taken(tmp_path):
    """So what is refused below is refused for what is told of it."""
    saved()(tmp_path / "images.npz")
    small = (
        "engine=torch",
        "engine.compare=[]",
        "engine.seconds=0.01",
        "epochs.baseline=1",
        "epochs.joint=1",
    )
    settings = (*small, "schedule=none", "cache=null", "data.path=images.npz", "data.validation_size=20")
    assert child.call(["train", *OVERRIDES, *settings], tmp_path, at_start=bounded).code == 0


@pytest.mark.parametrize("name", CASES)
def test_refused_in_a_line_before_any_work(name, tmp_path):
    CASES[name](tmp_path / "images.npz")
    done = child.call(
        ["train", *OVERRIDES, "data.path=images.npz", "data.validation_size=20"], tmp_path, at_start=bounded
    )
    done.refused()
    assert "images.npz" in done.err or "label" in done.err, done.err
    assert not list(tmp_path.glob("run/checkpoints/*"))
