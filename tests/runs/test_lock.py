"""Locks: one process at a time; whoever is killed has given it back; and where there are none, all goes on."""

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from branchynet.runs import lock
from branchynet.runs.lock import Held, locked

# Waits for the lock, writes its name as often as it can, and then ends, or hangs until it is killed.
SCRIPT = """
import logging, sys, time
from pathlib import Path
from branchynet.runs.lock import locked

logging.basicConfig(level=logging.INFO, format="%(message)s")
path, name, end = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
with locked(path, "waiting", "none"):
    with path.with_name("log").open("a") as file:
        for step in ("begins", "ends"):
            print(name, step, file=file, flush=True)
            time.sleep(0.2 if end == "ends" else 600)
"""


@pytest.fixture
def begin(tmp_path):
    """A function that starts such a process, and the file that it writes into."""
    started = []

    def start(name, end):
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, tmp_path / "lock", name, end], stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start, tmp_path / "log"
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


def wait_for(holds):
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.02)
    pytest.fail("it took too long")


def test_one_after_the_other_and_a_killed_one_gives_it_back(begin, tmp_path):
    start, log = begin
    owner = start("killed", "hangs")
    wait_for(log.exists)
    with pytest.raises(Held), locked(tmp_path / "lock", None, "none"):
        pass
    others = [start(name, "ends") for name in ("a", "b")]
    assert others[0].stderr.readline() == "waiting\n"
    assert log.read_text() == "killed begins\n"
    os.kill(owner.pid, signal.SIGKILL)
    assert [other.wait(20) for other in others] == [0, 0]
    lines = log.read_text().splitlines()
    assert lines[0] == "killed begins"
    assert lines[1:] in (
        [f"{name} {step}" for name in names for step in ("begins", "ends")] for names in ("ab", "ba")
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log"], "the lock's file is gone"


def test_a_file_system_without_locks_is_told_of_once_and_all_goes_on(tmp_path, monkeypatch, caplog):
    def refused(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refused)
    done = []
    with locked(tmp_path / "lock", "waiting", "twice"):
        done.append(1)
    assert done and [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: no lock can be held there (No locks available): twice"
    ]


def test_a_folder_that_cannot_be_written_has_none(tmp_path, caplog):
    (tmp_path / "file").touch()
    with locked(tmp_path / "file" / "lock", "waiting", "none"):
        pass
    assert not caplog.records


def test_a_system_without_locks(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(lock, "fcntl", None)
    with locked(tmp_path / "lock", None, "all goes on"):
        assert not list(tmp_path.iterdir())
    assert "this system has none" in caplog.text and caplog.records[0].levelno == logging.WARNING
    assert Path(tmp_path).is_dir()
