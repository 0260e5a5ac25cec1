"""The command line without training: help, the config, and mistakes in one line with exit code 2."""

import os
import subprocess
import sys

import pytest


def branchynet(*arguments, cwd):
    command = [sys.executable, "-W", "error", "-m", "branchynet", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def test_help_lists_the_commands(tmp_path):
    done = branchynet("--help", cwd=tmp_path)
    assert done.returncode == 0 and "train" in done.stdout and done.stderr == ""


def test_train_help_shows_every_group_with_a_line(tmp_path):
    done = branchynet("train", "--help", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    groups = "experiment model data weights criterion sweep engine optimizer schedule trainer logger debug"
    groups += " callbacks"
    for group in groups.split():
        assert any(line.split()[:1] == [group] for line in done.stdout.splitlines()), group
        assert any(line.startswith(f"{group}: ") for line in done.stdout.splitlines()), group


def test_cfg_job_shows_the_settings_and_leaves_nothing_behind(tmp_path):
    done = branchynet("train", "experiment=b_lenet_digits", "seed=7", "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0 and "seed: 7" in done.stdout and "name: b_lenet_digits" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_has_enough_is_no_error(tmp_path):
    command = [sys.executable, "-m", "branchynet", "train", "--help"]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run(
            command, cwd=tmp_path, stdout=closed, stderr=subprocess.PIPE, text=True, timeout=120
        )
    assert (done.returncode, done.stderr) == (141, "")


def test_help_and_cfg_job_do_not_import_what_is_slow(tmp_path):
    # Torch takes seconds to import, and these answer at once.
    for arguments in (["--help"], ["--cfg", "job"]):
        code = (
            "import sys, atexit; from branchynet.__main__ import main;"
            f"sys.argv = ['branchynet', 'train', *{arguments!r}];"
            "slow = {'torch', 'pydantic'};"
            "atexit.register(lambda: print(slow & set(sys.modules) or 'none.', file=sys.stderr));"
            "main()"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
        assert done.stderr.split("\n")[-2] == "none."


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["train"]),
        (["trian"], ["trian", "train"]),
        (["train", "model=b_lenett"], ["b_lenett", "b_lenet"]),
        (["train", "sead=1"], ["sead"]),
        (["train", "seed=[1"], ["seed=[1"]),
        (["train", "resume=nowhere"], ["nowhere", "folder"]),
        (["train", "resume=nowhere", "seed=1"], ["leave out seed"]),
    ],
)
def test_a_mistake_gets_one_line_and_exit_code_2(arguments, words, tmp_path):
    done = branchynet(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    text = done.stderr or done.stdout
    if arguments:
        assert len(text.splitlines()) == 1, text
    assert all(word in text for word in words), text
    assert "Traceback" not in text
