"""Commands killed by SIGKILL, at random moments and just before every change of a file; what must hold afterwards.

A command changes what is on the disk by few calls: a rename, a removal, a link, an exchange of two folders; between
them it writes new files beside those that count. Python tells an audit hook of each such call, and there the
process kills itself: no `finally` runs, nothing is cleaned up.

    python tests/hostile/kills.py              all changes of train, evaluate in place and export
    python tests/hostile/kills.py --random 20  as many kills of train at random moments

prints, for each command, how many kills were tried and how many held.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

# Run as a script, it knows its own folder alone.
sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
child = import_module("child")

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.link", "shutil.rmtree")
TINY = (
    *("experiment=b_lenet_digits", "trainer=cpu", "epochs.baseline=1", "epochs.joint=2", "schedule=none"),
    *("engine=torch", "engine.compare=[]", "engine.seconds=0.01", "logger=none", "cache=null"),
)


def run(command: Sequence[str], watched: Path, kill_at: int | None = None) -> tuple[int, int]:
    """Run `branchynet <command>` in a process of its own.

    Args:
        command: its words.
        watched: changes below this path are counted.
        kill_at: the process is killed before its change of this number, from 1.

    Returns:
        How many changes there were, and the exit code.
    """
    with tempfile.TemporaryDirectory() as place:
        count = Path(place, "changes")
        count.touch()
        done = child.call(
            command, Path(place), seconds=600, at_start=partial(watch, str(watched), kill_at, str(count))
        )
        return count.stat().st_size, done.code


def watch(watched: str, kill_at: int | None, count: str) -> None:
    """From now on write a byte to the file `count` for every change below `watched`; kill this process at one.

    Figures stay blank: drawing them takes the most time, and changes no file.
    """
    import_module("matplotlib.figure").Figure.draw = lambda figure, renderer: None
    top = os.path.realpath(watched)
    changes = os.open(count, os.O_WRONLY | os.O_APPEND)
    seen = 0

    def below(path: object) -> bool:
        named = isinstance(path, str | bytes | os.PathLike)
        return named and os.path.realpath(os.fsdecode(path)).startswith(top)  # type: ignore[arg-type]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        exchange = event == "ctypes.dlsym" and arguments[1] == "renameat2"
        if exchange or (event in CHANGES and any(map(below, arguments))):
            seen += 1
            os.write(changes, b".")
            if seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def facts(folder: Path) -> dict[str, Any]:
    """What a run has found, without what a clock says."""
    import torch

    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    states = [torch.load(folder / "checkpoints" / name) for name in ("baseline.pt", "joint/best.ckpt")]
    weights = [state.get("state_dict", state) for state in states]
    digest = [{name: value.double().sum().item() for name, value in each.items()} for each in weights]
    accuracies = [exit["accuracy"] for exit in result["exits"]]
    return {"weights": digest, "accuracies": accuracies, "criterion": result["knee"]["criterion"]}


@dataclass(frozen=True)
class Case:
    """A command, where it starts from, and what must hold when it was killed.

    Args:
        name: of the case.
        command: from the folder it works in to its words.
        before: what lies there before; None for nothing.
        holds: from that folder, after a kill, to whether all is well.
    """

    name: str
    command: Callable[[Path], list[str]]
    before: Path | None
    holds: Callable[[Path], bool]

    def prepare(self, folder: Path) -> None:
        """Lay out what the command finds."""
        shutil.rmtree(folder, ignore_errors=True)
        if self.before is not None:
            shutil.copytree(self.before, folder, symlinks=True)

    def try_changes(self, folder: Path, every: int = 1) -> tuple[int, list[int]]:
        """Kill before each `every`-th change. Returns how many kills were tried, and which did not hold."""
        self.prepare(folder)
        count, code = run(self.command(folder), folder)
        assert code == 0, f"{self.name} left with {code}"
        tried, failed = 0, []
        for n in range(1, count + 1, every):
            self.prepare(folder)
            _, code = run(self.command(folder), folder, kill_at=n)
            if code != -signal.SIGKILL:
                continue  # fewer changes this time
            tried += 1
            if not self.holds(folder):
                failed.append(n)
        return tried, failed


def train_case(folder: Path) -> tuple[Case, Path]:
    """A training, and the finished run that it has to be like."""
    whole = folder / "whole"
    assert run(["train", *TINY, f"hydra.run.dir={whole}"], folder)[1] == 0
    expected = facts(whole)

    def holds(run_folder: Path) -> bool:
        finished = (run_folder / "result.json").exists()
        if finished and facts(run_folder) != expected:
            return False
        started = (run_folder / ".hydra" / "config.yaml").exists()
        again = [f"resume={run_folder}"] if started else [*TINY, f"hydra.run.dir={run_folder}"]
        return run(["train", *again], run_folder)[1] == 0 and facts(run_folder) == expected

    return Case("train", lambda place: ["train", *TINY, f"hydra.run.dir={place}"], None, holds), whole


def evaluate_case(whole: Path) -> Case:
    """An evaluation in place by another criterion: all of the old, all of the new, or no result, which resumes."""
    old = facts(whole)
    from branchynet.runs.finished_run import open_run

    def holds(folder: Path) -> bool:
        if not (folder / "result.json").exists():
            return run(["train", f"resume={folder}"], folder)[1] == 0 and facts(folder) == old
        opened = open_run(folder)
        criterion = opened.result["knee"]["criterion"]
        # The traces are of the criterion that the result names: the thresholds give the accuracy that it tells.
        trace = opened.evidence.traces["test"]
        taken = (trace.uncertainty[:, :-1] < trace.uncertainty.new_tensor(opened.thresholds)).int()
        first = [int(row.argmax()) if row.any() else trace.num_exits - 1 for row in taken]
        right = trace.correct[range(trace.num_samples), first].double().mean().item()
        same = abs(right - opened.result["knee"]["accuracy"]) < 1e-9
        return same and opened.stored_criterion.settings["_target_"].lower().endswith(criterion)

    command = ["evaluate", "in_place=true", "criterion=margin"]
    return Case("evaluate in_place", lambda place: [*command, f"run={place}"], whole, holds)


def export_case(whole: Path, folder: Path) -> Case:
    """An export over an old one: one of the two is there, and whole."""
    from branchynet import load_export

    before = folder / "with_export"
    shutil.copytree(whole, before)
    assert run(["export", f"run={before}", f"output={before}/export"], before)[1] == 0

    def holds(place: Path) -> bool:
        import numpy as np

        export = load_export(place / "export")
        images = np.zeros((1, *export.input_shape), np.uint8)
        return len(export.run(images).prediction) == 1

    command = ["export", "overwrite=true"]
    return Case("export", lambda place: [*command, f"run={place}", f"output={place}/export"], before, holds)


def try_random(case: Case, folder: Path, kills: int) -> tuple[int, list[float]]:
    """Kill at random moments. Returns how many kills were tried, and after which seconds it did not hold."""
    chance = random.Random(0)
    tried, failed = 0, []
    longest = 8.0
    while tried < kills:
        case.prepare(folder)
        seconds = chance.uniform(0.2, longest)
        if child.call(case.command(folder), folder.parent, seconds).code is not None:
            longest = max(0.9 * longest, 1.0)
            continue
        tried += 1
        if not case.holds(folder):
            failed.append(seconds)
    return tried, failed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--random", type=int, default=0, help="kills of train at random moments, and no others"
    )
    parser.add_argument("--every", type=int, default=1, help="only each n-th change")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        train, whole = train_case(folder)
        if chosen.random:
            tried, failed = try_random(train, folder / "at_work", chosen.random)
            print(f"train, at random: {tried} tried, {tried - len(failed)} held {failed or ''}")
            return
        for case in (evaluate_case(whole), export_case(whole, folder), train):
            tried, failed = case.try_changes(folder / "at_work", chosen.every)
            print(
                f"{case.name}, before a change: {tried} tried, {tried - len(failed)} held {failed or ''}",
                flush=True,
            )


if __name__ == "__main__":
    main()
