"""Images in a mapped file: the same as in memory, and no memory of ours for longer than they are looked at."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from branchynet.data.checked import ImageSet
from branchynet.data.loader import DeviceLoader, WorkerLoader
from branchynet.data.mapped import STEP, forget, is_mapped, map_images, rows, tensor_of, walk
from branchynet.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 3, 8, 6), dtype=np.uint8)


def mapped(folder, images=IMAGES, start=0):
    path = folder / "images"
    path.write_bytes(bytes(start) + images.tobytes())
    with path.open("rb") as file:
        return tensor_of(map_images(file, folder, images.shape, start))


def resident(path):
    """Bytes of a file that are in this process's memory."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    found = [n for n, line in enumerate(lines) if line.endswith(str(path))]
    return sum(
        1024 * int(next(line for line in lines[n:] if line.startswith("Rss:")).split()[1]) for n in found
    )


def test_it_is_the_same_images_and_known_to_lie_in_a_file(tmp_path):
    x = mapped(tmp_path, start=13)
    assert torch.equal(x, torch.from_numpy(IMAGES))
    assert is_mapped(x) and is_mapped(x[3:9]) and not is_mapped(x[3:9].clone())
    forget(x)  # what is wanted again is read again
    assert torch.equal(x[7:], torch.from_numpy(IMAGES[7:]))
    forget(torch.ones(3))  # of others nothing is lost
    assert len(mapped(tmp_path, IMAGES[:0])) == 0


def test_walking_over_it_keeps_one_step_in_memory(tmp_path):
    images = np.ones((64, 1, 256, 256), np.uint8)  # of 64 KiB each
    x = mapped(tmp_path, images)
    whole, seen = images.nbytes, []
    for part in walk(x, whole // 4):
        assert part.sum() == part.numel() > 0
        seen.append(resident(tmp_path / "images"))
    assert len(seen) == 4 and max(seen) <= whole / 2
    assert resident(tmp_path / "images") == 0
    assert int(x.sum()) == whole and resident(tmp_path / "images") == whole, (
        "it is seen where it is not forgotten"
    )
    taken = ImageSet(x, torch.arange(64)).at(torch.tensor([5, 3]))
    assert taken.y.tolist() == [5, 3] and resident(tmp_path / "images") == 0


def test_parts_are_of_the_size_that_is_said_and_all_there_is():
    x = torch.arange(20, dtype=torch.uint8).reshape(10, 2)
    for step, sizes in ((1, [1] * 10), (6, [3, 3, 3, 1]), (STEP, [10])):
        parts = list(walk(x, step))
        assert [len(part) for part in parts] == sizes and torch.equal(torch.cat(parts), x)
    assert not list(walk(x[:0]))


def test_some_of_them_lie_in_a_file_again_that_nobody_else_sees(tmp_path):
    x, index = mapped(tmp_path), torch.tensor([1, 4, 5, 49])
    part = ImageSet(x, torch.arange(50)).part(index)
    assert is_mapped(part.x) and torch.equal(part.x, x[index]) and torch.equal(part.y, index)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    assert not is_mapped(rows(x.clone(), index)) and torch.equal(rows(x.clone(), index), x[index])


def test_they_lie_elsewhere_where_the_folder_is_not_ours(tmp_path, monkeypatch):
    x, index = mapped(tmp_path), torch.tensor([2, 3])
    (tmp_path / "mine").mkdir()
    monkeypatch.setattr("branchynet.data.mapped.os.access", lambda *_: False)
    monkeypatch.setattr("branchynet.data.mapped.tempfile.gettempdir", lambda: str(tmp_path / "mine"))
    asked = []
    monkeypatch.setattr("branchynet.data.mapped.check_disk", lambda folder, *_: asked.append(folder))
    assert torch.equal(rows(x, index), x[index]) and asked == [tmp_path / "mine"]


def test_processes_that_fetch_see_the_same_file(tmp_path):
    images = ImageSet(mapped(tmp_path), torch.arange(50))
    loader = WorkerLoader(images, 20, (0.5,) * 3, (1.0,) * 3, num_workers=1)
    other = DeviceLoader(ImageSet(torch.from_numpy(IMAGES), torch.arange(50)), 20, (0.5,) * 3, (1.0,) * 3)
    for one, two in zip(loader, other, strict=True):
        assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])


def test_no_room_for_some_of_them_is_told(tmp_path, monkeypatch):
    x = mapped(tmp_path)
    monkeypatch.setattr(
        "branchynet.data.memory.shutil.disk_usage", lambda _: type("Usage", (), {"free": 100})
    )
    with pytest.raises(
        UserError, match=r"a part of 2 images takes .* are free in .*: set data\.cache=<folder>"
    ):
        rows(x, torch.tensor([1, 2]))


def test_its_bytes_are_hashed_as_those_in_memory(tmp_path):
    x = mapped(tmp_path)
    digest = hashlib.sha256()
    for part in walk(x, 1000):
        digest.update(part.numpy().data)
    assert digest.hexdigest() == hashlib.sha256(IMAGES.tobytes()).hexdigest()
