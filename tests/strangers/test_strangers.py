"""A stranger's parts, one of each of the six kinds, by config alone: trained, evaluated, exported, predicted with.

`elsewhere/` is a package outside of src/, `conf/` a config folder of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import child
import numpy as np
import pytest
import torch

from branchynet.api import load

HERE = Path(__file__).parent
PARTS = [
    "model=two_convs",  # the trunk, and the head
    "criterion=calibrated_entropy",
    "sweep/rule=twice_as_accurate",
    "objective=from_the_last",
    "engine=as_written",
]
QUICK = ["data=digits", "trainer=cpu", "epochs.baseline=3", "epochs.joint=6", "schedule=none", "logger=none"]


def in_reach():
    """The stranger's package can be imported."""
    sys.path.insert(0, str(HERE))


def branchynet(*arguments, known=True, cwd):
    """Run the command, with or without the stranger's package in reach."""
    return child.call(arguments, cwd, 300, at_start=in_reach if known else None)


def succeeded(*arguments, **options):
    done = branchynet(*arguments, **options)
    assert done.code == 0, done.err
    return done.out


@pytest.fixture
def known(monkeypatch):
    """The stranger's package is in reach of this process, too."""
    monkeypatch.syspath_prepend(HERE)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "elsewhere"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Trained by the command as a stranger starts it."""
    folder = tmp_path_factory.mktemp("strangers")
    search = f"hydra.searchpath=[file://{HERE / 'conf'}]"
    where = [
        f"hydra.run.dir={folder / 'run'}",
        f"cache={folder / 'cache'}",
        "engine.seconds=0.01",
        "page=false",
    ]
    command = [sys.executable, "-m", "branchynet", "train", search, *PARTS, *QUICK, *where]
    source = os.environ.get("PYTHONPATH", "")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{HERE}{os.pathsep}{source}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def result(run):
    return json.loads((run / "result.json").read_text())


def test_every_part_was_used(run, result):
    assert (result["engine"], result["knee"]["criterion"]) == ("as_written", "calibrated_entropy")
    assert result["knee"]["rule"] == "twice_as_accurate"
    state = torch.load(run / "checkpoints" / "joint" / "best.ckpt", weights_only=True)["state_dict"]
    assert state["network.heads.0.hidden.weight"].shape == (12, 12)  # of width 12, on 2 × 6 channels
    assert state["network.segments.0.conv1.weight"].shape == (6, 1, 5, 5)
    assert {row.split(",")[0] for row in (run / "costs.csv").read_text().splitlines()[1:]} == {
        "as_written",
        "onnxruntime",
    }


def test_the_criterion_has_learned_and_the_trace_is_of_what_it_learned(run, known):
    stored = torch.load(run / "criterion.pt", weights_only=True)
    temperatures = [state["temperature"].item() for state in stored["states"]]
    assert len(set(temperatures)) == 2 and 1.0 not in temperatures
    loaded = load(run, trust=True).finished_run
    x, _ = next(loaded.data.batches("test", 10_000))
    scaled = [out.detach() / t for out, t in zip(loaded.network(x), temperatures, strict=True)]
    entropy = torch.stack([torch.distributions.Categorical(logits=each).entropy() for each in scaled], 1)
    with np.load(run / "trace-test.npz") as trace:
        assert abs(entropy.numpy() - trace["uncertainty"]).max() < 1e-5


def test_the_rule_kept_its_promise_on_both_halves(run, result):
    with np.load(run / "trace-val.npz") as trace:
        right = trace["prediction"] == trace["label"][:, None]
        early = trace["uncertainty"][:, 0] < np.float32(result["knee"]["thresholds"][0])
    chosen = np.where(early, right[:, 0], right[:, 1])
    for start in (0, 1):
        assert chosen[start::2].mean() >= right[start::2, 1].mean() - 0.02


def test_the_real_run_is_what_the_sweep_said(result):
    assert result["knee"]["measured"]["accuracy"] == result["knee"]["accuracy"]


def test_loading_asks_for_trust(run, tmp_path):
    for arguments in (
        ["evaluate", f"run={run}"],
        ["export", f"run={run}"],
        ["predict", f"run={run}", "input=."],
    ):
        done = branchynet(*arguments, cwd=tmp_path)
        assert done.code == 2 and len(done.err.splitlines()) == 1, done.err
        assert "elsewhere." in done.err and "trust=true" in done.err


def test_evaluating_with_another_setting_of_the_rule_and_with_the_network(run, tmp_path):
    out = f"hydra.run.dir={tmp_path / 'out'}"
    command = ["evaluate", f"run={run}", "trust=true", "page=false"]
    succeeded(*command, "sweep.rule.loss=0.9", out, cwd=tmp_path)
    found = json.loads((tmp_path / "out" / "result.json").read_text())
    assert found["knee"]["exit_rates"] == [1, 0] and found["knee"]["rule"] == "twice_as_accurate"
    out = f"hydra.run.dir={tmp_path / 'again'}"
    succeeded(*command, "from=network", "engine.seconds=0.01", out, cwd=tmp_path)
    with np.load(run / "trace-test.npz") as first, np.load(tmp_path / "again" / "trace-test.npz") as again:
        assert all(np.array_equal(first[name], again[name]) for name in first.files)


def test_a_wrong_setting_is_told_in_one_line(run, tmp_path):
    done = branchynet("evaluate", f"run={run}", "trust=true", "sweep.rule.loss=-1", cwd=tmp_path)
    assert done.code == 2
    assert done.err == "branchynet: sweep.rule.loss=-1: it is a fraction, 0 … 1\n"


@pytest.mark.parametrize("format", ["segments", "single"])
def test_an_export_runs_without_the_strangers_package(format, run, tmp_path):
    export = tmp_path / "export"
    succeeded("export", f"run={run}", "trust=true", f"format={format}", f"output={export}", cwd=tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (70, 1, 28, 28)).astype(np.uint8)
    np.save(tmp_path / "images.npy", images)
    rows = {}
    for source, known in ((f"export={export}", False), (f"run={run}", True)):
        more = ["trust=true"] if known else []
        text = succeeded(
            "predict", source, "input=images.npy", "format=jsonl", *more, known=known, cwd=tmp_path
        )
        rows[known] = [json.loads(line) for line in text.splitlines()]
    assert len(rows[True]) == 70
    for exported, own in zip(rows[False], rows[True], strict=True):
        assert (exported["class"], exported["exit"]) == (own["class"], own["exit"])
        assert exported["uncertainty"] == pytest.approx(own["uncertainty"], abs=1e-5)
