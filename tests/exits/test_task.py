"""Tasks: what belongs to them, and data that is of the other one."""

import pytest
import torch

from branchynet.errors import UserError
from branchynet.exits.criteria import Entropy
from branchynet.exits.task import CLASSIFICATION, Segmentation

SHAPE = (3, 2, 4)


def test_the_shapes_of_answers():
    assert CLASSIFICATION.answer(5, SHAPE) == (5,)
    assert Segmentation().answer(5, SHAPE) == (5, 2, 4)


def test_labels_of_the_other_task_are_refused_in_one_line():
    classes, maps = torch.zeros(3, dtype=torch.int64), torch.zeros(3, 2, 4, dtype=torch.uint8)
    CLASSIFICATION.check(classes, SHAPE, "digits")
    Segmentation().check(maps, SHAPE, "shapes")
    with pytest.raises(UserError, match="task=classification: the labels of data=shapes are maps"):
        CLASSIFICATION.check(maps, SHAPE, "shapes")
    with pytest.raises(
        UserError, match="task=segmentation: the labels of data=digits are a class for an image"
    ):
        Segmentation().check(classes, SHAPE, "digits")


@pytest.mark.parametrize("task", [CLASSIFICATION, Segmentation()])
def test_answers_are_traced_as_the_steps_are(task):
    """One exit: the trace of a pass is that of its answers."""
    logits = torch.randn(6, 3, *task.label(SHAPE))
    label = torch.randint(0, 3, (6, *task.label(SHAPE)))
    judge = task.judging(Entropy())
    batches = torch.arange(6).split(4)
    passed = task.trace([lambda x: (x, logits[x], judge(logits[x]))], batches, label)
    answered = task.answered(judge(logits), logits.argmax(1), label, 3)
    for name in ("uncertainty", "prediction", "label", "correct"):
        assert torch.equal(getattr(passed, name), getattr(answered, name)), name
    assert torch.equal(passed.correct[:, 0], task.right(logits.argmax(1), label, 3))
    assert not task.otherwise(passed.prediction[:, 0], answered.prediction[:, 0]).any()
