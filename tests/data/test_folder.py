"""Image files in folders, one for each class: found, split, read."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from branchynet.data.datasets import load_dataset
from branchynet.data.folder import FolderSettings, find_files, read_folder
from branchynet.data.loader import DeviceLoader, WorkerLoader
from branchynet.data.mapped import is_mapped, tensor_of
from branchynet.data.module import ImageData
from branchynet.errors import ArgumentError, UserError
from branchynet.runs.image_facts import facts_of


def picture(path, value=100, size=(12, 12), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(value)
    noise = rng.integers(0, 40, (*size, 3), dtype=np.uint8) + np.uint8(value)
    Image.fromarray(noise).convert(mode).save(path)


@pytest.fixture
def flat(tmp_path):
    """Classes without splits: 20 cats and 40 dogs, each file of its own value."""
    for n in range(20):
        picture(tmp_path / "cats" / f"{n}.png", n)
    for n in range(40):
        picture(tmp_path / "dogs" / "deeper" / f"{n}.png", 100 + n)
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def test_without_splits_each_class_gives_its_share_always_the_same(flat):
    settings = FolderSettings(val_share=0.2, test_share=0.25)
    found = find_files(flat, settings, seed=3)
    assert found.classes == ("cats", "dogs")
    counts = {split: np.bincount(label, minlength=2).tolist() for split, label in found.labels.items()}
    assert counts == {"test": [5, 10], "val": [3, 6], "train": [12, 24]}
    every = [file for files in found.files.values() for file in files]
    assert len(set(every)) == 60
    for split, files in found.files.items():
        assert [found.classes.index(file.split("/")[0]) for file in files] == list(found.labels[split])
    assert find_files(flat, settings, seed=3).files == found.files
    assert find_files(flat, settings, seed=4).files != found.files


def test_own_splits_are_taken_and_what_is_missing_is_set_aside(tmp_path, caplog):
    for split, count in (("train", 10), ("valid", 4)):
        for name in ("a", "b"):
            for n in range(count):
                picture(tmp_path / split / name / f"{n}.png", n)
    (tmp_path / "valid" / "b").rename(tmp_path / "elsewhere")
    with caplog.at_level(logging.WARNING):
        found = find_files(tmp_path, FolderSettings(test_share=0.2))
    assert {split: len(files) for split, files in found.files.items()} == {"train": 16, "val": 4, "test": 4}
    assert "has no image of b" in caplog.text
    assert {file.split("/")[0] for file in found.files["test"]} == {"train"}


def test_pixels_are_those_of_the_middle_upright_and_on_the_background(tmp_path):
    left, right = np.zeros((10, 20, 3), np.uint8), np.zeros((10, 20, 3), np.uint8)
    left[:, :10] = 200
    right[:, 5:15] = 200
    for name, pixels in (("a", left), ("b", right)):
        for n in range(4):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / name / f"{n}.png")
    clear = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    clear.paste((0, 0, 0, 255), (0, 0, 5, 10))
    clear.save(tmp_path / "a" / "9.png")
    turned = Image.fromarray(
        np.concatenate([np.full((5, 10, 3), 200, np.uint8), np.zeros((5, 10, 3), np.uint8)])
    )
    exif = Image.Exif()
    exif[0x0112] = 8  # turned left to be upright
    turned.save(tmp_path / "b" / "9.jpg", exif=exif, quality=100)
    found = read_folder(tmp_path, FolderSettings(size=10, val_share=0.2, test_share=0.2, background=90))
    files = find_files(tmp_path, FolderSettings(size=10, val_share=0.2, test_share=0.2, background=90)).files
    images = {
        file: image
        for split, names in files.items()
        for file, image in zip(names, found.parts[split][0], strict=True)
    }
    assert images["a/0.png"].shape == (3, 10, 10)
    assert (images["a/0.png"][:, :, :5] == 200).all() and (images["a/0.png"][:, :, 5:] == 0).all()
    assert (images["b/0.png"] == 200).all()
    assert (images["a/9.png"][:, :, :5] == 0).all() and (images["a/9.png"][:, :, 5:] == 90).all()
    assert images["b/9.jpg"][:, :, :4].mean() > 190 and images["b/9.jpg"][:, :, 6:].mean() < 10


def test_files_that_cannot_be_read_are_named_and_counted_or_stop(flat, caplog):
    (flat / "cats" / "x.png").write_bytes(b"no picture")
    (flat / "dogs" / "notes.txt").write_text("a note")
    with caplog.at_level(logging.WARNING):
        found = read_folder(flat, FolderSettings(size=8, channels=1))
    assert (
        "1 of 61 images cannot be read" in caplog.text and "x.png" in caplog.text and "1 .txt" in caplog.text
    )
    assert sum(len(label) for _, label in found.parts.values()) == 60
    assert found.parts["train"][0].shape[1:] == (1, 8, 8)
    with pytest.raises(UserError, match=r"x\.png.*data\.on_error=skip"):
        read_folder(flat, FolderSettings(size=8, on_error="stop"))


def test_one_size_needs_none_said(flat):
    assert read_folder(flat, FolderSettings()).parts["test"][0].shape[1:] == (3, 12, 12)
    picture(flat / "cats" / "large.png", 1, (30, 12))
    with pytest.raises(UserError, match=r"several sizes, such as 12×12 and 30×12: set data\.size"):
        read_folder(flat, FolderSettings())


def test_as_a_data_module(flat):
    data = ImageData("folder", path=str(flat), validation_size=None, size=8, channels=1, val_share=0.2)
    data.setup()
    assert data.input_shape == (1, 8, 8) and data.classes == ("cats", "dogs")
    assert sum(len(data.images(split)) for split in ("train", "val", "test")) == 60
    assert data.files_size == "crop" and ImageData("digits").files_size is None
    assert load_dataset("folder", path=flat, own=FolderSettings(size=8)).train.x.shape[1:] == (3, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 0}, "size=0"),
        ({"channels": 4}, r"channels=4: it is 1 \(grey\) or 3"),
        ({"val_share": 0.7}, "val_share=0.7: it is a share"),
        ({"background": 256}, "background=256"),
        ({"on_error": "ignore"}, "on_error=ignore"),
        ({"keep": "cloud"}, "keep=cloud: it is one of auto, memory, disk"),
        ({"cache": 3}, "cache=3: it is a folder, or null"),
        ({"num_workers": 1000}, "num_workers=1000: it is a whole number, 0 … 512"),
        ({"sizes": 3}, "sizes=3: there is no such setting"),
    ],
)
def test_settings_that_are_not_allowed(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        ImageData("folder", path="somewhere", validation_size=None, **arguments)


def test_settings_of_a_folder_are_for_a_folder():
    with pytest.raises(
        ArgumentError, match="size=32 is for data=folder and data=masks and data=torchvision only"
    ):
        ImageData("digits", size=32)
    with pytest.raises(UserError, match=r"data=folder needs data\.path"):
        ImageData("folder")


def test_folders_that_are_no_data_set(tmp_path):
    def told(folder):
        with pytest.raises(UserError) as caught:
            find_files(folder, FolderSettings())
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "there is no such folder" in told(tmp_path / "none")
    assert "0 folders: it has one for each class, 2 at least" in told(tmp_path)
    for name in ("a", "b"):
        picture(tmp_path / "one" / "test" / name / "0.png")
        picture(tmp_path / "two" / "train" / name / "0.png")
        picture(tmp_path / "three" / name / "0.png")
    assert "has test/ and no train/" in told(tmp_path / "one")
    picture(tmp_path / "two" / "test" / "c" / "0.png")
    assert "has a folder c, which no class" in told(tmp_path / "two")
    assert "test_share=0.15: it would leave a class without training images" in told(tmp_path / "three")
    (tmp_path / "three" / "empty").mkdir()
    assert "has no image of empty: put some there" in told(tmp_path / "three")


def folder_data(flat, keep, **options):
    return ImageData(
        "folder", path=str(flat), validation_size=None, size=8, keep=keep, num_workers=0, **options
    )


def test_more_than_fits_into_memory_lies_on_the_disk_or_is_refused_before_it_is_read(
    flat, monkeypatch, caplog
):
    monkeypatch.setattr("branchynet.data.folder.available_memory", lambda: 20_000)
    with caplog.at_level(logging.INFO):
        found = read_folder(flat, FolderSettings(size=12, num_workers=0))
    assert (
        "60 images of 3×12×12 take 0.0 MiB and 0.0 MiB of memory are free: they are kept on the disk"
        in caplog.text
    )
    assert f"decoding into {flat}/.branchynet/" in caplog.text
    assert all(is_mapped(tensor_of(images)) for images, _ in found.parts.values())
    monkeypatch.setattr("branchynet.data.decode.read_image", lambda *_: pytest.fail("it was read"))
    with pytest.raises(UserError, match=r"60 images of 3×12×12 take .* of memory.*data\.keep=disk"):
        read_folder(flat, FolderSettings(size=12, keep="memory"))


def test_on_the_disk_all_is_as_in_memory(flat, caplog):
    (flat / "cats" / "x.png").write_bytes(b"no picture")
    augment = {"flip": True, "shift": 1, "crop_scale": [0.5, 1]}
    with caplog.at_level(logging.INFO):
        memory, disk = (
            folder_data(flat, keep, calibration=5, batch_size=16, augment=augment)
            for keep in ("memory", "disk")
        )
        facts = facts_of(memory)
        assert facts_of(disk) == facts and facts.fingerprint
    assert "60 images" not in caplog.text and caplog.text.count("1 of 61 images cannot be read") == 2
    assert "61 images of 3×8×8 take 0.0 MiB and are kept in memory" in caplog.text
    for split in ("train", "val", "test", "calibration"):
        assert torch.equal(memory.images(split), disk.images(split))
        assert is_mapped(disk.images(split)) and not is_mapped(memory.images(split))
    for of_memory, of_disk in zip(memory.train_dataloader(), disk.train_dataloader(), strict=True):
        assert all(torch.equal(one, other) for one, other in zip(of_memory, of_disk, strict=True))
    # To a device it goes batch by batch.
    trainer = SimpleNamespace(
        global_rank=0, world_size=1, strategy=SimpleNamespace(root_device=torch.device("meta"))
    )
    for data, kind in ((memory, DeviceLoader), (disk, WorkerLoader)):
        data.trainer = trainer
        assert type(data.test_dataloader()) is kind
