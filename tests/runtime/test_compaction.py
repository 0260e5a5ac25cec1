"""Leaving rows behind: what is copied and what is run, and that nobody can tell from the results."""

import math

import numpy as np
import pytest
import torch

from branchynet.runtime import compaction
from branchynet.runtime.compaction import Scratch, by_compaction, numbers, pays
from branchynet.runtime.host import HostEngine


def test_a_share_decides(monkeypatch):
    monkeypatch.setattr(compaction, "COMPACT_FROM", 0.1)
    assert [pays(staying, 20) for staying in (20, 19, 18, 17, 1)] == [False, False, True, True, True]
    monkeypatch.setattr(compaction, "COMPACT_FROM", 0)
    assert pays(19, 20) and not pays(20, 20), "nobody left: nothing to copy"


class Watched:
    """A model that notes how many rows it is bound to."""

    def __init__(self, model, seen):
        self.model, self.seen = model, seen

    def bind(self, inputs, outputs):
        self.seen.append(len(inputs[0]))
        return self.model.bind(inputs, outputs)


def watch(engine):
    """From now on, how many rows reach each segment."""
    seen = []
    if isinstance(engine, HostEngine):
        engine.models = [Watched(model, seen) for model in engine.models]
        return seen
    step = engine.step

    def watched(n, x, *answer):
        seen.append(len(x))
        return step(n, x, *answer)

    engine.step = watched
    return seen


@pytest.mark.parametrize(
    ("share", "rows"), [(0, (257, 172, 87)), (0.4, (257, 257, 87)), (2, (257, 257, 257))]
)
def test_rows_that_left_are_carried_on_unread(
    share, rows, engine, network, images, middling, figure_2, monkeypatch
):
    """85 leave at exit 1, 85 at exit 2: a third, and then two thirds of those still carried."""
    monkeypatch.setattr(compaction, "COMPACT_FROM", share)
    engine.thresholds = middling
    seen = watch(engine)
    found = engine.run(images)
    expected = figure_2(network, images, middling)
    assert tuple(seen) == rows
    assert np.array_equal(found.prediction, expected[0]) and np.array_equal(found.exit_index, expected[1])
    np.testing.assert_allclose(found.uncertainty, expected[2], atol=1e-5)


class Table:
    """Steps that look everything up: what row r is told at exit n stands at [n, r].

    Features (R, 2): the row's number, and what all segments so far have made of it. Beside them every other step
    hands on what the row was told, (R, 1).
    """

    def __init__(self, rng, exits, rows, uncertainties):
        self.prediction = rng.integers(0, 10, (exits, rows))
        self.uncertainty = rng.choice(uncertainties, (exits, rows)).astype(np.float32)
        self.start = np.stack([np.arange(rows), rng.integers(0, 9, rows)], axis=1).astype(np.float32)

    def row_by_row(self, thresholds):
        """Figure 2 of the paper."""
        answers = []
        for row, made in self.start.tolist():
            for n in range(len(self.prediction)):
                made = 3 * made + n
                prediction, uncertainty = self.prediction[n, int(row)], self.uncertainty[n, int(row)]
                if n == len(thresholds) or uncertainty < np.float32(thresholds[n]):
                    answers.append((prediction, n + 1, uncertainty, made))
                    break
        return [np.array(column) for column in zip(*answers, strict=True)]

    def in_numpy(self, thresholds, kept):
        """Features in new arrays, or kept in the memory that the copies lie in, as engines have it."""
        scratch = Scratch()

        def step(n, handed):
            x, *told = handed
            rows = x[:, 0].astype(np.int64)
            if n % 2:
                np.testing.assert_array_equal(told[0][:, 0], self.prediction[n - 1, rows])
            y = scratch.array(x.shape, beside=x) if kept else np.empty_like(x)
            y[:, 0], y[:, 1] = x[:, 0], 3 * x[:, 1] + n
            beside = [] if n % 2 else [self.prediction[n, rows][:, None]]
            return (y, *beside), self.prediction[n, rows], self.uncertainty[n, rows], y[:, 1].copy()

        return by_compaction(self.start, thresholds, step, scratch.take, numbers)

    def in_torch(self, thresholds):
        prediction, uncertainty = torch.from_numpy(self.prediction), torch.from_numpy(self.uncertainty)

        def step(n, handed):
            x, *told = handed
            rows = x[:, 0].long()
            if n % 2:
                torch.testing.assert_close(told[0][:, 0], prediction[n - 1, rows])
            y = torch.stack([x[:, 0], 3 * x[:, 1] + n], dim=1)
            beside = [] if n % 2 else [prediction[n, rows][:, None]]
            return (y, *beside), prediction[n, rows], uncertainty[n, rows], y[:, 1].clone()

        found = by_compaction(
            torch.from_numpy(self.start),
            thresholds,
            step,
            lambda x, at: x.index_select(0, at),
            lambda mask: mask.nonzero()[:, 0],
        )
        return [tensor.numpy() for tensor in found]


@pytest.mark.parametrize("share", [0, 0.02, 0.4, 2])
def test_the_one_loop_gives_in_numpy_and_in_torch_what_a_loop_over_the_rows_gives(share, monkeypatch):
    """Uncertainties that often lie on a threshold, and nan, which is below none."""
    monkeypatch.setattr(compaction, "COMPACT_FROM", share)
    rng = np.random.default_rng(0)
    values = [0, 0.1, 0.2, 0.3, 0.4]
    taken = set()
    for _ in range(150):
        exits, rows = int(rng.integers(1, 5)), int(rng.integers(1, 80))
        table = Table(rng, exits, rows, [*values, math.nan])
        drawn = rng.choice([*values, math.inf, -math.inf], exits - 1)
        thresholds = [float(np.float32(value)) for value in drawn]
        expected = table.row_by_row(thresholds)
        taken.add(frozenset(expected[1].tolist()))
        for kept in (False, True):
            found = table.in_numpy(thresholds, kept)
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)
        assert [column.dtype for column in found] == [np.int64, np.int64, np.float32, np.float32]
        for ours, theirs in zip(table.in_torch(thresholds), found, strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype
    # All leave at once, some at every exit, none before the last: all of it has happened.
    assert {frozenset({1}), frozenset({1, 2, 3, 4}), frozenset({4})} <= taken


def test_nothing_is_run_once_all_have_left():
    def step(n, handed):
        assert n < 1, "all have left"
        x = handed[0]
        return handed, np.zeros(len(x), np.int64), np.full(len(x), 0.5, np.float32)

    found = by_compaction(np.zeros((3, 2), np.float32), (0.6, 0.6), step, Scratch().take, numbers)
    assert found[1].tolist() == [1, 1, 1]


def test_scratch_grows_is_used_again_and_never_overlaps():
    scratch = Scratch()
    first = scratch.array((4, 3), beside=np.zeros(1))
    second = scratch.array((2, 3), beside=first)
    third = scratch.array((5, 7), beside=second)
    assert not np.shares_memory(first, second) and not np.shares_memory(second, third)
    assert third.shape == (5, 7) and third.dtype == np.float32 and third.flags.c_contiguous
    again = scratch.array((5, 7), beside=second)
    assert np.shares_memory(third, again)


def test_rows_are_taken_into_that_memory():
    scratch = Scratch()
    x = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    rows = numbers(np.array([True, False, False, True]))
    assert rows.tolist() == [0, 3] and rows.dtype == np.int64
    taken = scratch.take(x, rows)
    assert np.array_equal(taken, x[[0, 3]]) and taken.flags.c_contiguous
    once_more = scratch.take(taken, np.array([1]))
    assert np.array_equal(once_more, x[[3]]) and np.array_equal(taken, x[[0, 3]]), "not written over"
    assert np.shares_memory(scratch.take(once_more, np.array([0])), taken), "but used again"
