"""Every start of the order has its share of each class."""

import numpy as np

from branchynet.data.shares import by_shares, set_apart


def test_every_start_has_its_share_of_each_class():
    label = np.repeat([0, 1, 2], [60, 30, 10])
    order = np.random.RandomState(0).permutation(100)
    found = by_shares(order, label)
    assert sorted(found.tolist()) == list(range(100)) and found.tolist() != order.tolist()
    for start in range(1, 101):
        counts = np.bincount(label[found[:start]], minlength=3)
        assert np.abs(counts - start * np.array([0.6, 0.3, 0.1])).max() <= 1
    # Within a class the order stays.
    assert found[label[found] == 0].tolist() == [number for number in order if label[number] == 0]


def test_a_share_that_is_set_apart_has_the_same_of_each_class():
    label = np.repeat([0, 1, 2], [40, 20, 8])
    stays, chosen = set_apart(label, 0.25, seed=3)
    assert np.bincount(label[chosen]).tolist() == [10, 5, 2]
    assert sorted([*stays, *chosen]) == list(range(68)) and (np.diff(chosen) > 0).all()
    assert set_apart(label, 0.25, seed=4)[1].tolist() != chosen.tolist()
    assert len(set_apart(label, 0.001, seed=3)[1]) == 1
