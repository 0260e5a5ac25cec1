"""What several rooms share: a tiny finished run, a network that sees brightness, reports worked out by hand.

The run: copy it before changing it.

The reports: S = 8 samples, N = 2 exits, K = 3 classes, the same on validation and test. Exit 1 is right on 5 of 8
samples, exit 2 on 7 of 8, the baseline on the first six. Uncertainties at exit 1 are 0.0, 0.1, … 0.7, so at the
threshold 0.45 the first five samples leave there, four of them rightly, and the other three leave at exit 2, all
rightly: 7/8. Leaving at exit 1 takes 10 µs and 100 MACs, at exit 2 50 µs and 500 MACs.
"""

import gc
import os
import pickle
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn

from branchynet.commands.app import conf_folder
from branchynet.commands.train_run import train_run
from branchynet.data.module import ImageData
from branchynet.evaluation.report import Report, Verified, medians
from branchynet.evaluation.rivals import Rival
from branchynet.exits.rules import Cost, Selection, View
from branchynet.exits.sweep import evaluate
from branchynet.exits.trace import Trace
from branchynet.networks.branched import BranchedNetwork
from branchynet.runs.run_config import plain
from branchynet.runs.started_run import start_run
from branchynet.runtime.costs import Latencies, Latency, Macs

TINY = [
    "experiment=b_lenet_digits",
    "trainer=cpu",
    "epochs.baseline=1",
    "epochs.joint=2",
    "schedule=none",
    "engine=torch",
    "engine.compare=[]",
    "engine.seconds=0.01",
    "logger=none",
    "page=false",
]


# Where several processes share the files, these are begun first, for each takes 15 s and more on a quiet machine:
# so no process has one left over when the others have ended.
SLOWEST = (
    "hostile/test_kills.py",
    "commands/test_train.py",
    "test_tutorial.py",
    "hostile/test_runs.py",
    "hostile/test_settings.py",
    "commands/test_evaluate_run.py",
    "exports/test_write.py",
    "exports/test_backbones.py",
    "commands/test_train_run.py",
    "hostile/test_data_files.py",
    "hostile/test_exports.py",
    "hostile/test_pictures.py",
    "strangers/test_strangers.py",
    "training/test_ranks.py",
    "test_connections.py",
    "commands/test_export.py",
    "commands/test_sweeper.py",
    "commands/test_search_run.py",
    "exports/test_agreement.py",
    "test_segmentation.py",
    "commands/test_evaluate.py",
    "test_api.py",
    "test_studies.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of several
        first = {Path(__file__).parent / name: place for place, name in enumerate(SLOWEST)}
        assert all(path.is_file() for path in first), "a file of SLOWEST has another name now"
        items.sort(key=lambda item: first.get(item.path, len(first)))


def pytest_collection_finish() -> None:
    """What is imported by now stays: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


def make_run(folder, *overrides):
    """Train as the command does, with the settings beside the run."""
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose("train", overrides=[*TINY, f"cache={folder.parent}/cache", *overrides])
    start_run(folder, plain(config))
    train_run(OmegaConf.create(plain(config)), folder)
    return folder


def fixed_latencies(*arguments):
    """Leaving at exit 1 is fast, however busy the machine is: what is chosen must not depend on it."""

    def timed(*medians):
        return tuple(Latency(median, median / 10) for median in medians)

    return Latencies(*timed(100.0), timed(30.0, 120.0), timed(25.0, 101.0), timed(20.0, 95.0))


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run's folder, its latencies made up; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("branchynet.evaluation.evidence.measure_latencies", fixed_latencies)
        return make_run(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made and saved, and stay blank: drawing them takes as long as all else in a small run, and is
    for those tests to see that are about it."""
    monkeypatch.setattr("matplotlib.figure.Figure.draw", lambda figure, renderer: None)


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it that may be changed."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@pytest.fixture
def evil(tmp_path):
    """A function that writes a pickle of its `object` into a file, and the path that loading it makes."""
    trace = tmp_path / "code has run"

    def write(path):
        path.write_bytes(pickle.dumps({"state_dict": write.object}))

    write.object = Evil(trace)
    # The trap works: what loads pickles carelessly falls into it.
    write(tmp_path / "bait")
    pickle.loads((tmp_path / "bait").read_bytes())
    assert trace.exists()
    trace.rmdir()
    return write, trace


@pytest.fixture
def bright_data(tmp_path):
    """300 images of three classes that differ in brightness; 100 of them for each of the splits."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    images = (rng.integers(0, 120, (300, 4, 4)) + 40 * labels[:, None, None]).astype(np.uint8)
    path = tmp_path / "arrays.npz"
    np.savez(path, x_train=images[:200], y_train=labels[:200], x_test=images[200:], y_test=labels[200:])
    made = ImageData("arrays", path=str(path), batch_size=32, validation_size=100)
    made.setup()
    return made


class Means(nn.Module):
    """Knows the classes by their brightness: an untrained head that is right more often than not."""

    def __init__(self, sharpness, centres=(-0.75, 0.0, 0.75)):
        super().__init__()
        self.centres = nn.Parameter(torch.tensor(centres))
        self.sharpness = sharpness

    def forward(self, x):
        return -self.sharpness * (x.flatten(1).mean(1, keepdim=True) - self.centres) ** 2


@pytest.fixture
def bright_network():
    """A function that makes a network of two such exits, the first right less often, and as sure as `sharpness`."""

    def make(sharpness=2.0):
        same = nn.Conv2d(1, 1, 1)  # the identity: there has to be something to count
        nn.init.ones_(same.weight), nn.init.zeros_(same.bias)
        segments = [nn.Sequential(same), nn.Sequential(nn.Hardtanh(-3, 3))]
        return BranchedNetwork(segments, [Means(sharpness, (-0.4, 0.3, 0.75)), Means(30.0)], ["first"]).eval()

    return make


def trace_of(right: Sequence[Sequence[int]]) -> Trace:
    """N exits that are right where `right` (N, 8) is 1; exit n's uncertainties are 0, 0.1/n, … 0.7/n."""
    label = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    prediction = torch.where(torch.tensor(right).T == 1, label[:, None], (label[:, None] + 1) % 3)
    uncertainty = torch.stack([torch.arange(8) / (10 * n) for n in range(1, len(right) + 1)], 1)
    return Trace(uncertainty.float(), prediction, label)


def latencies(
    baseline: float,
    exits: Sequence[float],
    static: Sequence[float],
    trunk_only: Sequence[float],
    factor: float = 1.0,
) -> Latencies:
    """From medians; the interquartile range is an eighth of each."""

    def scaled(values: Sequence[float]) -> tuple[Latency, ...]:
        return tuple(Latency(factor * value, factor * value / 8) for value in values)

    return Latencies(scaled([baseline])[0], scaled(exits), scaled(static), scaled(trunk_only))


RIGHT = [[1, 1, 1, 0, 1, 0, 0, 1], [1, 1, 0, 1, 1, 1, 1, 1]]
TWO_LATENCIES = (40.0, [10.0, 50.0], [8.0, 42.0], [4.0, 38.0])
BASE = {
    "experiment": "b_lenet_mnist",
    "seed": 3,
    "protocol": "validation",
    "split": "test",
    "engine": "onnxruntime",
    "threads": 1,
    "machine": "a machine",
    "versions": {"torch": "2.15.0"},
    "criterion": "entropy",
    "unit": "nats",
    "rule": "accuracy_floor",
    "classes": ("a", "b", "c"),
    "macs": Macs(baseline=425, exits=(100, 500), static=(90, 445), trunk_only=(40, 400)),
    "latencies": {"onnxruntime": latencies(*TWO_LATENCIES), "torch": latencies(*TWO_LATENCIES, factor=3.0)},
    "verified": {
        "onnxruntime": Verified(
            accuracy=0.875,
            exit_rates=(0.625, 0.375),
            latency_us=30.0,
            latency_iqr_us=2.0,
            baseline_latency_us=45.0,
            differences=0,
            near_threshold=0,
            unexplained=0,
        )
    },
}


def report_of(
    traces: Mapping[str, Trace],
    thresholds: Sequence[Sequence[float]] | torch.Tensor,
    chosen: int,
    baseline: Mapping[str, Sequence[bool]] | None = None,
    note: str = "",
    **changes: Any,
) -> Report:
    """A report as `choose` would put it together, but for the point: that is the one told.

    Args:
        traces: of `val` and `test`.
        thresholds: V × N-1, those that are swept.
        chosen: the operating point's number among them.
        baseline: by split, which samples the baseline is right about, where not the first six.
        note: of the choice.
        changes: to BASE.
    """
    fields: dict[str, Any] = {**BASE, **changes}
    kept = ("val",) if fields["split"] == "val" else ("val", "test")
    right = {split: torch.arange(traces[split].num_samples) < 6 for split in kept}
    right |= {split: torch.as_tensor(baseline[split]) for split in kept if split in (baseline or {})}
    choice = "test" if fields["protocol"] == "paper" else "val"
    timed, macs = fields["latencies"][fields["engine"]], fields["macs"]
    costs = {
        "latency_us": Cost("µs", medians(timed.exits), timed.baseline.median_us),
        "macs": Cost("MACs", macs.exits, macs.baseline),
    }
    swept = torch.as_tensor(thresholds, dtype=torch.float32)
    view = View(traces[choice], partial(evaluate, thresholds=swept), costs, right[choice])
    return Report(
        traces={split: traces[split] for split in kept},
        baseline_correct=right,
        view=view,
        selection=Selection(view.points[chosen], feasible=True, cheaper=True, note=note),
        **fields,
    )


@pytest.fixture(scope="session")
def make_report() -> Callable[..., Report]:
    """The tiny report with some of its fields changed; arguments as of `report_of`."""
    two = trace_of(RIGHT)

    def make(
        traces: Mapping[str, Trace] | None = None,
        thresholds: Sequence[Sequence[float]] | torch.Tensor = ((0.0,), (0.25,), (0.45,), (0.9,)),
        chosen: int = 2,
        **changes: Any,
    ) -> Report:
        return report_of({"val": two, "test": two, **(traces or {})}, thresholds, chosen, **changes)

    return make


@pytest.fixture(scope="session")
def report(make_report: Callable[..., Report]) -> Report:
    return make_report()


@pytest.fixture(scope="session")
def averaged(make_report: Callable[..., Report]) -> Report:
    """The tiny report, exit 2 averaging: its head alone is right on the first 6 of 8, its answer on 7 as before."""
    two = trace_of(RIGHT)
    own = torch.where(torch.arange(8) < 6, two.label, (two.label + 1) % 3)
    trace = replace(two, alone=torch.stack([two.prediction[:, 0], own], dim=1))
    return make_report(traces={"val": trace, "test": trace}, shares=(0.0, 0.25))


@pytest.fixture(scope="session")
def make_three() -> Callable[..., Report]:
    """The same with a third exit in between, right on 6 of 8; T = (0.25, 0.21): 3, 2 and 3 samples leave."""
    three = trace_of([RIGHT[0], [1, 1, 0, 1, 1, 1, 0, 1], RIGHT[1]])
    fields = {
        "experiment": "three",
        "macs": Macs(425, (100, 300, 600), (90, 240, 445), (40, 200, 400)),
        "latencies": {
            "onnxruntime": latencies(40.0, [10.0, 30.0, 60.0], [8.0, 25.0, 42.0], [4.0, 20.0, 38.0])
        },
        "verified": {
            "onnxruntime": Verified(0.875, (0.375, 0.25, 0.375), 30.0, 2.0, 45.0, 0, 0, 0),
        },
    }

    def make(
        traces: Mapping[str, Trace] | None = None,
        thresholds: Sequence[Sequence[float]] | torch.Tensor = ((0.0, 0.0), (0.25, 0.21), (0.9, 0.9)),
        chosen: int = 1,
        **changes: Any,
    ) -> Report:
        made = {"val": three, "test": three, **(traces or {})}
        return report_of(made, thresholds, chosen, **{**fields, **changes})

    return make


@pytest.fixture(scope="session")
def three_exits(make_three: Callable[..., Report]) -> Report:
    return make_three()


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    """(8, 1, 6, 6) uint8, to go with the reports."""
    return (torch.arange(8 * 36) % 256).to(torch.uint8).reshape(8, 1, 6, 6)


@pytest.fixture(scope="session")
def rivals() -> tuple[Rival, ...]:
    """Beside the tiny report's operating point, 250 MACs and 87.5 %: one better, one no more accurate, one dearer
    than it, and one dearer than everything."""
    return (
        Rival("better", 240, 0.9, "a page"),
        Rival("as good", 200, 0.875, "a page"),
        Rival("dearer", 251, 0.99, "a page"),
        Rival("far $x$", 600, 1.0, "a page"),
    )
