"""Settings of a sweep, and an engine with outputs of its own."""

import pytest

from branchynet.evaluation.settings import Measuring, SweepSettings
from branchynet.exits.criteria import Criterion, Entropy
from branchynet.exits.rules import AccuracyFloor
from branchynet.runtime.catalogue import ENGINES
from branchynet.runtime.early_exit import EagerTorch


class Halves(Criterion):
    """Another criterion in steps of a half."""

    name, unit = "halves", "halves"

    def __init__(self, criterion):
        super().__init__()
        self.criterion = criterion

    def forward(self, logits):
        return (2 * self.criterion(logits)).round() / 2


class Coarse(EagerTorch):
    """PyTorch with less precise uncertainties."""

    def __init__(self):
        super().__init__()
        self.name, self.exact = "coarse", False

    def engine(self, network, criteria, thresholds, input_shape, threads):
        rough = [Halves(criterion) for criterion in criteria]
        return super().engine(network, rough, thresholds, input_shape, threads)


@pytest.fixture
def coarse():
    return Coarse()


@pytest.fixture
def make_settings():
    def make(engines=(ENGINES["torch"],), **changes):
        measuring = Measuring(tuple(engines), threads=1, seconds=0.01)
        made = {"experiment": "tiny", "seed": 3, "criterion": Entropy(), "rule": AccuracyFloor()}
        return SweepSettings(**{**made, "measuring": measuring, **changes})

    return make
