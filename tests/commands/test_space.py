"""What a search draws: trees, lists, what is there or not; and how it is written on a command line."""

import optuna
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from branchynet.commands.app import conf_folder
from branchynet.commands.search import check_drawn
from branchynet.commands.space import check_space, draw, lies_at, names, turns, written
from branchynet.errors import UserError


class Script:
    """Draws what it was told, and keeps what it was asked."""

    def __init__(self, **told):
        self.told, self.asked = told, {}

    def _answer(self, name, allowed):
        self.asked[name] = allowed
        return self.told[name]

    def suggest_categorical(self, name, choices):
        return self._answer(name, choices)

    def suggest_int(self, name, low, high, *, step=1, log=False):
        return self._answer(name, (low, high, step, log))

    def suggest_float(self, name, low, high, *, step=None, log=False):
        return self._answer(name, (low, high, step, log))


HEADS = yaml.safe_load("""
model:
  exits:
    - after: {choice: [input, conv1]}
      convs: {list: {int: [4, 64], log: true}, length: {int: [1, 2]}}
      kernel: {list: {choice: [3, 5]}, length: convs}
      fc: []
    - maybe: {after: conv2, pool: {choice: [0, 2]}}
weights: {last: {float: [0.1, 1.0]}}
""")


def test_a_head_that_is_not_there_is_not_drawn():
    ask = Script(
        **{
            "model.exits.0.after": "conv1",
            "model.exits.0.convs.length": 2,
            "model.exits.0.convs.0": 8,
            "model.exits.0.convs.1": 16,
            "model.exits.0.kernel.0": 5,
            "model.exits.0.kernel.1": 3,
            "model.exits.1.there": False,
            "weights.last": 0.123456,
        }
    )
    assert draw(HEADS, ask) == {
        "model.exits": [{"after": "conv1", "convs": [8, 16], "kernel": [5, 3], "fc": []}],
        "weights.last": 0.1235,  # as people write it
    }
    assert ask.asked["model.exits.0.convs.0"] == (4, 64, 1, True)
    assert "model.exits.1.pool" not in ask.asked


def test_a_head_that_is_there_is_drawn_and_lengths_are_conditions():
    ask = Script(
        **{
            "model.exits.0.after": "input",
            "model.exits.0.convs.length": 1,
            "model.exits.0.convs.0": 8,
            "model.exits.0.kernel.0": 5,
            "model.exits.1.there": True,
            "model.exits.1.pool": 2,
            "weights.last": 1.0,
        }
    )
    found = draw(HEADS, ask)["model.exits"]
    assert found[0]["kernel"] == [5] and found[1] == {"after": "conv2", "pool": 2}


def test_choices_that_are_lists_go_by_their_text():
    ask = Script(**{"model.exits": '[{"after": "input"}]', "sweep/rule": "knee"})
    space = {
        "model": {"exits": {"choice": [[{"after": "input"}], None]}},
        "sweep/rule": {"choice": ["knee", "x"]},
    }
    assert draw(space, ask) == {"model.exits": [{"after": "input"}], "sweep/rule": "knee"}
    assert ask.asked["model.exits"] == ('[{"after": "input"}]', None)


@pytest.mark.parametrize(
    "value",
    [
        1,
        1e-05,
        -0.5,
        True,
        None,
        "conv1",
        "stage1.0",
        "null",
        "True",
        "it's, [so]\\",
        [],
        [{"after": "input", "convs": [8, 16], "pool": None}],
        {"a": {"b": ["x", 1.5]}},
    ],
)
def test_hydra_reads_what_was_written(value):
    (override,) = OverridesParser.create().parse_overrides([written("a.b", value)])
    assert override.key_or_group == "a.b" and override.value() == value
    assert type(override.value()) is type(value)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (None, "space=None: it is a tree"),
        ({}, "it is a tree"),
        ({"weights": {"last": 1.0}}, "nothing to draw"),
        ({"a": {"choice": []}}, r"space.a.choice=\[\]: it is a list of at least one value"),
        ({"a": {"int": [1.5, 2]}}, "whole numbers"),
        ({"a": {"float": [2, 1]}}, "lowest, highest"),
        ({"a": {"float": [0, 1], "log": True}}, "above 0"),
        ({"a": {"float": [0, 1], "when": 1}}, "space.a.when: beside float stands step or log"),
        ({"a": {"choice": [1], "int": [1, 2]}}, "beside choice stands nothing"),
        ({"a": [{"maybe": {"b": {"list": 1, "length": "c"}}}]}, "a list that stands above it"),
        ({"a": {"list": 1, "length": -1}}, "0 or more"),
        ({"a": {"maybe": 1}}, "an item of a list"),
    ],
)
def test_mistakes(space, words):
    with pytest.raises(UserError, match=words):
        check_space(space)


@pytest.mark.parametrize("path", sorted((conf_folder() / "space").glob("*.yaml")), ids=lambda path: path.stem)
def test_ready_spaces_can_be_drawn_from(path):
    space = yaml.safe_load(path.read_text(encoding="utf-8"))
    check_space(space)
    check_drawn(names(space), {})


def test_in_turns_every_choice_is_drawn_and_what_may_be_there_is():
    heads = [each["model.exits"] for each in turns(HEADS)]
    assert [[head["after"] for head in exits] for exits in heads] == [["input", "conv2"], ["conv1", "conv2"]]
    assert [(exits[0]["kernel"], exits[1]["pool"]) for exits in heads] == [([3, 3], 0), ([5, 5], 2)]
    assert list(turns({"weights": {"last": {"float": [0.1, 1.0]}}})) == [{"weights.last": 1.0}]


@pytest.mark.parametrize(
    ("model", "space", "some"),
    [
        ("b_lenet_efficient", "lenet_heads", {"kernel.0": 7, "stride.0": 4, "convs.length": 1, "pool": 0}),
        ("b_alexnet_efficient", "alexnet_heads", {"convs.length": 5, "pool.3": 2, "depthwise": False}),
    ],
)
def test_heads_made_by_hand_lie_in_the_ready_spaces(model, space, some):
    """Drawn again, it is what stands there: one kernel for all is a list with one each."""
    stands = yaml.safe_load((conf_folder() / "model" / f"{model}.yaml").read_text(encoding="utf-8"))
    tree = yaml.safe_load((conf_folder() / "space" / f"{space}.yaml").read_text(encoding="utf-8"))
    found = lies_at(tree, {"model": stands, "weights": {"first": 1.0, "last": 1.0}})
    assert {name: found[f"model.exits.0.{name}"] for name in some} == some
    assert found["model.exits.1.there"] is (len(stands["exits"]) == 2) and found["weights.last"] == 1.0


TREE = {
    "model": {
        "exits": [
            {"after": {"choice": ["input", "conv1"]}, "convs": {"list": {"int": [4, 8]}, "length": 1}},
            {"maybe": {"after": "conv2", "norm": "batch"}},
        ]
    },
    "init": {"choice": ["a", [1]]},
}
FIRST, SECOND = {"after": "input", "convs": [8], "fc": []}, {"after": "conv2", "norm": "batch"}


@pytest.mark.parametrize(
    ("exits", "rest", "there"),
    [
        ([FIRST], {"init": "a"}, True),
        ([FIRST, SECOND], {"init": [1]}, True),
        ([FIRST, SECOND, SECOND], {"init": "a"}, False),  # a third one is never drawn
        ([FIRST, {**SECOND, "norm": "none"}], {"init": "a"}, False),  # nor another norm
        ([{**FIRST, "after": "conv2"}], {"init": "a"}, False),
        ([{**FIRST, "convs": [9]}], {"init": "a"}, False),
        ([{**FIRST, "convs": [8, 8]}], {"init": "a"}, False),
        ([{"after": "input"}], {"init": "a"}, False),
        ("auto", {"init": "a"}, False),
        ([FIRST], {}, False),
    ],
)
def test_settings_lie_in_a_space_or_do_not(exits, rest, there):
    found = lies_at(TREE, {"model": {"exits": exits}, **rest})
    assert (found is not None) == there
    if there:
        assert found["model.exits.1.there"] is (len(exits) == 2)


def test_shares_lie_in_a_space_too():
    tree = {
        "at": [{"float": [0.05, 0.3]}, {"maybe": {"float": [0.35, 0.6]}}],
        "on": {"choice": [True, False]},
    }
    assert lies_at(tree, {"at": [0.2], "on": False}) == {"at.0": 0.2, "at.1.there": False, "on": False}
    both = {"at.0": 0.2, "at.1.there": True, "at.1": 0.5, "on": True}
    assert lies_at(tree, {"at": [0.2, 0.5], "on": True}) == both


@pytest.mark.parametrize("path", sorted((conf_folder() / "space").glob("*.yaml")), ids=lambda path: path.stem)
def test_optuna_draws_from_the_ready_spaces(path):
    """It bears one distribution for a name."""
    space = yaml.safe_load(path.read_text(encoding="utf-8"))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [draw(space, study.ask()) for _ in range(20)]
    assert all({name: each[name] for name in names(space)} == each for each in drawn)
    assert len({len(trial.params) for trial in study.get_trials()}) > 1  # with what may be there, and without
