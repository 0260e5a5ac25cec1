"""The real run against the trace."""

import copy

import numpy as np
import pytest
import torch

from branchynet.exits.criteria import Entropy
from branchynet.exits.sweep import compare, evaluate
from branchynet.exits.trace import compute_trace
from branchynet.runtime.base import Outcome, forced
from branchynet.runtime.steps import exit_steps
from branchynet.runtime.verify import run_for_real, run_in_batches


def test_every_sample_leaves_where_the_sweep_says(backend, engine, network, images):
    labels = torch.arange(len(images)) % 10
    trace = compute_trace(exit_steps(network, [Entropy()] * 3), [torch.from_numpy(images)], labels)
    thresholds = [float(trace.uncertainty[:, n].median()) + 1e-3 for n in range(2)]
    engine.thresholds = thresholds
    classify, said = backend.classifier(network.trunk(), (1, 12, 12), 1), []

    def baseline(x):
        said.append(classify(x))
        return said[-1]

    run = run_for_real(engine, baseline, lambda: [images[:200], images[200:]])
    found = compare(
        trace,
        engine.thresholds,
        torch.from_numpy(run.outcome.exit_index),
        torch.from_numpy(run.outcome.prediction),
    )
    assert found.unexplained == 0 and found.differences <= found.near_threshold
    point = evaluate(trace, torch.tensor([thresholds]))
    rates = np.bincount(run.outcome.exit_index, minlength=3) / len(images)
    if not found.differences:
        assert rates.tolist() == point.exit_rates[0].tolist()
        assert (run.outcome.prediction == labels.numpy()).mean() == point.accuracy[0].item()
    # The baseline has had the same samples in the same order: twenty to warm up, then pass after pass.
    passes = np.array(said[20:]).reshape(-1, len(images))
    assert len(passes) and (passes == trace.prediction[:, -1].numpy()).all()
    assert run.latency_us > 0 and run.baseline_latency_us > 0 and run.latency_iqr_us >= 0


def test_every_layer_has_run_before_the_clock_starts(engine, images):
    """No sample gets beyond exit 1; an engine that compiles in its first run would do so in a timed one."""
    engine.thresholds = forced(0, 3)
    seen = []

    class Watched(type(engine)):
        def run(self, x):
            seen.append(super().run(x).exit_index[0])
            return super().run(x)

    engine.__class__ = Watched
    run = run_for_real(engine, lambda _: 0, lambda: [images[:3]])
    assert seen[0] == 2 and set(seen[1:]) == {0} and run.outcome.exit_index.tolist() == [0, 0, 0]
    assert engine.thresholds == forced(0, 3)


class Slow:
    """An engine whose clock is the test's: an image takes as many milliseconds as its first pixel says."""

    thresholds = ()

    def __init__(self, patch):
        self.now, self.threads = 0, set()
        patch.setattr("time.perf_counter_ns", lambda: self.now)

    def run(self, x):
        self.threads.add(torch.get_num_threads())
        self.now += int(1e6 * x.flat[0])
        return Outcome(np.zeros(len(x), np.int64), np.ones(len(x), np.int64), np.zeros(len(x), np.float32))

    def baseline(self, x):
        self.now += int(2e6 * x.flat[0])
        return 0


def test_latencies_by_hand(monkeypatch):
    """The mean over all samples; the spread is that of the blocks of a hundred: their means are 1, 2 and 6."""
    engine = Slow(monkeypatch)
    x = np.repeat(np.float32([1, 2, 6]), 100).reshape(-1, 1, 1, 1)
    before = torch.get_num_threads()
    run = run_for_real(engine, engine.baseline, lambda: x.reshape(-1, 100, 1, 1, 1), threads=before + 1)
    assert run.latency_us == pytest.approx(3000) and run.baseline_latency_us == pytest.approx(6000)
    assert run.latency_iqr_us == pytest.approx(2500)  # 1.5 … 4
    assert engine.threads == {before + 1} and torch.get_num_threads() == before


def test_batches_are_what_was_asked_for_and_keep_the_order(engine, images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    filed = np.load(tmp_path / "images.npy", mmap_mode="r")
    engine.thresholds = forced(1, 3)
    seen, other = [], copy.copy(engine)

    class Watched(type(engine)):
        def run(self, x):
            seen.append(len(x))
            return super().run(x)

    other.__class__ = Watched
    found = run_in_batches(other, filed, 100)
    assert seen == [100, 100, 57]
    assert np.array_equal(found.prediction, engine.run(images).prediction)
