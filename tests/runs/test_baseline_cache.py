"""The cache of baselines: what names an entry, what is believed of it, and that a reader never sees half of one."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from branchynet.networks.attach import attach
from branchynet.runs import baseline_cache
from branchynet.runs.baseline_cache import digest_of_trunk

STATE = {"fc.weight": torch.arange(6000.0).reshape(30, 200)}


def test_the_key_changes_with_what_determines_the_baseline_and_with_nothing_else():
    key = baseline_cache.cache_key({"seed": 0, "epochs": 2})
    assert key == baseline_cache.cache_key({"epochs": 2, "seed": 0})
    assert key != baseline_cache.cache_key({"seed": 1, "epochs": 2})


def test_round_trip(tmp_path):
    assert baseline_cache.load(tmp_path, "k", STATE) is None
    baseline_cache.store(tmp_path, "k", STATE, {"seed": 0})
    loaded = baseline_cache.load(tmp_path, "k", STATE)
    assert loaded is not None and torch.equal(loaded["fc.weight"], STATE["fc.weight"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k.json", "k.pt"]


def test_what_was_logged_lies_beside_the_weights(tmp_path):
    logged = {"baseline/val_accuracy": 0.5, "step": 7}
    baseline_cache.store(tmp_path, "k", STATE, {"seed": 0}, logged)
    assert baseline_cache.load_metrics(tmp_path, "k") == logged
    assert json.loads((tmp_path / "k.json").read_text()) == {"seed": 0, "metrics": logged}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", {}),
        ("[1]", {}),
        ('{"seed": 0}', {}),
        ('{"metrics": [1]}', {}),
        ('{"metrics": {"a": "much"}}', {}),
        ('{"metrics": {"a": NaN, "b": 1}}', {"b": 1}),
    ],
)
def test_what_was_logged_may_be_unknown(text, found, tmp_path):
    (tmp_path / "k.json").write_text(text)
    assert baseline_cache.load_metrics(tmp_path, "k") == found
    assert baseline_cache.load_metrics(tmp_path, "another") == {}


def spoil_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_a_bit,
        a_folder,
        lambda path: path.write_bytes(b"PK\x03\x04 not the rest"),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({"fc.weight": torch.zeros(2, 2)}, path),
        lambda path: torch.save({"fc.weight": "text"}, path),
        lambda path: torch.save({**STATE, "more": torch.zeros(1)}, path),
    ],
)
def test_what_is_not_whole_or_does_not_fit_counts_as_none_and_is_told(spoil, tmp_path, caplog):
    baseline_cache.store(tmp_path, "k", STATE, {})
    spoil(tmp_path / "k.pt")
    assert baseline_cache.load(tmp_path, "k", STATE) is None
    assert "k.pt is not used" in caplog.text


class Small(nn.Module):
    """Closed to torch.fx: its graph is one node."""

    def __init__(self, activation):
        super().__init__()
        self.linear, self.activation = nn.Linear(4, 4), activation

    def forward(self, x):
        return self.activation(self.linear(x.flatten(1)))


class Other(Small):
    """The same layers and names, other code."""

    def forward(self, x):
        return self.activation(self.linear(x.flatten(1))) + 1


def trunk_of(kind, activation, change=0.0):
    """The same weights for all, but for the change."""
    torch.manual_seed(0)
    trunk = nn.Sequential(kind(activation), nn.Linear(4, 3))
    with torch.no_grad():
        trunk[0].linear.weight.add_(change)
    return attach(trunk, [{"after": "input", "fc": [2]}], (1, 2, 2), 3)


def test_the_digest_is_of_weights_and_code():
    own = digest_of_trunk(trunk_of(Small, nn.ReLU()))
    assert own == digest_of_trunk(trunk_of(Small, nn.ReLU()))
    assert own != digest_of_trunk(trunk_of(Small, nn.Tanh()))
    assert own != digest_of_trunk(trunk_of(Other, nn.ReLU()))
    assert own != digest_of_trunk(trunk_of(Small, nn.ReLU(), change=1e-6))


def test_the_digest_does_not_depend_on_the_exits():
    def network(exits):
        torch.manual_seed(0)
        return attach(nn.Sequential(Small(nn.ReLU()), nn.Linear(4, 3)), exits, (1, 2, 2), 3)

    first, second = network([{"after": "input", "fc": [2]}]), network([{"after": "input"}, {"after": "0"}])
    assert digest_of_trunk(first) == digest_of_trunk(second)


WRITER = """
import sys, pathlib, torch
from branchynet.runs import baseline_cache
folder, value = pathlib.Path(sys.argv[1]), float(sys.argv[2])
for _ in range(60):
    baseline_cache.store(folder, "k", {"w": torch.full((20000,), value)}, {"value": value})
"""


def test_jobs_that_write_the_same_entry_at_once_leave_a_whole_one(tmp_path):
    like = {"w": torch.full((20000,), 1.0)}
    baseline_cache.store(tmp_path, "k", like, {})
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, str(v)]) for v in (1.0, 2.0)]
    seen = 0
    while any(writer.poll() is None for writer in writers):
        state = baseline_cache.load(tmp_path, "k", like)
        assert state is not None and len(set(state["w"].tolist())) == 1
        seen += 1
    assert [writer.returncode for writer in writers] == [0, 0] and seen > 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k.json", "k.pt"]
