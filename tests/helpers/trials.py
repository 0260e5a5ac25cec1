"""Trials of a search that train nothing: what a network is worth follows from what was drawn, at once.

The space has a number x, 0 … 1, that the gain grows with, and a kind: `bad` fits no network.
"""

import os
import signal
from pathlib import Path
from unittest.mock import patch

from branchynet.commands.search_run import Plan
from branchynet.errors import UserError
from branchynet.runtime.costs import Macs

SPACE = {"weights": {"last": {"float": [0.0, 1.0]}}}
WITH_BAD = {**SPACE, "study": {"kind": {"choice": ["good", "bad"]}}}
SEARCH = {
    "trials": 5,
    "reference": False,
    "objectives": ["gain"],
    "max_loss": 0.0,
    "storage": None,
    "study": "s",
    "seed": 0,
    "best": 2,
    "heartbeat": 15,
    "retries": 2,
    "sampler": {"_target_": "optuna.samplers.TPESampler", "n_startup_trials": 3},
    "pruner": {"_target_": "optuna.pruners.NopPruner"},
}
SETTINGS = {"name": "tiny", "epochs": {"joint": 3}, "data": {"root": "here", "batch_size": 8}}


def plan(folder, space=SPACE, settings=SETTINGS, **changes):
    """A search in `folder`."""
    return Plan(
        {**SEARCH, **changes},
        space,
        [],
        ["weights.last=0.4"],
        settings,
        Path(folder),
        f"branchynet search … {folder}",
    )


def settled_trial(words):
    """In place of the one that composes."""
    return {"drawn": dict(word.split("=") for word in words), "cache": "cache"}


def train_run(config, folder, trial):
    """In place of the training; three epochs, the accuracy of the side exits is x."""
    x = float(config.drawn["weights.last"])
    if config.drawn.get("study.kind") == "bad":
        raise UserError("the head does not fit")
    trial.look(Macs(100, (int(150 * (1 - x)), 120), (1, 1), (1, 1)))
    for epoch in range(3):
        trial.tell(epoch, x)
    return {
        "gain": 1 + x,
        "accuracy": 0.9,
        "macs": 100 / (1 + x),
        "highest_accuracy": 1 - x * x,
        "macs_to_the_end": 120,
        "baseline_accuracy": 0.9,
        "baseline_macs": 100,
        "thresholds": [0.5],
        "exit_rates": [0.5, 0.5],
        "exits": [x, 0.9],
    }


def dies_at(number, how=signal.SIGKILL):
    """A training whose process gets a signal at the trial of that number, the first time."""

    def train(config, folder, trial):
        if folder.name == f"{number:03d}" and not (folder / "once").exists():
            trial.tell(0, 0.5)
            (folder / "once").touch()
            os.kill(os.getpid(), how)
        return train_run(config, folder, trial)

    return train


def stub(train=train_run):
    """Patches that let a search train nothing; started."""
    return [
        patch(f"branchynet.commands.{name}", new).start()
        for name, new in (
            ("search_run.settled_trial", settled_trial),
            ("search_run.train_run", train),
            ("search_report.experiment", lambda plan, trial, name: f"# {name} {trial.number}\n"),
        )
    ]


def search_in(folder, number=None, **changes):
    """A whole search in a process of its own; at the trial `number` it is killed."""
    from branchynet.commands.search_run import search_run

    stub(train_run if number is None else dies_at(number))
    search_run(plan(folder, **changes))
