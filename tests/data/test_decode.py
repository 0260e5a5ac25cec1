"""Files decoded side by side: in their order, in their places, by however many."""

import logging
import multiprocessing

import numpy as np
import pytest
from PIL import Image

from branchynet.data import decode
from branchynet.data.decode import Decoder, cores, decode_into_file, decode_into_memory, told
from branchynet.data.files import FileProblem
from branchynet.data.image_files import ImageFiles

NAMES = [f"{n}.png" for n in range(70)]  # more than a process decodes before it says so


@pytest.fixture
def decoder(tmp_path):
    for n, name in enumerate(NAMES):
        Image.fromarray(np.full((4, 4, 3), 3 * n, np.uint8)).save(tmp_path / name)
    (tmp_path / NAMES[40]).write_bytes(b"no picture")
    return Decoder(tmp_path, (3, 2, 2), ImageFiles(size="crop"))


def test_in_memory_each_is_given_in_order(decoder):
    found = list(decode_into_memory(decoder, NAMES))
    assert isinstance(found[40], FileProblem) and "40.png" in str(found[40])
    for n in (0, 39, 41, 69):
        assert found[n].shape == (3, 2, 2) and (found[n] == 3 * n).all()


@pytest.mark.parametrize("processes", [0, 2])
def test_in_a_file_each_has_its_place(decoder, processes):
    path = decoder.folder / "images"
    path.write_bytes(bytes([1]) * 70 * 12)
    found = list(decode_into_file(decoder, NAMES, path, processes))
    assert [n for n, problem in enumerate(found) if problem] == [40] and "40.png" in str(found[40])
    values = np.fromfile(path, np.uint8).reshape(70, 12)
    assert (values == np.where(np.arange(70) == 40, 1, 3 * np.arange(70))[:, None]).all()


def test_whoever_stops_early_waits_for_no_more_than_is_at_work(decoder, monkeypatch):
    read = []
    monkeypatch.setattr(decode, "read_image", lambda path, *_: read.append(path.name) or np.zeros((3, 2, 2)))
    (decoder.folder / "images").touch()
    found = decode_into_file(decoder, NAMES, decoder.folder / "images", 0)
    next(found)
    found.close()
    assert len(read) == decode.TOGETHER


def test_whoever_stops_ends_its_processes(decoder):
    path = decoder.folder / "images"
    path.write_bytes(bytes(70 * 12))
    before = set(multiprocessing.active_children())
    found = decode_into_file(decoder, NAMES, path, 1)
    next(found)
    (process,) = set(multiprocessing.active_children()) - before
    found.close()
    process.join(5)
    assert process.exitcode == 1, "it did not wait for the rest"


def test_how_far_it_is_is_told_every_ten_seconds(monkeypatch, caplog):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr("branchynet.data.decode.time.monotonic", lambda: float(next(clock)))
    with caplog.at_level(logging.INFO):
        assert list(told(range(8), 2000)) == list(range(8))
    assert [record.message for record in caplog.records] == [
        "decoded 3 of 2,000 images (0 %), 0 a second, 133 min to go",
        "decoded 6 of 2,000 images (0 %), 0 a second, 133 min to go",
    ]


def test_there_is_a_core():
    assert cores() >= 1
