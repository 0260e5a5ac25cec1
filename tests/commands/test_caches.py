"""Caches over the first threshold: what is run, and what becomes of the counts."""

import pytest

from branchynet.commands import caches
from branchynet.commands.caches import IMAGES, study_caches, tried_thresholds
from branchynet.errors import UserError
from branchynet.runs.finished_run import open_run
from branchynet.runtime import caches as counters


class Counted:
    """A start costs 1,000 misses, and an image 7 more if it goes on at this threshold, else 2."""

    name = "counted"

    def missing(self):
        return ""

    def how(self):
        return "made up"

    def count(self, command):
        *_, rounds, thresholds = command
        each = 7 if float(thresholds.split(",")[0]) == 0 else 2
        return {"L2": 1000 + int(rounds) * IMAGES * each}


@pytest.fixture
def commands(monkeypatch):
    """What would have been run; every loop takes 5 µs."""
    found = []
    monkeypatch.setattr(caches, "write_export", lambda *arguments: None)
    monkeypatch.setattr(caches, "run_alone", lambda command: found.append(command) or "5.0")
    monkeypatch.setattr(counters, "COUNTERS", {"counted": Counted})
    return found


def test_from_nobody_to_all_with_the_start_taken_off(finished, commands):
    study = study_caches(open_run(finished), "auto", [0.5], shares=(0.0, 1.0))
    first, last = study.points
    assert first.exit_rates == (0, 1) and last.exit_rates == (1, 0)
    assert first.misses == {"L2": 7} and last.misses == {"L2": 2}
    assert first.touched > last.touched and first.latency_us == 5
    assert (study.how, study.note, study.images) == ("made up", "", IMAGES)
    assert [command[-1].split(",")[0] for command in commands] == ["0.0", repr(last.threshold)]


def test_nothing_is_counted_by_a_model(finished, commands):
    study = study_caches(open_run(finished), "model", [0.5], shares=(0.5,))
    assert study.points[0].misses == {} and study.how == ""


def test_thresholds_by_the_share_that_leaves(report):
    trace = report.trace  # 0, 0.1 … 0.7
    tried = tried_thresholds(trace, (0.0, 0.5, 1.0))
    left = [int((trace.uncertainty[:, 0] < value).sum()) for value in tried]
    assert left == [0, 4, 8]
    # Of equal thresholds one: all are as sure.
    assert len(tried_thresholds(trace.at([3, 3, 3]), (0.25, 0.5))) == 1


def test_a_run_without_side_exits(finished, commands):
    with pytest.raises(UserError, match="no side exit"):
        study_caches(open_run(finished), "model", [])
