"""Two processes on the CPU against one: what each sees, what comes out, and how mistakes in one of them end."""

import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from os import environ

import child
import pytest
import torch

from branchynet.training.ranks import ALONE, Ranks, ranks_outside

# Run as a program of its own: the processes that Lightning starts import it again.
SCRIPT = '''
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from branchynet.data.module import ImageData
from branchynet.errors import UserError
from branchynet.networks.branched import BranchedNetwork
from branchynet.training.module import BranchyClassifier
from branchynet.training.objective import Joint
from branchynet.training.stages import fit

TRAIN, VAL = 53, 21  # with batches of 10: remainders of 3, which two cannot share evenly, and of 1


class Spy(Callback):
    """Writes which images this process saw in each epoch, and the validation's numbers."""

    def __init__(self, folder):
        self.folder = folder
        self.seen, self.validated, self.metrics = [], [], []

    def numbers(self, trainer, x):
        data = trainer.datamodule
        pixels = ((x[:, 0, 0, :2] * data.std[0] + data.mean[0]) * 255).round().int()
        return pixels[:, 0] + 16 * pixels[:, 1]

    def on_train_epoch_start(self, trainer, pl_module):
        self.seen.append([])
        self.validated.append([])

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen[-1].append(self.numbers(trainer, batch[0]))

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.validated[-1].append(self.numbers(trainer, batch[0]))

    def on_train_epoch_end(self, trainer, pl_module):
        self.metrics.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    def on_fit_end(self, trainer, pl_module):
        torch.save(
            {"seen": self.seen, "validated": self.validated, "metrics": self.metrics},
            self.folder / f"rank-{trainer.global_rank}.pt",
        )


class Mistake(Callback):
    """In one of two processes, in the third epoch; the other waits for it."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_rank == 1 and trainer.current_epoch == 2:
            raise UserError("only here")


def images(folder):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (TRAIN + VAL, 1, 4, 4), np.uint8)
    x[:, 0, 0, 0], x[:, 0, 0, 1] = np.arange(TRAIN + VAL) % 16, np.arange(TRAIN + VAL) // 16
    x[:, 0, 0, 2:] = 0
    y = rng.integers(0, 3, TRAIN + VAL)
    np.savez(folder / "a.npz", x_train=x, y_train=y, x_test=x[:5], y_test=y[:5])
    return ImageData(
        "arrays", path=str(folder / "a.npz"), batch_size=10, validation_size=VAL, eval_batch_size=10
    )


def train(folder, devices, *callbacks):
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    segments = [nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1), nn.ReLU()]
    heads = [nn.Sequential(nn.Flatten(), nn.Linear(16, 3)) for _ in range(3)]
    network = BranchedNetwork(segments, heads, ["first", "second"])
    # The second head is not trained: DDP refuses parameters that get no gradient.
    module = BranchyClassifier(network, Joint((1.0, 0.0, 0.5)), partial(torch.optim.SGD, lr=0.1))
    trainer = {"accelerator": "cpu", "devices": devices}
    if devices > 1:
        trainer["strategy"] = "ddp_spawn"
    callbacks = [Spy(folder), *callbacks]
    fit(module, images(folder), 4, folder / "c", trainer, callbacks=callbacks)
    torch.save(network.state_dict(), folder / "network.pt")


def main(folder):
    train(folder / "one", 1)
    train(folder / "two", 2)
    try:
        train(folder / "stopped", 2, Mistake())
    except UserError as error:
        print("a mistake:", error)
        train(folder / "stopped", 2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
'''


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The output, and the folders of one process, of two, and of two that were stopped and resumed."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-W", "error", folder / "script.py", folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout, folder / "one", folder / "two", folder / "stopped"


def test_every_image_is_seen_once_per_epoch_in_as_many_steps(runs):
    _, one, two, _ = runs
    single = torch.load(one / "rank-0.pt")
    first, second = (torch.load(two / f"rank-{rank}.pt") for rank in (0, 1))
    for what, images in (("seen", 53), ("validated", 21)):
        for epoch in range(4):
            parts = [ranks[what][epoch] for ranks in (first, second)]
            assert len(parts[0]) == len(parts[1]), "the ranks would wait for each other for ever"
            union = torch.cat(list(chain(*parts))).sort().values
            alone = torch.cat(single[what][epoch]).sort().values
            assert len(union.unique()) == images and torch.equal(union, alone)
    # Step by step the same images together, too.
    for whole, *parts in zip(single["seen"][1], first["seen"][1], second["seen"][1], strict=True):
        assert torch.equal(whole, torch.cat(parts))


def test_metrics_are_those_of_all_images_and_the_weights_those_of_one_process(runs):
    _, one, two, _ = runs
    single = torch.load(one / "rank-0.pt")["metrics"]
    for rank in (0, 1):
        for alone, shared in zip(single, torch.load(two / f"rank-{rank}.pt")["metrics"], strict=True):
            assert shared == pytest.approx(alone, rel=1e-4)
    alone, shared = (torch.load(folder / "network.pt") for folder in (one, two))
    for name, value in alone.items():
        assert torch.allclose(value, shared[name], atol=1e-5), name
    for folder in (one, two):
        assert {path.name for path in (folder / "c").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_a_mistake_in_one_process_ends_both_with_its_line_and_the_run_can_be_resumed(runs):
    out, _, two, stopped = runs
    assert "a mistake: only here" in out.splitlines()
    seen = torch.load(stopped / "rank-1.pt")["seen"]
    assert len(seen) == 2, "the first two of four epochs were not trained again"
    whole, resumed = (torch.load(folder / "network.pt") for folder in (two, stopped))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


TORCHRUN = {"TORCHELASTIC_RUN_ID": "a", "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"}


def start_as(rank, port, command, folder):
    """A command as torchrun would start it, the process of this rank of two."""
    variables = {**TORCHRUN, "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank)}
    return child.call(command, folder, 120, partial(child.set_variables, variables))


def test_processes_from_outside_train_one_run_and_the_first_reports(finished, tmp_path):
    """Two, as torchrun starts them; the run is that of one process, which has trained with the same settings."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *("train", "experiment=b_lenet_digits", "trainer=nodes", "trainer.num_nodes=1", "trainer.devices=2"),
        *("trainer.accelerator=cpu", "epochs.baseline=1", "epochs.joint=2", "schedule=none", "engine=torch"),
        *(
            "engine.compare=[]",
            "engine.seconds=0.01",
            "logger=none",
            "cache=cache",
            "hydra.run.dir=run",
            "page=false",
        ),
    ]
    with ThreadPoolExecutor() as both:
        first, second = both.map(lambda rank: start_as(rank, port, command, tmp_path), (0, 1))
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert first.out.count("sweeping the thresholds") == 1 and "sweeping" not in second.out
    assert (tmp_path / "run" / "result.json").is_file() and len(list((tmp_path / "cache").glob("*.pt"))) == 1
    assert not (tmp_path / "run" / ".lock").exists()
    alone, shared = (
        torch.load(folder / "checkpoints" / "joint" / "last.ckpt") for folder in (finished, tmp_path / "run")
    )
    assert alone["global_step"] == shared["global_step"], "the batches are shared, not repeated"
    for name, value in alone["state_dict"].items():
        # Adam makes more of rounding than SGD: see above for the exact comparison.
        assert (value - shared["state_dict"][name]).abs().mean() < 0.01, name


def test_processes_from_outside_have_one_folder_and_as_many_devices(tmp_path):
    command = ["train", "data=digits", "trainer=cpu"]
    start_as(0, 1, command, tmp_path).refused("2 processes", "hydra.run.dir=<folder>")
    start_as(0, 1, [*command, "-m", "seed=1"], tmp_path).refused("leave -m out")
    assert not list(tmp_path.rglob("*.yaml"))


def test_nobody_has_started_several(monkeypatch):
    for name in ("RANK", "SLURM_PROCID", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    assert ranks_outside() is ALONE and ALONE.first
    assert ALONE.agreed("a", True) is True and ALONE.agreed("a", False) is False
    monkeypatch.setenv("RANK", "3")  # of something else
    assert ranks_outside() is ALONE


def test_slurm_says_which_process_this_is(monkeypatch):
    slurm = {
        **{"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"},
        "SLURM_NTASKS_PER_NODE": "4",
        **{"SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "77", "SLURM_NODELIST": "n[3-4]"},
    }
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    found = ranks_outside()
    assert found == Ranks(5, 8) and not found.first
    assert environ["MASTER_ADDR"] == "n3" and int(environ["MASTER_PORT"]) > 10000
