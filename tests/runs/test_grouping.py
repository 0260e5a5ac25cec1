"""Which runs are of one group, by their settings."""

import pytest
from many import SETTINGS, write_finished

from branchynet.runs.gathered import gather


def labels(folder):
    return [row.label for row in gather([folder]).rows]


def test_equal_overrides_of_an_experiment_that_was_changed_are_two_groups(report, tmp_path):
    for seed, lr in enumerate([0.001, 0.001, 0.1, 0.1]):
        settings = {**SETTINGS, "optimizer": {"lr": lr}, "data": {**SETTINGS["data"], "root": f"/data{seed}"}}
        write_finished(tmp_path / str(seed), report, ["weights=equal"], settings, seed=seed)
    assert [row.label for row in gather([tmp_path]).rows] == ["", "", *["(optimizer.lr=0.1)"] * 2]


def test_other_networks_are_another_group(report, make_report, tmp_path):
    """What `result.json` says of them is enough."""
    write_finished(tmp_path / "0", report)
    write_finished(tmp_path / "1", make_report(threads=2), seed=1)
    groups = [row.group for row in gather([tmp_path]).rows]
    assert groups == ["b_lenet_mnist", "b_lenet_mnist (result.threads=2)"]


@pytest.mark.parametrize("seeds", [(0, 1), (5, 5)])
def test_seeds_of_settings_within_settings_are_no_difference(seeds, report, make_report, tmp_path):
    for number, seed in enumerate(seeds):
        settings = {**SETTINGS, "data": {"seed": seed}}
        write_finished(tmp_path / str(number), make_report(threads=1), settings=settings, seed=number)
    assert labels(tmp_path) == ["", ""]


def test_settings_that_cannot_be_read_are_like_no_others(report, tmp_path):
    for seed in range(3):
        write_finished(tmp_path / str(seed), report, seed=seed)
    (tmp_path / "1" / ".hydra" / "config.yaml").write_text("a: [")
    first, damaged, last = labels(tmp_path)
    assert first == last == "" and damaged != ""


def test_a_label_is_one_line_and_short(report, tmp_path):
    for seed, value in enumerate([["a"], ["b"] * 100]):
        write_finished(tmp_path / str(seed), report, settings={**SETTINGS, "study": {"x": value}}, seed=seed)
    assert len(labels(tmp_path)[1]) <= 82


def test_what_an_older_run_does_not_have_is_as_it_was_then(report, tmp_path):
    rule = {"_target_": "branchynet.exits.rules.AccuracyFloor", "distance": 0.0}
    sweep = {"rule": rule}
    older = {**{k: v for k, v in SETTINGS.items() if k != "combine"}, "sweep": sweep}
    newer = {**SETTINGS, "ema": None, "sweep": {"rule": {**rule, "cost": "latency_us"}, "fit_share": 0.5}}
    by_macs = {**newer, "sweep": {"rule": {**rule, "cost": "macs"}, "fit_share": 0.5}}
    for seed, settings in enumerate([older, newer, {**newer, "ema": 0.9}, by_macs]):
        write_finished(tmp_path / str(seed), report, settings=settings, seed=seed)
    assert labels(tmp_path) == ["", "", "(ema=0.9)", "(sweep.rule.cost=macs)"]
