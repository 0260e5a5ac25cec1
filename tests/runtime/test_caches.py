"""Cache sizes, counters of misses, and the bytes that an image touches."""

import pytest
from torch import nn

from branchynet.errors import UserError
from branchynet.networks.branched import BranchedNetwork
from branchynet.runtime import caches
from branchynet.runtime.caches import Cache, Cachegrind, Perf, counter_of, data_caches, mean, touched_bytes

L1, L2 = Cache(1, 32 * 1024, 8, 64), Cache(2, 512 * 1024, 8, 64)


def test_the_sizes_that_the_system_tells(tmp_path):
    for n, (level, kind, size) in enumerate(
        [(1, "Data", "32K"), (1, "Instruction", "32K"), (2, "Unified", "2M")]
    ):
        index = tmp_path / f"index{n}"
        index.mkdir()
        told = {
            "level": level,
            "type": kind,
            "size": size,
            "ways_of_associativity": 8,
            "coherency_line_size": 64,
        }
        for name, value in told.items():
            (index / name).write_text(f"{value}\n")
    assert data_caches(tmp_path) == [L1, Cache(2, 2 * 2**20, 8, 64)]
    assert data_caches(tmp_path / "nowhere") == []


def test_what_perf_writes():
    text = "# started\n\n1200,,L1-dcache-load-misses,5000,100.00,,\n340,,cache-misses:u,5000,100.00,,\n"
    assert Perf().read(text) == {"L1 data": 1200, "last level": 340}
    hidden = text.replace("340", "<not supported>")
    with pytest.raises(UserError, match="perf cannot read the processor's counter cache-misses here"):
        Perf().read(hidden)


def test_what_cachegrind_writes():
    text = "events: Ir I1mr ILmr Dr D1mr DLmr Dw D1mw DLmw\nfn=f\n1 2\nsummary: 9 8 1 7 20 3 6 30 5\n"
    assert Cachegrind([L1, L2]).read(text) == {"L1 data": 50, "L2": 9}
    assert "32 KiB, L2 of 512 KiB" in Cachegrind([L1, L2]).how()


class Missing:
    name = "nothing"

    def missing(self):
        return "this one is missing"


class There:
    name = "there"

    def missing(self):
        return ""


@pytest.mark.parametrize(
    ("counters", "found", "note"),
    [
        ([Missing, There], There, "this one is missing"),
        ([There, Missing], There, ""),
        ([Missing], type(None), "this one is missing"),
    ],
)
def test_the_first_that_can_counts(counters, found, note, monkeypatch):
    monkeypatch.setattr(caches, "COUNTERS", {str(n): kind for n, kind in enumerate(counters)})
    made, why = counter_of("auto")
    assert type(made) is found and why == note


def test_one_that_was_named_has_to_be_there(monkeypatch):
    monkeypatch.setattr(caches, "COUNTERS", {"perf": Missing})
    with pytest.raises(UserError, match="caches=perf: this one is missing; caches=auto"):
        counter_of("perf")
    with pytest.raises(UserError, match="caches"):
        counter_of("guess")
    assert counter_of("model") == (None, "")


def test_programs_that_are_not_installed_are_told(monkeypatch):
    monkeypatch.setattr(caches.shutil, "which", lambda name: None)
    assert Perf().missing() == "perf is not installed (Debian: linux-perf)"
    assert Cachegrind([L1, L2]).missing() == "valgrind is not installed (Debian: valgrind)"
    monkeypatch.setattr(caches.shutil, "which", lambda name: name)
    assert "two caches" in Cachegrind([L1]).missing()


def test_every_weight_and_every_output_once():
    segments = [nn.Sequential(nn.Conv2d(1, 2, 3)), nn.Sequential(nn.ReLU())]
    heads = [nn.Sequential(nn.Flatten(), nn.Linear(32, 3)), nn.Sequential(nn.Flatten(), nn.Linear(32, 5))]
    network = BranchedNetwork(segments, heads, ["conv"])
    image, conv = 36, 20 + 32
    first, last = 32 + (96 + 3) + 3, 32 + (160 + 5) + 5
    assert touched_bytes(network, (1, 6, 6)) == (
        4 * (image + conv + first),
        4 * (image + conv + first + 32 + last),
    )


def test_the_mean_over_exit_rates():
    assert mean([10, 30], [0.75, 0.25]) == 15
