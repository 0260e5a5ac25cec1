"""Maps: their IoU against a slow reference, sums that are exact, and what cannot judge them."""

import itertools

import numpy as np
import pytest
import torch

from branchynet.errors import UserError
from branchynet.exits.criteria import Entropy
from branchynet.exits.found import WHOLE, Search
from branchynet.exits.maps import (
    STEP,
    MapTrace,
    MeanOverPixels,
    by_class,
    compared,
    image_iou,
    map_trace,
    mean_iou,
    otherwise,
)
from branchynet.exits.patience import Patience
from branchynet.exits.sweep import evaluate, evaluate_grid, exit_taken, point_at, sweep
from branchynet.exits.temperature import Temperature

K = 4


def drawn(samples=40, exits=3, size=6, seed=0):
    """Maps (S, N, H, W) that get better from exit to exit, the truth (S, H, W), uncertainties (S, N)."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, K - 1, (samples, size, size))  # the last class is nowhere in the truth
    maps = np.repeat(truth[:, None], exits, axis=1)
    for n in range(exits):
        wrong = random.random(truth.shape) < random.random((samples, 1, 1)) / (n + 1.5)
        maps[:, n][wrong] = random.integers(0, K, wrong.sum())
    unsure = random.random((samples, exits)).round(1).astype(np.float32)
    return torch.from_numpy(maps), torch.from_numpy(truth).to(torch.uint8), torch.from_numpy(unsure)


def trace_of_maps(maps, truth, unsure):
    """A network whose logits are the maps: it is given their numbers."""

    def step(n):
        return lambda x: (
            x,
            torch.nn.functional.one_hot(maps[x.long(), n], K).movedim(-1, 1),
            unsure[x.long(), n],
        )

    batches = torch.arange(len(maps)).split(7)
    return map_trace([step(n) for n in range(maps.shape[1])], batches, truth)


def slow_iou(given, truth):
    shares = []
    for k in range(K):
        either = ((given == k) | (truth == k)).sum()
        if either:
            shares.append(int(((given == k) & (truth == k)).sum()) / int(either))
    return sum(shares) / len(shares)


def test_scores_are_those_of_the_maps_and_multiples_of_a_step():
    maps, truth, unsure = drawn()
    trace = trace_of_maps(maps, truth, unsure)
    assert trace.partly and trace.correct.dtype == torch.float64
    for s, n in itertools.product(range(len(maps)), range(3)):
        assert trace.correct[s, n].item() == pytest.approx(slow_iou(maps[s, n], truth[s]), abs=STEP)
    assert torch.equal(trace.correct / STEP, (trace.correct / STEP).round())
    assert torch.equal(trace.good[:, 2], torch.ones(40, dtype=torch.bool))


def test_pixels_whose_truth_is_no_class_do_not_count():
    maps, truth, unsure = drawn()
    away = torch.rand(truth.shape, generator=torch.manual_seed(0)) < 0.3
    trace = trace_of_maps(maps, truth.masked_fill(away, 255), unsure)
    for s, n in itertools.product(range(len(maps)), range(3)):
        counting = ~away[s]
        slow = slow_iou(maps[s, n][counting], truth[s][counting])
        assert trace.correct[s, n].item() == pytest.approx(slow, abs=STEP)
    assert torch.equal(trace.label.sum(dim=1), (~away).flatten(1).sum(dim=1))


def test_the_data_sets_iou_of_any_mix_of_exits_is_that_of_the_maps():
    maps, truth, unsure = drawn()
    trace = trace_of_maps(maps, truth, unsure)
    taken = exit_taken(trace.uncertainty, torch.tensor([0.3, 0.5]))
    answers = maps[torch.arange(len(maps)), taken]
    both, either = trace.class_iou(taken)
    assert mean_iou(both, either) == pytest.approx(slow_iou(answers, truth), abs=1e-12)
    assert by_class(torch.zeros(1, 2).long(), torch.tensor([[0, 2]])) == [None, 0.0]


def test_a_grid_gives_what_single_vectors_give_to_the_last_bit():
    """Sums of scores are exact, whatever is added up first: equal points compare as equal."""
    trace = trace_of_maps(*drawn(samples=200))
    found = sweep(trace, max_vectors=400)
    again = evaluate(trace, found.thresholds)
    assert torch.equal(found.right, again.right) and torch.equal(found.left, again.left)
    for index in (0, 57, len(found) - 1):
        taken = exit_taken(trace.uncertainty, found.thresholds[index])
        right = trace.correct.flip(0).gather(1, taken.flip(0)[:, None]).sum().item()
        assert found[index].right == right == point_at(trace, found[index].thresholds).right
    assert evaluate_grid(trace, [torch.tensor([0.5]), torch.tensor([0.5])]).right.dtype == torch.float64


def test_what_only_counts_of_right_answers_can_go_through_is_refused():
    trace = trace_of_maps(*drawn(samples=60))
    with pytest.raises(UserError, match=f"partly right at most {WHOLE:,} are swept"):
        Search([(1.0, 2.0, 3.0)], values=[v / 1000 for v in range(1, 600)]).find(trace)


def test_a_part_of_a_trace_is_the_trace_of_a_part():
    maps, truth, unsure = drawn()
    part = torch.tensor([3, 1, 30])
    whole = trace_of_maps(maps, truth, unsure).at(part)
    own = trace_of_maps(maps[part], truth[part], unsure[part])
    for name in ("uncertainty", "prediction", "label", "overlap"):
        assert torch.equal(getattr(whole, name), getattr(own, name)), name


@pytest.mark.parametrize("change", [{"overlap": 1}, {"prediction": 1}, {"label": -1}])
def test_counts_that_no_maps_have_are_refused(change):
    trace = trace_of_maps(*drawn(samples=3))
    parts = {name: getattr(trace, name).clone() for name in ("uncertainty", "prediction", "label", "overlap")}
    for name, more in change.items():
        parts[name] += more * parts["label"].sum()
    with pytest.raises(ValueError, match=r"overlap|pixels"):
        MapTrace(**parts)


def test_few_pixels_are_rounding_more_are_another_map():
    expected = torch.tensor([[1000, 1304]])
    assert not otherwise(expected + torch.tensor([[2, -2]]), expected).any()
    assert otherwise(expected + torch.tensor([[3, -3]]), expected).all()


def test_an_exit_is_as_unsure_as_its_pixels_on_average():
    logits = torch.randn(5, K, 3, 2)
    by_pixel = Entropy()(logits.permute(0, 2, 3, 1).reshape(-1, K)).reshape(5, -1).mean(dim=1)
    judge = MeanOverPixels(Entropy())
    assert torch.allclose(judge(logits), by_pixel, atol=1e-6)
    assert (judge.name, judge.unit, judge.largest(K)) == ("entropy", "nats", Entropy().largest(K))
    assert not judge.of_probability


@pytest.mark.parametrize("criterion", [Temperature(), Patience()])
def test_criteria_of_one_answer_for_an_image_are_refused(criterion):
    with pytest.raises(UserError, match="take entropy, max_probability or margin"):
        MeanOverPixels(criterion)


def test_the_score_of_one_image():
    given, size, both = compared(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 0]]]), 3)
    assert image_iou(given, size, both).tolist() == [0.25]
