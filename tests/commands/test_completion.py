"""Tab completion: the scripts in real shells, and what they ask the command."""

import os
import shutil
import subprocess
import sys

import pytest

from branchynet.commands import COMMANDS, completion, evaluate, export, predict, report, search, train
from branchynet.commands.completion import INSTALL, UNINSTALL, answers, asked_for, complete
from branchynet.errors import UserError


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("branchynet train model=b_l", ["model=b_lenet", "model=b_lenet_efficient", "model=b_lenet_tree"]),
        ("branchynet train sweep/rule=k", ["sweep/rule=knee"]),
        ("/some/where/branchynet train seed=1 epochs.", ["epochs.baseline=", "epochs.joint="]),
        ("branchynet train -m callbacks=e", ["callbacks=early_stopping"]),
        (
            "branchynet train callbacks=early_stopping callbacks.early_stopping.pa",
            ["callbacks.early_stopping.patience="],
        ),
        # What cannot be read as far as it goes, and no command yet.
        ("branchynet train model=nosuch seed=1 epo", []),
        ("branchynet train 'seed=[1 ", []),
        ("branchynet tr", []),
        ("", []),
    ],
)
def test_what_may_stand_next(line, expected, capsys):
    assert answers(line, train.main) == expected
    assert capsys.readouterr() == ("", "")


def test_paths(tmp_path, monkeypatch):
    (tmp_path / "a b").mkdir()
    (tmp_path / "images.npz").touch()
    monkeypatch.chdir(tmp_path)
    assert answers("branchynet train data.path=./i", train.main) == ["data.path=./images.npz"]
    assert answers("branchynet train data.path=./a", train.main) == ["data.path=./a b"]


def test_the_other_commands():
    assert "sweep/rule=knee" in answers("branchynet evaluate sweep/rule=", evaluate.main)
    assert answers("branchynet search space=al", search.main) == ["space=alexnet_heads"]
    assert answers("branchynet search search/pruner=m", search.main) == ["search/pruner=median"]
    assert answers("branchynet search model=b_lenet_t", search.main) == ["model=b_lenet_tree"]
    assert answers("branchynet export form", export.main) == ["format="]
    assert answers("branchynet report fig", report.main) == ["figures="]
    assert answers("branchynet predict thr", predict.main) == ["threads=", "thresholds="]


def test_every_command_is_completed():
    for script in completion.INSTALL.values():
        assert " ".join(COMMANDS) in script


def test_who_asks_for_completion():
    assert asked_for(["-sc", "install=bash"]) and asked_for(["--shell-completion", "query=fish"])
    assert not asked_for(["name=-sc"])


@pytest.mark.parametrize("arguments", [[], ["install=tcsh"], ["remove=bash"], ["install=bash", "query=bash"]])
def test_what_completion_wants(arguments):
    with pytest.raises(UserError, match="install=<shell>"):
        complete(["-sc", *arguments], train.main)


@pytest.mark.parametrize("shell", INSTALL)
def test_scripts_are_printed(shell, capsys):
    complete(["-sc", f"install={shell}"], train.main)
    complete(["-sc", f"uninstall={shell}"], train.main)
    assert capsys.readouterr().out == INSTALL[shell] + UNINSTALL[shell]


# As bash does it: the words of the line, broken at `=`, too, and the place of the cursor.
IN_BASH = """
eval "$(branchynet train -sc install=bash)"
complete -p branchynet
try() {
    COMP_LINE="$1"; COMP_POINT=${2:-${#1}}
    local shown="${COMP_LINE:0:$COMP_POINT}"
    read -ra COMP_WORDS <<< "${shown//=/ = }"
    case "$shown" in *" ") COMP_WORDS+=("");; esac
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _branchynet_completion
    (IFS=','; echo "${COMPREPLY[*]}")
}
try "branchynet tr"
try "branchynet train mod"
try "branchynet train model=b_l"
try "branchynet train sweep/rule="
try "branchynet train data.path=./i"
try "branchynet train model=b_l seed=1" 26
eval "$(branchynet train -sc uninstall=bash)"
complete -p branchynet 2>&1 | grep -c 'no completion'
"""


@pytest.fixture
def program(tmp_path):
    """The command on the PATH of a shell, whatever it is installed as; a file to complete lies beside it."""
    path = tmp_path / "bin" / "branchynet"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m branchynet "$@"\n')
    path.chmod(0o755)
    (tmp_path / "images.npz").touch()
    return {**os.environ, "PATH": f"{path.parent}:{os.environ['PATH']}"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_in_bash(program, tmp_path):
    command = ["bash", "--norc", "-c", IN_BASH]
    done = subprocess.run(command, cwd=tmp_path, env=program, capture_output=True, text=True)
    registered, *answered = done.stdout.splitlines()
    assert registered == "complete -o default -o nospace -F _branchynet_completion branchynet", done.stderr
    assert answered == [
        "train",
        "model.,model=",
        "b_lenet,b_lenet_efficient,b_lenet_tree",
        "accuracy_floor,certified,gain_floor,given,knee,latency_budget,mac_budget",
        "./images.npz",
        "b_lenet,b_lenet_efficient,b_lenet_tree",
        "1",
    ]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_in_zsh(program, tmp_path):
    script = 'eval "$(branchynet train -sc install=zsh)" && print -r -- "$_comps[branchynet]"'
    done = subprocess.run(
        ["zsh", "-f", "-c", script], cwd=tmp_path, env=program, capture_output=True, text=True
    )
    assert "_branchynet_completion" in done.stdout, done.stderr


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_in_fish(program, tmp_path):
    script = 'branchynet train -sc install=fish | source; complete -C "branchynet train model=b_l"'
    done = subprocess.run(
        ["fish", "--no-config", "-c", script], cwd=tmp_path, env=program, capture_output=True, text=True
    )
    assert done.stdout.split() == ["model=b_lenet", "model=b_lenet_efficient", "model=b_lenet_tree"], (
        done.stderr
    )
