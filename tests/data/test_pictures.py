"""Images from outside: what is read, resized, converted and refused."""

import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from branchynet.data.files import FileProblem
from branchynet.data.image_files import ImageFiles
from branchynet.data.pictures import find_images, left_out, read_array, read_image

RNG = np.random.default_rng(0)


@pytest.fixture
def save(tmp_path):
    """A function that writes pixels as an image file."""

    def write(pixels, name="image.png", **options):
        Image.fromarray(pixels).save(tmp_path / name, **options)
        return tmp_path / name

    return write


def test_grey_and_colour_keep_every_pixel(save):
    grey = RNG.integers(0, 256, (4, 5), np.uint8)
    colour = RNG.integers(0, 256, (4, 5, 3), np.uint8)
    for rule in (("bilinear", "convert"), ("refuse", "refuse")):
        read = read_image(save(grey), (1, 4, 5), ImageFiles(*rule))
        assert read.dtype == np.uint8 and np.array_equal(read, grey[None])
        read = read_image(save(colour), (3, 4, 5), ImageFiles(*rule))
        assert read.flags.c_contiguous
        assert all(np.array_equal(read[c], colour[:, :, c]) for c in range(3))


def test_channels_are_converted(save):
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 200
    # ITU-R 601: 0.299 red + 0.587 green + 0.114 blue.
    assert np.array_equal(
        read_image(save(red), (1, 2, 2), ImageFiles("refuse", "convert")), np.full((1, 2, 2), 60)
    )
    grey = np.uint8([[1, 2], [3, 4]])
    assert np.array_equal(
        read_image(save(grey), (3, 2, 2), ImageFiles("refuse", "convert")), np.stack([grey] * 3)
    )


def test_transparency_lies_on_the_background(save):
    strokes = np.zeros((2, 2, 4), np.uint8)
    strokes[..., 3] = [[0, 255], [51, 0]]
    black, white = strokes, strokes | np.uint8([255, 255, 255, 0])
    on_white = np.uint8([[[255, 0], [204, 255]]])
    for pixels, rule, wanted in (
        (black, {"background": (255,)}, on_white),
        (white, {"background": (0,)}, 255 - on_white),
        # As the network sees it: dark and light are swapped below, too.
        (black, {"background": (0,), "invert": True}, 255 - on_white),
        (white, {"background": (255,), "invert": True}, on_white),
    ):
        assert np.array_equal(read_image(save(pixels), (1, 2, 2), ImageFiles(**rule)), wanted)
        other = {**rule, "background": (255 - rule["background"][0],)}
        for wrong, words in (({}, "is transparent, .*set image_files.background"), (other, "vanishes .*set")):
            with pytest.raises(FileProblem, match=rf"image\.png {words}"):
                read_image(save(pixels), (1, 2, 2), ImageFiles(**wrong))
    colour = read_image(save(white), (3, 2, 2), ImageFiles(background=(10, 20, 30)))
    assert colour[:, 0, 0].tolist() == [10, 20, 30] and colour[:, 0, 1].tolist() == [255] * 3
    solid = np.dstack([np.full((2, 2, 3), 7, np.uint8), np.full((2, 2), 255, np.uint8)])
    assert (read_image(save(solid), (1, 2, 2), ImageFiles()) == 7).all(), "nothing shows through"


def test_grey_and_palettes_may_be_transparent_too(save, tmp_path):
    rule = ImageFiles(background=(9,))
    Image.fromarray(np.uint8([[0, 200]])).save(tmp_path / "grey.png", transparency=0)
    assert read_image(tmp_path / "grey.png", (1, 1, 2), rule).tolist() == [[[9, 200]]]
    Image.fromarray(np.uint8([[0, 200]])).convert("P").save(tmp_path / "p.png", transparency=b"\0")
    assert read_image(tmp_path / "p.png", (1, 1, 2), rule).tolist() == [[[9, 200]]]


def test_dark_and_light_are_swapped(save):
    colour = RNG.integers(0, 256, (4, 5, 3), np.uint8)
    read = read_image(save(colour), (3, 4, 5), ImageFiles("refuse", "refuse", invert=True))
    assert np.array_equal(read, 255 - colour.transpose(2, 0, 1))


def test_other_sizes_are_resized(save):
    grey = np.repeat(np.uint8([[10, 10, 90, 90]]), 4, axis=0)
    read = read_image(save(grey), (1, 2, 2), ImageFiles("bilinear", "refuse"))
    assert read.shape == (1, 2, 2) and (read[0, :, 0] < 40).all() and (read[0, :, 1] > 60).all()


def test_a_picture_is_turned_upright(save):
    wide = RNG.integers(0, 256, (2, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    read = read_image(save(wide, exif=exif), (1, 3, 2), ImageFiles("refuse", "refuse"))
    assert np.array_equal(read[0], np.rot90(wide, -1))


@pytest.mark.parametrize(
    ("pixels", "shape", "rule", "words"),
    [
        (np.zeros((4, 5), np.uint8), (1, 5, 4), ("refuse", "convert"), ["4×5", "5×4"]),
        (np.zeros((4, 5), np.uint8), (3, 4, 5), ("bilinear", "refuse"), ["is L", "RGB"]),
        (np.zeros((4, 5, 3), np.uint8), (1, 4, 5), ("bilinear", "refuse"), ["is RGB", "L"]),
        (np.zeros((4, 5), np.uint8), (4, 4, 5), ("bilinear", "convert"), ["4 channels", ".npy"]),
        (np.zeros((4, 5), np.uint16), (1, 4, 5), ("bilinear", "convert"), ["8 bits", "I;16"]),
    ],
)
def test_what_the_rule_refuses_is_said(pixels, shape, rule, words, save):
    file = save(pixels)
    with pytest.raises(FileProblem) as caught:
        read_image(file, shape, ImageFiles(*rule))
    assert str(file) in str(caught.value) and all(word in str(caught.value) for word in words)


def test_damaged_and_missing_files_get_one_line(save, tmp_path):
    file = save(RNG.integers(0, 256, (40, 40, 3), np.uint8))
    content = file.read_bytes()
    for damaged in (content[:200], content[:8], b"", b"no image", content[:-300] + bytes(300)):
        file.write_bytes(damaged)
        with pytest.raises(FileProblem, match=r"image\.png cannot be read") as caught:
            read_image(file, (3, 40, 40), ImageFiles("bilinear", "convert"))
        assert "\n" not in str(caught.value)
    with pytest.raises(FileProblem, match="is not there"):
        read_image(tmp_path / "nowhere.png", (3, 40, 40), ImageFiles("bilinear", "convert"))


def test_formats_that_start_programs_are_not_read(tmp_path):
    (tmp_path / "image.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(FileProblem, match="cannot be read"):
        read_image(tmp_path / "image.png", (3, 4, 4), ImageFiles("bilinear", "convert"))


def test_images_are_found_in_order_and_other_files_are_counted(tmp_path):
    names = "b.PNG a.jpeg sub/c.bmp x.jfif y.avif z.webp notes.txt a.heic sub/b.HEIC README .hidden.png x.npy"
    for name in names.split():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["a.jpeg", "b.PNG", "sub/c.bmp", "x.jfif", "y.avif", "z.webp"]
    assert left_out(tmp_path) == "2 .heic, 1 .npy, 1 .txt, 1 without an ending"
    (tmp_path / "none").mkdir()
    with pytest.raises(FileProblem, match=r"no image files: known are .*\.png"):
        find_images(tmp_path / "none")


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    for name in ("a.png", "locked/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    scandir = os.scandir

    def denied(path):  # the tests may run as root, who may read everything
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    problems = []
    assert [path.name for path in find_images(tmp_path, problems)] == ["a.png"]
    assert [str(problem) for problem in problems] == [f"{tmp_path}/locked cannot be read (Permission denied)"]
    with pytest.raises(FileProblem, match="locked cannot be read"):
        find_images(tmp_path / "locked", [])


def header(text, version=b"\1\0", length=None):
    """An .npy file without an array."""
    size = len(text) if length is None else length
    return b"\x93NUMPY" + version + size.to_bytes(2 if version[0] == 1 else 4, "little") + text


def array_of(shape):
    return header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode())


def bitmap_of(width, height):
    return b"BM" + bytes(12) + struct.pack("<IiiHH", 40, width, height, 1, 24) + bytes(24)


# For a contributor: add a line. What is no picture or array, and what is said of it.
HOSTILE = {
    "fifo": (os.mkfifo, "it is no regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "it is no regular file"),
    "folder": (lambda path: path.mkdir(), "it is a folder"),
    "dangling link": (lambda path: path.symlink_to("nowhere"), "is not there"),
    "circle": (lambda path: path.symlink_to(path.name), "cannot be read"),
    "empty": (lambda path: path.touch(), "cannot be read"),
    "zeros": (lambda path: path.write_bytes(bytes(10**6)), "cannot be read"),
    # 10⁵ × 10⁵ pixels in 54 bytes.
    "bomb": (
        lambda path: path.write_bytes(bitmap_of(10**5, 10**5)),
        "pixels: make it smaller|cannot be read",
    ),
    "array without end": (lambda path: path.write_bytes(array_of((10**10, 4, 5))), "cannot be read"),
    "array beyond numbers": (lambda path: path.write_bytes(array_of((10**40, 4, 5))), "cannot be read"),
    "header without end": (
        lambda path: (path.write_bytes(header(b"", b"\2\0", 2**32 - 1)), os.truncate(path, 2**33)),
        "cannot be read",
    ),
    "pickle": (lambda path: path.write_bytes(pickle.dumps([1])), "cannot be read"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("ending", ["png", "npy"])
def test_hostile_files_get_one_line_at_once(name, ending, tmp_path):
    make, words = HOSTILE[name]
    path = tmp_path / f"x.{ending}"
    make(path)
    tracemalloc.start()
    try:
        with pytest.raises(FileProblem, match=words) as caught:
            if ending == "png":
                read_image(path, (1, 4, 5), ImageFiles())
            else:
                read_array(path, (1, 4, 5))
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
        assert tracemalloc.get_traced_memory()[1] < 20e6, "bytes"
    finally:
        tracemalloc.stop()


def test_arrays_of_every_layout_are_the_same_images(tmp_path):
    x = RNG.integers(0, 256, (7, 3, 4, 5), np.uint8)
    for stored in (x, x.transpose(0, 2, 3, 1)):
        np.save(tmp_path / "x.npy", stored)
        assert np.array_equal(read_array(tmp_path / "x.npy", (3, 4, 5)), x)
    grey = x[:, :1]
    for stored in (grey, grey[:, 0], grey.transpose(0, 2, 3, 1)):
        np.save(tmp_path / "x.npy", stored)
        assert np.array_equal(read_array(tmp_path / "x.npy", (1, 4, 5)), grey)


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((2, 1, 4, 6), np.uint8),
        np.zeros((2, 1, 4, 5), np.float32),
        np.zeros((4, 5), np.uint8),
        np.zeros((0, 1, 4, 5), np.uint8),
        np.uint8(3),
    ],
)
def test_other_arrays_are_refused_with_what_is_allowed(x, tmp_path):
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(FileProblem) as caught:
        read_array(tmp_path / "x.npy", (1, 4, 5))
    assert "must be uint8 of shape (S, 1, 4, 5) or (S, 4, 5, 1) or (S, 4, 5)" in str(caught.value)


def test_a_pickled_array_is_not_loaded(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], object), allow_pickle=True)
    (tmp_path / "y.npy").write_bytes(b"no array")
    for name, words in (("x.npy", "cannot be read"), ("y.npy", "cannot be read"), ("z.npy", "is not there")):
        with pytest.raises(FileProblem, match=words):
            read_array(tmp_path / name, (1, 4, 5))
