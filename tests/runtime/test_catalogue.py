"""The engines by name, and engines of others beside them."""

import math
from typing import ClassVar

import numpy as np
import pytest

from branchynet.errors import ArgumentError, UserError
from branchynet.exits.criteria import Entropy, Margin, MaxProbability
from branchynet.runtime.base import Backend
from branchynet.runtime.catalogue import ENGINES, get_backend, make_engine
from branchynet.runtime.costs import measure_latencies
from branchynet.runtime.early_exit import TorchEngine, chain, classifier

SHAPE = (1, 12, 12)
# Whether an engine gives PyTorch's own numbers on a CPU: a GPU has TF32, and bfloat16 has 8 bits.
EXACT = {
    "torch": True,
    "torch_compile": True,
    "torch_cuda": False,
    "torch_compile_cuda": False,
    "onnxruntime": True,
    "openvino": True,
    "openvino_bf16": False,
}


class Mine(Backend):
    """An engine that the catalogue does not know; it keeps what it was asked for."""

    name = "mine"

    def __init__(self):
        self.asked = []

    def check(self):
        self.asked.append("check")

    def engine(self, network, criteria, thresholds, input_shape, threads):
        self.asked.append((criteria, thresholds, input_shape, threads))
        return TorchEngine(network, criteria, thresholds)

    def classifier(self, module, input_shape, threads):
        return classifier(lambda x: module(x).argmax(dim=1))

    def chain(self, modules, input_shape, threads):
        return chain(modules)


def test_every_engine_has_a_name_of_its_own_and_says_whether_it_is_exact():
    assert {name: backend.exact for name, backend in ENGINES.items()} == EXACT
    assert [backend.name for backend in ENGINES.values()] == list(ENGINES)
    assert all(get_backend(name) is backend for name, backend in ENGINES.items())


@pytest.mark.parametrize("name", ["tensorrt", "", None, 3, ["torch"]])
def test_an_unknown_name_gets_one_line_with_those_that_there_are(name):
    with pytest.raises(ArgumentError) as caught:
        get_backend(name)
    assert str(caught.value) == f"name={name}: it is one of {', '.join(EXACT)}"


def test_unknown_engines_and_threads_get_one_line(network):
    with pytest.raises(
        UserError, match=r"^engine=tensorrt: it is one of torch, torch_compile, .*onnxruntime"
    ):
        make_engine("tensorrt", network, Entropy(), (1.0, 1.0), SHAPE)
    with pytest.raises(UserError, match="threads=0"):
        make_engine("torch", network, Entropy(), (1.0, 1.0), SHAPE, threads=0)


def test_an_engine_of_ones_own_needs_no_place_in_the_catalogue(network, images, middling):
    mine = Mine()
    engine = make_engine(mine, network, Entropy(), middling, SHAPE, threads=3)
    check, (criteria, *others) = mine.asked
    assert check == "check" and others == [middling, SHAPE, 3]
    assert [criterion.name for criterion in criteria] == ["entropy"] * 3
    expected = make_engine("torch", network, Entropy(), middling, SHAPE).run(images)
    for ours, theirs in zip(expected, engine.run(images), strict=True):
        assert np.array_equal(ours, theirs)
    # Neither does what is measured of it.
    found = measure_latencies(mine, network, network.trunk(), criteria, SHAPE, seconds=0.01)
    assert len(found.exits) == 3 and all(0 < each.median_us < math.inf for each in found.trunk_only)


def test_an_engine_is_checked_before_it_is_made(network):
    class Missing(Mine):
        packages: ClassVar = {"no_such_package": "the package no-such-package: pip install it"}

        def check(self):
            Backend.check(self)

    mine = Missing()
    with pytest.raises(UserError, match="engine=mine needs the package no-such-package"):
        make_engine(mine, network, Entropy(), (1.0, 1.0), SHAPE)
    with pytest.raises(UserError, match="threads=0"):
        make_engine(mine, network, Entropy(), (1.0, 1.0), SHAPE, threads=0)
    assert mine.asked == []


def test_every_exit_gets_its_own_criterion(network, images):
    criteria = (Entropy(), Margin(), MaxProbability())
    for exit in range(3):
        thresholds = [math.inf if n == exit else -math.inf for n in range(2)]
        found = make_engine("torch", network, criteria, thresholds, SHAPE).run(images)
        expected = make_engine("torch", network, criteria[exit], thresholds, SHAPE).run(images)
        assert (found.exit_index == exit).all() and np.array_equal(found.uncertainty, expected.uncertainty)
    with pytest.raises(ValueError, match="2 criteria do not fit 3 exits"):
        make_engine("torch", network, criteria[:2], (1.0, 1.0), SHAPE)
