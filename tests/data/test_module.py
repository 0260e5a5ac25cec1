import hashlib
import inspect
import os
import pickle
from dataclasses import fields
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from branchynet.data.datasets import KINDS, NAMES
from branchynet.data.module import ImageData
from branchynet.errors import ArgumentError, UserError


def digits(**options) -> ImageData:
    return ImageData("digits", **{"validation_size": 200, "batch_size": 256, **options})


@pytest.fixture(scope="module")
def data() -> ImageData:
    data = digits()
    data.setup()
    return data


def test_split_is_disjoint_and_complete(data):
    everything = torch.cat([data.images(which) for which in ("train", "val", "test")])
    assert [len(data.images(which)) for which in ("train", "val", "test")] == [1237, 200, 360]
    assert len(torch.unique(everything.flatten(1), dim=0)) == 1797  # scikit-learn's digits are all different
    assert torch.equal(data.images("test"), digits(split_seed=1).images("test"))


def test_split_depends_on_its_own_seed_only(data):
    assert torch.equal(digits(seed=5).images("val"), data.images("val"))
    assert not torch.equal(digits(split_seed=5).images("val"), data.images("val"))


def test_split_keeps_the_data_sets_order(data):
    from branchynet.data.datasets import load_dataset

    places = {image.numpy().tobytes(): k for k, image in enumerate(load_dataset("digits").train.x)}
    for which in ("train", "val"):
        found = [places[image.numpy().tobytes()] for image in data.images(which)]
        assert found == sorted(found)


# Where validation images come from

CLASSES = np.repeat([0, 1, 2, 3], [400, 60, 12, 1])  # of 473 images


def mine(path: Path, labels: np.ndarray, **options) -> ImageData:
    """Images whose first two pixels say which they are; three of them for test."""
    x = np.zeros((len(labels), 3, 3), np.uint8)
    x[:, 0, 0], x[:, 0, 1] = np.arange(len(labels)) % 256, np.arange(len(labels)) // 256
    own = options.pop("own", None)
    more = {} if own is None else {"x_val": x[own] + 1, "y_val": labels[own]}
    np.savez(path, x_train=x, y_train=labels, x_test=x[:3], y_test=labels[:3], **more)
    return ImageData("arrays", path=str(path), **options)


def numbers(data: ImageData, which: str) -> list[int]:
    x = data.images(which).numpy().astype(int)
    return (x[:, 0, 0, 0] + 256 * x[:, 0, 0, 1]).tolist()


@pytest.mark.parametrize("seed", [0, 1])
def test_each_class_gives_an_equal_share_where_one_has_few_images(tmp_path, seed):
    data = mine(tmp_path / "f.npz", CLASSES, validation_size=100, split_seed=seed, stratify="auto")
    val = numbers(data, "val")
    # 100 · 400 / 473 = 84.6, 100 · 60 / 473 = 12.7, 100 · 12 / 473 = 2.5, 0.2
    counts = np.bincount(CLASSES[val], minlength=4)
    assert counts.sum() == 100 and counts[3] == 0
    assert np.abs(counts - 100 * np.bincount(CLASSES) / 473).max() < 1
    assert sorted(val + numbers(data, "train")) == list(range(473)) and val == sorted(val)
    other = mine(tmp_path / "f.npz", CLASSES, validation_size=100, split_seed=seed + 7, stratify="auto")
    assert numbers(other, "val") != val


@pytest.mark.parametrize("calibration", [50, 50 / 473])
def test_calibration_images_neither_train_nor_validate(tmp_path, calibration):
    options = {"validation_size": 100, "stratify": "auto"}
    data = mine(tmp_path / "f.npz", CLASSES, calibration=calibration, **options)
    held = numbers(data, "calibration")
    # 50 · 400 / 473 = 42.3, 6.3, 1.3, 0.1
    counts = np.bincount(CLASSES[held], minlength=4)
    assert counts.sum() == 50 and np.abs(counts - 50 * np.bincount(CLASSES) / 473).max() < 2
    assert sorted(held + numbers(data, "val") + numbers(data, "train")) == list(
        range(473)
    ) and held == sorted(held)
    without = mine(tmp_path / "f.npz", CLASSES, **options)
    assert numbers(without, "val") == numbers(data, "val"), "validation is the same with and without"
    assert numbers(without, "calibration") == [] and len(without.labels("calibration")) == 0
    assert without.fingerprint() != data.fingerprint(), "a baseline of other training images is another one"


def test_a_set_with_validation_images_of_its_own_gives_calibration_images_too(tmp_path):
    own = {"own": [3, 400, 2], "validation_size": None, "stratify": "auto"}
    data = mine(tmp_path / "f.npz", CLASSES, calibration=0.1, **own)
    assert len(data.images("val")) == 3 and len(data.images("calibration")) == 47
    assert sorted(numbers(data, "calibration") + numbers(data, "train")) == list(range(473))


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (
            -1,
            "^calibration=-1: it is a number of images, 0 or more, or a share of the training images below 1",
        ),
        (1.5, "^calibration=1.5: it is a number of images"),
        (True, "^calibration=True: it is a number of images"),
        (373, "^calibration=373: it is below 373, the number of training images of arrays that are left"),
        (0.9, "^calibration=0.9: it is below 373"),
        (0.0001, "^calibration=0.0001: it is at least one of the 473 training images"),
    ],
)
def test_calibration_that_cannot_be_is_refused(tmp_path, calibration, message):
    with pytest.raises(UserError, match=message):
        mine(tmp_path / "f.npz", CLASSES, validation_size=100, calibration=calibration).setup()


def test_chance_alone_divides_where_all_classes_have_a_hundred_or_when_told_to(tmp_path):
    many = np.repeat([0, 1], [100, 300])
    plain = np.random.RandomState(0).permutation(400)[:50]
    found = {
        stratify: numbers(mine(tmp_path / "f.npz", many, validation_size=50, stratify=stratify), "val")
        for stratify in ("auto", False, True)
    }
    assert found["auto"] == found[False] == sorted(plain.tolist())
    assert np.bincount(many[found[True]]).tolist() in ([12, 38], [13, 37]) and found[True] != found[False]
    few = mine(tmp_path / "f.npz", CLASSES, validation_size=50, stratify=False)
    assert numbers(few, "val") == sorted(np.random.RandomState(0).permutation(473)[:50].tolist())


def test_published_splits_stay_what_they_were(data):
    found = digits(stratify="auto")
    assert torch.equal(found.images("val"), data.images("val"))


def test_a_sets_own_validation_images_are_taken_as_they_are(tmp_path):
    data = mine(tmp_path / "f.npz", CLASSES, own=[3, 400, 2], validation_size=None, stratify="auto")
    assert numbers(data, "train") == list(range(473))
    assert data.images("val")[:, 0, 2, 2].tolist() == [1, 1, 1]
    assert data.labels("val").tolist() == [0, 1, 0]
    assert len(data.inexact("val")) == 0


def test_a_sets_own_validation_images_are_not_left_out_in_silence(tmp_path):
    data = mine(tmp_path / "f.npz", CLASSES, own=[3], validation_size=100)
    with pytest.raises(UserError, match=r"^validation_size=100: it is null: arrays has 1 validation images"):
        data.setup()


def test_training_split_is_standardised(data):
    x, y = next(data.batches("train", 10_000))
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert x.mean().item() == pytest.approx(0, abs=1e-5)
    assert x.std().item() == pytest.approx(1, abs=1e-5)
    # The others are not: they use the training split's numbers.
    values = data.images("test").double() / 255
    torch.testing.assert_close(
        next(data.batches("test", 10_000))[0].double(),
        (values - data.mean[0]) / data.std[0],
        rtol=1e-5,
        atol=1e-5,
    )


def test_describes_the_data(data):
    assert data.input_shape == (1, 28, 28)
    assert data.num_classes == 10
    assert data.classes == tuple("0123456789")


@pytest.mark.parametrize("which", ["val", "test"])
def test_evaluation_is_in_order_and_not_augmented(which):
    data = digits(augment={"shift": 3, "flip": True}, eval_batch_size=70)
    loader = data.val_dataloader() if which == "val" else data.test_dataloader()
    x, y = next(data.batches(which, 10_000))
    assert torch.equal(torch.cat([batch for batch, _ in loader]), x)
    assert torch.equal(torch.cat([labels for _, labels in loader]), y)


def test_fingerprint(data):
    assert data.fingerprint() == digits(seed=9, batch_size=3).fingerprint()
    assert data.fingerprint() != digits(split_seed=1).fingerprint()
    assert data.fingerprint() != digits(validation_size=201).fingerprint()
    assert len(data.fingerprint()) == len(hashlib.sha256().hexdigest())


def test_fingerprint_sees_one_pixel_and_one_label(tmp_path):
    def fingerprint(pixel: int, label: int) -> str:
        x, y = np.zeros((9, 4, 4), np.uint8), np.arange(9) % 3
        x[5, 2, 2], y[5] = pixel, label
        np.savez(tmp_path / "f.npz", x_train=x, y_train=y, x_test=x, y_test=y)
        return ImageData("arrays", path=str(tmp_path / "f.npz"), validation_size=3).fingerprint()

    assert len({fingerprint(0, 2), fingerprint(1, 2), fingerprint(0, 1)}) == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"name": "minst"},
            "name=minst: it is one of mnist, fashion_mnist, cifar10, cifar100, digits, digits_cluttered, shapes",
        ),
        ({"name": "arrays"}, "data=arrays needs data.path=<file.npz>"),
        ({"path": "x.npz"}, "path='x.npz' is for data=arrays and data=folder"),
        ({"download": "yes"}, "download=yes: it is true or false"),
        ({"batch_size": 0}, "batch_size=0: it is a whole number above 0"),
        ({"batch_size": 2.5}, "batch_size=2.5: it is"),
        ({"batch_size": True}, "batch_size=True: it is"),
        ({"eval_batch_size": -1}, "eval_batch_size=-1: it is"),
        ({"validation_size": 0}, "validation_size=0: it is"),
        ({"validation_size": -5}, "validation_size=-5: it is"),
        ({"stratify": "yes"}, "stratify=yes: it is auto, true or false"),
        ({"num_workers": -1}, "num_workers=-1: it is a whole number, 0 … 512"),
        ({"num_workers": 100_000}, "num_workers=100000: it is a whole number, 0 … 512"),
        ({"num_workers": 2}, "num_workers=2 needs loader=dataloader"),
        ({"seed": -1}, "seed=-1: it is"),
        ({"split_seed": "a"}, "split_seed=a: it is"),
        ({"split_seed": 2**32}, "split_seed=4294967296: it is a whole number, 0 … 4294967295"),
        ({"loader": "gpu"}, "loader=gpu: it is one of device, dataloader"),
        ({"augment": {"shift": -2}}, "augment.shift=-2: it is"),
    ],
)
def test_bad_arguments_are_one_line_at_once(options, says):
    with pytest.raises(UserError) as caught:
        digits(**options) if "name" not in options else ImageData(**options)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"validation_size": 1437}, "^validation_size=1437: it is below 1437"),
        ({"validation_size": None}, "^validation_size=None: it is below 1437"),
        ({"augment": {"shift": 28}}, "^augment.shift=28: it is below the image's side of 28"),
        ({"augment": {"cutout": 28}}, "^augment.cutout=28: it is below the image's side of 28"),
    ],
)
def test_arguments_that_do_not_fit_the_data_are_one_line(options, says):
    with pytest.raises(UserError, match=says) as caught:
        digits(**options).setup()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_config_has_every_argument_and_nothing_else(name, monkeypatch):
    monkeypatch.setenv("BRANCHYNET_DATA", "somewhere")
    with initialize_config_dir(str(Path(__file__).parents[2] / "conf"), version_base="1.3"):
        config = OmegaConf.to_container(compose(overrides=[f"+data={name}", "+seed=7"]), resolve=True)
    options = config["data"]
    assert options.pop("_target_") == "branchynet.data.module.ImageData"
    # Of the data, and for the report alone.
    assert isinstance(options.pop("rivals"), list)
    own = {field.name for field in fields(KINDS[name].settings)}
    # A source is for sets that are none of these.
    assert set(options) == set(inspect.signature(ImageData).parameters) - {"own", "source"} | own
    assert options["name"] == name
    assert (options["root"], options["seed"]) == ("somewhere", 7)
    ImageData(
        **{**options, "path": "file.npz" if KINDS[name].path else None}
    )  # every value is an allowed one


# Images that are not the published ones


def test_inexact_images_are_followed_into_their_split(tmp_path):
    # Each image has its own number for a pixel.
    x, y = np.arange(80, dtype=np.uint8).reshape(80, 1, 1).repeat(2, 1), np.arange(80) % 3
    bad = np.array([0, 11, 30, 31, 32, 33, 49])
    file = tmp_path / "f.npz"
    np.savez(
        file,
        x_train=x[:50],
        y_train=y[:50],
        x_test=x[50:],
        y_test=y[50:],
        inexact_train=bad,
        inexact_test=[4],
    )
    data = ImageData("arrays", path=str(file), validation_size=20)
    found = {which: data.images(which)[data.inexact(which), 0, 0, 0].tolist() for which in ("train", "val")}
    assert found["train"] and found["val"]
    assert sorted(found["train"] + found["val"]) == bad.tolist()
    assert data.images("test")[data.inexact("test"), 0, 0, 0].tolist() == [54]


def test_no_image_of_the_digits_is_inexact(data):
    assert [len(data.inexact(which)) for which in ("train", "val", "test")] == [0, 0, 0]


@pytest.mark.skipif(
    not os.path.isfile(os.path.join(os.environ.get("BRANCHYNET_DATA", ""), "cifar10.npz")),
    reason="needs cifar10.npz in BRANCHYNET_DATA",
)
def test_real_cifar10_split():
    data = ImageData("cifar10")
    sizes = {which: len(data.images(which)) for which in ("train", "val", "test")}
    assert sizes == {"train": 45_000, "val": 5_000, "test": 10_000}
    with np.load(Path(os.environ["BRANCHYNET_DATA"]) / "cifar10.npz") as file:
        listed = {part: file[f"inexact_{part}"] for part in ("train", "test") if f"inexact_{part}" in file}
    assert data.inexact("test").tolist() == sorted(listed.get("test", []))
    assert len(data.inexact("train")) + len(data.inexact("val")) == len(listed.get("train", []))


# With a real Trainer


class Recorder(pl.LightningModule):
    """Trains one weight, and notes a number for each training batch that only this very batch gives."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, float]] = []

    def training_step(self, batch, index):
        x, y = batch
        ramp = torch.linspace(0, 1, x.numel()).view_as(x)
        self.seen.append((self.current_epoch, float((x * ramp).sum() + y[0])))
        return (self.weight * x.mean()).sum()

    def validation_step(self, batch, index):
        assert len(batch[0]) == 200

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data: ImageData, *callbacks: pl.Callback, resume: Path | None = None) -> list[tuple[int, float]]:
    recorder = Recorder()
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(recorder, datamodule=data, ckpt_path=resume)
    return recorder.seen


def save_at(hook: str, folder: Path) -> pl.Callback:
    """A callback that saves a checkpoint each time Lightning calls this hook in training."""
    callback = pl.Callback()

    def save(trainer: pl.Trainer, *_: object) -> None:
        if not trainer.sanity_checking:
            trainer.save_checkpoint(folder / f"{trainer.global_step:02d}.ckpt")

    setattr(callback, hook, save)
    return callback


def test_trainer_sees_another_order_each_epoch_and_the_loaders_own():
    seen = fit(digits(augment={"shift": 2}))
    assert [epoch for epoch, _ in seen] == [0] * 5 + [1] * 5 + [2] * 5  # 1237 images, 256 a batch
    assert len(set(seen)) == 15
    loader = digits(augment={"shift": 2}).train_dataloader()
    expected = []
    for epoch in range(3):
        loader.set_epoch(epoch)
        for x, y in loader:
            expected.append((epoch, float((x * torch.linspace(0, 1, x.numel()).view_as(x)).sum() + y[0])))
    assert seen == expected


@pytest.mark.parametrize(
    ("hook", "saved"),
    [
        ("on_train_batch_end", range(1, 10)),  # in the middle of an epoch, and after its last batch
        ("on_validation_end", (3, 6, 9)),
        ("on_train_epoch_end", (3, 6, 9)),
    ],
)
@pytest.mark.parametrize("loader", ["device", "dataloader"])
def test_resumed_run_sees_what_an_unkilled_one_saw(tmp_path, hook, saved, loader):
    def data() -> ImageData:
        return digits(augment={"shift": 2}, loader=loader, batch_size=500)

    whole = fit(data(), save_at(hook, tmp_path))
    checkpoints = sorted(tmp_path.glob("*.ckpt"))
    assert [int(checkpoint.stem) for checkpoint in checkpoints] == list(saved)
    for step, checkpoint in zip(saved, checkpoints, strict=True):
        if step in (2, 3, 4, 6, 9):
            assert fit(data(), resume=checkpoint) == whole[step:], step


def test_two_fits_in_one_process_see_the_same():
    data = digits(augment={"shift": 2})
    assert fit(data) == fit(data)


def test_what_is_sent_to_another_process_holds_no_images_and_reads_them_again(data):
    sent = pickle.dumps(data)
    assert len(sent) < 20_000  # the images have a megabyte
    received = pickle.loads(sent)
    assert torch.equal(received.images("train"), data.images("train"))
    assert received.mean == data.mean and len(data.images("val")) == 200


# Validation images of its own, or a tenth


def test_auto_takes_the_sets_own_validation_images_or_a_tenth():
    own, tenth = (ImageData(name, validation_size="auto") for name in ("digits_cluttered", "digits"))
    assert (len(own.labels("val")), len(own.labels("train"))) == (2000, 12_000)
    assert (len(tenth.labels("val")), len(tenth.labels("train"))) == (143, 1437 - 143)


def test_a_fixed_normalisation_reaches_the_batches():
    data = ImageData("digits", validation_size=200, mean=[0.25], std=[0.5])
    x, _ = next(data.batches("test", 7))
    assert (data.mean, data.std) == ((0.25,), (0.5,))
    assert torch.allclose(x, (data.images("test")[:7] / 255 - 0.25) / 0.5, atol=1e-6)


def test_a_set_of_somebody_elses_has_a_name_of_its_own():
    x, y = np.random.default_rng(0).integers(0, 256, (40, 5, 4), dtype=np.uint8), np.arange(40) % 2
    source = ({"train": (x, y), "test": (x[:8], y[:8])}, None)
    data = ImageData("birds", source=source, validation_size=10, classes=["wren", "gull"])
    assert len(data.labels("train")) == 30 and data.classes == ("wren", "gull")
    with pytest.raises(ArgumentError, match=r"size=8: with data\.source there is no such setting"):
        ImageData("birds", source=source, size=8)
    with pytest.raises(ArgumentError, match=r"path=/birds: with data\.source there is no such setting"):
        ImageData("birds", source=source, path="/birds")


def test_validation_takes_fewer_images_at_once_where_they_are_large(data, tmp_path):
    assert data.val_dataloader().batch_size == 1000
    large = np.zeros((20, 256, 256), np.uint8)
    label = np.arange(20) % 2
    np.savez(tmp_path / "f.npz", x_train=large, y_train=label, x_test=large, y_test=label)
    options = {"path": str(tmp_path / "f.npz"), "validation_size": 10}
    assert ImageData("arrays", **options).val_dataloader().batch_size == 62  # 4 million numbers
    assert ImageData("arrays", eval_batch_size=500, **options).test_dataloader().batch_size == 500
