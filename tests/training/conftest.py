"""Small data with something to learn, and small networks to train."""

from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from branchynet.data.module import ImageData
from branchynet.networks.branched import BranchedNetwork
from branchynet.training.module import BranchyClassifier
from branchynet.training.objective import Joint


@pytest.fixture
def data(tmp_path):
    """100 images for training in batches of 32, 20 for validation; three classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 160)
    # Classes differ in brightness, so there is something to learn.
    images = (rng.integers(0, 60, (160, 6, 6)) + 70 * labels[:, None, None]).astype(np.uint8)
    path = tmp_path / "arrays.npz"
    np.savez(path, x_train=images[:120], y_train=labels[:120], x_test=images[120:], y_test=labels[120:])
    return ImageData(
        "arrays", path=str(path), batch_size=32, validation_size=20, augment={"shift": 1, "flip": True}
    )


@pytest.fixture
def network():
    """A function of a seed that gives a network of two exits, with dropout in its trunk."""

    def make(seed=0):
        torch.manual_seed(seed)
        segments = [
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()),
            nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5)),
        ]
        heads = [nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), nn.Linear(16, 3)]
        return BranchedNetwork(segments, heads, ["first"])

    return make


@pytest.fixture
def with_norms():
    """The same for three exits; the trunk has batch norm and dropout, before and after the side exits."""

    def make(seed=0, dropout=0.5):
        torch.manual_seed(seed)

        def segment(inputs):
            return nn.Sequential(
                nn.Conv2d(inputs, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(dropout)
            )

        heads = [
            nn.Sequential(nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3)),
            nn.Sequential(nn.Flatten(), nn.Linear(144, 3)),
            nn.Sequential(nn.Flatten(), nn.Linear(144, 3)),
        ]
        return BranchedNetwork([segment(1), segment(4), segment(4)], heads, ["first", "second"])

    return make


@pytest.fixture
def module():
    """A function of a network that gives what `fit` trains, by default all exits jointly."""

    def make(net, weights=(1.0, 1.0), lr=0.01, stage="joint"):
        return BranchyClassifier(net, Joint(weights), partial(torch.optim.AdamW, lr=lr), stage=stage)

    return make


class Metrics(Callback):
    """What is logged, epoch by epoch."""

    def __init__(self):
        self.epochs = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.epochs.append({name: float(value) for name, value in trainer.callback_metrics.items()})


@pytest.fixture
def metrics():
    """A function that gives a callback whose `epochs` are what was logged, a dict each."""
    return Metrics
