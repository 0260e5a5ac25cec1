"""What a rule promises goes with its choice, and is plain values."""

import json
from dataclasses import asdict, dataclass
from typing import ClassVar

import torch

from branchynet.exits.certificate import Certificate
from branchynet.exits.rules import Choice, Cost, View, select
from branchynet.exits.sweep import evaluate
from branchynet.exits.trace import Trace

PROMISE = Certificate("nothing is lost.", "harmful", 0.01, 0.1, 500, 0, 0.0, 0.0066, "last", 0, 0)


@dataclass(frozen=True)
class Promising:
    """Takes the first point."""

    name: ClassVar[str] = "promising"
    cost: ClassVar[str] = "macs"

    def choose(self, view):
        return Choice(view.points[0], certificate=PROMISE)


def test_a_selection_has_its_choices_certificate():
    trace = Trace(torch.ones(4, 2), torch.ones(4, 2).long(), torch.ones(4).long())
    zero = torch.zeros(1, 1)
    view = View(
        trace, lambda t: evaluate(t, zero), {"macs": Cost("MACs", (1.0, 2.0), 2.0)}, torch.ones(4) > 0
    )
    assert select(Promising(), view).certificate is PROMISE


def test_it_is_plain_values():
    assert Certificate(**json.loads(json.dumps(asdict(PROMISE)))) == PROMISE
