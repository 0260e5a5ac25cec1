"""`branchynet search` from the command line: what trials are trained with, and what is refused before any."""

import logging
import sys
from unittest.mock import patch

import pytest
import yaml
from hydra import compose, initialize_config_dir
from trials import train_run

from branchynet.commands import app, search_run
from branchynet.commands.search import again, check_drawn, check_folder, for_trials, main
from branchynet.errors import UserError
from branchynet.runs.run_config import plain


def called(monkeypatch, folder, *arguments):
    app.register_resolvers()
    monkeypatch.setattr(logging.root, "handlers", [])  # Hydra's, of another test's stdout
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["branchynet search", *arguments])
    main()


# The exits and the schedule are other ones than the experiment's, and a setting refers to another.
ARGUMENTS = [
    *("experiment=b_lenet_digits", "schedule=cosine", "logger=[tensorboard,csv]", "epochs.joint=7", "seed=3"),
    *(
        "search/sampler=random",
        "search/pruner=none",
        "search.trials=2",
        "search.reference=false",
        "hydra.run.dir=s t",
        "cache=null",
    ),
    *("space.weights.last.float=[0.5,0.6]", "sweep/rule=knee"),
]


@pytest.fixture
def searched(tmp_path, monkeypatch, capsys):
    """A search of two trials whose training is left out, and what was printed."""

    def train(config, folder, trial):
        trained.append((plain(config), folder))
        return {**train_run(Drawn, folder, trial), "gain": float(len(trained))}

    class Drawn:
        drawn = {"weights.last": "0.9"}  # noqa: RUF012

    trained = []
    monkeypatch.setattr(search_run, "train_run", train)
    called(monkeypatch, tmp_path, *ARGUMENTS)
    return trained, tmp_path / "s t", capsys.readouterr().out


def test_trials_are_runs_and_the_best_ones_experiments(searched):
    trained, folder, out = searched
    assert [run for _, run in trained] == [folder / "trials" / name for name in ("000", "001")]
    for settings, run in trained:
        stored = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())
        assert stored == settings and not {"search", "space"} & set(stored)
        assert settings["epochs"]["joint"] == 7 and settings["optimizer"]["lr"] == 0.003
        assert settings["sweep"]["rule"]["_target_"].endswith("Knee")
        assert 0.5 <= settings["weights"]["last"] <= 0.6 and settings["weights"]["first"] == 1.0
        assert settings["cache"] == str(folder / "baselines"), "one for all trials there has to be"
    assert trained[0][0]["model"]["exits"] != trained[1][0]["model"]["exits"]

    # The better one is the second; by its experiment, and nothing else, it is trained with the very same settings.
    assert "experiment=best_1" in out and f"resume='{folder / 'trials' / '001'}'" in out
    with initialize_config_dir(str(app.conf_folder()), version_base="1.3"):
        for name, (settings, _) in zip(("best_1", "best_2"), reversed(trained), strict=True):
            path = f"hydra.searchpath=['file://{folder / 'conf'}']"
            found = plain(compose("train", [path, f"experiment={name}", "cache=null"]))
            assert found.pop("name") == f"b_lenet_digits_trial_{2 - int(name[-1])}"
            assert found == {**settings, "cache": None, "name": None} | {
                "name": found.get("name")
            } or found == {key: value for key, value in {**settings, "cache": None}.items() if key != "name"}
        # Interpolations are kept: the images' seed is still the run's.
        found = compose("train", [path, "experiment=best_1", "seed=9"])
        assert found.data.seed == 9
    text = (folder / "conf" / "experiment" / "best_1.yaml").read_text()
    assert text.startswith("# @package _global_\n# Claim:") and len(text.splitlines()) < 60
    assert "override /sweep/rule: knee" in text and "override /schedule: cosine" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["search.trials=0", "trainer=ddp"], "search.trials=0: it is 1 or more"),
        (["trainer=ddp"], "trainer.devices=2: it is 1 in a search"),
        (
            ["+space.optimizer.lr.float=[0.001,0.1]"],
            "space.optimizer.lr: a gain over a baseline that changes",
        ),
        # The second choice, of a head that may not be there.
        (
            ["space.model.exits.1.maybe.after.choice=[conv2,pool9]"],
            "the space draws what is not there: there is no place 'pool9' for an exit: legal are input, conv1",
        ),
        (
            ["+space.model.exits.0.convz=[8]"],
            "not there: the exit after 'input' has 'convz': known are after",
        ),
        (
            ["+space.model.exitz.choice=[1,2]"],
            "space.model.exitz: there is no setting model.exitz; what may be",
        ),
        (["+space.weights.frist.float=[0.1,1]"], "Could not override 'weights.frist'"),
        (["+space.criterion.choice=[margin,entropie]"], "Could not find 'criterion/entropie'"),
    ],
)
def test_mistakes(arguments, words, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        called(monkeypatch, tmp_path, "data=digits", *arguments, "hydra.run.dir=s")
    assert ended.value.code == 2 and words in capsys.readouterr().err and not (tmp_path / "s").exists()


@pytest.mark.parametrize("name", ["result.json", ".hydra", "checkpoints", ".jobs"])
def test_no_search_in_a_runs_folder(name, tmp_path):
    check_folder(tmp_path)
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"a run or a multirun, {name} is in it"):
        check_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_without_optuna_it_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    with patch("branchynet.commands.search.find_spec", return_value=None), pytest.raises(SystemExit) as ended:
        called(monkeypatch, tmp_path, "hydra.run.dir=s")
    assert ended.value.code == 2 and "pip install 'branchynet[search]'" in capsys.readouterr().err


def test_what_trials_have_on_their_command_lines():
    words = [
        "experiment=a",
        "search.trials=3",
        "search/sampler=random",
        "space=b",
        "~space.weights",
        "weights=early",
    ]
    words += ["model.exits=[]", "data.path='a b'", "~weights.x"]
    assert for_trials(words, ["weights", "model.exits"]) == ["experiment=a", "data.path='a b'", "~weights.x"]


def test_the_command_that_goes_on(tmp_path):
    words = ["branchynet search", "experiment=a", "hydra.run.dir=old", "space.x.choice=[a, b]"]
    assert again(words, tmp_path / "a b") == (
        f"branchynet search experiment=a 'space.x.choice=[a, b]' 'hydra.run.dir={tmp_path}/a b'"
    )


@pytest.mark.parametrize(
    "name", ["weights", "weights.last", "sweep/rule", "model.exits", "+study.x", "epochs.joint"]
)
def test_what_may_be_drawn(name):
    check_drawn([name], {})


@pytest.mark.parametrize(
    "name", ["weight", "model.trunk.init", "epochs.baseline", "data.batch_size", "optimizer"]
)
def test_what_may_not(name):
    settings = {"model": {"trunk": {"init": 1}}, "epochs": {"baseline": 1}, "data": {"batch_size": 1}}
    words = "there is no setting weight; what" if name == "weight" else "a gain over a baseline"
    with pytest.raises(UserError, match=f"space.{name}: {words}"):
        check_drawn([name], {**settings, "optimizer": {}})
