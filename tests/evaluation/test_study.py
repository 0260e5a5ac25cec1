"""From evidence to a choice and its proof: what a slow loop says, on the split that the protocol says."""

import weakref
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch

from branchynet.data.module import ImageData
from branchynet.evaluation import evidence as evidence_room
from branchynet.evaluation.evidence import gather, own_trace
from branchynet.evaluation.fitting import Unseen, find_shares, fit_criteria, images_to_fit_on
from branchynet.evaluation.noise import Noise
from branchynet.evaluation.report import Verified, without_inexact
from branchynet.evaluation.study import choose, sweep, verify
from branchynet.exits.combining import Average
from branchynet.exits.criteria import Entropy
from branchynet.exits.learned import Logistic
from branchynet.exits.point import OperatingPoint
from branchynet.exits.rules import Choice, Knee
from branchynet.exits.sweep import point_at
from branchynet.runtime.catalogue import ENGINES
from branchynet.runtime.costs import Latencies, Latency, measure_latencies

BOTH = (Entropy(), Entropy())


@pytest.mark.parametrize(("protocol", "split"), [("validation", "val"), ("paper", "test")])
def test_the_choice_is_made_on_the_protocols_split_and_reported_on_test(
    protocol, split, make_settings, bright_network, bright_data, monkeypatch
):
    def rising(*arguments):
        # As they are but for disturbances: going on never takes less time than leaving.
        found = measure_latencies(*arguments)
        return replace(found, exits=tuple(sorted(found.exits, key=lambda exit: exit.median_us)))

    monkeypatch.setattr(evidence_room, "measure_latencies", rising)
    net, stage_1 = bright_network(), bright_network(5.0)
    report = sweep(make_settings(protocol=protocol), net, BOTH, stage_1, bright_data)
    x, y = next(bright_data.batches(split, 10_000))
    with torch.no_grad():
        first, last = (out.argmax(1) == y for out in net(x))
        entropy = torch.distributions.Categorical(logits=net(x)[0]).entropy()
        baseline = float((stage_1(x)[1].argmax(1) == y).double().mean())
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
    assert report.selection.point.exit_rates[0] == pytest.approx(chosen_rate)
    assert report.selection.feasible and report.protocol == protocol
    on_test = point_at(report.traces["test"], report.selection.point.thresholds)
    assert report.point == on_test
    verified = report.verified["torch"]
    assert verified.accuracy == pytest.approx(on_test.accuracy)
    assert verified.exit_rates == pytest.approx(on_test.exit_rates)
    assert verified.unexplained == 0


def test_the_baseline_is_the_stage_1_network_and_not_the_joint_one(
    make_settings, bright_network, bright_data
):
    blind = bright_network()
    with torch.no_grad():
        for parameter in blind.heads[-1].parameters():
            parameter.copy_(parameter.flip(0))
    report = sweep(make_settings(), bright_network(), BOTH, blind, bright_data)
    x, y = next(bright_data.batches("test", 10_000))
    with torch.no_grad():
        expected = float((blind(x)[1].argmax(1) == y).double().mean())
    assert report.baseline_accuracy == pytest.approx(expected)
    assert report.baseline_accuracy < float(report.trace.correct[:, 1].double().mean())


def arrays_of(data, tmp_path, **more):
    """The same data, with further arrays in the file."""
    with np.load(data.path) as file:
        np.savez(tmp_path / "more.npz", **file, **more)
    return ImageData("arrays", path=str(tmp_path / "more.npz"), batch_size=32, validation_size=100)


def test_the_baseline_is_known_sample_by_sample_and_inexact_images_reach_the_report(
    make_settings, bright_network, bright_data, tmp_path
):
    # A baseline that is wrong about many, and differs from the network with exits.
    blind = bright_network()
    with torch.no_grad():
        for parameter in blind.heads[-1].parameters():
            parameter.copy_(parameter.roll(1))
    bad = [3, 50, 99]
    more = arrays_of(bright_data, tmp_path, inexact_test=bad, inexact_train=[0, 1, 2, 3, 199])
    more.setup()
    report = sweep(make_settings(), bright_network(), BOTH, blind, more)
    assert report.inexact_test.tolist() == bad
    assert report.inexact_training == 5
    x, y = next(more.batches("test", 10_000))
    with torch.no_grad():
        right = blind(x)[1].argmax(1) == y
    assert torch.equal(report.baseline_correct["test"], right)
    kept = [sample for sample in range(100) if sample not in bad]
    expected = sum(bool(right[sample]) for sample in kept) / 97
    assert without_inexact(report)[0] == pytest.approx(expected)
    assert without_inexact(report)[1] != pytest.approx(expected)


def test_data_without_inexact_images_says_nothing_of_them(make_settings, bright_network, bright_data):
    report = sweep(make_settings(), bright_network(), BOTH, bright_network(), bright_data)
    assert len(report.inexact_test) == report.inexact_training == 0
    assert without_inexact(report) is None


def test_an_engine_of_another_precision_is_swept_with_its_own_outputs(
    coarse, make_settings, bright_network, bright_data
):
    """A network that gives other numbers on one engine: PyTorch's are not looked at for the choice."""
    net, blind = bright_network(), bright_network(5.0)
    report = sweep(make_settings((coarse, ENGINES["torch"])), net, BOTH, blind, bright_data)
    x, y = next(bright_data.batches("test", 10_000))
    with torch.no_grad():
        entropy = torch.distributions.Categorical(logits=net(x)[0]).entropy()
        right = blind(x)[1].argmax(1) == y
    assert torch.equal(report.trace.uncertainty[:, 0], (2 * entropy).round() / 2)
    assert torch.equal(report.baseline_correct["test"], right)
    # Run for real it leaves where its own outputs say; PyTorch, with the same thresholds, need not.
    assert report.engine == "coarse" and set(report.verified) == {"coarse", "torch"}
    assert report.verified["coarse"].differences == 0
    assert report.verified["coarse"].accuracy == pytest.approx(report.point.accuracy)


def timed(spread, baseline=40.0, exits=(10.0, 50.0)):
    """Latencies with such a spread; leaving at exit 1 takes 10 µs, at exit 2 50."""
    first, last = (Latency(value, spread * value) for value in exits)
    return Latencies(Latency(baseline, spread * baseline), (first, last), (first, last), (first, last))


class Clock:
    """Measurements, one after the other, that take no time: what they find, and how often they were asked."""

    def __init__(self, patch, spreads, gains=(1.0,) * 9, others=(0.0,) * 9, takes=0.0):
        self.spreads, self.gains, self.others = list(spreads), list(gains), list(others)
        self.now, self.takes, self.measured = 0.0, takes, 0
        patch.setattr("branchynet.evaluation.evidence.measure_latencies", self.measure)
        patch.setattr(
            "branchynet.evaluation.evidence.others", lambda *readings: self.others[self.measured - 1]
        )
        patch.setattr("branchynet.evaluation.evidence.free_cores", lambda threads: 1)
        patch.setattr("branchynet.evaluation.study.verify", self.verify)
        patch.setattr("branchynet.evaluation.study.time.monotonic", lambda: self.now)

    def measure(self, *arguments):
        self.measured += 1
        return timed(self.spreads[self.measured - 1])

    def verify(self, report, *arguments):
        self.now += self.takes
        rates = report.point.exit_rates
        latency, gain = rates[0] * 10 + rates[1] * 50, self.gains[self.measured - 1]
        return Verified(1.0, rates, latency, 0.0, gain * 40, 0, 0, 0)


@pytest.fixture
def swept_by(make_settings, bright_network, bright_data, monkeypatch):
    """A function from what is measured, time after time, to the clock and the report."""

    def swept(spreads, **more):
        clock = Clock(monkeypatch, spreads, **more)
        return clock, sweep(make_settings(), bright_network(), BOTH, bright_network(5.0), bright_data)

    return swept


def test_calm_timings_are_measured_once(swept_by):
    clock, report = swept_by([0.1, 0.3], gains=[1.1, 9], others=[0.4, 9])
    assert (clock.measured, report.noise) == (1, ())


@pytest.mark.parametrize(
    "disturbed",
    [
        {"spreads": [0.5, 0.1]},
        {"spreads": [0.1, 0.1], "gains": [1.2, 1.0]},
        {"spreads": [0.1, 0.1], "gains": [0.5, 1.0]},
        {"spreads": [0.1, 0.1], "others": [0.9, 0.0]},
    ],
)
def test_timings_that_cannot_be_right_are_measured_again(disturbed, swept_by, caplog):
    caplog.set_level("INFO")
    clock, report = swept_by(**disturbed)
    assert (clock.measured, report.noise) == (2, ())
    assert report.latencies["torch"] == timed(0.1) and report.verified["torch"].baseline_latency_us == 40
    assert "measuring again, because" in caplog.text


def test_if_it_stays_the_least_noisy_ones_are_kept_and_doubted(swept_by):
    clock, report = swept_by([0.5, 0.3, 0.4], gains=[1.0, 1.2, 1.0], others=[0, 0.6, 0])
    assert clock.measured == 3
    assert report.latencies["torch"] == timed(0.3)
    assert [each.reason for each in report.noise] == [
        "others computed on 0.6 cores meanwhile",
        "the spread of the baseline on torch is 0.30 of its median",
        "the measured gain on torch is 1.20 times the predicted one",
    ]


@pytest.mark.parametrize(("takes", "measured"), [(1.9, 2), (2.1, 1)])
def test_patience_is_a_matter_of_the_seconds_of_measuring(takes, measured, swept_by):
    """Here 0.01 for a candidate, so 2 in all."""
    clock, report = swept_by([0.5] * 3, takes=takes)
    assert clock.measured == measured and report.noise


def test_the_noise_of_stored_evidence_is_told(evidence, make_settings):
    told = Noise("it was so", 1.0)
    calm = replace(evidence, latencies={"torch": timed(0.1)}, noise=())
    assert choose(make_settings(), calm).noise == ()
    assert choose(make_settings(), replace(calm, noise=(told,))).noise == (told,)
    (found,) = choose(make_settings(), replace(calm, latencies={"torch": timed(0.3)})).noise
    assert "the spread of the baseline on torch is 0.30" in found.reason


@pytest.fixture
def evidence(make_settings, bright_network, bright_data):
    return gather(make_settings().measuring, bright_network(), BOTH, bright_network(5.0), bright_data)


def test_choosing_again_gives_the_same_and_measures_nothing(evidence, make_settings, monkeypatch):
    for name in ("gather", "verify", "run_for_real"):
        monkeypatch.setattr(
            f"branchynet.evaluation.study.{name}", lambda *arguments: pytest.fail("something was run")
        )
    first, again = choose(make_settings(), evidence), choose(make_settings(), evidence)
    assert first.selection == again.selection and first.point == again.point
    assert first.verified == {}
    assert (first.criterion, first.unit, first.rule) == ("entropy", "nats", "accuracy_floor")
    assert choose(make_settings(rule=Knee()), evidence).rule == "knee"


def test_on_validation_the_report_holds_nothing_of_test(evidence, make_settings):
    named = replace(evidence, inexact_test=torch.tensor([1]), inexact_training=2)
    assert choose(make_settings(), named).inexact_training == 2
    report = choose(make_settings(split="val"), named)
    assert set(report.traces) == set(report.baseline_correct) == {"val"}
    assert len(report.inexact_test) == report.inexact_training == 0
    assert report.point == report.selection.point


def test_thresholds_that_are_told_are_tried_besides_none_and_all(evidence, make_settings):
    report = choose(make_settings(thresholds=[0.25, 0.5]), evidence)
    tried = report.points.thresholds[:, 0].tolist()
    assert tried[:3] == [0.0, 0.25, 0.5] and len(tried) == 4
    assert tried[3] > float(evidence.traces["val"].uncertainty[:, 0].max())


class Own:
    """A rule with thresholds of its own: every image leaves at exit 1 whose uncertainty is below 0.321."""

    name, cost = "own", "macs"

    def choose(self, view):
        return Choice(point_at(view.trace, (0.321,)), feasible=False, note="As you like it.")


def test_a_rule_may_find_its_own_thresholds(evidence, make_settings):
    report = choose(make_settings(rule=Own(), thresholds=[0.5]), evidence)
    assert report.index is None and report.rule == "own"
    left = int((evidence.traces["test"].uncertainty[:, 0] < np.float32(0.321)).sum())
    assert report.point.thresholds == (0.321,) and report.point.left == (left, 100 - left)
    # Both exits have the same MACs: nothing is saved, in the rule's own kind of cost.
    assert report.selection.note.startswith("As you like it. This point costs 16.0 MACs per sample")
    assert not report.selection.cheaper and not report.selection.feasible


def verified(report, settings, engine, network, data):
    return verify(report, settings, engine, network, BOTH, network.trunk().eval(), Unseen(data, None))


def test_a_real_run_that_contradicts_the_trace_is_a_bug_in_pytorch_and_counted_elsewhere(
    evidence, make_settings, bright_network, bright_data
):
    network = bright_network()
    report = choose(make_settings(), evidence)
    # Far from every threshold the trace says something else of ten samples.
    prediction = report.trace.prediction.clone()
    prediction[:10] = (prediction[:10] + 1) % 3
    lying = replace(report, traces={**report.traces, "test": replace(report.trace, prediction=prediction)})
    with pytest.raises(RuntimeError, match="10 samples did not leave where the sweep says"):
        verified(lying, make_settings(), ENGINES["torch"], network, bright_data)
    other = make_settings((ENGINES["torch"], ENGINES["onnxruntime"]))
    found = verified(lying, other, ENGINES["onnxruntime"], network, bright_data)
    assert (found.differences, found.unexplained) == (10, 10)
    found = verified(report, make_settings(), ENGINES["torch"], network, bright_data)
    assert (found.differences, found.unexplained) == (0, 0)
    assert found.latency_us > 0 and found.baseline_latency_us > 0


def test_the_point_is_run_on_the_split_that_is_reported(evidence, make_settings, bright_network, bright_data):
    network, settings = bright_network(), make_settings(split="val")
    report = choose(settings, evidence)
    asked = []
    batches = bright_data.batches
    bright_data.batches = lambda which, *more: asked.append(which) or batches(which, *more)
    found = verified(report, settings, ENGINES["torch"], network, bright_data)
    assert set(asked) == {"val"}
    assert found.accuracy == pytest.approx(report.point.accuracy)
    assert isinstance(report.point, OperatingPoint)


class Generated:
    """240 images for each split that are made as they are asked for: few at once, and few that are still kept."""

    input_shape, classes = (1, 4, 4), ("a", "b", "c")

    def __init__(self, most):
        self.most, self.made, self.given = most, [], 0

    def inexact(self, which):
        return torch.empty(0, dtype=torch.int64)

    def labels(self, which):
        return torch.arange(240) % 3

    def images(self, which):
        return torch.empty(0 if which == "calibration" else 240, 1, 4, 4, dtype=torch.uint8)

    def batches(self, which, size, part=None):
        assert size <= self.most
        for numbers in (torch.arange(240) if part is None else part).split(size):
            places = 16 * numbers.numpy()[:, None] + np.arange(16)
            x = np.sin(places**1.5) / 2 + 0.75 * (numbers.numpy()[:, None] % 3 - 1)
            x = np.float32(x.reshape(-1, 1, 4, 4))
            # Not before the last tensor that looks at it is its memory given back.
            self.made.append(weakref.ref(x))
            assert sum(made() is not None for made in self.made) <= 3
            self.given += len(numbers)
            yield torch.from_numpy(x), numbers % 3


def test_a_sweep_has_few_images_in_memory_however_many_there_are(
    make_settings, bright_network, monkeypatch, coarse
):
    monkeypatch.setattr(
        "branchynet.data.batches.SMALL", Fraction(7 * 16, 1000)
    )  # seven, but whole blocks for real
    monkeypatch.setattr("branchynet.evaluation.study.TRIES", 1)
    monkeypatch.setattr(Logistic, "decays", (0.1,))
    data, network, criterion = Generated(most=100), bright_network(), Logistic(["features"])
    fitting = images_to_fit_on(criterion, Average(), data)
    network = network.with_shares(find_shares(Average(), network, data, fitting))
    criteria = fit_criteria(criterion, network, data, fitting)
    report = sweep(make_settings(criterion=criterion), network, criteria, network, data, fitting)
    assert len(report.trace.label) == 240 and report.fitting.images == 120
    assert report.verified["torch"].unexplained == 0
    # An engine whose outputs are its own is asked image by image.
    batches = partial(Unseen(data, fitting).normalised, "test")
    traced = own_trace(coarse, 1, batches, data.labels("test"), data.input_shape, network, criteria)
    assert torch.equal(traced.prediction, report.trace.prediction) and data.given > 8 * 240
