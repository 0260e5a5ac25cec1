"""The progress bar over a stage's epochs."""

import numpy as np
import torch
from torch import nn

from branchynet.callbacks.progress import EpochProgress
from branchynet.data.module import ImageData
from branchynet.networks.branched import BranchedNetwork
from branchynet.training.module import BranchyClassifier
from branchynet.training.objective import Joint
from branchynet.training.stages import fit


def test_the_bar_counts_epochs_and_shows_every_trained_exit(tmp_path, capsys):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (60, 2, 2), np.uint8), rng.integers(0, 2, 60)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x[:5], y_test=y[:5])
    data = ImageData("arrays", path=str(tmp_path / "a.npz"), batch_size=16, validation_size=20)
    heads = [nn.Sequential(nn.Flatten(), nn.Linear(4, 2)) for _ in range(2)]
    network = BranchedNetwork([nn.Identity(), nn.ReLU()], heads, ["input"])
    module = BranchyClassifier(network, Joint((1.0, 1.0)), lambda groups: torch.optim.SGD(groups, lr=0.1))
    trainer = {"accelerator": "cpu", "devices": 1}
    fit(module, data, 3, tmp_path / "c", trainer, callbacks=[EpochProgress()])
    shown = capsys.readouterr().out
    assert "joint" in shown and "3/3" in shown
    assert "exit 1" in shown and "exit 2" in shown and "%" in shown
