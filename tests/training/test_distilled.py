"""Exits that learn from a teacher, against formulas worked out by hand."""

import math

import pytest
import torch

from branchynet.errors import UserError
from branchynet.training.distilled import Distilled
from branchynet.training.objective import Joint, asks_a_teacher

# One sample of two classes; the odds are 3:1, 1:1 and 1:9. With the temperature 2 they are 3^½:1, 1:1 and 1:3.
ODDS = (3.0, 1.0, 1 / 9)
TARGET = torch.tensor([0])


def logits_of(*odds):
    return [torch.tensor([[math.log(each), 0.0]], requires_grad=True) for each in odds]


def divergence(teacher, student):
    """KL(teacher ‖ student) of two classes by the first one's probability."""
    pairs = [(teacher, student), (1 - teacher, 1 - student)]
    return sum(p * math.log(p / q) for p, q in pairs)


def probability(odds, temperature):
    softened = odds ** (1 / temperature)
    return softened / (1 + softened)


LABELS = [-math.log(probability(odds, 1)) for odds in ODDS]
SOFT = [probability(odds, 2) for odds in ODDS]


def test_exits_learn_from_the_last_by_hand():
    total, losses = Distilled((1.0, 0.5, 2.0), share=0.25, temperature=2)(logits_of(*ODDS), TARGET)
    expected = [0.75 * LABELS[n] + 0.25 * 4 * divergence(SOFT[2], SOFT[n]) for n in (0, 1)]
    assert losses.tolist() == pytest.approx([*expected, LABELS[2]], rel=1e-5)
    assert total.item() == pytest.approx(expected[0] + 0.5 * expected[1] + 2 * LABELS[2], rel=1e-5)


def test_exits_learn_from_their_average_by_hand():
    objective = Distilled((1.0, 0.5, 2.0), share=0.25, temperature=2, teacher="average")
    total, losses = objective(logits_of(*ODDS), TARGET)
    teacher = sum(SOFT) / 3
    expected = [0.75 * label + divergence(teacher, soft) for label, soft in zip(LABELS, SOFT, strict=True)]
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)
    assert total.item() == pytest.approx(expected[0] + 0.5 * expected[1] + 2 * expected[2], rel=1e-5)


def test_all_exits_learn_from_another_network_by_hand():
    """Its odds are 1:4, with the temperature 2 they are 1:2: it says a third."""
    objective = Distilled((1.0, 0.5, 2.0), share=0.25, temperature=2, teacher="some/run")
    (taught,) = logits_of(1 / 4)
    logits = logits_of(*ODDS)
    total, losses = objective(logits, TARGET, taught=taught)
    expected = [0.75 * label + divergence(1 / 3, soft) for label, soft in zip(LABELS, SOFT, strict=True)]
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)
    assert total.item() == pytest.approx(expected[0] + 0.5 * expected[1] + 2 * expected[2], rel=1e-5)
    total.backward()
    assert all(out.grad.any() for out in logits)


def test_another_network_needs_no_exit_that_has_no_weight():
    assert Distilled((1.0, 0.0, 0.0), teacher="some/run").needs == (True, False, False)
    for teacher, share, asks in (("some/run", 0.5, True), ("some/run", 0, False), ("last", 0.5, False)):
        assert asks_a_teacher(Distilled((1.0, 1.0), share, teacher=teacher)) is asks
    assert not asks_a_teacher(Joint((1.0, 1.0)))


def test_a_divergence_is_the_mean_over_the_batch():
    odds = torch.tensor([[3.0, 1.0], [9.0, 1.0]]).log(), torch.zeros(2, 2)
    _, losses = Distilled((1.0, 1.0), share=1, temperature=1)(odds, torch.tensor([0, 1]))
    assert losses[0].item() == pytest.approx((divergence(0.5, 0.75) + divergence(0.5, 0.9)) / 2)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("teacher", ["last", "average"])
def test_without_a_share_it_is_the_joint_loss_bit_for_bit(teacher, label_smoothing):
    torch.manual_seed(0)
    weights, target = (1.0, 0.0, 0.3), torch.randint(0, 5, (8,))
    outputs = []
    torch.manual_seed(0)
    drawn = [torch.randn(8, 5), None, torch.randn(8, 5)]
    for objective in (
        Joint(weights, label_smoothing),
        Distilled(weights, 0, 2.0, teacher, label_smoothing),
    ):
        logits = [None if each is None else each.clone().requires_grad_() for each in drawn]
        total, losses = objective(logits, target)
        total.backward()
        assert objective.needs == (True, False, True)
        outputs.append((total, losses.nan_to_num(), logits[0].grad, logits[2].grad))
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))
    assert Distilled((1.0, 0.0), 0).needs == (True, False)


def test_label_smoothing_is_the_cross_entropys():
    # The target's probability is 0.95, the other's 0.05.
    _, losses = Distilled((1.0, 1.0), share=0.25, temperature=2, label_smoothing=0.1)(
        logits_of(3.0, 1.0), TARGET
    )
    smooth = -(0.95 * math.log(0.75) + 0.05 * math.log(0.25))
    assert losses[0].item() == pytest.approx(0.75 * smooth + divergence(0.5, SOFT[0]), rel=1e-5)


def test_the_teacher_gets_no_gradient():
    logits = logits_of(*ODDS)
    total, _ = Distilled((1.0, 1.0, 0.0), share=0.5)(logits, TARGET)
    total.backward()
    assert not logits[2].grad.any() and all(out.grad.any() for out in logits[:2])

    # With a weight, the last exit's is that of its labels.
    logits, alone = logits_of(*ODDS), logits_of(*ODDS)
    Distilled((1.0, 1.0, 0.3), share=0.5)(logits, TARGET)[0].backward()
    Joint((0.0, 0.0, 0.3))(alone, TARGET)[0].backward()
    assert torch.equal(logits[2].grad, alone[2].grad)

    # Nor the average: an exit's gradient is that towards a teacher that is given, α τ (q - p).
    logits = logits_of(*ODDS)
    Distilled((1.0, 1.0, 1.0), share=1, temperature=2, teacher="average")(logits, TARGET)[0].backward()
    for out, soft in zip(logits, SOFT, strict=True):
        assert out.grad[0, 0].item() == pytest.approx(2 * (soft - sum(SOFT) / 3), rel=1e-4)


def test_the_last_exit_is_needed_at_any_weight_and_an_average_is_of_those_that_are_run():
    for teacher in ("last", "average"):
        assert Distilled([1, 0, 0], teacher=teacher).needs == (True, False, True)
    first, _, last = logits_of(*ODDS)
    _, losses = Distilled((1.0, 0.0, 0.0), 1, 2, "average")([first, None, last], TARGET)
    assert losses[0].item() == pytest.approx(4 * divergence((SOFT[0] + SOFT[2]) / 2, SOFT[0]), rel=1e-5)
    assert losses[1].isnan()


def test_it_is_computed_in_float32_and_stays_finite_for_sure_exits():
    logits = [torch.tensor([[-300.0, 0.0]]).bfloat16(), torch.tensor([[300.0, 0.0]]).bfloat16()]
    for teacher in ("last", "average"):
        total, _ = Distilled((1.0, 1.0), temperature=0.5, teacher=teacher)(logits, TARGET)
        assert total.dtype == torch.float32 and total.isfinite()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"share": 1.1}, "share=1.1: it is the teacher's share of the loss, 0 … 1"),
        ({"share": True}, "share=True: it is the teacher's share"),
        ({"share": math.nan}, "share=nan: it is"),
        ({"temperature": 0}, "temperature=0: it is a number above 0"),
        ({"temperature": math.inf}, "temperature=inf: it is a number above 0"),
        ({"temperature": "warm"}, "temperature=warm: it is a number above 0"),
        ({"teacher": 1}, "teacher=1: it is one of last, average, or the path of a finished run's folder"),
        ({"teacher": ""}, "teacher=: it is one of last"),
        (
            {"teacher_model": {}},
            "teacher_model: it is for the network of a checkpoint; leave it out with teacher=last",
        ),
        (
            {"teacher": "a", "teacher_model": {"trunk": 1}},
            "it is the name of an option of conf/model, or a mapping",
        ),
        ({"teacher": "a", "teacher_model": "b_lenet"}, "teacher_model=b_lenet: it is the name of"),
        ({"label_smoothing": 1}, "label_smoothing=1: it is between 0 and 1"),
        ({"weights": (0.0, 0.0)}, "values=[0.0, 0.0]: at least one exit needs a weight above 0"),
    ],
)
def test_wrong_settings_get_one_line(settings, says):
    with pytest.raises(UserError) as caught:
        Distilled(**{"weights": (1.0, 1.0), **settings})
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_with_weights_of_classes_an_image_counts_in_the_teachers_part_too():
    torch.manual_seed(0)
    logits, target = [torch.randn(4, 3), torch.randn(4, 3)], torch.tensor([0, 0, 1, 2])
    plain, weighted = (Distilled((1.0, 0.5), class_weights=weights) for weights in (None, (2.0, 0.0, 0.0)))
    # Of two classes nothing counts: what is left is the loss of the first two images, doubled, over four.
    halved = plain([each[:2] for each in logits], target[:2])
    whole = weighted(logits, target)
    assert whole[0].item() == pytest.approx(halved[0].item(), rel=1e-5)
    assert whole[1].tolist() == pytest.approx(halved[1].tolist(), rel=1e-5)
