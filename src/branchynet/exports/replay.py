"""Run an export in a process of its own, where PyTorch cannot be imported: does it stand alone?

Shapes: C channels, H, W, N exits, P threshold vectors, S samples.
"""

import importlib.abc
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from branchynet.data.batches import at_once
from branchynet.exports.load import Answer, load_export

# So many images are run one by one, the rest in batches of so many.
ALONE, CHUNK = 32, 500


def replay(folder: Path, x: np.ndarray, thresholds: np.ndarray, trust: bool) -> list[Answer]:
    """The answers of the export in `folder` to x (S, C, H, W) uint8, from a new process.

    Args:
        thresholds: (P, N-1) float32: P vectors, each of which is run with.
        trust: whether that process may import PyTorch, and loads the export as trusted.

    Returns:
        P answers.

    Raises:
        RuntimeError: the process failed; with what it said.
    """
    with tempfile.TemporaryDirectory() as scratch:
        given, answers = Path(scratch, "given.npz"), Path(scratch, "answers.npz")
        np.savez(given, x=x, thresholds=thresholds)
        command = [sys.executable, "-m", __name__, str(folder), str(given), str(answers)]
        done = subprocess.run([*command, *(["--trust"] if trust else [])], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the export in {folder} does not run in another process:\n{done.stderr}")
        with np.load(answers) as stored:
            columns = [stored[name] for name in Answer._fields]
        return [Answer(*(column[point] for column in columns)) for point in range(len(thresholds))]


class NoTorch(importlib.abc.MetaPathFinder):
    """An import hook that makes `import torch` fail."""

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> None:
        if fullname.partition(".")[0] == "torch":
            raise ImportError("an export has to run without torch", name=fullname)


def main(folder: str, given: str, answers: str, *flags: str) -> None:
    trust = "--trust" in flags
    if not trust:
        sys.meta_path.insert(0, NoTorch())
    exported = load_export(folder, trust=trust)
    with np.load(given) as stored:
        x, points = stored["x"], stored["thresholds"]
    size = at_once(x.shape[1:], CHUNK)
    parts = [x[i : i + 1] for i in range(min(ALONE, len(x)))]
    parts += [x[i : i + size] for i in range(ALONE, len(x), size)]
    found = []
    for thresholds in points:
        exported.thresholds = thresholds
        found.append([np.concatenate(c) for c in zip(*map(exported.answer, parts), strict=True)])
    columns: Any = map(np.stack, zip(*found, strict=True))
    np.savez(answers, **dict(zip(Answer._fields, columns, strict=True)))


if __name__ == "__main__":
    main(*sys.argv[1:])
