"""Criteria against float64 arithmetic, at the extremes, and in ONNX Runtime; who of several exits gets which."""

import io
import math

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from branchynet.errors import UserError
from branchynet.exits.criteria import (
    Criterion,
    Entropy,
    Margin,
    MaxProbability,
    check_state,
    check_uncertainty,
    for_exits,
    judge,
    one_per_exit,
)
from branchynet.exits.patience import Patience
from branchynet.exits.trace import run_all
from branchynet.networks.branched import BranchedNetwork
from branchynet.runtime.steps import exit_steps

CRITERIA = {made.name: made for made in (Entropy(), MaxProbability(), Margin())}
ALL = pytest.mark.parametrize("name", list(CRITERIA))


def reference(name: str, logits: np.ndarray) -> np.ndarray:
    """Straight from the definitions, one row at a time, in float64."""
    values = []
    for row in logits.astype(np.float64):
        weights = [math.exp(value - max(row)) for value in row]
        p = sorted((weight / math.fsum(weights) for weight in weights), reverse=True)
        if name == "entropy":
            values.append(-math.fsum(q * math.log(q) for q in p if q > 0))
        elif name == "max_probability":
            values.append(math.fsum(p[1:]))
        else:
            values.append(math.fsum([*p[1:], p[1]]))
    return np.array(values)


def top(name: str, classes: int) -> float:
    """The greatest value: all probabilities equal."""
    return {"entropy": math.log(classes), "max_probability": 1 - 1 / classes, "margin": 1.0}[name]


def logits_like_a_network(rows: int = 500, classes: int = 10) -> Tensor:
    """From nearly uniform to very sure."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.logspace(-3, 1.5, rows)[:, None]
    return torch.randn(rows, classes, generator=generator) * scale


@ALL
def test_equals_float64(name):
    logits = logits_like_a_network()
    np.testing.assert_allclose(CRITERIA[name](logits), reference(name, logits.numpy()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["max_probability", "margin"])
def test_tiny_values_keep_their_digits(name):
    """Surer than 1 - 6e-8, where 1 - p would be 0 in float32."""
    logits = torch.tensor([[20.0, 0.0, 1.0], [40.0, 0.0, 0.0], [0.0, 60.0, 30.0]])
    np.testing.assert_allclose(CRITERIA[name](logits), reference(name, logits.numpy()), rtol=1e-5)


@ALL
@settings(max_examples=200, deadline=None)
@given(
    rows=st.integers(2, 12).flatmap(
        lambda classes: st.lists(
            st.lists(st.floats(-1e4, 1e4, width=32), min_size=classes, max_size=classes),
            min_size=1,
            max_size=5,
        )
    )
)
def test_range_and_value_for_any_logits(name, rows):
    logits = torch.tensor(rows)
    values = CRITERIA[name](logits)
    assert values.shape == (len(rows),) and values.dtype == torch.float32
    assert ((values >= 0) & (values <= top(name, logits.shape[1]) * (1 + 1e-6))).all()
    np.testing.assert_allclose(values, reference(name, logits.numpy()), rtol=1e-5, atol=2e-6)


@ALL
def test_equal_logits_are_the_least_sure(name):
    for classes in (2, 10, 1000):
        assert CRITERIA[name](torch.full((1, classes), 7.0)).item() == pytest.approx(
            top(name, classes), rel=1e-6
        )


@ALL
@pytest.mark.parametrize("big", [1e4, 3e38])
def test_extreme_logits_are_sure_and_not_nan(name, big):
    logits = torch.tensor([[big, -big, -big], [0.0, -big, -big], [0.0, big, 0.0]])
    assert CRITERIA[name](logits).tolist() == [0.0, 0.0, 0.0]


def test_numbers_worked_out_by_hand():
    # Probabilities 1/2, 1/4, 1/4.
    logits = torch.tensor([[math.log(2), 0.0, 0.0]])
    assert Entropy()(logits).item() == pytest.approx(1.5 * math.log(2), rel=1e-6)
    assert MaxProbability()(logits).item() == pytest.approx(0.5, rel=1e-6)
    assert Margin()(logits).item() == pytest.approx(0.75, rel=1e-6)


@ALL
def test_order_and_offset_of_the_logits_do_not_matter(name):
    logits = logits_like_a_network(50)
    other = logits[:, torch.randperm(10, generator=torch.Generator().manual_seed(1))] + 5.0
    torch.testing.assert_close(CRITERIA[name](other), CRITERIA[name](logits), rtol=1e-4, atol=1e-6)


@ALL
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_computes_in_float32_whatever_the_logits_are(name, dtype):
    logits = logits_like_a_network(50).to(dtype)
    values = CRITERIA[name](logits)
    assert values.dtype == torch.float32
    assert torch.equal(values, CRITERIA[name](logits.float()))


def onnx_session(criterion: Criterion, example: Tensor) -> ort.InferenceSession:
    program = torch.onnx.export(
        criterion.eval(),
        (example,),
        dynamo=True,
        verbose=False,
        input_names=["x"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    file = io.BytesIO()
    program.save(file)
    return ort.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])


@ALL
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # the exporter's own
def test_onnx_runtime_gives_the_same(name):
    logits = torch.cat([logits_like_a_network(200), torch.tensor([[1e4] + [-1e4] * 9, [0.0] * 10])])
    answers = onnx_session(CRITERIA[name], torch.zeros(3, 10))
    maps = onnx_session(CRITERIA[name], torch.zeros(3, 10, 101, 2))
    two = torch.cat([as_map(logits), as_map(logits.flip(0))])
    for session, x in ((answers, logits), (answers, logits[:1]), (maps, two), (maps, two[:1])):
        (values,) = session.run(None, {"x": x.numpy()})
        assert values.dtype == np.float32 and (values >= 0).all()
        np.testing.assert_allclose(values, CRITERIA[name](x), rtol=1e-5, atol=1e-6)


def as_map(logits: Tensor) -> Tensor:
    """Rows (H·W, K) as the pixels of one map (1, K, H, W), two of them beside each other."""
    return logits.reshape(-1, 2, logits.shape[1]).permute(2, 0, 1)[None]


@ALL
def test_each_pixel_of_a_map_is_judged_as_one_answer_is(name):
    logits = logits_like_a_network()
    values = CRITERIA[name](as_map(logits)).flatten()
    assert values.dtype == torch.float32
    assert ((values >= 0) & (values <= top(name, 10) * (1 + 1e-6))).all()
    np.testing.assert_allclose(values, reference(name, logits.numpy()), rtol=1e-5, atol=1e-6)
    half = CRITERIA[name](as_map(logits).bfloat16())
    assert torch.equal(half, CRITERIA[name](as_map(logits.bfloat16().float())))


@ALL
@pytest.mark.parametrize("big", [1e4, 3e38])
def test_pixels_with_extreme_logits_are_sure_and_not_nan(name, big):
    rows = torch.tensor([[big, -big, -big], [0.0, -big, -big], [0.0, big, 0.0], [big, 0.0, -big]])
    assert CRITERIA[name](as_map(rows)).flatten().tolist() == [0.0] * 4


def test_names_and_units_are_those_of_the_results():
    assert {name: made.unit for name, made in CRITERIA.items()} == {
        "entropy": "nats",
        "max_probability": "0 to 1",
        "margin": "0 to 1",
    }
    assert not any(made.learns or made.of_features for made in CRITERIA.values())


@ALL
def test_there_is_nothing_to_prepare_or_to_learn(name):
    made = CRITERIA[name]
    made.prepare(10, (4, 6, 6))
    before = made(torch.eye(10))
    made.fit(torch.randn(20, 10), torch.zeros(20, dtype=torch.int64))
    assert not made.state_dict() and torch.equal(made(torch.eye(10)), before)


# One criterion for several exits


class Distance(Criterion):
    """Learns how far the classes' mean features lie away; the nearer, the surer."""

    name, unit = "distance", "pixels"
    learns = of_features = True

    def __init__(self, start=1.0):
        super().__init__()
        self.start = start

    def prepare(self, num_classes, shape):
        self.weight = nn.Parameter(torch.full((num_classes,), self.start))
        self.register_buffer("mean", torch.zeros(num_classes, *shape))

    def forward(self, logits, features):
        away = features[:, None] - self.mean
        return self.weight[0] * away.flatten(2).norm(dim=2).amin(dim=1)


def test_exits_share_a_criterion_that_has_nothing_to_learn():
    made = Entropy()
    shared = for_exits(made, [(4, 6, 6), (84,), (10,)], 10)
    assert len(shared) == 3 and all(own is made for own in shared)


def test_every_exit_has_its_own_copy_of_one_that_learns_made_for_its_place():
    made = Distance(start=2.0).train()
    own = for_exits(made, [(4, 6, 5), (84,)], 7)
    assert [each.mean.shape for each in own] == [(7, 4, 6, 5), (7, 84)]
    assert all(torch.equal(each.weight, torch.full((7,), 2.0)) for each in own)
    assert not any(each.training for each in own)
    assert not made.state_dict() and made.training, "what the settings made stays as it was"
    with torch.no_grad():
        own[0].weight.fill_(5.0)
    assert torch.equal(own[1].weight, torch.full((7,), 2.0))


def test_one_criterion_or_one_per_exit():
    one, other = Entropy(), Margin()
    assert all(each is one for each in one_per_exit(one, 3)) and len(one_per_exit(one, 3)) == 3
    assert one_per_exit([one, other], 2) == (one, other)
    for exits in (1, 3):
        with pytest.raises(ValueError, match=f"2 criteria do not fit {exits} exits"):
            one_per_exit([one, other], exits)


def test_a_criterion_of_features_gets_those_at_its_exits_place():
    torch.manual_seed(0)
    segments = [nn.Conv2d(2, 3, 3), nn.Sequential(nn.Flatten(), nn.Linear(27, 6))]
    heads = [nn.Sequential(nn.Flatten(), nn.Linear(27, 4)), nn.Linear(6, 4)]
    network = BranchedNetwork(segments, heads, ["first"])
    criteria = for_exits(Distance(start=3.0), network.feature_shapes((2, 5, 5)), 4)
    for own in criteria:
        own.mean.copy_(torch.randn_like(own.mean))
    x = torch.randn(9, 2, 5, 5)
    found = run_all(exit_steps(network, criteria), x.split(4)).uncertainty
    with torch.no_grad():
        for s in range(9):
            features = x[s : s + 1]
            for n, (segment, own) in enumerate(zip(segments, criteria, strict=True)):
                features = segment(features)
                expected = min(3 * (features[0] - mean).square().sum().sqrt() for mean in own.mean)
                assert found[s, n].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (torch.tensor([0.1, -0.5]), "gives -0.5 at exit 2, for 1 of 2 images"),
        (torch.tensor([math.nan, math.nan]), "gives nan at exit 2, for 2 of 2 images"),
        (torch.tensor([0.1, math.inf]), "gives inf at exit 2"),
        (torch.zeros(2, 1), r"gives \(2, 1\) float32 at exit 2: for 2 images it is \(2,\) float32"),
        (torch.zeros(2, dtype=torch.float64), r"gives \(2,\) float64 at exit 2"),
    ],
)
def test_what_no_threshold_compares_with_is_told_by_criterion_and_exit(given, words):
    with pytest.raises(UserError, match=f"^the criterion entropy {words}"):
        check_uncertainty(Entropy(), 2, given, 2)
    check_uncertainty(Entropy(), 2, torch.tensor([0.0, 3.0]), 2)


@pytest.mark.parametrize(
    ("state", "width", "words"),
    [
        (None, None, r"hands on nothing from exit 2: for 4 images it is \(4, W\) float32"),
        (torch.zeros(4), None, r"hands on \(4,\) float32 from exit 2"),
        (torch.zeros(3, 2), None, r"hands on \(3, 2\) float32 from exit 2"),
        (
            torch.zeros(4, 2, dtype=torch.int64),
            2,
            r"hands on \(4, 2\) int64 from exit 2: .* it is \(4, 2\) float32",
        ),
        (torch.zeros(4, 3), 2, r"hands on \(4, 3\) float32 from exit 2: .* the same at all exits"),
    ],
)
def test_what_no_exit_could_read_is_told_by_criterion_and_exit(state, width, words):
    with pytest.raises(UserError, match=f"^the criterion patience {words}"):
        check_state(Patience(), 2, state, 4, width)
    check_state(Patience(), 2, torch.zeros(4, 2), 4, 2)


def test_a_judge_gets_what_it_says_it_looks_at():
    logits, features, state = torch.tensor([[2.0, 1.0]]), torch.zeros(1, 3), torch.tensor([[0.0, 2.0]])
    assert judge(Entropy(), logits, features, state) == (Entropy()(logits), None)
    uncertainty, state = judge(Patience(), logits, None, state)
    assert uncertainty == torch.tensor(1 / 3) and state.tolist() == [[0, 3]]
    found, _ = judge(for_exits(Distance(), [(3,)], 2)[0], logits, features)
    assert found.shape == (1,)


@pytest.mark.parametrize("classes", [2, 10])
def test_the_largest_uncertainty_is_that_of_equal_logits(classes):
    for criterion in (Entropy(), MaxProbability(), Margin()):
        found = criterion(torch.zeros(1, classes)).item()
        assert criterion.largest(classes) == pytest.approx(found, abs=1e-6), criterion.name
    assert Criterion().largest(classes) is None, "of a stranger's nobody knows"
