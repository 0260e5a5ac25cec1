"""Headroom, against loops over samples, numbers by hand and scikit-learn."""

import pytest
import torch
from sklearn.metrics import roc_auc_score

from branchynet.evaluation.headroom import auroc, headroom, perfect_confidence, perfect_knowledge
from branchynet.exits.trace import Trace


def random_trace(samples=500, exits=4, classes=3):
    """Uncertainties in steps, so that many are equal."""
    generator = torch.Generator().manual_seed(0)
    return Trace(
        torch.randint(0, 20, (samples, exits), generator=generator) / 10,
        torch.randint(0, classes, (samples, exits), generator=generator),
        torch.randint(0, classes, (samples,), generator=generator),
    )


def test_where_samples_would_leave_sample_by_sample():
    trace = random_trace()
    confidence, knowledge = perfect_confidence(trace).tolist(), perfect_knowledge(trace).tolist()
    for sample, (answers, label) in enumerate(zip(trace.prediction.tolist(), trace.label, strict=True)):
        assert confidence[sample] == next(n for n, answer in enumerate(answers) if answer == answers[-1])
        assert knowledge[sample] == next((n for n, answer in enumerate(answers) if answer == label), 0)
    assert set(confidence) == set(knowledge) == {0, 1, 2, 3}


def test_the_points_by_hand(report):
    # Exit 1 is right on samples 0, 1, 2, 4, 7; exit 2 on all but 2. Both are wrong, and agree, on none.
    found = headroom(report.trace)
    assert found.confidence.left == (4, 4) and found.confidence.right == 7
    assert found.knowledge.left == (5, 3) and found.knowledge.right == 8
    assert found.confidence.taken.tolist() == perfect_confidence(report.trace).tolist()
    assert found.knowledge.taken.tolist() == [0, 0, 0, 1, 0, 1, 1, 0]
    # Of the pairs of a right and a wrong one: 0, 1 and 2 are surer than 3, 5 and 6, 4 than 5 and 6, 7 than none.
    assert found.auroc == (11 / 15,)


def test_perfect_confidence_is_as_accurate_as_the_last_exit_and_knowledge_than_no_point_less():
    trace = random_trace()
    found = headroom(trace)
    assert found.confidence.right == int(trace.correct[:, -1].sum())
    assert found.knowledge.right == int(trace.correct.any(dim=1).sum())
    assert found.confidence.samples == found.knowledge.samples == 500


@pytest.mark.parametrize("steps", [3, 50, 10**6])
def test_the_auroc_is_scikit_learns_with_ties_and_without(steps):
    generator = torch.Generator().manual_seed(steps)
    uncertainty = torch.randint(0, steps, (3000,), generator=generator).float()
    right = torch.rand(3000, generator=generator) > uncertainty / steps
    assert auroc(uncertainty, right) == pytest.approx(roc_auc_score(right, -uncertainty), abs=1e-12)


def test_the_auroc_of_answers_that_are_all_alike():
    uncertainty = torch.tensor([0.1, 0.2])
    assert auroc(uncertainty, torch.ones(2, dtype=torch.bool)) is None
    assert auroc(uncertainty, torch.zeros(2, dtype=torch.bool)) is None
    assert auroc(torch.zeros(4), torch.tensor([True, True, False, True])) == 0.5
