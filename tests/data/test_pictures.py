"""Images from outside: what is read, resized, converted and refused."""

import numpy as np
import pytest
from PIL import Image

from branchynet.data.files import FileProblem
from branchynet.data.pictures import find_images, read_array, read_image

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
        read = read_image(save(grey), (1, 4, 5), *rule)
        assert read.dtype == np.uint8 and np.array_equal(read, grey[None])
        read = read_image(save(colour), (3, 4, 5), *rule)
        assert read.flags.c_contiguous
        assert all(np.array_equal(read[c], colour[:, :, c]) for c in range(3))


def test_channels_are_converted(save):
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 200
    # ITU-R 601: 0.299 red + 0.587 green + 0.114 blue.
    assert np.array_equal(read_image(save(red), (1, 2, 2), "refuse", "convert"), np.full((1, 2, 2), 60))
    grey = np.uint8([[1, 2], [3, 4]])
    assert np.array_equal(read_image(save(grey), (3, 2, 2), "refuse", "convert"), np.stack([grey] * 3))
    transparent = np.dstack([red, np.uint8([[0, 255], [7, 9]])])
    read = read_image(save(transparent), (3, 2, 2), "refuse", "convert")
    assert np.array_equal(read, red.transpose(2, 0, 1))
    palette = Image.fromarray(red).convert("P")
    palette.save(save(grey), transparency=b"\x01\x02")
    assert (read_image(save(grey).parent / "image.png", (3, 2, 2), "refuse", "convert") >= 0).all()


def test_other_sizes_are_resized(save):
    grey = np.repeat(np.uint8([[10, 10, 90, 90]]), 4, axis=0)
    read = read_image(save(grey), (1, 2, 2), "bilinear", "refuse")
    assert read.shape == (1, 2, 2) and (read[0, :, 0] < 40).all() and (read[0, :, 1] > 60).all()


def test_a_picture_is_turned_upright(save):
    wide = RNG.integers(0, 256, (2, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    read = read_image(save(wide, exif=exif), (1, 3, 2), "refuse", "refuse")
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
        read_image(file, shape, *rule)
    assert str(file) in str(caught.value) and all(word in str(caught.value) for word in words)


def test_damaged_and_missing_files_get_one_line(save, tmp_path):
    file = save(RNG.integers(0, 256, (40, 40, 3), np.uint8))
    content = file.read_bytes()
    for damaged in (content[:200], content[:8], b"", b"no image", content[:-300] + bytes(300)):
        file.write_bytes(damaged)
        with pytest.raises(FileProblem, match=r"image\.png cannot be read") as caught:
            read_image(file, (3, 40, 40), "bilinear", "convert")
        assert "\n" not in str(caught.value)
    with pytest.raises(FileProblem, match="no file"):
        read_image(tmp_path / "nowhere.png", (3, 40, 40), "bilinear", "convert")


def test_formats_that_start_programs_are_not_read(tmp_path):
    (tmp_path / "image.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(FileProblem, match="cannot be read"):
        read_image(tmp_path / "image.png", (3, 4, 4), "bilinear", "convert")


def test_images_are_found_in_order_and_other_files_are_not(tmp_path):
    for name in ("b.PNG", "a.jpeg", "sub/c.bmp", "notes.txt", ".hidden.png", "x.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["a.jpeg", "b.PNG", "sub/c.bmp"]
    (tmp_path / "none").mkdir()
    with pytest.raises(FileProblem, match=r"no image files: known are \.png"):
        find_images(tmp_path / "none")


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
    for name, words in (("x.npy", "cannot be read"), ("y.npy", "cannot be read"), ("z.npy", "no file")):
        with pytest.raises(FileProblem, match=words):
            read_array(tmp_path / name, (1, 4, 5))
