"""Folders of images with masks: found, brought to one size together, and told what is wrong with them."""

import numpy as np
import pytest
from PIL import Image

from branchynet.data.datasets import load_dataset
from branchynet.data.masks import MaskSettings, read_mask
from branchynet.errors import ArgumentError, UserError


def picture(k, width=24, height=16):
    """Left half dark, right half light, by the number k; and its mask, 0 and 1."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 :] = 1
    image = np.stack([100 + 100 * mask] * 3, axis=-1)
    image[..., 2] = k
    return image.astype(np.uint8), mask


def write(images, masks, names, factor=1, **size):
    for place in (images, masks):
        place.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        image, mask = picture(k, **size)
        Image.fromarray(image).save(images / f"{name}.png")
        Image.fromarray(factor * mask).save(masks / f"{name}.png")


def load(folder, classes=None, **settings):
    return load_dataset("masks", path=folder, own=MaskSettings(**{"size": 8, **settings}), classes=classes)


def line_of(folder, **settings):
    with pytest.raises(UserError) as caught:
        load(folder, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "images", tmp_path / "masks", [f"{k:02d}" for k in range(20)])
    return tmp_path


def test_images_and_masks_are_cut_and_resized_together(folder):
    data = load(folder)
    assert [len(each) for each in (data.train, data.val, data.test)] == [14, 3, 3]
    assert data.train.x.shape[1:] == (3, 8, 8) and data.train.y.shape[1:] == (8, 8)
    assert data.classes == ("0", "1")
    both = [data.train, data.val, data.test]
    assert all(np.array_equal(each.y, each.x[:, 0] > 150) for each in both)
    shown = [int(image[2, 0, 0]) for each in both for image in each.x]
    assert sorted(shown) == list(range(20)), "every image once"


def test_images_of_other_sizes_endings_and_folders_below_find_their_masks(folder):
    write(folder / "images" / "more", folder / "masks" / "more", ["a"], width=10, height=30)
    image = folder / "images" / "more" / "a.png"
    Image.open(image).save(image.with_suffix(".jpg"), quality=95)
    image.unlink()
    data = load(folder)
    assert sum(len(each) for each in (data.train, data.val, data.test)) == 21


@pytest.mark.parametrize("way", ["{split}/{kind}", "{kind}/{split}"])
def test_splits_above_and_below_with_names_of_ones_own(tmp_path, way):
    for split, count in (("training", 5), ("validation", 3), ("test", 2)):
        places = [tmp_path / way.format(split=split, kind=kind) for kind in ("photos", "truth")]
        write(*places, "abcdefgh"[:count])
    data = load(tmp_path, images="photos", masks="truth", channels=1)
    assert [len(each) for each in (data.train, data.val, data.test)] == [5, 3, 2]
    assert data.train.x.shape[1] == 1


def test_values_are_numbered_in_their_order(tmp_path):
    write(tmp_path / "images", tmp_path / "masks", "abcdefgh", factor=255)
    assert "the masks' values are 0, 255, which are not 0 … K-1" in line_of(tmp_path)
    assert "data.values=[0,255]" in line_of(tmp_path)
    smeared = np.tile(np.arange(24, dtype=np.uint8) * 10, (16, 1))
    write(tmp_path / "many" / "images", tmp_path / "many" / "masks", "abcdef")
    Image.fromarray(smeared).save(tmp_path / "many" / "masks" / "a.png")
    assert "values, 0, 1, " in (line := line_of(tmp_path / "many", size=16)) and "take PNG" in line
    data = load(tmp_path, values=[255, 0], classes=("light", "dark"))
    assert np.array_equal(data.test.y, data.test.x[:, 0] < 150) and data.classes == ("light", "dark")
    assert "a.png has the value 255, which is none of data.values=[0, 1]" in line_of(tmp_path, values=[0, 1])


def test_pixels_of_one_value_do_not_count(folder):
    for k in range(20):
        path = folder / "masks" / f"{k:02d}.png"
        mask = np.asarray(Image.open(path)).copy()
        mask[:, 8:10] = 255
        Image.fromarray(mask).save(path)
    assert "data.values=[0,1,255]. Pixels that are not to count: data.ignore=255" in line_of(folder)
    data, other = load(folder, ignore=255), load(folder, values=[1, 255], ignore=0)
    assert data.classes == ("0", "1") and set(data.train.y.unique().tolist()) == {0, 1, 255}
    # 1 is class 0 now, what was left out is class 1, and the dark half is left out.
    assert np.array_equal(other.test.y, np.array([255, 0, *[1] * 254])[data.test.y.clamp(max=2)])
    assert "which is a class's number, as another value is ignored" in line_of(folder, ignore=0)
    Image.fromarray(np.full((16, 24), 255, np.uint8)).save(folder / "masks" / "07.png")
    assert "07.png: in the middle that is cut out no pixel counts" in line_of(folder, ignore=255)


@pytest.mark.parametrize("mode", ["1", "P", "L", "I;16", "RGB", "LA"])
def test_masks_are_read_as_they_are_stored(tmp_path, mode):
    mask = picture(0)[1]
    if mode == "P":  # the palette's numbers, not its colours
        image = Image.fromarray(mask)
        image.putpalette([200, 0, 0, 0, 0, 200])
    elif mode == "I;16":
        image = Image.fromarray(mask.astype(np.uint16))
    else:
        image = Image.fromarray(mask.astype(bool) if mode == "1" else mask).convert(mode)
    image.save(tmp_path / "m.png")
    assert np.array_equal(np.asarray(read_mask(tmp_path / "m.png")), mask)


def test_what_is_wrong_with_a_mask_is_one_line(folder):
    own = folder / "masks" / "07.png"
    Image.fromarray(picture(0)[0]).save(own)
    assert "07.png is in colour: a mask has a class's number" in line_of(folder)
    Image.fromarray(np.full((16, 24), 300, np.uint16)).save(own)
    assert "07.png has values beyond 0 … 255" in line_of(folder)
    Image.fromarray(np.zeros((16, 20), np.uint8)).save(own)
    assert "07.png is 16×20, its image 16×24" in line_of(folder)
    own.write_bytes(b"no picture")
    assert "07.png cannot be read" in line_of(folder)
    own.unlink()
    assert "images/07.png has no mask: wanted is" in line_of(folder)


def test_folders_that_are_not_there_are_named(tmp_path):
    assert "it has neither images/ and masks/, nor train/images/" in line_of(tmp_path)
    (tmp_path / "train" / "images").mkdir(parents=True)
    assert "has no masks: there is no folder" in line_of(tmp_path)
    (tmp_path / "train" / "masks").mkdir()
    assert "images has no images" in line_of(tmp_path)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"images": "a/b"}, "images='a/b'|images=a/b"),
        ({"values": [0]}, "values"),
        ({"values": [0, 0]}, "values"),
        ({"values": [0, 256]}, "values"),
        ({"size": None}, "size"),
        ({"ignore": "255"}, "ignore=255: it is null or a whole number"),
        ({"ignore": 1, "values": [0, 1]}, "ignore=1: it is one of data.values"),
    ],
)
def test_settings_are_checked(settings, says):
    with pytest.raises(ArgumentError, match=says):
        MaskSettings(**settings)
