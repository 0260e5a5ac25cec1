"""`branchynet report` as it is typed."""

import csv
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from many import write_finished

from branchynet.commands import report as command
from branchynet.commands.app import conf_folder
from branchynet.errors import UserError


@pytest.mark.parametrize(
    ("typed", "settings"),
    [
        (["outputs"], ["folders=['outputs']"]),
        (["a", "figures=false", "b"], ["figures=false", "folders=['a','b']"]),
        (["it's, [odd]"], [r"folders=['it\'s, [odd]']"]),
        (["0-weights=equal"], ["folders=['0-weights=equal']"]),  # a folder that is there
        (["folders=[a]", "output=b"], ["folders=[a]", "output=b"]),
        (["--cfg", "job", "a"], ["--cfg", "job", "folders=['a']"]),
        (["--config-dir", "conf", "a"], ["--config-dir", "conf", "folders=['a']"]),
        (["--help", "folders"], ["--help", "folders"]),
        (["-sc", "install=bash"], ["-sc", "install=bash"]),
        ([], []),
    ],
)
def test_folders_stand_by_themselves(typed, settings, tmp_path, monkeypatch):
    (tmp_path / "0-weights=equal").mkdir()
    monkeypatch.chdir(tmp_path)
    assert command.as_settings(typed) == settings


def run(tmp_path, *overrides):
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose("report", overrides=list(overrides))
    command.report(config, tmp_path)


def test_a_report_is_printed_and_written_beside_the_runs(report, tmp_path, capsys):
    """And is no run of the next report."""
    for seed in (0, 1):
        write_finished(tmp_path / "out" / str(seed), report, ["weights=equal"], seed=seed)
    for _ in range(2):
        run(tmp_path, f"folders=[{tmp_path / 'out'}]", "figures=false", "page=false")
        text = capsys.readouterr().out
        assert "b_lenet_mnist" in text and "87.50 ± 0.00" in text
    folder = tmp_path / "out" / "report"
    assert sorted(path.name for path in folder.iterdir()) == ["groups.csv", "report.md", "runs.csv"]
    with (folder / "groups.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["runs"], row["seeds"], row["accuracy"]) == ("2", "0, 1", "0.875")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["folders=nosuch"], "nosuch is no folder"),
        (["folders=[]"], r"folders=\[\]: it is a folder, or a list"),
        (["folders={a: 1}"], "it is a folder, or a list"),
        (["folders=.", "figures=1"], "figures=1: it is true or false"),
        (["folders=."], "no finished run in "),
        (["folders=half"], r"no finished run in half \(half: it is not finished\)"),
        (["folders=run", "output=run"], "output=run is a run's folder"),
    ],
)
def test_mistakes(overrides, words, report, tmp_path, monkeypatch):
    write_finished(tmp_path / "run", report)
    (write_finished(tmp_path / "half", report) / "result.json").unlink()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty" if overrides == ["folders=."] else tmp_path)
    with pytest.raises(UserError, match=words):
        run(tmp_path, *overrides)
    assert not (tmp_path / "run" / "report.md").exists()


def test_the_command(report, tmp_path):
    """With figures, a folder twice, and an output whose name Hydra would read otherwise."""
    write_finished(tmp_path / "a b" / "0-weights=equal", report, ["weights=equal"])
    typed = ["report", "a b", "a b/0-weights=equal", "output=o=1"]
    done = subprocess.run(
        [sys.executable, "-m", "branchynet", *typed], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "87.50" in done.stdout and done.stdout.rstrip().endswith("o=1") and not done.stderr
    written = {path.name for path in (tmp_path / "o=1").iterdir()}
    assert written == {"figures", "groups.csv", "report.html", "report.md", "runs.csv"}
    assert {path.name for path in tmp_path.iterdir()} == {"a b", "o=1"}


def test_without_a_folder(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["branchynet report", "figures=false"])
    with pytest.raises(UserError, match="no folder is named"):
        command.main()
