"""The trace of networks whose answers are known."""

import math
from dataclasses import replace

import pytest
import torch

from branchynet.exits.criteria import Entropy, MaxProbability
from branchynet.exits.trace import Outputs, Trace, compute_trace, run_all, trace_of


def two_exits(unsure):
    """Images (B, 3) are exit 2's logits; exit 1 sees the first two classes only."""

    def first(x, _=None):
        logits = x * torch.tensor([1.0, 1.0, 0.0])
        return x, logits, unsure(logits)

    def second(x, _=None):
        return x, x, unsure(x)

    return [first, second]


IMAGES = torch.tensor([[5.0, 0.0, 0.0], [0.0, 1.0, 2.0], [0.0, 0.0, 9.0], [0.0, 3.0, 0.0], [1.0, 0.0, 4.0]])
LABELS = torch.tensor([0, 2, 2, 1, 0])


def test_compute_trace_keeps_the_order_over_batches():
    unsure = MaxProbability()
    steps = two_exits(unsure)
    trace = compute_trace(steps, IMAGES.split(2), LABELS)
    assert (trace.num_samples, trace.num_exits) == (5, 2)
    # Exit 1 never answers class 2; at a draw it takes the first.
    assert trace.prediction.tolist() == [[0, 0], [1, 2], [0, 2], [1, 1], [0, 2]]
    assert trace.correct.tolist() == [[True, True], [False, True], [False, True], [True, True], [True, False]]
    assert trace.label.tolist() == LABELS.tolist()
    for n, step in enumerate(steps):
        torch.testing.assert_close(trace.uncertainty[:, n], unsure(step(IMAGES)[1]))


def test_the_batch_size_does_not_matter():
    whole = compute_trace(two_exits(Entropy()), [IMAGES], LABELS)
    single = compute_trace(two_exits(Entropy()), IMAGES.split(1), LABELS)
    torch.testing.assert_close(single.uncertainty, whole.uncertainty, rtol=0, atol=1e-6)
    assert torch.equal(single.prediction, whole.prediction)


def test_a_trace_is_a_plain_value():
    """No gradients, no inference tensors: these may not be changed or saved for backward."""
    weight, unsure = torch.ones(3, requires_grad=True), Entropy()
    steps = [lambda x: (x, x * weight, unsure(x * weight)), lambda x: (x, x.half(), unsure(x.half()))]
    trace = compute_trace(steps, [IMAGES], LABELS)
    for value in (trace.uncertainty, trace.prediction, trace.label):
        assert not value.is_inference() and not value.requires_grad
    assert trace.uncertainty.dtype == torch.float32


def test_some_samples_by_their_numbers_or_by_a_mask():
    trace = compute_trace(two_exits(Entropy()), [IMAGES], LABELS)
    numbers = [4, 0, 4]
    some = trace.at(torch.tensor(numbers))
    for row, s in enumerate(numbers):
        assert torch.equal(some.uncertainty[row], trace.uncertainty[s])
        assert torch.equal(some.prediction[row], trace.prediction[s]) and some.label[row] == trace.label[s]
    mask = torch.tensor([True, False, False, True, True])
    assert torch.equal(trace.at(mask).prediction, trace.prediction[[0, 3, 4]])
    assert trace.at(mask).label.tolist() == [0, 1, 0]


# run_all


@pytest.mark.parametrize("batch", [1, 3, 50])
def test_run_all_gives_what_a_loop_over_samples_gives(batch):
    """Three exits, each with features of its own, one after the other."""
    generator = torch.Generator().manual_seed(0)
    segments = [torch.randn(inner, outer, generator=generator) for inner, outer in ((6, 5), (5, 4), (4, 3))]
    heads = [torch.randn(width, 7, generator=generator) for width in (5, 4, 3)]
    unsure = Entropy()

    def step(segment, head):
        def run(x):
            features = (x @ segment).tanh()
            return features, features @ head, unsure(features @ head)

        return run

    x = torch.randn(10, 6, generator=generator)
    found = run_all([step(*parts) for parts in zip(segments, heads, strict=True)], x.split(batch))
    assert isinstance(found, Outputs)
    assert [tuple(column.shape) for column in found[:3]] == [(10, 3)] * 3 and found.alone is None
    assert [column.dtype for column in found[:3]] == [torch.int64, torch.float32, torch.float32]
    for s, image in enumerate(x.double()):
        for n, (segment, head) in enumerate(zip(segments, heads, strict=True)):
            image = (image @ segment.double()).tanh()
            logits = (image @ head.double()).tolist()
            p = [math.exp(value) / sum(map(math.exp, logits)) for value in logits]
            assert found.prediction[s, n] == max(range(7), key=logits.__getitem__)
            assert found.confidence[s, n].item() == pytest.approx(max(p), rel=1e-5)
            assert found.uncertainty[s, n].item() == pytest.approx(-sum(q * math.log(q) for q in p), rel=1e-5)


def test_the_confidence_is_computed_in_float32_and_all_is_plain():
    logits = torch.tensor([[1.0, 0.0, -1.0], [8.0, 0.0, 0.0]], requires_grad=True)
    found = run_all([lambda x: (x, logits.bfloat16(), logits[:, 0])], [torch.zeros(2, 1)])
    expected = [1 / (1 + math.exp(-1) + math.exp(-2)), 1 / (1 + 2 * math.exp(-8))]
    assert found.confidence[:, 0].tolist() == pytest.approx(expected, rel=1e-6)
    assert not any(column.is_inference() or column.requires_grad for column in found[:3])


def test_what_heads_say_before_they_are_averaged_is_kept_apart():
    own = IMAGES * torch.tensor([1.0, 1.0, 0.0])
    steps = [
        lambda x: (x, own, Entropy()(own), own, own),
        lambda x, before: (x, before + x, Entropy()(x), x),
    ]
    trace = compute_trace(steps, [IMAGES], LABELS, own=True)
    assert torch.equal(trace.prediction[:, 1], (own + IMAGES).argmax(1))
    assert torch.equal(trace.alone, torch.stack([own.argmax(1), IMAGES.argmax(1)], 1))
    assert torch.equal(trace.correct_alone[:, 1], IMAGES.argmax(1) == LABELS)
    assert torch.equal(trace.at(torch.tensor([3, 1])).alone, trace.alone[[3, 1]])


FINE = {
    "uncertainty": torch.zeros(4, 2),
    "prediction": torch.zeros(4, 2, dtype=torch.int64),
    "label": torch.zeros(4, dtype=torch.int64),
}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"uncertainty": torch.zeros(4)}, r"uncertainty is \(4,\)"),
        ({"uncertainty": torch.zeros(0, 2)}, "at least one sample"),
        ({"uncertainty": torch.zeros(4, 2, dtype=torch.float64)}, "uncertainty is .*float64"),
        ({"uncertainty": torch.full((4, 2), torch.nan)}, "not finite"),
        ({"uncertainty": torch.full((4, 2), -1e-9)}, "negative"),
        ({"prediction": torch.zeros(4, 3, dtype=torch.int64)}, r"prediction is \(4, 3\)"),
        ({"prediction": torch.zeros(4, 2)}, "prediction is .*float32"),
        ({"alone": torch.zeros(4, 3, dtype=torch.int64)}, r"alone is \(4, 3\)"),
        ({"label": torch.zeros(5, dtype=torch.int64)}, r"label is \(5,\)"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, message):
    Trace(**FINE)
    with pytest.raises(ValueError, match=message):
        Trace(**{**FINE, **wrong})


def test_a_trace_keeps_what_was_told_of_confidence():
    uncertainty, classes = torch.rand(3, 2), torch.zeros(3, 2, dtype=torch.int64)
    outputs = Outputs(classes, uncertainty, torch.tensor([[0.5, 0.6], [0.7, 0.8], [0.9, 1.0]]))
    trace = trace_of(outputs, classes[:, 0])
    assert trace.alone is None and torch.equal(
        trace.at(torch.tensor([2, 0])).confidence, outputs.confidence[[2, 0]]
    )
    with pytest.raises(ValueError, match="confidence is"):
        replace(trace, confidence=outputs.confidence.double())
