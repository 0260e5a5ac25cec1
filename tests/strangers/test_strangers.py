"""A stranger's parts, one of each of the six kinds, by config alone: trained, evaluated, exported, predicted with.

`elsewhere/` is a package outside of src/, `conf/` a config folder of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

HERE = Path(__file__).parent
PARTS = [
    "model=two_convs",  # the trunk, and the head
    "criterion=calibrated_entropy",
    "sweep/rule=twice_as_accurate",
    "objective=from_the_last",
    "engine=as_written",
]
QUICK = ["data=digits", "trainer=cpu", "epochs.baseline=3", "epochs.joint=6", "schedule=none", "logger=none"]


def branchynet(*arguments, known=True, cwd):
    """Run the command, with or without the stranger's package in reach."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    if known:
        environment["PYTHONPATH"] = str(HERE)
    command = [sys.executable, "-m", "branchynet", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)


def succeeded(*arguments, **options):
    done = branchynet(*arguments, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strangers")
    search = f"hydra.searchpath=[file://{HERE / 'conf'}]"
    where = [f"hydra.run.dir={folder / 'run'}", f"cache={folder / 'cache'}", "engine.seconds=0.01"]
    succeeded("train", search, *PARTS, *QUICK, *where, cwd=folder)
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


def test_the_criterion_has_learned_and_the_trace_is_of_what_it_learned(run):
    stored = torch.load(run / "criterion.pt", weights_only=True)
    temperatures = [state["temperature"].item() for state in stored["states"]]
    assert len(set(temperatures)) == 2 and 1.0 not in temperatures
    code = (
        f"import branchynet; n = branchynet.load({str(run)!r}, trust=True).finished_run;"
        "x, y = next(n.data.batches('test', 10_000)); import torch;"
        f"t = {temperatures};"
        "p = [out / t[i] for i, out in enumerate(n.network(x))];"
        "import numpy; e = torch.stack([torch.distributions.Categorical(logits=q).entropy() for q in p], 1);"
        "print(abs(e.detach().numpy() - numpy.load(n.folder / 'trace-test.npz')['uncertainty']).max())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
    )
    assert float(done.stdout) < 1e-5, done.stderr


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
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert "elsewhere." in done.stderr and "trust=true" in done.stderr


def test_evaluating_with_another_setting_of_the_rule_and_with_the_network(run, tmp_path):
    out = f"hydra.run.dir={tmp_path / 'out'}"
    succeeded("evaluate", f"run={run}", "trust=true", "sweep.rule.loss=0.9", out, cwd=tmp_path)
    found = json.loads((tmp_path / "out" / "result.json").read_text())
    assert found["knee"]["exit_rates"] == [1, 0] and found["knee"]["rule"] == "twice_as_accurate"
    out = f"hydra.run.dir={tmp_path / 'again'}"
    succeeded(
        "evaluate", f"run={run}", "trust=true", "from=network", "engine.seconds=0.01", out, cwd=tmp_path
    )
    with np.load(run / "trace-test.npz") as first, np.load(tmp_path / "again" / "trace-test.npz") as again:
        assert all(np.array_equal(first[name], again[name]) for name in first.files)


def test_a_wrong_setting_is_told_in_one_line(run, tmp_path):
    done = branchynet("evaluate", f"run={run}", "trust=true", "sweep.rule.loss=-1", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "branchynet: sweep.rule.loss=-1: it is a fraction, 0 … 1\n"


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
