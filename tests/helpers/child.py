"""`branchynet <command>` in a process of its own, forked from one that has imported all: a second, not ten."""

import gc
import multiprocessing
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.hydra import Hydra

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "branchynet.commands.train_run",
        "branchynet.commands.evaluate_run",
        "branchynet.commands.export",
        "branchynet.commands.predict",
        "branchynet.commands.search_run",
        "branchynet.exports.write",
    ]
)


@dataclass(frozen=True)
class Done:
    """How a command ended.

    Args:
        code: the exit code, below 0 after a signal; None if it was killed here for taking too long.
        out: what it wrote to stdout.
        err: what it wrote to stderr.
    """

    code: int | None
    out: str
    err: str

    def refused(self, *words: str) -> None:
        """Assert that it ended as after a user's mistake: exit code 2, one line, with these words in it."""
        assert self.code == 2, f"exit code {self.code}\n{self.err}"
        *before, last = self.err.strip().splitlines()
        assert last.startswith("branchynet: ") and "Traceback" not in self.err, self.err
        # Lines before the last may be warnings of ours, and nothing that another library says.
        assert all(line.startswith("branchynet: ") for line in before), self.err
        for word in words:
            assert word in last, f"{word!r} is not in {last!r}"


def call(
    command: Sequence[str],
    folder: Path,
    seconds: float = 120,
    at_start: Callable[[], object] | None = None,
) -> Done:
    """Run the command in a folder.

    Args:
        command: its words.
        folder: where.
        seconds: after so many it is killed.
        at_start: called in the process before it begins; a function of a module, or a `partial` of one.
    """
    with tempfile.TemporaryDirectory() as made:
        out, err = Path(made, "out"), Path(made, "err")
        arguments = (list(command), str(folder), str(out), str(err), at_start)
        process = _SERVER.Process(target=_child, args=arguments)
        process.start()
        process.join(seconds)
        in_time = not process.is_alive()
        if not in_time:
            os.kill(int(process.pid or 0), signal.SIGKILL)
            process.join()
        # As bytes, for a bar's carriage returns would be lines of their own else.
        texts = [path.read_bytes().decode("utf-8", "replace") if path.exists() else "" for path in (out, err)]
        return Done(process.exitcode if in_time else None, *texts)


def set_variables(variables: dict[str, str]) -> None:
    """For `at_start`: the environment that the command finds."""
    os.environ.update(variables)


def warnings_are_errors() -> None:
    """For `at_start`: as `python -W error`, but that what is imported in the end is not looked at."""
    warnings.simplefilter("error")


def _child(
    command: list[str], folder: str, out: str, err: str, at_start: Callable[[], object] | None
) -> None:
    from branchynet.__main__ import main

    if not any(word.startswith(("experiment=ablation/", "experiment=thresholds/")) for word in command):
        # To ask whether the settings want a multirun Hydra composes all of them, which takes half of the time;
        # these studies alone do.
        Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]
    gc.freeze()  # a collection would look through all that is imported, and make its memory this process's own
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    if at_start is not None:
        at_start()
    sys.argv = ["branchynet", *command]
    main()
