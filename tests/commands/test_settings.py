"""The form of `branchynet train`'s settings: what is refused before any work, and with which words."""

import pytest
from hydra import compose, initialize_config_dir

from branchynet.commands.app import conf_folder
from branchynet.commands.settings import check_search, check_settings
from branchynet.errors import UserError
from branchynet.runs.run_config import plain


def settings_of(*overrides):
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return plain(compose("train", overrides=list(overrides)))


# What is no group of settings to choose one of, lacks a name, or is other commands' (evaluate's studies, predict's
# controllers, what is searched): their own tests compose them.
NO_CHOICE = (
    "hydra",
    "data/default",
    "engine/default",
    "experiment/thresholds",
    "controller",
    "space",
    "search",
)
OPTIONS = [
    f"{group}={path.stem}"
    for path in sorted(conf_folder().rglob("*.yaml"))
    if (group := str(path.parent.relative_to(conf_folder()))) != "."
    and not f"{group}/{path.stem}".startswith(NO_CHOICE)
]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_conf_has_the_form(option):
    check_settings(settings_of(option.replace("experiment/ablation=", "experiment=ablation/")))


@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=3", "ema=0.99", "freeze=trunk", "channels_last=true", "compile=false", "cache=null"],
        [
            "label_smoothing=0",
            "ema=1",
            "weights.first=1",
            "weights.values=[1,0.5]",
        ],  # whole numbers are numbers
        ["callbacks=[early_stopping,model_summary]", "logger=[tensorboard,csv]"],
        ["~logger", "~callbacks", "+callbacks.own._target_=their.Callback", "+logger._target_=their.Logger"],
        ["~weights.trunk_gradient", "~weights.start"],  # as in weights of one's own
        ["sweep.thresholds=[0,0.5]", "engine.compare=null", "+study.any={deep: [1]}"],
        ["+model.own=[1,2]", "+data.own=1", "+criterion.own=1", "+sweep.rule.own=1", "+objective.own=1"],
        ["engine.compare=[torch]", "+engine.own=1", "+schedule.own=1", "+optimizer.own=1", "+trainer.own=1"],
    ],
)
def test_what_an_object_takes_is_its_own_business(overrides):
    """Groups may have further settings: whatever is made of them says which it knows."""
    check_settings(settings_of(*overrides))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("+nosuch=1", "nosuch=1: there is no such setting"),
        ("+epochs.own=1", "epochs.own=1: there is no such setting"),
        ("+weights.own=1", "weights.own=1: there is no such setting"),
        ("+sweep.own=1", "sweep.own=1: there is no such setting"),
        ("~epochs.joint", "epochs.joint: it is missing"),
        (
            "optimized_metric=knee.accuracy",
            "optimized_metric=knee.accuracy: it is validation.accuracy, ",
        ),  # test's
        ("~criterion._target_", "criterion._target_: it is missing"),
        ("resume=run", "resume=run: it is for `branchynet train resume=<run folder>` alone"),
        ("epochs=5", "epochs=5: it is a group of settings"),
        ("epochs.joint=many", "epochs.joint=many: it is a whole number"),
        ("epochs.joint=1.5", "epochs.joint=1.5: it is a whole number"),
        ("epochs.joint=true", "epochs.joint=True: it is a whole number"),
        ("epochs.joint=null", "epochs.joint=null: it is a whole number"),
        ("engine.threads='2'", "engine.threads=2: it is a whole number"),
        ("seed=-1", "seed=-1: it is 0 or more"),
        ("name=null", "name=null: it is a text"),
        ("init=3", "init=3: it is a text"),
        ("init=''", "init=: it is a text that is not empty"),
        ("label_smoothing=some", "label_smoothing=some: it is a number"),
        ("ema=often", "ema=often: it is a number"),
        ("freeze=heads", "freeze=heads: it is none, trunk or batch_norms"),
        ("channels_last=maybe", "channels_last=maybe: it is auto or true or false"),
        ("compile=1", "compile=1: it is auto or true or false"),
        ("weights.values=3", "weights.values=3: it is a list, such as [1,2]"),
        ("weights.trunk_gradient=max", "weights.trunk_gradient=max: it is sum or mean"),
        ("weights.start=low", "weights.start=low: it is a number"),
        ("weights.values=[1,a]", "weights.values.1=a: it is a number"),
        ("sweep.thresholds=0.1", "sweep.thresholds=0.1: it is a list, such as [1,2]"),
        ("engine.compare=torch", "engine.compare=torch: it is a list"),
        ("engine.compare=[3]", "engine.compare.0=3: it is a text or a group of settings"),
        ("model.exits=null", "model.exits=null: it is a list"),
        ("model.exits=[3]", "model.exits.0=3: it is a group of settings"),
        ("+callbacks.own=3", "callbacks.own=3: it is a group of settings"),
        ("+callbacks.own={monitor: x}", "callbacks.own._target_: it is missing"),
        ("criterion._target_=3", "criterion._target_=3: it is a text"),
    ],
)
def test_what_has_another_form_is_told_in_one_line(override, words):
    with pytest.raises(UserError) as caught:
        check_settings(settings_of(override))
    message = str(caught.value)
    assert message.startswith(words) and "\n" not in message, message
    assert message.endswith("`branchynet train --cfg job` shows all settings with their values")


def test_a_long_value_is_shortened():
    with pytest.raises(UserError) as caught:
        check_settings({**settings_of(), "seed": "a" * 1000})
    assert str(caught.value).startswith(f"seed={'a' * 60}…: it is a whole number")


@pytest.mark.parametrize("settings", [None, 3, [], {}, {"model": None}])
def test_what_are_no_settings_at_all(settings):
    with pytest.raises(UserError):
        check_settings(settings)


def test_a_stored_run_may_be_of_a_version_with_other_settings():
    settings = settings_of()
    del settings["optimized_metric"]
    settings["of_a_later_version"] = 1
    check_settings(settings, stored=True)
    with pytest.raises(UserError, match=r"^optimized_metric: it is missing|^of_a_later_version=1"):
        check_settings(settings)
    settings["epochs"] = 3
    with pytest.raises(UserError, match=r"^epochs=3: it is a group of settings"):
        check_settings(settings, stored=True)


SEARCH = {
    "trials": 20,
    "reference": True,
    "objectives": ["gain"],
    "max_loss": 0,
    "storage": None,
    "study": "name",
    "seed": 0,
    "best": 3,
    "heartbeat": 15,
    "retries": 0,
    "sampler": {"_target_": "optuna.samplers.RandomSampler"},
    "pruner": {"_target_": "optuna.pruners.NopPruner"},
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trials": 0}, "search.trials=0: it is 1 or more; `branchynet search --cfg job` shows"),
        ({"trails": 3}, "search.trails=3: there is no such setting"),
        ({"objectives": ["speed"]}, "it is gain, accuracy"),
        ({"objectives": []}, "a list of one or two"),
        ({"objectives": ["gain", "macs", "accuracy"]}, "a list of one or two"),
        ({"max_loss": 1.5}, "search.max_loss=1.5"),
        ({"sampler": {"n": 1}}, "search.sampler._target_: it is missing"),
    ],
)
def test_the_form_of_a_search(changes, words):
    check_search(SEARCH)
    with pytest.raises(UserError, match=words):
        check_search({**SEARCH, **changes})
