import os

import numpy as np
import pytest
import torch

from branchynet.data.datasets import decodes, given, load_dataset, own_settings
from branchynet.data.normalise import channel_statistics
from branchynet.errors import ArgumentError, UserError


def test_unknown_name():
    names = "mnist, fashion_mnist, cifar10, cifar100, digits, digits_cluttered, shapes, arrays"
    with pytest.raises(UserError, match=f"'mnits'; there are {names}"):
        load_dataset("mnits")


# The digits


def test_digits():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    dataset = load_dataset("digits")
    assert dataset.train.x.shape == (1437, 1, 28, 28)
    assert dataset.test.x.shape == (360, 1, 28, 28)
    assert dataset.classes == tuple("0123456789")
    assert dataset.train.x.max() == 255
    # Stratified: a fifth of each class, to within one image.
    shares = torch.bincount(dataset.test.y).numpy() - np.bincount(bunch.target) / 5
    assert np.abs(shares).max() <= 1
    # The mean brightness survives scaling and resizing.
    both = torch.cat([dataset.train.x, dataset.test.x]).double().mean().item()
    assert both == pytest.approx(bunch.images.mean() * 255 / 16, rel=0.02)


def test_digits_split_is_the_published_one():
    """These numbers may never change: results are compared across versions."""
    dataset = load_dataset("digits")
    assert dataset.test.y[:12].tolist() == [1, 7, 9, 2, 4, 9, 9, 1, 7, 3, 1, 2]
    assert torch.bincount(dataset.test.y).tolist() == [36, 36, 36, 36, 37, 36, 36, 36, 35, 36]


@pytest.mark.skipif(
    not os.path.isdir(os.path.join(os.environ.get("BRANCHYNET_DATA", ""), "MNIST", "raw")),
    reason="needs MNIST in BRANCHYNET_DATA",
)
def test_real_mnist():
    dataset = load_dataset("mnist")
    assert dataset.train.x.shape == (60000, 1, 28, 28)
    assert dataset.test.x.shape == (10000, 1, 28, 28)
    assert dataset.train.y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    # The mean that everyone's normalisation constants quote.
    assert dataset.train.x.double().mean().item() / 255 == pytest.approx(0.1307, abs=5e-5)


@pytest.mark.skipif(
    not os.path.isfile(os.path.join(os.environ.get("BRANCHYNET_DATA", ""), "cifar10.npz")),
    reason="needs cifar10.npz in BRANCHYNET_DATA",
)
def test_real_cifar10():
    dataset = load_dataset("cifar10")
    assert dataset.train.x.shape == (50000, 3, 32, 32)
    assert dataset.test.x.shape == (10000, 3, 32, 32)
    assert torch.bincount(dataset.train.y).tolist() == [5000] * 10
    assert torch.bincount(dataset.test.y).tolist() == [1000] * 10
    names = [dataset.classes[k] for k in dataset.train.y[:5]]
    assert names == ["frog", "truck", "truck", "deer", "automobile"]
    # The means that everyone's normalisation constants quote.
    assert channel_statistics(dataset.train.x)[0] == pytest.approx([0.4914, 0.4822, 0.4465], abs=1e-4)


# Settings of their own, other names, and sets of somebody else's


def test_settings_of_another_kind_say_whose_they_are():
    with pytest.raises(ArgumentError, match=r"keys=.*is for data=arrays only"):
        own_settings("folder", {"keys": None})
    with pytest.raises(ArgumentError, match="sise=8: there is no such setting"):
        own_settings("folder", {"sise": 8})
    assert own_settings("folder", {"size": 8}).size == 8
    assert decodes("folder") and not decodes("arrays")


def test_classes_get_other_names():
    names = tuple("abcdefghij")
    assert load_dataset("digits", classes=names).classes == names
    with pytest.raises(ArgumentError, match="classes: 2 names for the 10 classes of digits: 0, 1, 2 …"):
        load_dataset("digits", classes=("a", "b"))


def test_a_set_of_somebody_elses():
    x, y = np.zeros((6, 5, 4), np.uint8), np.arange(6) % 2
    dataset = given("birds", ({"train": (x, y), "test": (x[:2], y[:2])}, ["wren", "gull"]))
    assert dataset.train.x.shape == (6, 1, 5, 4) and dataset.val is None
    assert (dataset.name, dataset.classes) == ("birds", ("wren", "gull"))
    for wrong, says in (
        (7, "it gives no images"),
        ("elsewhere.birds", r"source=elsewhere\.birds: it is {_target_: elsewhere\.birds}"),
        (({"train": (x, y), "test": (x.tolist(), y)}, None), "no arrays of train, test"),
        (({"train": (x, y), "test": (x / 255, y)}, None), "data.source of birds: x_test is float64"),
        (({"train": (x.reshape(6, 20), y), "test": (x, y)}, None), r"images of shape \(6, 20\)"),
        (({"train": (x, y), "test": (x[:, :3], y)}, None), "images are .* in x_train, .* in x_test"),
        (({"train": (x, y)}, None), "no arrays of train, test"),
        (({"train": (x, y), "test": (x, y[:2])}, None), "6 images in x_test, 2 labels in y_test"),
    ):
        with pytest.raises(UserError, match=says):
            given("birds", wrong)
