"""The config groups of this room: they compose, and what they say is accepted."""

from dataclasses import fields, is_dataclass
from inspect import signature
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from branchynet.errors import UserError
from branchynet.exits import certified, combining, given, rules
from branchynet.exits.criteria import Criterion
from branchynet.runs.build import build_combining, build_criterion, build_rule

CONF = Path(__file__).parents[2] / "conf"
CRITERIA = sorted(file.stem for file in (CONF / "criterion").iterdir())
RULES = {
    kind.name: kind
    for kind in (*vars(rules).values(), certified.Certified, given.Given)
    if is_dataclass(kind) and hasattr(kind, "choose")
}


def listed(value):
    """As YAML has it."""
    return list(value) if isinstance(value, tuple) else value


def composed(*overrides: str) -> dict:
    groups = [
        f"+{override}"
        for override in overrides
        if override.split("=")[0] in ("sweep", "criterion", "combine")
    ]
    others = [override for override in overrides if f"+{override}" not in groups]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose(overrides=groups + others))


def test_there_is_a_file_for_every_rule_and_for_every_criterion_of_the_first_ones():
    assert {file.stem for file in (CONF / "sweep" / "rule").iterdir()} == set(RULES)
    assert {*CRITERIA} >= {
        "entropy",
        "max_probability",
        "margin",
        "patience",
        "beem",
        "logistic",
        "mlp",
        "openmax",
        "temperature",
    } and len(RULES) == 7


@pytest.mark.parametrize("name", CRITERIA)
def test_criterion(name):
    settings = composed(f"criterion={name}")["criterion"]
    made = build_criterion(settings)
    assert made.name == name
    # Every setting is there, so that no override needs a plus sign; what stands there is the default.
    defaults = {each.name: listed(each.default) for each in signature(type(made)).parameters.values()}
    if type(made).__init__ is Criterion.__init__:
        defaults = {}
    assert settings == {"_target_": f"{type(made).__module__}.{type(made).__name__}", **defaults}


def test_combine():
    assert {file.stem for file in (CONF / "combine").iterdir()} == {"none", "average"}
    assert build_combining(composed("combine=none")["combine"]) == combining.Separate()
    assert build_combining(composed("combine=average")["combine"]) == combining.Average()
    fixed = build_combining(composed("combine=average", "combine.shares=[0,0.5]")["combine"])
    assert fixed.find(2, None) == (0.0, 0.5)


@pytest.mark.parametrize("name", list(RULES))
@pytest.mark.parametrize("sweep", ["default", "paper"])
def test_rule(sweep, name):
    settings = composed(f"sweep={sweep}", f"sweep/rule={name}")["sweep"]["rule"]
    kind = RULES[name]
    # Every setting is there, so that no override needs a plus sign.
    assert set(settings) == {"_target_", *(field.name for field in fields(kind))}
    assert type(build_rule(settings)) is kind


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"_target_": "branchynet.exits.rules.Best"},
            ["sweep.rule._target_", "rules.Best", "no such object"],
        ),
        ({}, ["sweep.rule", "sweep/rule=<name>"]),
        ({"_target_": ["knee"]}, ["sweep.rule._target_", "knee"]),
        ({"_target_": "branchynet.exits.rules.MacBudget"}, ["sweep.rule", "missing", "budget_macs"]),
        (
            {"_target_": "branchynet.exits.rules.Knee", "distance": 0.0},
            ["sweep.rule", "unexpected", "distance"],
        ),
        (
            {"_target_": "branchynet.exits.rules.MacBudget", "budget_macs": 1, "budget_us": 1},
            ["sweep.rule", "unexpected", "budget_us"],
        ),
        (
            {"_target_": "branchynet.exits.rules.LatencyBudget", "budget_us": -1.0},
            ["sweep.rule.budget_us=-1.0: it is"],
        ),
        (
            {"_target_": "branchynet.exits.certified.Certified", "epsilon": 1},
            ["sweep.rule.epsilon=1: it is a number between 0 and 1"],
        ),
        (
            {"_target_": "branchynet.exits.certified.Certified", "alpha": 0.1},
            ["sweep.rule", "unexpected", "alpha"],
        ),
    ],
)
def test_what_is_no_rule_or_no_setting_of_it_gets_one_line(settings, words):
    with pytest.raises(UserError) as caught:
        build_rule(settings)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_default():
    sweep = composed("sweep=default", "sweep.rule.distance=0.005")["sweep"]
    assert sweep == {
        "rule": {"_target_": "branchynet.exits.rules.AccuracyFloor", "distance": 0.005, "cost": "latency_us"},
        "protocol": "validation",
        "thresholds": None,
        "max_vectors": 40_000,
        "candidates": None,
        "fit_share": 0.5,
    }


def test_the_papers_thresholds_are_seventeen_numbers():
    sweep = composed("sweep=paper")["sweep"]
    thresholds = sweep["thresholds"]
    assert len(thresholds) == 17 and thresholds == sorted(set(thresholds))
    assert all(isinstance(value, int | float) for value in thresholds)
    assert (thresholds[0], thresholds[-1]) == (1e-4, 10)
    assert set(sweep) == {"rule", "protocol", "thresholds", "max_vectors", "candidates", "fit_share"}
