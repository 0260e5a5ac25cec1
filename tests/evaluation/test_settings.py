"""What is refused before anything is run."""

import pytest

from branchynet.errors import ArgumentError, UserError
from branchynet.evaluation.settings import Measuring, SweepSettings, check_split
from branchynet.exits.certified import Certified
from branchynet.exits.criteria import Entropy
from branchynet.exits.rules import AccuracyFloor, MacBudget
from branchynet.runtime.catalogue import ENGINES
from branchynet.runtime.early_exit import EagerTorch


def settings(**changes):
    measuring = Measuring((ENGINES["torch"],), threads=1, seconds=0.01)
    made = {"experiment": "tiny", "seed": 3, "criterion": Entropy(), "rule": AccuracyFloor()}
    return SweepSettings(**{**made, "measuring": measuring, **changes})


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"protocol": "test"}, "validation, paper"),
        ({"thresholds": [0.5, -1.0]}, "-1.0"),
        ({"thresholds": []}, "list such as"),
        ({"max_vectors": 0}, "max_vectors=0"),
        ({"split": "train"}, "test, val"),
        ({"split": "val", "protocol": "paper"}, "leave one out"),
        ({"rule": Certified(), "protocol": "paper"}, "the rule certified can promise nothing"),
        ({"rule": MacBudget(10.0, 0.1), "protocol": "paper"}, "the rule mac_budget can promise nothing"),
    ],
)
def test_mistakes_are_found_before_fitting(changes, word):
    with pytest.raises(UserError, match=word) as caught:
        settings(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"threads": 0}, "threads=0"),
        ({"threads": 1.5}, "threads=1.5"),
        ({"threads": True}, "threads=True"),
        ({"seconds": 0}, "seconds=0"),
        ({"seconds": float("inf")}, "seconds=inf"),
        ({"seconds": float("nan")}, "seconds=nan"),
        ({"seconds": "long"}, "seconds=long"),
    ],
)
def test_mistakes_of_measuring(changes, word):
    with pytest.raises(ArgumentError, match=f"^{word}: it is ") as caught:
        Measuring((ENGINES["torch"],), **changes)
    assert "\n" not in str(caught.value)


class Absent(EagerTorch):
    """An engine that this machine does not have."""

    def __init__(self):
        super().__init__()
        self.name = "absent"

    def check(self):
        raise UserError("engine=absent needs what is not here")


@pytest.mark.parametrize("engines", [(Absent(),), (ENGINES["torch"], Absent())])
def test_every_engine_has_to_be_here(engines):
    """The last to be compared with, too: else it would be missed after the training."""
    with pytest.raises(UserError, match="engine=absent"):
        Measuring(engines)


def test_the_first_engine_is_the_one_of_the_choice():
    both = Measuring((ENGINES["onnxruntime"], ENGINES["torch"]))
    assert settings(measuring=both).engine is ENGINES["onnxruntime"]


def test_validation_can_be_reported_unless_the_choice_looks_at_test():
    for allowed in (("test", "validation"), ("val", "validation"), ("test", "paper")):
        check_split(*allowed)
    with pytest.raises(UserError, match="split=val with protocol=paper"):
        check_split("val", "paper")
