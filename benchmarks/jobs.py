"""A multirun of two jobs: one after the other, and side by side by hydra/launcher=cores.

    python benchmarks/jobs.py                       # about five minutes on two cores
    python benchmarks/jobs.py --epochs 2 --rounds 1 # to see that it works

Whole commands are timed, the imports and the start of the processes with them, in turns, each in a new folder with
a cache of baselines of its own. One after the other, a job has all cores for its threads; side by side its share of
them. The ratio is of the medians: how many times as fast the two come to an end side by side.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

LAUNCHERS = {
    "one after the other": ["hydra/launcher=basic"],
    "side by side": ["hydra/launcher=cores", "hydra.launcher.n_jobs=2"],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experiment", default="b_lenet_digits", help="what both jobs train")
    parser.add_argument("--epochs", type=int, default=40, help="of each stage")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores; {arguments.experiment}, {arguments.epochs} epochs a stage, two seeds")
    seconds: dict[str, list[float]] = {name: [] for name in LAUNCHERS}
    for _ in range(arguments.rounds):
        for name, launcher in LAUNCHERS.items():
            seconds[name].append(timed(launcher, arguments.experiment, arguments.epochs))
            print(f"  {name:<20} {seconds[name][-1]:7.1f} s", flush=True)
    first, second = (median(seconds[name]) for name in LAUNCHERS)
    print(f"two jobs side by side: {first / second:.2f} times as fast as one after the other (≥ 1.6)")


def timed(launcher: list[str], experiment: str, epochs: int) -> float:
    """Seconds that the multirun takes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "branchynet", "train", "-m", f"experiment={experiment}", "seed=1,2"),
            *(f"epochs.baseline={epochs}", f"epochs.joint={epochs}", "trainer=cpu", "engine.seconds=0.05"),
            *(f"hydra.sweep.dir={folder}/runs", f"cache={folder}/cache", *launcher),
        ]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        took = time.perf_counter() - began
        if done.returncode or len(list(Path(folder, "runs").glob("*/result.json"))) != 2:
            sys.exit(done.stderr)
        return took


if __name__ == "__main__":
    main()
