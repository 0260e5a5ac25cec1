import os

import pytest

from branchynet.data import memory
from branchynet.data.memory import amount, available_memory, check_disk, gib
from branchynet.errors import UserError


def test_it_is_what_the_system_says():
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < available_memory() <= pages
    assert 10**8 < pages < 10**14


def test_a_container_may_have_less(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    whole = available_memory()
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory() > whole / 2  # no limit
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 100000\n")
    assert available_memory() == 700_000
    (tmp_path / "memory.current").write_text("2000000\n")
    assert available_memory() == 0


def test_in_words():
    assert gib(3 * 2**29) == "1.5 GiB"
    assert amount(3 * 2**29) == "1.5 GiB" and amount(3 * 2**19) == "1.5 MiB"


def test_a_disk_that_is_too_small_is_told(tmp_path):
    check_disk(tmp_path / "not" / "there", 10, "a set", "data.cache=<folder>")
    with pytest.raises(
        UserError, match=r"^a set takes .* GiB on the disk, and .* are free in .*there: set data\.cache"
    ):
        check_disk(tmp_path / "not" / "there", 2**62, "a set", "data.cache=<folder>")
