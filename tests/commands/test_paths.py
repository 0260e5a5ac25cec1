"""Paths on the command line: whatever a file system takes reaches the command as it is."""

import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from branchynet.commands import app
from branchynet.commands.app import conf_folder
from branchynet.commands.command_line import given
from branchynet.commands.paths import WORDS, quote_paths
from branchynet.training.distilled import TEACHERS


def typed(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["branchynet train", *arguments])


def composed(name, *overrides):
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose(name, overrides=list(overrides))


# A table to be extended: whatever a file system takes.
ODD_PATHS = [
    *(
        "a=b,c",
        "it's",
        "a\\b",
        "ends\\",
        "a\\'b",
        "a\\\\",
        "[x]",
        "{a: 1}",
        "(x)",
        "数据/é.npz",
        "'tis",
        '"q',
        "'a',b",
    ),
    *(" a  b ", "a\tb", "a\nb", "a#b", "$HOME", "a:b", "choice(x", "null,x", "1e5", "true", "2024", "plain"),
]


def split(*overrides):
    """The overrides of every job of a multirun."""
    return [
        job
        for batch in BasicSweeper.split_arguments(
            OverridesParser.create().parse_overrides([*overrides]), None
        )
        for job in batch
    ]


def test_paths_of_any_form_reach_the_command(monkeypatch):
    names = ["init", "data.path", "data.root", "cache", "objective.teacher"]
    for path in ODD_PATHS:
        typed(monkeypatch, *(f"{name}={path}" for name in names), "seed=1")
        quote_paths()
        assert sys.argv[-1] == "seed=1"
        assert given() == {**dict.fromkeys(names, path), "seed": 1}
    # Those of the last into the settings; in a multirun too, where Hydra writes each job's overrides once more.
    path = "".join(ODD_PATHS)
    typed(monkeypatch, *(f"{name}={path}" for name in names))
    quote_paths()
    (job,) = split(*sys.argv[1:])
    settings = composed("train", "objective=distilled", *job)
    assert [OmegaConf.select(settings, name) for name in names] == [path] * 5


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("evaluate", ["run", "data.root", "data.path"]),
        ("export", ["run", "output", "data.root", "data.path"]),
        ("predict", ["export", "run", "input", "output"]),
    ],
)
def test_every_command_takes_paths_as_they_are(command, names, monkeypatch):
    path = "0-init=a,b [c]/it's"
    typed(
        monkeypatch, *(f"{name}={path}" for name in names), f"hydra.run.dir={path}", f"hydra.sweep.dir={path}"
    )
    quote_paths()
    assert given() == dict.fromkeys([*names, "hydra.run.dir", "hydra.sweep.dir"], path)


@pytest.mark.parametrize(
    "argument",
    ["run=null", "run=NULL", "run='a b'", 'run="a b"', "run=", "data.path='a','b c'", "run=choice(a,b)"],
)
def test_what_is_hydras_own_stays_as_it_is(argument, monkeypatch):
    typed(monkeypatch, argument)
    quote_paths()
    assert sys.argv == ["branchynet train", argument]


def test_the_words_of_init_are_swept_over_and_paths_if_quoted(monkeypatch):
    typed(monkeypatch, "init=baseline,scratch", "data.path='a,1','b'")
    quote_paths()
    assert split(*sys.argv[1:]) == [
        [f"init={init}", f"data.path={path}"] for init in ("baseline", "scratch") for path in ("'a,1'", "'b'")
    ]


def test_the_words_of_a_teacher_are_those_of_the_objective(monkeypatch):
    assert WORDS["objective.teacher"] == TEACHERS
    typed(monkeypatch, "objective.teacher=last,average", "+objective.teacher=last,a b")
    quote_paths()
    assert sys.argv[1:] == ["objective.teacher=last,average", "+objective.teacher='last,a b'"]


def test_a_home_folder_is_found_where_there_is_one(monkeypatch):
    monkeypatch.setenv("HOME", "/home/of me")
    typed(monkeypatch, "run=~/r", "+data.path=~nobody at all/x")
    quote_paths()
    assert sys.argv[1:] == ["run='/home/of me/r'", "+data.path='~nobody at all/x'"]


@pytest.mark.parametrize(("chdir", "expected"), [(True, "{cwd}/ok.npz"), (False, "ok.npz")])
def test_another_working_folder_leaves_the_paths_where_they_were(chdir, expected, tmp_path, monkeypatch):
    """`hydra.job.chdir=true` runs the task in its own folder."""
    seen = []

    def task(config, folder):
        seen.append((config.data.path, config.init, config.cache, Path.cwd()))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BRANCHYNET_CACHE", "/somewhere")
    app.register_resolvers()
    typed(monkeypatch, "data=arrays", "data.path=ok.npz", f"hydra.job.chdir={chdir}", "hydra.run.dir=run")
    app.start(task, "train")
    folder = tmp_path / "run" if chdir else tmp_path
    assert seen == [(expected.format(cwd=tmp_path), "baseline", "/somewhere", folder)]
