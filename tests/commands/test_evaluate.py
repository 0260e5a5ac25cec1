"""`branchynet evaluate` from the command line; and how a run's own settings become the defaults."""

import json
import shutil
import subprocess
import sys

import child
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from branchynet.commands.app import conf_folder
from branchynet.commands.evaluate import check_study, main, read_run_settings, store_as_in_run
from branchynet.errors import UserError


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def branchynet(*arguments, cwd):
    return child.call(["evaluate", *arguments], cwd, at_start=child.warnings_are_errors)


def test_from_the_command_line(finished, tmp_path):
    """Twice in a multirun, by a folder's name as runs have it; results lie below the run, by their overrides."""
    run = tmp_path / "0-seed=1,weights.values=[1, 2]"
    shutil.copytree(finished, run, ignore=shutil.ignore_patterns("checkpoints"))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    command = [sys.executable, "-W", "error", "-m", "branchynet", "evaluate"]
    jobs = ["-m", f"run={run}", "sweep.rule.distance=0,0.9"]
    done = subprocess.run([*command, *jobs], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("operating point, predicted") == 2
    told = [line for line in done.stdout.splitlines() if "job " in line or "#" in line]
    places = [run / "evaluate" / f"as_in_run-sweep.rule.distance={distance}" for distance in ("0", "0.9")]
    assert told == [f"job {number}: {place}" for number, place in enumerate(places)]
    strict, loose = (
        result_of(run / "evaluate" / f"as_in_run-sweep.rule.distance={distance}") for distance in ("0", "0.9")
    )
    assert strict["knee"]["thresholds"] == result_of(finished)["knee"]["thresholds"]
    assert loose["knee"]["exit_rates"] == [1, 0]
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in tmp_path.iterdir()} == {run.name}


@pytest.mark.parametrize("study", ["rules", "criteria"])
def test_studies_of_finished_runs_compose_for_each_of_their_jobs(study, finished):
    store_as_in_run(read_run_settings(finished))
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        overrides = [f"run='{finished}'", f"experiment=thresholds/{study}"]
        swept = compose("evaluate", overrides=overrides, return_hydra_config=True).hydra.sweeper.params
        assert (
            compose("evaluate", overrides=overrides, return_hydra_config=True).hydra.mode.name == "MULTIRUN"
        )
        ((group, names),) = swept.items()
        made = [compose("evaluate", overrides=[*overrides, f"{group}={name}"]) for name in names.split(",")]
    targets = [str(OmegaConf.select(each, f"{group.replace('/', '.')}._target_")) for each in made]
    assert len(set(targets)) == len(names.split(","))


def test_experiments_that_train_are_not_offered_for_finished_runs(monkeypatch):
    monkeypatch.setattr("sys.argv", ["branchynet evaluate"])
    check_study("thresholds/rules")
    for name, what in (("ablation/initialisation", "branchynet train"), ("rules", "is not there")):
        with pytest.raises(UserError, match=f"{what}.*thresholds/rules") as error:
            check_study(name)
        assert "b_lenet" not in str(error.value)
    monkeypatch.setattr("sys.argv", ["branchynet evaluate", "hydra.searchpath=[file:///theirs]"])
    check_study("rules")


def test_mistakes_on_the_command_line(copied, tmp_path):
    for arguments, words in (
        ([], ["run=<run folder>"]),
        (["run=nowhere"], ["nowhere", "no run"]),
        ([f"run={copied}", "sweep.rule.budget_us=3"], ["budget_us"]),
        ([f"run={copied}", "model=b_lenet"], ["model"]),
        ([f"run={copied}", "criterion=entropie"], ["entropie", "margin"]),
        ([f"run={copied}", "experiment=b_lenet_mnist"], ["branchynet train", "thresholds/rules"]),
        ([f"run={copied}", "experiment=thresholds/rulez"], ["is not there", "thresholds/rules"]),
        ([f"run={copied}", "sweep.rule.distance=-1"], ["sweep.rule.distance=-1: it is"]),
        ([f"run={copied}", "in_place=yes please"], ["in_place=yes please", "true or false"]),
    ):
        done = branchynet(*arguments, cwd=tmp_path)
        assert done.code == 2 and len(done.err.splitlines()) == 1, done.err
        assert all(word in done.err for word in words), done.err
        assert not (copied / "evaluate").exists(), "a refused command leaves no folder"


def test_results_behind_a_link_are_refused_before_anything_is_made(copied, tmp_path, monkeypatch):
    (tmp_path / "theirs").mkdir()
    (copied / "evaluate").symlink_to(tmp_path / "theirs")
    monkeypatch.setattr("sys.argv", ["branchynet evaluate", f"run={copied}"])
    with pytest.raises(UserError, match="evaluate is a link to"):
        main()
    (copied / "evaluate").unlink()
    (copied / "result.json").write_text("{}")
    with pytest.raises(UserError, match=r"result\.json is damaged"):
        main()
    assert not (copied / "evaluate").exists() and not list((tmp_path / "theirs").iterdir())


def test_help_answers_without_a_run_and_without_torch(tmp_path):
    code = (
        "import sys, atexit; from branchynet.__main__ import main;"
        "sys.argv = ['branchynet', 'evaluate', '--help'];"
        "atexit.register(lambda: print('torch' if 'torch' in sys.modules else 'no t.', file=sys.stderr));"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr.split("\n")[-2] == "no t.", done.stderr
    for word in ("sweep/rule", "criterion", "in_place"):
        assert word in done.stdout


def test_flags_may_have_capital_letters(copied, tmp_path):
    """As Python has them."""
    path = copied / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    config.optimizer = {"_target_": "somewhere.Optimizer", "lr": 1}
    OmegaConf.save(config, path)
    before = result_of(copied)
    arguments = [f"run={copied}", "in_place=True", "engine.seconds=0.01"]
    done = branchynet(*arguments, cwd=tmp_path)
    assert done.code == 2 and "somewhere.Optimizer" in done.err and "trust=true" in done.err
    assert len(done.err.splitlines()) == 1 and result_of(copied) == before

    done = branchynet(*arguments, "trust=True", cwd=tmp_path)
    assert done.code == 0, done.err
    found = result_of(copied)
    # The fixture's latencies are made up; these are measured.
    assert found["baseline"]["latency_us"] != before["baseline"]["latency_us"] == 100
    assert not (copied / "evaluate").exists(), "the results lie in the run itself"
    assert OmegaConf.load(copied / "evaluate.yaml").in_place is True


def test_a_run_of_branchynet_0_1_is_named_as_such(copied, tmp_path):
    path = copied / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    config.criterion = {"name": "entropy"}
    config.sweep.rule = {"name": "accuracy_floor", "distance": 0.0}
    config.data.seed = "${seed}"  # they had references
    OmegaConf.save(config, path)
    np.save(tmp_path / "x.npy", np.zeros((1, 28, 28), np.uint8))
    for command in (["evaluate"], ["evaluate", "criterion=margin"], ["export"], ["predict", "input=x.npy"]):
        done = child.call([*command, f"run='{copied}'"], tmp_path)
        assert done.code == 2 and len(done.err.splitlines()) == 1, done.err
        assert "is of branchynet 0.1" in done.err and "criterion.name=entropy" in done.err
    (copied / "result.json").unlink()
    done = child.call(["train", f"resume={copied}"], tmp_path)
    assert done.code == 2 and "is of branchynet 0.1" in done.err


def settings_of(run, *overrides):
    store_as_in_run(read_run_settings(run))
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose("evaluate", overrides=[f"run='{run}'", *overrides])


def test_what_is_not_given_is_as_in_the_run(copied):
    path = copied / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    config.sweep.max_vectors = 77
    config.sweep.rule.distance = 0.25
    config.engine.threads = 3
    OmegaConf.save(config, path)
    found = settings_of(copied)
    assert OmegaConf.to_container(found.criterion) == OmegaConf.to_container(config.criterion)
    assert OmegaConf.to_container(found.sweep) == OmegaConf.to_container(config.sweep)
    assert OmegaConf.to_container(found.engine) == OmegaConf.to_container(config.engine)
    # Another group leaves the others as they are in the run; other thresholds are no other rule.
    found = settings_of(copied, "sweep=paper")
    assert found.sweep.rule.distance == 0.25 and found.engine.threads == 3
    assert found.sweep.max_vectors == 40000 and len(found.sweep.thresholds) == 17
    found = settings_of(copied, "sweep/rule=knee")
    assert set(found.sweep.rule) == {"_target_", "cost"} and found.sweep.max_vectors == 77


def test_a_run_of_before_there_was_a_setting_takes_it(copied):
    path = copied / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    del config.sweep.candidates
    OmegaConf.save(config, path)
    assert settings_of(copied).sweep.candidates is None
    assert settings_of(copied, "sweep.candidates=50").sweep.candidates == 50


def test_a_list_of_defaults_in_a_runs_settings_chooses_nothing(copied):
    """Stored settings are values: Hydra must not take some of them for its own."""
    path = copied / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    for node in (config.criterion, config.sweep, config.sweep.rule, config.engine):
        node.defaults = [{"/data": "mnist"}]
    OmegaConf.save(config, path)
    found = settings_of(copied)
    assert set(found.data) == {"root", "path", "cache"}
    assert found.criterion._target_ == config.criterion._target_


@pytest.mark.parametrize(
    ("group", "value"),
    [("criterion", None), ("criterion", "margin"), ("sweep", 3), ("engine", [1]), ("sweep.rule", "knee")],
)
def test_damaged_settings_are_told_in_one_line(group, value, copied):
    path = copied / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    OmegaConf.update(config, group, value, merge=False)
    OmegaConf.save(config, path)
    with pytest.raises(UserError, match="are damaged") as caught:
        read_run_settings(copied)
    assert "\n" not in str(caught.value)
