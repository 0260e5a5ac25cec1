"""Decoded images on the disk: the same as in memory, made once, found again, and never half a file."""

import json
import os
import shutil
import threading

import numpy as np
import pytest
from PIL import Image

from branchynet.data import decoded
from branchynet.data.decode import Decoder
from branchynet.data.decoded import map_decoded, read_images
from branchynet.data.image_files import ImageFiles
from branchynet.data.mapped import is_mapped, tensor_of
from branchynet.errors import UserError

FILES = {"train": [f"{n}.png" for n in range(9)], "test": ["x.png", "9.png", "10.png"]}
SPLITS = (0.15, 0.15, 0)


@pytest.fixture
def decoder(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(11):
        Image.fromarray(rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)).save(folder / f"{n}.png")
    for broken in ("3.png", "8.png", "x.png"):
        (folder / broken).write_bytes(b"no picture")
    return Decoder(folder, (3, 8, 8), ImageFiles(size="crop", background=(0, 0, 0)))


def make(decoder, cache=None, splits=SPLITS, on_error="skip", files=FILES):
    return map_decoded(decoder, files, splits, cache, 0, on_error)


def entries(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".lock"))


@pytest.fixture
def counted(monkeypatch):
    """How many files have been decoded."""
    read = []
    real = Decoder.decode
    monkeypatch.setattr(Decoder, "decode", lambda self, name: read.append(name) or real(self, name))
    return read


def test_it_is_what_is_in_memory(decoder):
    one, other = read_images(decoder, FILES, "skip"), make(decoder)
    for split in FILES:
        assert np.array_equal(one.images[split], other.images[split]), split
        assert is_mapped(tensor_of(other.images[split])) and not is_mapped(tensor_of(one.images[split]))
    assert one.missing == other.missing == {"train": [3, 8], "test": [0]}
    assert one.problems == other.problems and "3.png" in one.problems[0]
    assert one.images["train"].shape == (7, 3, 8, 8) and one.images["test"].shape == (2, 3, 8, 8)


def test_it_is_made_once_and_again_if_a_file_has_changed(decoder, counted):
    first = make(decoder)
    assert len(counted) == 12
    place = decoder.folder / ".branchynet"
    (name,) = entries(place)
    assert entries(place / name) == ["about.json", "images"]
    again = make(decoder)
    assert len(counted) == 12 and again.problems == first.problems and again.missing == first.missing
    assert np.array_equal(again.images["train"], first.images["train"])
    os.utime(decoder.folder / "0.png", ns=(1, 1))
    make(decoder)
    assert len(counted) == 24 and len(entries(place)) == 1, "the old one is gone"
    assert np.array_equal(again.images["train"], first.images["train"]), "but not for those who have it"
    make(decoder, files={**FILES, "test": ["9.png", "10.png"]})
    assert len(counted) == 35


@pytest.mark.parametrize(
    "change",
    [{"shape": (3, 8, 6)}, {"shape": (1, 8, 8)}, {"rule": ImageFiles(size="crop", background=(1, 0, 0))}],
)
def test_what_changes_pixels_has_a_file_of_its_own(decoder, change):
    make(decoder)
    make(decoder._replace(**change))
    assert len(entries(decoder.folder / ".branchynet")) == 2
    make(decoder, splits=(0.2, 0.15, 0))
    assert len(entries(decoder.folder / ".branchynet")) == 3


def test_nothing_looks_whole_that_is_not(decoder, counted):
    place = decoder.folder / ".branchynet"
    whole = make(decoder).images["train"].copy()
    (name,) = entries(place)
    about = json.loads((place / name / "about.json").read_text())

    def cut(path):
        os.truncate(path / "images", 100)

    def other(path):
        (path / "about.json").write_text(json.dumps({**about, "counts": {"train": 6, "test": 3}}))

    def no_json(path):
        (path / "about.json").write_text("{")

    def of_one_split(path):
        (path / "about.json").write_text(json.dumps({**about, "missing": {"train": [3, 8]}}))

    for number, damage in enumerate([cut, other, no_json, of_one_split, shutil.rmtree], start=2):
        damage(place / name)
        assert np.array_equal(make(decoder).images["train"], whole)
        assert len(counted) == 12 * number, damage.__name__


def test_whoever_is_interrupted_leaves_nothing_and_what_was_killed_is_removed(decoder, monkeypatch):
    place = decoder.folder / ".branchynet"

    def interrupted(*arguments):
        yield None
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decoded, "decode_into_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make(decoder)
    assert entries(place) == []
    with pytest.raises(UserError, match=r"3\.png.*data\.on_error=skip"):
        make(decoder, on_error="stop")
    assert entries(place) == []
    make(decoder)
    (name,) = entries(place)
    killed = place / f".writing-{name.split('-')[0]}-123"
    (place / name).rename(killed)
    elsewhere = place / ".writing-of_other_settings-123"
    elsewhere.mkdir()
    make(decoder)
    assert entries(place) == [elsewhere.name, name]
    with pytest.raises(UserError, match=r"3\.png.*data\.on_error=skip"):
        make(decoder, on_error="stop")  # of what is found, too


def test_two_at_once_decode_once(decoder, counted):
    found = []
    threads = [threading.Thread(target=lambda: found.append(make(decoder))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counted) == 12 and len(found) == 3
    assert len({each.images["train"].tobytes() for each in found}) == 1


def test_it_lies_where_it_is_told_or_can(decoder, tmp_path, monkeypatch):
    make(decoder, tmp_path / "elsewhere" / "below")
    assert (
        len(entries(tmp_path / "elsewhere" / "below")) == 1 and not (decoder.folder / ".branchynet").exists()
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (decoder.folder / ".branchynet").write_text("no folder")
    make(decoder)
    assert len(entries(tmp_path / "home" / "branchynet")) == 1
    shutil.rmtree(tmp_path / "home")
    (tmp_path / "home").write_text("no folder")
    with pytest.raises(UserError, match=r"\.branchynet and .* cannot be written: set data\.cache=<folder>"):
        make(decoder)


def test_a_full_disk_is_told_before_and_in_the_middle(decoder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("branchynet.data.memory.shutil.disk_usage", lambda _: type("Usage", (), {"free": 100}))
        patch.setattr(Decoder, "decode", lambda *_: pytest.fail("it was decoded"))
        with pytest.raises(UserError, match=r"12 images takes .* on the disk, and 0\.0 MiB are free in"):
            make(decoder)

    def full(*arguments):
        yield None
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decoded, "decode_into_file", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\): set data\.cache"):
        make(decoder)
    assert entries(decoder.folder / ".branchynet") == []


def test_without_files_that_can_be_read_it_is_empty(decoder):
    assert make(decoder, files={"train": ["x.png"], "test": []}).images["train"].shape == (0, 3, 8, 8)
