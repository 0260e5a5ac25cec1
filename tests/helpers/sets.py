"""Small data sets in files, for the tests of what reads them."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from branchynet.data.datasets import load_dataset
from branchynet.data.published import MNIST_FILES
from branchynet.errors import UserError

RNG = np.random.default_rng(0)


def arrays(train=20, test=10, shape=(28, 28)) -> dict[str, np.ndarray]:
    """As an .npz file of ours has them: random images, ten classes in turn."""
    return {
        "x_train": RNG.integers(0, 256, (train, *shape), dtype=np.uint8),
        "y_train": np.arange(train) % 10,
        "x_test": RNG.integers(0, 256, (test, *shape), dtype=np.uint8),
        "y_test": np.arange(test) % 10,
    }


def write_raw(root: Path, data: dict[str, np.ndarray], packed: bool = False, folder: str = "MNIST") -> Path:
    """torchvision's layout; returns the folder with the four files."""
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for name, key in zip(MNIST_FILES, ("x_train", "y_train", "x_test", "y_test"), strict=True):
        values = data[key].astype(np.uint8)
        sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
        content = bytes((0, 0, 8, values.ndim)) + sizes + values.tobytes()
        (raw / (name + ".gz" * packed)).write_bytes(gzip.compress(content) if packed else content)
    return raw


def check_equal(dataset, data):
    """The data set is made of these grey images."""
    for part in ("train", "test"):
        images = getattr(dataset, part)
        assert images.x.dtype == torch.uint8
        assert images.y.dtype == torch.int64
        np.testing.assert_array_equal(images.x.numpy()[:, 0], data[f"x_{part}"])
        np.testing.assert_array_equal(images.y.numpy(), data[f"y_{part}"])


def the_line(*args, **kwargs) -> str:
    """What `load_dataset` says is wrong."""
    with pytest.raises(UserError) as caught:
        load_dataset(*args, **kwargs)
    line = str(caught.value)
    assert "\n" not in line
    assert "data=digits" in line
    return line
