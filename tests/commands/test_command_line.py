"""How the command line is read."""

import sys

import pytest
from hydra.errors import OverrideParseException

from branchynet.commands.app import user_message
from branchynet.commands.command_line import asks_for_help, check_form, given, name_in_help
from branchynet.errors import UserError


def typed(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["branchynet train", *arguments])


def test_what_is_given_is_read_as_hydra_reads_it(monkeypatch):
    typed(
        monkeypatch,
        "-m",
        "a=1",
        "in_place=True",
        "no=FALSE",
        "b=[1,2]",
        "+c=x",
        "~d",
        "e='1'",
        "--cfg",
        "job",
    )
    assert given() == {"a": 1, "in_place": True, "no": False, "b": [1, 2], "c": "x", "d": None, "e": "1"}
    typed(monkeypatch, "g.h=null", "--multirun", "++k={l: 2}", "m=")
    assert given() == {"g.h": None, "k": {"l": 2}, "m": ""}
    typed(monkeypatch)
    assert given() == {}


def test_what_cannot_be_read_is_a_mistake(monkeypatch):
    typed(monkeypatch, "seed=[1")
    with pytest.raises(OverrideParseException) as caught:
        given()
    message = user_message(caught.value)
    assert message.startswith("the override 'seed=[1' cannot be read: ") and "\n" not in message


@pytest.mark.parametrize(
    ("arguments", "asks"),
    [
        (["--help"], True),
        (["-h"], True),
        (["seed=1", "--hydra-help"], True),
        (["-sc", "query=fish"], True),
        (["--cfg", "job"], False),
        (["name=--help"], False),
        ([], False),
    ],
)
def test_who_asks_for_help(arguments, asks, monkeypatch):
    typed(monkeypatch, *arguments)
    assert asks_for_help() is asks


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--help", "trainer"], "trainer"),
        (["data/mnist", "-h"], "data/mnist"),
        (["--help"], None),
        (["--help", "seed=1"], None),
        (["seed=1"], None),
        (["trainer"], None),
    ],
)
def test_a_name_beside_help(arguments, name, monkeypatch):
    typed(monkeypatch, *arguments)
    assert name_in_help() == name


@pytest.mark.parametrize(("word", "told"), [("runs/a b", "run='runs/a b'"), ("image.png", "run=image.png")])
def test_a_word_that_sets_nothing_is_told_of(word, told, monkeypatch):
    typed(monkeypatch, "a=1", word)
    with pytest.raises(UserError, match=f"^{word}: it sets nothing; .* such as {told}$"):
        check_form()


@pytest.mark.parametrize(
    "arguments", [["--cfg", "job", "--config-dir", "/x", "~logger", "seed=1"], ["--help", "trainer"], []]
)
def test_flags_removals_and_names_beside_help_are_no_such_words(arguments, monkeypatch):
    typed(monkeypatch, *arguments)
    check_form()


def test_flags_that_exclude_each_other_are_a_mistake(monkeypatch):
    typed(monkeypatch, "--cfg", "job", "-m")
    with pytest.raises(UserError, match=r"^--multirun and --cfg do not go together: "):
        check_form()
    for flag in (["--cfg", "job"], ["-m"]):
        typed(monkeypatch, *flag)
        check_form()
