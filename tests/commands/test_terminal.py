"""What stdout and stderr cannot show, and what happens where they cannot be written."""

import io
import json
import logging
import os
import subprocess
import sys

import pytest

from branchynet.commands import terminal

ODD = "µ … – × 你 \ud800 \x1b[31m"


@pytest.fixture
def ours(monkeypatch):
    """A function that gives a stdout of this encoding, prepared."""
    monkeypatch.setattr(logging, "raiseExceptions", True)

    def prepared(encoding, raw=None):
        monkeypatch.setenv("PYTHONIOENCODING", "")
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, io.TextIOWrapper(raw or io.BytesIO(), encoding=encoding))
        terminal.prepare()
        return sys.stdout

    return prepared


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", rb"u ... - x \u4f60 \ud800"),
        ("latin-1", b"\xb5 ... - \xd7 \\u4f60 \\ud800"),
        ("utf-8", "µ … – × 你 \\ud800".encode()),
    ],
)
def test_no_letter_ends_a_run(encoding, shown, ours):
    stream = ours(encoding)
    print(ODD[:-6], end="", flush=True)
    assert stream.buffer.getvalue() == shown


def test_log_lines_control_no_terminal(ours):
    stream = ours("utf-8")
    console = logging.StreamHandler(stream)
    console.setFormatter(terminal.OneLine())
    console.emit(logging.makeLogRecord({"msg": "a\n\t%s", "args": (ODD,)}))
    assert stream.buffer.getvalue().decode() == "a\n    µ … – × 你 \\ud800 \\u001b[31m\n"


# What main() does before and after a command, and a command that prints; stdout and stderr as the shell gives them.
PRINTS = "import sys; sys.argv = ['branchynet', '--version']; from branchynet.__main__ import main; main()"


@pytest.mark.parametrize(
    ("redirected", "code", "line"),
    [
        (">&-", 2, "branchynet: stdout is closed: give it a file, or /dev/null\n"),
        (">/dev/full", 2, "branchynet: stdout cannot be written (No space left on device)\n"),
        ("2>&-", 0, ""),
        (">/dev/full 2>/dev/full", 2, ""),
    ],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_stdout_that_cannot_be_written_is_one_line(redirected, code, line, unbuffered):
    command = ["sh", "-c", f'exec "$0" -c "$1" {redirected}', sys.executable, PRINTS]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (code, line)


def test_processes_started_from_here_are_as_patient(ours, monkeypatch):
    ours("ascii")
    done = subprocess.run([sys.executable, "-c", f"print({json.dumps(ODD)})"], capture_output=True)
    assert done.returncode == 0 and done.stdout.startswith(rb"\xb5 \u2026")
