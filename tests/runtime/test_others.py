"""What others compute: on a made-up clock and a made-up /proc/stat."""

import os

import pytest

from branchynet.runtime.others import Reading, free_cores, others, read

# user nice system idle iowait irq softirq steal guest guest_nice; we may use cores 0 and 2.
STAT = """\
cpu  9999 9999 9999 9999 9999 9999 9999 9999 9999 9999
cpu0 {0} 20 30 4000 5000 6 7 8 900 900
cpu1 7000 7000 7000 7000 0 0 0 0 0 0
cpu2 0 0 {1} 4000 5000 0 0 0 0 0
intr 1 2 3
"""


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A function that sets what the system says, and reads it."""
    monkeypatch.setattr("branchynet.runtime.others.STAT", tmp_path / "stat")
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 2}, raising=False)
    ticks = os.sysconf("SC_CLK_TCK")

    def at(clock, own, first, second):
        """Seconds, all of them; the last two are of the two cores."""
        monkeypatch.setattr("time.monotonic", lambda: clock)
        monkeypatch.setattr("time.process_time", lambda: own)
        (tmp_path / "stat").write_text(STAT.format(round(first * ticks), round(second * ticks)))
        return read()

    return at


def test_what_is_computed_on_our_cores_and_not_by_us_is_theirs(machine):
    begin, end = machine(100.0, 5.0, 10, 20), machine(110.0, 14.0, 17, 27)
    # In 10 seconds 7 on either core, 9 of them by us.
    assert others(begin, end) == pytest.approx(0.5)
    assert others(begin, machine(110.0, 25.0, 17, 27)) == 0  # clocks of different grain
    assert others(begin, begin) == others(None, end) == others(begin, None) == 0


def test_where_the_system_says_nothing_nothing_is_known(machine, tmp_path, monkeypatch):
    assert isinstance(machine(0.0, 0.0, 0, 0), Reading)
    (tmp_path / "stat").write_text("cpu0 1 2\n")
    assert read() is None
    (tmp_path / "stat").unlink()
    assert read() is None
    monkeypatch.delattr("os.sched_getaffinity")
    assert read() is None


def test_free_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
    assert [free_cores(threads) for threads in (1, 3, 4, 9)] == [3, 1, 1, 1]
