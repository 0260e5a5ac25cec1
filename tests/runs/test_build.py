"""From settings to objects: what `_target_` makes, what is refused, and with which words."""

import math
from functools import partial

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from branchynet.commands.app import conf_folder
from branchynet.errors import UserError
from branchynet.evaluation.settings import Measuring
from branchynet.exits.criteria import Entropy, Margin
from branchynet.exits.rules import AccuracyFloor, LatencyBudget
from branchynet.networks.lenet import lenet5
from branchynet.runs.build import (
    build_backend,
    build_criterion,
    build_data,
    build_gradients,
    build_measuring,
    build_network,
    build_objective,
    build_rule,
    build_sweep,
    made,
)
from branchynet.runtime.catalogue import ENGINES
from branchynet.runtime.early_exit import EagerTorch
from branchynet.training.distilled import Distilled
from branchynet.training.gradients import Gradients
from branchynet.training.objective import Joint

# What a target may be is anything that can be imported, and so are these; they say what they were called with.
FRACTION = "fractions.Fraction"
SPACE = "types.SimpleNamespace"


def composed(*overrides):
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose("train", overrides=["experiment=b_lenet_digits", "trainer=cpu", *overrides])


def test_an_object_is_made_of_its_target_and_its_arguments():
    assert made("x", {"_target_": FRACTION, "numerator": 3, "denominator": 6}) == 0.5
    assert made("x", {"_target_": FRACTION, "numerator": 3}, denominator=6) == 0.5
    # As Hydra composes it, references to other settings included.
    config = OmegaConf.create({"three": 3, "x": {"_target_": FRACTION, "numerator": "${three}"}})
    assert made("x", config.x) == 3


def test_what_is_inside_is_made_first_at_any_depth():
    inner = {"_target_": FRACTION, "numerator": 1, "denominator": 2}
    found = made("x", {"_target_": SPACE, "a": inner, "b": [{"c": inner}, 3], "d": {"e": 4}})
    assert found.a == 0.5 and found.b == [{"c": 0.5}, 3] and found.d == {"e": 4}


def test_settings_of_something_else_are_handed_on_as_they_are():
    inner = {"_target_": FRACTION, "numerator": 1, "denominator": 2}
    found = made("x", {"_target_": SPACE, "a": inner, "b": {"c": inner}}, as_it_is="b")
    assert found.a == 0.5 and found.b == {"c": inner}
    config = composed("objective=distilled", "objective.teacher=a.ckpt")
    config.objective.teacher_model = config.model
    assert build_objective(config, 2).teacher_model == OmegaConf.to_container(config.model, resolve=True)


def test_where_a_function_is_wanted_its_arguments_are_bound():
    found = made("x", {"_target_": FRACTION, "_partial_": True, "denominator": 4})
    assert isinstance(found, partial) and found(3) == 0.75
    assert made("x", {"_target_": FRACTION, "_partial_": False, "numerator": 2}) == 2
    found = made("x", {"_target_": SPACE, "f": {"_target_": "math.pow", "_partial_": True}})
    assert found.f(2, 3) == 8


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"_target_": "branchynet.exits.criteria.Nosuch"}, ["x.y._target_=branchynet.exits.criteria.Nosuch"]),
        ({"_target_": "nosuch.module.Thing"}, ["x.y._target_=nosuch.module.Thing", "no such object"]),
        ({"_target_": "nosuch.module.Thing"}, ["(No module named 'nosuch'); is its package installed, or"]),
        ({"_target_": "math.nosuch"}, ["no such object (No module named 'math.nosuch'"]),
        (
            {"_target_": "io.open", "file": "/no/such/file"},
            ["x.y: io.open fails (FileNotFoundError", "/no/such"],
        ),
        ({"_target_": ""}, ["x.y._target_=", "no such object"]),
        ({"_target_": 3}, ["x.y._target_=3", "no such object"]),
        ({"_target_": None}, ["x.y._target_=None", "no such object"]),
        ({"_target_": ["os", "mkdir"]}, ["x.y._target_=", "no such object"]),
        ({"name": "margin"}, ["it has no _target_", "x/y=<name>"]),
        ("margin", ["x.y=margin", "no _target_"]),
        (None, ["x.y=None", "no _target_"]),
        ({"_target_": FRACTION, "speed": 3}, ["x.y", "speed", "conf/x/y"]),
        ({"_target_": SPACE, "a": [{"_target_": "nosuch.Thing"}]}, ["x.y.a.0._target_=nosuch.Thing"]),
        ({"_target_": SPACE, "a": {"b": {"_target_": FRACTION, "speed": 1}}}, ["x.y.a.b", "speed"]),
    ],
)
def test_what_cannot_be_made_is_told_in_one_line(settings, words, caplog):
    with pytest.raises(UserError) as caught:
        made("x.y", settings)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message
    assert not caplog.records  # Hydra would log three lines more


@pytest.mark.parametrize(
    ("shape", "words"),
    [((3, 28, 28), "does not take images of shape"), ((1, 28, 28), "the data has 7 classes")],
)
def test_a_trunk_that_does_not_fit_is_told_with_its_settings_that_would(shape, words):
    with pytest.raises(UserError) as caught:
        build_network(composed().model, shape, 7, 0)
    assert words in str(caught.value)
    cure = "model.trunk.in_channels=auto model.trunk.num_classes=auto model.trunk.size=auto"
    assert str(caught.value).endswith(f"; as the images are: {cure}")


def test_a_refused_argument_is_named_as_the_setting():
    floor = {"_target_": "branchynet.exits.rules.AccuracyFloor", "distance": -1}
    with pytest.raises(UserError, match=r"^sweep\.rule\.distance=-1: it is a finite number, 0 or more$"):
        made("sweep.rule", floor)
    with pytest.raises(UserError, match=r"^a\.b\.0\.distance=-1: it is"):
        made("a", {"_target_": SPACE, "b": [floor]})


def test_a_bug_inside_is_no_mistake_of_the_users():
    with pytest.raises(ZeroDivisionError):
        made("x", {"_target_": FRACTION, "numerator": 1, "denominator": 0})


@pytest.mark.parametrize("text", ["${oc.env:SECRET}", "\\${oc.env:SECRET}", "a ${b} c"])
def test_text_that_looks_like_a_reference_stays_text(text, monkeypatch):
    """Stored settings, as criterion.pt has them, are values: nothing is looked up once they have been looked at."""
    monkeypatch.setenv("SECRET", "of this machine")
    settings = {"_target_": SPACE, "a": text, "b": [{"c": text}], "d": {"_target_": SPACE, "e": text}}
    found = made("x", settings)
    assert found.a == found.b[0]["c"] == found.d.e == text


def test_what_hydra_composes_is_resolved_once(monkeypatch):
    """A reference is what it refers to; one that was escaped is text, and stays that at any depth."""
    monkeypatch.setenv("SECRET", "of this machine")
    config = OmegaConf.create(
        {
            "one": 1,
            "x": {
                "_target_": SPACE,
                "once": "${one}",
                "escaped": "\\${oc.env:SECRET}",
                "nested": [{"deeper": "\\${oc.env:SECRET}"}],
                "inner": {"_target_": SPACE, "escaped": "\\${oc.env:SECRET}"},
            },
        }
    )
    found = made("x", config.x)
    assert found.once == 1
    assert found.escaped == found.inner.escaped == found.nested[0]["deeper"] == "${oc.env:SECRET}"


@pytest.mark.parametrize("name", ["entropy", "max_probability", "margin"])
def test_every_criterion_of_conf_is_made_and_has_its_name(name):
    assert build_criterion(composed(f"criterion={name}").criterion).name == name


@pytest.mark.parametrize("name", ["accuracy_floor", "gain_floor", "knee", "latency_budget", "mac_budget"])
def test_every_rule_of_conf_is_made_and_has_its_name(name):
    assert build_rule(composed(f"sweep/rule={name}").sweep.rule).name == name


def test_unknown_criteria_and_rules():
    with pytest.raises(
        UserError, match=r"criterion\._target_=branchynet\.exits\.criteria\.Entropie: .*no such"
    ):
        build_criterion({"_target_": "branchynet.exits.criteria.Entropie"})
    with pytest.raises(UserError, match=r"sweep\.rule=.*best.*choose it by sweep/rule=<name>"):
        build_rule({"name": "best"})
    with pytest.raises(UserError, match=r"sweep\.rule=None"):
        build_rule(None)


class Mine(EagerTorch):
    """An engine of somebody's own."""

    def __init__(self, speed):
        super().__init__()
        self.name, self.speed = "mine", speed


@pytest.fixture
def mine(monkeypatch):
    """Where `_target_` finds it."""
    monkeypatch.setattr("branchynet.runtime.early_exit.Mine", Mine, raising=False)
    return {"_target_": "branchynet.runtime.early_exit.Mine", "speed": 3}


def test_engines_by_name_and_by_target(mine):
    assert build_backend("torch") is build_backend({"name": "torch", "threads": 7}) is ENGINES["torch"]
    # What all engines share is no argument of one of them.
    found = build_backend({**mine, "name": "mine", "threads": 1, "seconds": 0.5, "compare": ["torch"]})
    assert isinstance(found, Mine) and (found.name, found.speed) == ("mine", 3)
    with pytest.raises(UserError, match=r"^engine\.name=tensorrt: it is one of .*onnxruntime"):
        build_backend({"name": "tensorrt"})
    with pytest.raises(
        UserError, match=r"^engine\.nosuch=1: there is no such setting; there are name, threads"
    ):
        build_backend({"name": "torch", "threads": 1, "nosuch": 1})
    with pytest.raises(UserError, match=r"^engine\.name=None"):
        build_backend({"name": None})
    with pytest.raises(UserError, match=r"engine\._target_=nosuch\.Engine"):
        build_backend({"_target_": "nosuch.Engine"})


def test_the_engine_of_the_choice_comes_first_and_each_once(mine):
    shared = {"threads": 2, "seconds": 0.25}
    found = build_measuring({"name": "onnxruntime", "compare": ["torch", mine, "onnxruntime"], **shared})
    assert isinstance(found, Measuring)
    assert [engine.name for engine in found.engines] == ["onnxruntime", "torch", "mine"]
    assert (found.threads, found.seconds) == (2, 0.25)
    for compare in (None, []):
        assert len(build_measuring({"name": "torch", "compare": compare, **shared}).engines) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "tensorrt"}, r"^engine\.name=tensorrt: it is one of .*onnxruntime"),
        ({"compare": ["torch", "tensorrt"]}, r"^engine\.compare\.1=tensorrt: it is one of .*onnxruntime"),
        ({"compare": [{"name": "tensorrt"}]}, r"^engine\.compare\.0\.name=tensorrt: it is one of"),
        ({"compare": [{"_target_": "nosuch.Engine"}]}, r"engine\.compare\.0\._target_=nosuch\.Engine"),
        ({"threads": 0}, "engine.threads=0"),
        ({"seconds": 0}, "engine.seconds=0"),
    ],
)
def test_mistakes_in_the_engine(changes, words):
    with pytest.raises(UserError, match=words) as caught:
        build_measuring({"name": "torch", "threads": 1, "seconds": 0.01, **changes})
    assert "\n" not in str(caught.value)


def test_the_sweep_is_of_the_groups():
    config = composed(
        "criterion=margin",
        "sweep/rule=latency_budget",
        "sweep.rule.budget_us=7",
        "sweep.max_vectors=99",
        "engine=torch",
        "engine.compare=[]",
        "engine.threads=2",
    )
    found = build_sweep(config, "name", 5, split="val")
    assert isinstance(found.criterion, Margin) and found.rule == LatencyBudget(7)
    assert (found.experiment, found.seed, found.split) == ("name", 5, "val")
    assert (found.max_vectors, found.protocol, found.thresholds) == (99, "validation", None)
    assert [engine.name for engine in found.measuring.engines] == ["torch"] and found.measuring.threads == 2
    found = build_sweep(composed("engine=torch"), "name", 5)
    assert isinstance(found.criterion, Entropy) and found.rule == AccuracyFloor(0.0)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("sweep.protocol=test", r"^sweep\.protocol=test: it is one of validation, paper$"),
        ("sweep.thresholds=[0.1,-1]", r"^sweep\.thresholds has -1"),
        ("sweep.max_vectors=0", r"^sweep\.max_vectors=0"),
        ("sweep.rule.distance=1", r"^sweep\.rule\.distance=1: it is a fraction below 1"),
        ("+sweep.rule.speed=1", r"^the settings of sweep\.rule are refused: .*speed.*; see conf/sweep/rule$"),
    ],
)
def test_mistakes_in_the_sweep_are_named_by_their_setting(override, words):
    with pytest.raises(UserError, match=words):
        build_sweep(composed(override, "engine=torch"), "name", 0)


def test_the_objective_has_the_weights_of_the_group():
    config = composed("weights=early", "label_smoothing=0.1")
    found = build_objective(config, 2)
    assert isinstance(found, Joint) and found.label_smoothing == 0.1
    assert found.weights == pytest.approx((1.0, 0.3))
    # A frozen trunk has nothing to train at its own exit.
    assert build_objective(config, 3, frozen=True).weights == pytest.approx((1.0, 0.65, 0.0))
    with pytest.raises(UserError, match=r"^weights\.values=\[1.0\] has 1 weights"):
        build_objective(composed("weights.values=[1.0]"), 2)
    with pytest.raises(UserError, match=r"^objective\.label_smoothing=2"):
        build_objective(composed("label_smoothing=2"), 2)


def test_exits_that_learn_from_the_last_are_chosen_by_name():
    distilled = "objective=distilled"
    found = build_objective(composed(distilled, "label_smoothing=0.1", "weights=early"), 2, frozen=True)
    assert found == Distilled((1.0, 0.0), 0.5, 3.0, "last", 0.1) and found.needs == (True, True)
    with pytest.raises(UserError, match=r"^objective\.temperature=0: it is a number above 0"):
        build_objective(composed(distilled, "objective.temperature=0"), 2)


def test_gradients_are_added_up_as_the_group_of_weights_says():
    assert build_gradients(composed()) == Gradients() == Gradients("sum", 1.0)
    # Runs of before the choice.
    assert build_gradients(composed("~weights.trunk_gradient", "~weights.start")) == Gradients()
    chosen = composed("weights=early", "weights.trunk_gradient=mean", "weights.start=0.01")
    assert build_gradients(chosen) == Gradients("mean", 0.01)
    with pytest.raises(UserError, match=r"^weights\.start=2: it is the share"):
        build_gradients(composed("weights.start=2"))


def test_the_data_are_set_up_and_their_mistakes_named():
    data = build_data(composed("data.batch_size=7").data)
    assert (data.batch_size, data.num_classes) == (7, 10) and len(data.images("val")) == 200
    with pytest.raises(UserError, match=r"^data\.batch_size=0"):
        build_data(composed("data.batch_size=0").data)
    # What is only seen once the images are there, too.
    with pytest.raises(UserError, match=r"^data\.validation_size=5000: it is below 1437"):
        build_data(composed("data.validation_size=5000").data)


def test_the_trunk_does_not_depend_on_the_exits():
    shape, classes = (1, 28, 28), 10
    one = build_network(composed().model, shape, classes, seed=0)
    other = build_network(composed("model.exits.0.convs=[4]").model, shape, classes, seed=0)
    again = build_network(composed().model, shape, classes, seed=0)
    seeded = build_network(composed().model, shape, classes, seed=1)
    state = one.trunk_state_dict()
    assert all(torch.equal(state[name], value) for name, value in other.trunk_state_dict().items())
    assert not torch.equal(state["conv1.weight"], seeded.trunk_state_dict()["conv1.weight"])
    states = one.state_dict(), again.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    assert math.prod(other.heads[0](other.segments[0](torch.zeros(1, *shape))).shape) == classes


def test_a_head_may_be_anything_of_a_shape_and_a_number_of_classes(monkeypatch):
    asked = []

    def head(shape, num_classes, width):
        asked.append((shape, num_classes, width))
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(math.prod(shape), num_classes))

    monkeypatch.setattr("branchynet.networks.lenet.head", head, raising=False)
    exits = [{"after": "conv1", "head": {"_target_": "branchynet.networks.lenet.head", "width": 5}}]
    model = OmegaConf.create({"trunk": {"_target_": f"{lenet5.__module__}.lenet5"}, "exits": exits})
    network = build_network(model, (1, 28, 28), 10, seed=0)
    assert network.num_exits == 2 and len(asked) == 1
    assert asked[0][1:] == (10, 5) and len(asked[0][0]) == 3


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.exits.0.after=conv9"], ["conv9", "conv1, pool1"]),
        (["+model.trunk.speed=3"], ["model.trunk", "speed", "conf/model/trunk"]),
        (["model.trunk._target_=branchynet.networks.lenet.nosuch"], ["model.trunk._target_", "nosuch"]),
        (["+model.exits.0.head._target_=nosuch.Head"], ["model.exits.0.head._target_=nosuch.Head"]),
    ],
)
def test_mistakes_in_the_model(overrides, words):
    with pytest.raises(UserError) as caught:
        build_network(composed(*overrides).model, (1, 28, 28), 10, seed=0)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message
