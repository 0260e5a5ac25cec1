"""Leaving rows behind: what is copied and what is run, and that nobody can tell from the results."""

import copy

import numpy as np
import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from branchynet.exits.criteria import entropy
from branchynet.runtime import compaction
from branchynet.runtime.compaction import Scratch, pays
from branchynet.runtime.engine import make_engine

SHAPE = (1, 12, 12)


def test_a_share_decides(monkeypatch):
    monkeypatch.setattr(compaction, "COMPACT_FROM", 0.1)
    assert [pays(staying, 20) for staying in (20, 19, 18, 17, 1)] == [False, False, True, True, True]
    monkeypatch.setattr(compaction, "COMPACT_FROM", 0)
    assert pays(19, 20) and not pays(20, 20), "nobody left: nothing to copy"


@pytest.mark.parametrize(
    ("share", "rows"), [(0, (257, 172, 87)), (0.4, (257, 257, 87)), (2, (257, 257, 257))]
)
def test_rows_that_left_are_carried_on_unread(
    share, rows, made, network, images, middling, figure_2, monkeypatch
):
    """85 leave at exit 1, 85 at exit 2: a third, and then two thirds of those still carried."""
    monkeypatch.setattr(compaction, "COMPACT_FROM", share)
    engine = copy.copy(made)
    engine.thresholds = middling
    seen, step = [], engine._step

    def watched(n, x):
        seen.append(len(x))
        return step(n, x)

    engine._step = watched
    found = engine.run(images)
    expected = figure_2(network, images, middling)
    assert tuple(seen) == rows
    assert np.array_equal(found.prediction, expected[0]) and np.array_equal(found.exit, expected[1])
    np.testing.assert_allclose(found.uncertainty, expected[2], atol=1e-5)


def test_the_host_waits_once_per_exit_and_never_per_sample(network, images, middling):
    engine = make_engine("torch", network, entropy, middling, SHAPE)
    waits = {"aten::nonzero", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal"}

    class Count(TorchDispatchMode):
        total = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.total += function.name() in waits
            return function(*args, **(kwargs or {}))

    for size in (2, 33, 257):
        with Count() as count:
            assert engine.run(images[:size]).exit.max() == 2
        assert count.total == 2, "one wait per exit but the last"


def test_scratch_grows_is_used_again_and_never_overlaps():
    scratch = Scratch()
    first = scratch.array((4, 3), beside=np.zeros(1))
    second = scratch.array((2, 3), beside=first)
    third = scratch.array((5, 7), beside=second)
    assert not np.shares_memory(first, second) and not np.shares_memory(second, third)
    assert third.shape == (5, 7) and third.dtype == np.float32 and third.flags.c_contiguous
    again = scratch.array((5, 7), beside=second)
    assert np.shares_memory(third, again)
