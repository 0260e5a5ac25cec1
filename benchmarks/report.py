"""Gathering a thousand runs, against reading the same files by a plain loop, and against TensorBoard's reading.

    python benchmarks/report.py                    # 1,000 runs: 200 settings, 5 seeds each
    python benchmarks/report.py --runs 50          # to see that it works

The runs are copies of a published one (docs/results/b_lenet_digits_cluttered), each with settings, a seed and an
accuracy of its own. Rivals: `json.loads` of every result.json that a glob finds, without looking at anything; and
TensorBoard's EventAccumulator over event files with as many scalars as a run of 65 epochs has, of 20 runs,
extrapolated. Of everything the processor's time, the best of three rounds; files were just written, and so lie in
memory.

It takes two minutes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from branchynet.reporting.averages import groups_of
from branchynet.reporting.gathered_files import write_comparison
from branchynet.runs.gathered import gather

PUBLISHED = Path(__file__).parents[1] / "docs" / "results" / "b_lenet_digits_cluttered"
SEEDS, EPOCHS, TAGS, FINAL, OF_TENSORBOARD = 5, 65, 8, 90, 20


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--runs", type=int, default=1000)
    runs = options.parse_args().runs
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "runs"
        make(folder, runs)
        loop = best(lambda: [json.loads(path.read_bytes()) for path in sorted(folder.glob("**/result.json"))])
        events(Path(made) / "events", min(OF_TENSORBOARD, runs))
        tensorboard = best(lambda: read_events(Path(made) / "events")) * runs / min(OF_TENSORBOARD, runs)
        print(f"{runs:,} runs, the processor's time\n")
        print("| what | s | of the plain loop's | of TensorBoard's |\n|---|---:|---:|---:|")
        found = gather([folder])
        groups = groups_of(found.rows)
        assert len(found.rows) == runs and len(groups) == -(-runs // SEEDS) and not found.left_out
        told: list[tuple[str, Callable[[], object]]] = [
            ("gathered, in groups", lambda: gather([folder])),
            ("… and written as tables", lambda: write(folder, Path(made) / "out", figures=False)),
            ("… and with figures", lambda: write(folder, Path(made) / "out", figures=True)),
        ]
        print(f"| a plain loop over result.json | {loop:.2f} | 1 | {loop / tensorboard:.3f} |")
        print(f"| TensorBoard's events | {tensorboard:.1f} | {tensorboard / loop:.0f} | 1 |")
        for what, call in told:
            taken = best(call)
            print(f"| {what} | {taken:.2f} | {taken / loop:.1f} | {taken / tensorboard:.3f} |", flush=True)


def make(folder: Path, runs: int) -> None:
    """So many runs' folders, 5 seeds a setting."""
    result = json.loads((PUBLISHED / "result.json").read_text(encoding="utf-8"))
    settings = yaml.safe_load((PUBLISHED / "config.yaml").read_text(encoding="utf-8"))
    for number in range(runs):
        setting, seed = divmod(number, SEEDS)
        run = folder / f"{number}-optimizer.lr={setting},seed={seed}"
        (run / ".hydra").mkdir(parents=True)
        result["seed"] = settings["seed"] = seed
        result["knee"]["accuracy"] = 0.8 + 0.1 * number / runs
        settings["optimizer"]["lr"] = float(setting)
        (run / "result.json").write_text(json.dumps(result, indent=2), encoding="utf-8")
        (run / ".hydra" / "config.yaml").write_text(
            yaml.safe_dump(settings, sort_keys=False), encoding="utf-8"
        )
        typed = [f"optimizer.lr={setting}", f"seed={seed}"]
        (run / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(typed), encoding="utf-8")
        shutil.copy(PUBLISHED / "sweep.csv", run)


def events(folder: Path, runs: int) -> None:
    """Event files with the scalars of a run, and without its figures."""
    for number in range(runs):
        with SummaryWriter(str(folder / str(number))) as writer:
            for tag in range(TAGS):
                for epoch in range(EPOCHS):
                    writer.add_scalar(f"joint/{tag}", 0.5, epoch)
            for tag in range(FINAL):
                writer.add_scalar(f"operating_point/{tag}", 0.5, 0)


def read_events(folder: Path) -> None:
    for run in folder.iterdir():
        EventAccumulator(str(run)).Reload()


def write(folder: Path, output: Path, figures: bool) -> None:
    """What `branchynet report` does."""
    found = gather([folder])
    write_comparison(output, "runs", found, groups_of(found.rows), figures)


def best(call: Callable[[], object], rounds: int = 3) -> float:
    """Seconds of the processor."""
    taken = []
    for _ in range(rounds):
        begin = time.process_time()
        call()
        taken.append(time.process_time() - begin)
    return min(taken)


if __name__ == "__main__":
    main()
