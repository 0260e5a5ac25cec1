"""Memory that does not suffice: one line that names the setting to change."""

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from branchynet.data.module import ImageData
from branchynet.errors import UserError
from branchynet.networks.branched import BranchedNetwork
from branchynet.training.failures import is_out_of_memory, user_error
from branchynet.training.module import BranchyClassifier
from branchynet.training.objective import Joint
from branchynet.training.stages import fit

TOO_MUCH = 2**52  # numbers: far above what any machine can address


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (60, 2, 2), np.uint8), rng.integers(0, 2, 60)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x[:5], y_test=y[:5])
    return ImageData(
        "arrays", path=str(tmp_path / "a.npz"), batch_size=16, validation_size=20, eval_batch_size=10
    )


class Greedy(nn.Module):
    """Asks for too much in training or in validation."""

    def __init__(self, training, raises=None):
        super().__init__()
        self.when, self.raises = training, raises

    def forward(self, x):
        if self.training == self.when:
            if self.raises:
                raise self.raises
            return x + torch.empty(TOO_MUCH)[: len(x), None, None, None]
        return x


def message(data, folder, part=None, callbacks=()):
    heads = [nn.Sequential(nn.Flatten(), nn.Linear(4, 2)) for _ in range(2)]
    network = BranchedNetwork([part or nn.Identity(), nn.ReLU()], heads, ["input"])
    module = BranchyClassifier(network, Joint((1.0, 1.0)), lambda groups: torch.optim.SGD(groups, lr=0.1))
    with pytest.raises(UserError) as caught:
        fit(module, data, 1, folder, {"accelerator": "cpu", "devices": 1}, callbacks=callbacks)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_training_that_asks_for_too_much_names_batch_size(data, tmp_path):
    text = message(data, tmp_path, Greedy(training=True))
    assert "in training" in text and "data.batch_size (now 16)" in text and "bf16-mixed" in text


def test_validation_that_asks_for_too_much_names_eval_batch_size(data, tmp_path):
    text = message(data, tmp_path, Greedy(training=False))
    assert "in validation" in text and "data.eval_batch_size (now 10)" in text


def test_a_gpu_that_is_full_names_the_loader_too(data, tmp_path, monkeypatch):
    monkeypatch.setattr("branchynet.training.failures.torch.cuda.is_available", lambda: True)
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    text = str(user_error(error, "training", data))
    assert "data.batch_size (now 16)" in text and "data.loader=dataloader" in text


def test_torchs_own_error_in_a_step(data, tmp_path):
    error = torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20.00 GiB.")
    assert "data.batch_size" in message(data, tmp_path, Greedy(training=True, raises=error))


@pytest.mark.parametrize("loader", ["device", "dataloader"])
def test_a_loader_that_asks_for_too_much(loader, data, tmp_path, monkeypatch):
    data.loader = loader
    data.setup()  # which takes images, too
    monkeypatch.setattr("branchynet.data.checked.ImageSet.at", lambda images, index: np.empty(TOO_MUCH))
    text = message(data, tmp_path)
    assert "in training" in text and "data.batch_size" in text


def test_a_sweep_that_asks_for_too_much(data, tmp_path):
    class Sweep(Callback):
        def on_fit_end(self, trainer, pl_module):
            torch.empty(TOO_MUCH)

    text = message(data, tmp_path, callbacks=[Sweep()])
    assert "the threshold sweep" in text and "data.eval_batch_size (now 10)" in text
    assert (tmp_path / "best.ckpt").exists()


def test_what_another_process_raised():
    trace = "\n\n-- Process 1 terminated with the following error:\nTraceback (most recent call last):\n  …\n"

    def raised(last):
        return ProcessRaisedException(trace + last + "\n", 1, 99)

    mistake = user_error(raised("branchynet.errors.UserError: the joint loss is nan"), "training", None)
    assert str(mistake) == "the joint loss is nan"
    mistake = user_error(raised("branchynet.errors.ArgumentError: shift=28: it is: below"), "training", None)
    assert isinstance(mistake, UserError) and str(mistake) == "shift=28: it is: below"
    assert user_error(raised("elsewhere.UserError: the joint loss is nan"), "training", None) is None
    for last in (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB.",
        "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 32.0 PiB",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you",
    ):
        text = str(user_error(raised(last), "training", None))
        assert "data.batch_size" in text and "data.eval_batch_size" in text
    killed = ProcessExitedException("killed", 1, 99, exit_code=-9, signal_name="SIGKILL")
    assert "data.batch_size" in str(user_error(killed, "training", None))
    assert user_error(raised("KeyError: 'MemoryError'"), "training", None) is None


def test_other_errors_are_no_mistake_of_the_users():
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ProcessExitedException("ended", 1, 99, exit_code=1))
    assert user_error(ValueError("of ours"), "training", None) is None
