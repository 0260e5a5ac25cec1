"""Some of the kills that `kills.py` does; it tries all of them."""

import kills
import pytest


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    train, whole = kills.train_case(folder)
    return {case.name: case for case in (train, kills.evaluate_case(whole), kills.export_case(whole, folder))}


@pytest.mark.parametrize(("name", "every"), [("train", 25), ("evaluate in_place", 15), ("export", 2)])
def test_whoever_is_killed_before_a_change_leaves_the_old_or_the_new(name, every, cases, tmp_path):
    tried, failed = cases[name].try_changes(tmp_path / "at_work", every)
    assert tried >= 2 and not failed
