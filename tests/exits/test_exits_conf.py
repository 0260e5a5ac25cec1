"""The config groups of this room: they compose, and what they say is accepted."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from branchynet.exits.criteria import CRITERIA
from branchynet.exits.rules import RULES, check_rule

CONF = Path(__file__).parents[2] / "conf"


def composed(*overrides: str) -> dict:
    groups = [f"+{override}" for override in overrides if override.split("=")[0] in ("sweep", "criterion")]
    others = [override for override in overrides if f"+{override}" not in groups]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose(overrides=groups + others))


def test_there_is_a_file_for_every_criterion_and_every_rule():
    assert {file.stem for file in (CONF / "criterion").iterdir()} == set(CRITERIA)
    assert {file.stem for file in (CONF / "sweep" / "rule").iterdir()} == set(RULES)


@pytest.mark.parametrize("name", list(CRITERIA))
def test_criterion(name):
    assert composed(f"criterion={name}")["criterion"] == {"name": name}


@pytest.mark.parametrize("name", list(RULES))
@pytest.mark.parametrize("sweep", ["default", "paper"])
def test_rule(sweep, name):
    rule = composed(f"sweep={sweep}", f"sweep/rule={name}")["sweep"]["rule"]
    assert rule["name"] == name
    check_rule(rule)


def test_default():
    sweep = composed("sweep=default", "sweep.rule.distance=0.005")["sweep"]
    assert sweep == {
        "rule": {"name": "accuracy_floor", "distance": 0.005},
        "protocol": "validation",
        "thresholds": None,
        "max_vectors": 40_000,
    }


def test_the_papers_thresholds_are_seventeen_numbers():
    sweep = composed("sweep=paper")["sweep"]
    thresholds = sweep["thresholds"]
    assert len(thresholds) == 17 and thresholds == sorted(set(thresholds))
    assert all(isinstance(value, int | float) for value in thresholds)
    assert (thresholds[0], thresholds[-1]) == (1e-4, 10)
    assert set(sweep) == {"rule", "protocol", "thresholds", "max_vectors"}
