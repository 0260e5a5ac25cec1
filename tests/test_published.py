"""The published traces still give the published numbers: docs/results, by the code of today."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from branchynet.exits.sweep import evaluate, evaluate_grid, point_at, threshold_grid
from branchynet.runs.stored import read_costs, read_trace

RESULTS = Path(__file__).parents[1] / "docs" / "results"
FOLDERS = sorted(path.parent for path in RESULTS.glob("*/result.json"))


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def published(request):
    folder = request.param
    result = json.loads((folder / "result.json").read_text())
    return folder, result, {split: read_trace(folder / f"trace-{split}.npz") for split in ("val", "test")}


def test_there_are_some():
    assert len(FOLDERS) >= 6


def test_the_operating_point(published):
    folder, result, traces = published
    macs, latencies = read_costs(folder / "costs.csv")
    timed = latencies[result["engine"]]
    point = point_at(traces["test"], result["knee"]["thresholds"])
    knee = result["knee"]
    assert point.accuracy == knee["accuracy"]
    assert list(point.exit_rates) == knee["exit_rates"]
    assert point.mean_cost(macs.exits) == pytest.approx(knee["macs"], rel=1e-12)
    latency_us = point.mean_cost([exit.median_us for exit in timed.exits])
    assert latency_us == pytest.approx(knee["latency_us"], rel=1e-12)
    assert timed.baseline.median_us / latency_us == pytest.approx(knee["gain_latency"], rel=1e-12)
    assert macs.baseline / point.mean_cost(macs.exits) == pytest.approx(knee["gain_macs"], rel=1e-12)
    forced = (traces["test"].correct.sum(0) / traces["test"].num_samples).tolist()
    assert forced == pytest.approx([each["accuracy"] for each in result["exits"]], rel=1e-6)


def test_every_row_of_the_sweep(published):
    folder, _, traces = published
    with (folder / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name.startswith("threshold_")]
    thresholds = torch.tensor([[float(row[name]) for name in names] for row in rows])
    for split, trace in traces.items():
        points = evaluate(trace, thresholds)
        assert points.accuracy.tolist() == [float(row[f"{split}_accuracy"]) for row in rows]
        for n in range(trace.num_exits):
            assert points.exit_rates[:, n].tolist() == [
                float(row[f"{split}_exit_rate_{n + 1}"]) for row in rows
            ]


def test_the_thresholds_tried_are_those_published(published):
    """The grid of today, from the validation trace, has every vector that the sweep lists."""
    folder, result, traces = published
    trace = traces["test" if result["protocol"] == "paper" else "val"]
    sweep = OmegaConf.load(folder / "config.yaml").sweep
    given = None if sweep.thresholds is None else list(sweep.thresholds)
    points = evaluate_grid(trace, threshold_grid(trace, sweep.max_vectors, given))
    tried = {tuple(vector) for vector in points.thresholds.numpy().tolist()}
    with (folder / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name.startswith("threshold_")]
    listed = {tuple(float(np.float32(row[name])) for name in names) for row in rows}
    assert listed <= tried


@pytest.mark.parametrize("folder", sorted((RESULTS / "streams").glob("*/")), ids=lambda folder: folder.name)
def test_streams_hold_their_budget_where_fixed_thresholds_miss_it(folder):
    """What docs/results/streams says, from the means of every 1,000 images; the last 9,000 of 20,000 are hard."""
    with (folder / "stream.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for drift in {row["drift"] for row in rows}:
        missed = {
            name: [
                float(row["missed"])
                for row in rows
                if (row["drift"], row["thresholds"]) == (drift, name) and int(row["images"]) > 11_000
            ]
            for name in ("held", "fixed")
        }
        assert max(missed["held"]) < 0.05 < 0.25 < min(missed["fixed"])
