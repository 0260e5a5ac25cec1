"""The trace of networks whose answers are known."""

import pytest
import torch

from branchynet.exits.criteria import entropy, max_probability
from branchynet.exits.trace import Trace, compute_trace


def two_exits(x):
    """Images (B, 3) are exit 2's logits; exit 1 sees the first two classes only."""
    return [x * torch.tensor([1.0, 1.0, 0.0]), x]


IMAGES = torch.tensor([[5.0, 0.0, 0.0], [0.0, 1.0, 2.0], [0.0, 0.0, 9.0], [0.0, 3.0, 0.0], [1.0, 0.0, 4.0]])
LABELS = torch.tensor([0, 2, 2, 1, 0])


def test_compute_trace_keeps_the_order_over_batches():
    batches = list(zip(IMAGES.split(2), LABELS.split(2), strict=True))
    trace = compute_trace(two_exits, batches, max_probability)
    assert (trace.num_samples, trace.num_exits) == (5, 2)
    # Exit 1 never answers class 2; at a draw it takes the first.
    assert trace.prediction.tolist() == [[0, 0], [1, 2], [0, 2], [1, 1], [0, 2]]
    assert trace.correct.tolist() == [[True, True], [False, True], [False, True], [True, True], [True, False]]
    assert trace.label.tolist() == LABELS.tolist()
    for n in range(2):
        torch.testing.assert_close(trace.uncertainty[:, n], max_probability(two_exits(IMAGES)[n]))


def test_the_batch_size_does_not_matter():
    whole = compute_trace(two_exits, [(IMAGES, LABELS)], entropy)
    single = compute_trace(two_exits, zip(IMAGES.split(1), LABELS.split(1), strict=True), entropy)
    torch.testing.assert_close(single.uncertainty, whole.uncertainty, rtol=0, atol=1e-6)
    assert torch.equal(single.prediction, whole.prediction)


def test_a_trace_is_a_plain_value():
    """No gradients, no inference tensors: these may not be changed or saved for backward."""
    weight = torch.ones(3, requires_grad=True)
    trace = compute_trace(lambda x: [x * weight, x.half()], [(IMAGES, LABELS)], entropy)
    for value in (trace.uncertainty, trace.prediction, trace.label):
        assert not value.is_inference() and not value.requires_grad
    assert trace.uncertainty.dtype == torch.float32


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
        ({"label": torch.zeros(5, dtype=torch.int64)}, r"label is \(5,\)"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, message):
    Trace(**FINE)
    with pytest.raises(ValueError, match=message):
        Trace(**{**FINE, **wrong})
