"""The cache of baselines: what names an entry, and that a reader never sees half of one."""

import subprocess
import sys

import torch

from branchynet.runs import baseline_cache


def test_the_key_changes_with_what_determines_the_baseline_and_with_nothing_else():
    key = baseline_cache.cache_key({"seed": 0, "epochs": 2})
    assert key == baseline_cache.cache_key({"epochs": 2, "seed": 0})
    assert key != baseline_cache.cache_key({"seed": 1, "epochs": 2})


def test_round_trip(tmp_path):
    state = {"fc.weight": torch.randn(3, 2)}
    assert baseline_cache.load(tmp_path, "k") is None
    baseline_cache.store(tmp_path, "k", state, {"seed": 0})
    loaded = baseline_cache.load(tmp_path, "k")
    assert loaded is not None and torch.equal(loaded["fc.weight"], state["fc.weight"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k.json", "k.pt"]


def test_a_damaged_entry_counts_as_none(tmp_path):
    (tmp_path / "k.pt").write_bytes(b"PK\x03\x04 not the rest")
    assert baseline_cache.load(tmp_path, "k") is None


WRITER = """
import sys, pathlib, torch
from branchynet.runs import baseline_cache
folder, value = pathlib.Path(sys.argv[1]), float(sys.argv[2])
for _ in range(60):
    baseline_cache.store(folder, "k", {"w": torch.full((20000,), value)}, {"value": value})
"""


def test_jobs_that_write_the_same_entry_at_once_leave_a_whole_one(tmp_path):
    baseline_cache.store(tmp_path, "k", {"w": torch.full((20000,), 1.0)}, {})
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, str(v)]) for v in (1.0, 2.0)]
    seen = 0
    while any(writer.poll() is None for writer in writers):
        state = baseline_cache.load(tmp_path, "k")
        assert state is not None and len(set(state["w"].tolist())) == 1
        seen += 1
    assert [writer.returncode for writer in writers] == [0, 0] and seen > 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k.json", "k.pt"]
