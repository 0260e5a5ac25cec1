"""The callback on a tiny network: the chosen point is what a slow loop says, protocols differ, files agree."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from branchynet.callbacks import evaluation
from branchynet.callbacks.evaluation import SweepSettings, sweep
from branchynet.callbacks.threshold_sweep import ThresholdSweep
from branchynet.data.module import ImageData
from branchynet.errors import UserError
from branchynet.networks.branched import BranchedNetwork
from branchynet.evaluation.report import without_inexact

ENGINE = {"name": "torch", "threads": 1, "seconds": 0.01}
FLOOR = {"name": "accuracy_floor", "distance": 0.0}


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    images = (rng.integers(0, 120, (300, 4, 4)) + 40 * labels[:, None, None]).astype(np.uint8)
    path = tmp_path / "arrays.npz"
    np.savez(path, x_train=images[:200], y_train=labels[:200], x_test=images[200:], y_test=labels[200:])
    made = ImageData("arrays", path=str(path), batch_size=32, validation_size=100)
    made.setup()
    return made


class Means(nn.Module):
    """Knows the classes by their brightness: an untrained network that is right more often than not."""

    def __init__(self, sharpness):
        super().__init__()
        self.centres = nn.Parameter(torch.tensor([-0.75, 0.0, 0.75]))
        self.sharpness = sharpness

    def forward(self, x):
        return -self.sharpness * (x.flatten(1).mean(1, keepdim=True) - self.centres) ** 2


def network(sharpness=2.0):
    same = nn.Conv2d(1, 1, 1)  # the identity: there has to be something to count
    nn.init.ones_(same.weight), nn.init.zeros_(same.bias)
    segments = [nn.Sequential(same), nn.Sequential(nn.Hardtanh(-3, 3))]
    return BranchedNetwork(segments, [Means(sharpness), Means(30.0)], ["first"]).eval()


def settings(**changes):
    made = {
        "engine": ENGINE,
        "rule": FLOOR,
        "criterion": "entropy",
        "experiment": "tiny",
        "seed": 3,
        **changes,
    }
    return SweepSettings(**made)


@pytest.mark.parametrize(("protocol", "split"), [("validation", "val"), ("paper", "test")])
def test_the_choice_is_made_on_the_protocols_split_and_reported_on_test(protocol, split, data):
    net = network()
    report = sweep(settings(protocol=protocol), net, network(5.0), data)
    x, y = data.split(split)
    with torch.no_grad():
        first, last = (out.argmax(1) == y for out in net(x))
        entropy = torch.distributions.Categorical(logits=net(x)[0]).entropy()
        baseline = float((network(5.0)(x)[1].argmax(1) == y).double().mean())
    # Slow: every distinct way to split the samples by their entropy, most leaving first.
    limits = [*sorted(entropy.tolist(), reverse=True)]
    chosen_rate = max(
        rate
        for rate, right in [
            (
                float((entropy < t).double().mean()),
                float(torch.where(entropy < t, first, last).double().mean()),
            )
            for t in [9.0, *limits]
        ]
        if right >= baseline - 1e-9
    )
    points = report.points_test if protocol == "paper" else report.points_val
    assert float(points.exit_rates[report.selection.index, 0]) == pytest.approx(chosen_rate)
    assert report.selection.feasible and report.protocol == protocol
    verified = report.verified["torch"]
    assert verified.accuracy == pytest.approx(float(report.points_test.accuracy[report.selection.index]))
    assert verified.exit_rates == pytest.approx(
        report.points_test.exit_rates[report.selection.index].tolist()
    )
    assert verified.unexplained == 0


def test_the_baseline_is_the_stage_1_network_and_not_the_joint_one(data):
    blind = network()
    with torch.no_grad():
        for parameter in blind.heads[-1].parameters():
            parameter.copy_(parameter.flip(0))
    report = sweep(settings(), network(), blind, data)
    x, y = data.split("test")
    with torch.no_grad():
        expected = float((blind(x)[1].argmax(1) == y).double().mean())
    assert report.baseline_accuracy == pytest.approx(expected)
    assert report.baseline_accuracy < float(report.trace_test.correct[:, 1].double().mean())


def arrays_of(data, tmp_path, **more):
    """The same data, with further arrays in the file."""
    with np.load(data.path) as file:
        np.savez(tmp_path / "more.npz", **file, **more)
    return ImageData("arrays", path=str(tmp_path / "more.npz"), batch_size=32, validation_size=100)


def test_the_baseline_is_known_sample_by_sample_and_inexact_images_reach_the_report(data, tmp_path):
    # A baseline that is wrong about many, and differs from the network with exits.
    blind = network()
    with torch.no_grad():
        for parameter in blind.heads[-1].parameters():
            parameter.copy_(parameter.roll(1))
    bad = [3, 50, 99]
    more = arrays_of(data, tmp_path, inexact_test=bad, inexact_train=[0, 1, 2, 3, 199])
    report = sweep(settings(), network(), blind, more)
    assert report.inexact_test.tolist() == bad
    assert report.inexact_training == 5
    x, y = more.split("test")
    with torch.no_grad():
        right = blind(x)[1].argmax(1) == y
    assert torch.equal(report.baseline_correct, right)
    kept = [sample for sample in range(100) if sample not in bad]
    expected = sum(bool(right[sample]) for sample in kept) / 97
    assert without_inexact(report)[0] == pytest.approx(expected)
    assert without_inexact(report)[1] != pytest.approx(expected)


def test_data_without_inexact_images_says_nothing_of_them(data):
    report = sweep(settings(), network(), network(), data)
    assert len(report.inexact_test) == report.inexact_training == 0
    assert without_inexact(report) is None


def test_files_of_the_paper_protocol_are_marked(data, tmp_path):
    class Stub:
        is_global_zero, datamodule, logger = True, data, None

    class Module:
        network = None

    module = Module()
    module.network = network()
    ThresholdSweep(network(), tmp_path, settings(protocol="paper")).on_fit_end(Stub(), module)
    assert json.loads((tmp_path / "result.json").read_text())["protocol"] == "paper"
    assert json.loads((tmp_path / "result.json").read_text())["seed"] == 3
    assert (tmp_path / "report.md").read_text().count("protocol: paper") == 2
    chosen_on = {line.split(",")[2] for line in (tmp_path / "trade_offs.csv").read_text().splitlines()[1:]}
    assert chosen_on == {"test"}


def test_an_engine_of_another_precision_is_swept_with_its_own_outputs(data, monkeypatch):
    """A network that gives other numbers on one engine: PyTorch's are not looked at for the choice."""
    monkeypatch.setattr(evaluation, "OWN_OUTPUTS", ("coarse",))
    made = {"compare": ["torch"], **ENGINE, "name": "coarse"}
    real = {
        name: getattr(evaluation, name) for name in ("make_engine", "make_classifier", "measure_latencies")
    }
    monkeypatch.setattr(evaluation, "check_engine", lambda name, threads: None)
    for name in ("make_classifier", "measure_latencies"):
        function = real[name]
        monkeypatch.setattr(evaluation, name, lambda _, *rest, f=function: f("torch", *rest))

    def make_engine(name, net, criterion, *rest):
        def halves(logits):  # uncertainty in steps of a half
            return (2 * criterion(logits)).round() / 2

        return real["make_engine"]("torch", net, halves if name == "coarse" else criterion, *rest)

    monkeypatch.setattr(evaluation, "make_engine", make_engine)
    net, blind = network(), network(5.0)
    report = sweep(settings(engine=made), net, blind, data)
    x, y = data.split("test")
    with torch.no_grad():
        entropy = torch.distributions.Categorical(logits=net(x)[0]).entropy()
        right = blind(x)[1].argmax(1) == y
    assert torch.equal(report.trace_test.uncertainty[:, 0], (2 * entropy).round() / 2)
    assert torch.equal(report.baseline_correct, right)
    # Run for real it leaves where its own outputs say; PyTorch, with the same thresholds, need not.
    assert report.verified["coarse"].differences == 0
    assert report.verified["coarse"].accuracy == pytest.approx(
        float(report.points_test.accuracy[report.index])
    )


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"protocol": "test"}, "validation, paper"),
        ({"criterion": "entropie"}, "max_probability"),
        ({"rule": {"name": "best"}}, "accuracy_floor"),
        ({"engine": {**ENGINE, "name": "tensorrt"}}, "onnxruntime"),
        ({"engine": {**ENGINE, "compare": ["tensorrt"]}}, "onnxruntime"),
        ({"engine": {**ENGINE, "threads": 0}}, "threads=0"),
        ({"engine": {**ENGINE, "seconds": 0}}, "seconds=0"),
        ({"thresholds": [0.5, -1.0]}, "-1.0"),
        ({"max_vectors": 0}, "max_vectors=0"),
    ],
)
def test_mistakes_are_found_before_fitting(changes, word):
    with pytest.raises(UserError, match=word) as caught:
        settings(**changes)
    assert "\n" not in str(caught.value)
