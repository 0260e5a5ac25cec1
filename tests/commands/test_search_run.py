"""Trials are drawn, told and counted; stopped, killed and shared searches come to their total."""

import os
import signal
import threading
from functools import partial
from unittest.mock import patch

import optuna
import pytest
import trials
from child import call
from trials import SEARCH, SETTINGS, SPACE, WITH_BAD, dies_at, plan, search_in, stub

from branchynet.commands.search_run import quiet, search_run, shown
from branchynet.errors import UserError

COMPLETE, PRUNED, FAIL = (getattr(optuna.trial.TrialState, name) for name in ("COMPLETE", "PRUNED", "FAIL"))


@pytest.fixture(autouse=True, scope="module")
def stubbed():
    stub()
    yield
    patch.stopall()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a search of five trials; not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    search_run(plan(folder))
    return folder


def told(folder):
    """All trials of the search in a folder."""
    with quiet():
        return optuna.load_study(study_name="s", storage=f"sqlite:///{folder}/search.db").get_trials()


def drawn(folder):
    return [trial.params["weights.last"] for trial in told(folder) if trial.state != FAIL]


def test_so_many_trials_and_no_more(whole, capsys):
    search_run(plan(whole))
    assert "5 trials: " in capsys.readouterr().out
    assert len(told(whole)) == 5 and len(set(drawn(whole))) == 5
    for trial in told(whole):
        x = trial.params["weights.last"]
        assert trial.state == (COMPLETE if x > 1 / 3 else PRUNED)
        if x > 1 / 3:
            assert trial.values == [trial.user_attrs["worth"]["gain"]] == [pytest.approx(1 + x, rel=1e-3)]
            assert trial.intermediate_values == dict.fromkeys(range(3), pytest.approx(x, rel=1e-3))
            assert trial.user_attrs["run"] == str(whole / "trials" / f"{trial.number:03d}")


def test_stopped_and_resumed_it_draws_what_it_would_have_drawn(whole, tmp_path, capsys):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with patch("branchynet.commands.search_run.train_run", dies_at(3, signal.SIGINT)):
            with pytest.raises(SystemExit) as stopped:
                search_run(plan(tmp_path))
            assert stopped.value.code == 130
            line = capsys.readouterr().err.strip().splitlines()[-1]
            assert line.endswith(f"stopped after 3 of 5 trials; `branchynet search … {tmp_path}` goes on")
            search_run(plan(tmp_path))
    finally:
        signal.signal(signal.SIGINT, before)
    found = told(tmp_path)
    assert len(found) == 6 and found[3].state == FAIL
    # The one that was stopped is gone on with in its folder, and its draws are those of before.
    assert found[4].params == found[3].params and found[4].user_attrs["run"].endswith("trials/003")
    assert drawn(tmp_path)[:4] == drawn(whole)[:4] and len(set(drawn(tmp_path))) == 5


def test_a_search_that_is_at_work_tells_of_the_trials_that_have_ended(tmp_path):
    seen = {}

    def train(config, folder, trial):
        files = ("search.md", "trials.csv")
        seen[folder.name] = [(tmp_path / name).read_text() for name in files if (tmp_path / name).exists()]
        return trials.train_run(config, folder, trial)

    with patch("branchynet.commands.search_run.train_run", train):
        search_run(plan(tmp_path))
    assert seen["000"] == []
    words, table = seen["002"]
    assert "\n2 trials: " in words and table.count("\n") == 3


def test_sittings_draw_what_one_would_and_another_seed_something_else(whole, tmp_path):
    for total in (3, 5):
        search_run(plan(tmp_path / "sittings", trials=total))
    assert drawn(tmp_path / "sittings") == drawn(whole)
    search_run(plan(tmp_path / "another", seed=1, trials=2))
    assert not set(drawn(tmp_path / "another")) & set(drawn(whole))


GROUPED = {
    "_target_": "optuna.samplers.TPESampler",
    "n_startup_trials": 1,
    "multivariate": True,
    "group": True,
}


def test_the_settings_as_they_stand_are_trial_0(tmp_path, capsys):
    search_run(plan(tmp_path, reference=True, sampler=GROUPED, trials=4))
    first, *others = told(tmp_path)
    assert first.user_attrs["overrides"] == [] and first.values == [1.4]
    assert first.params == {}  # they say nothing of what the space draws
    assert all(trial.params for trial in others)
    out = capsys.readouterr().out
    assert "The settings as they stand (trial 0): gain 1.400, accuracy 90.00 %." in out
    with pytest.raises(UserError, match=r"other settings in this storage \(reference\)"):
        search_run(plan(tmp_path, sampler=GROUPED))


@pytest.mark.parametrize("sampler", [SEARCH["sampler"], GROUPED], ids=["plain", "grouped"])
def test_the_sampler_learns_from_the_settings_as_they_stand_where_they_lie_in_the_space(tmp_path, sampler):
    settings = {**SETTINGS, "weights": {"last": 0.4}}
    search_run(plan(tmp_path, settings=settings, reference=True, trials=3, sampler=sampler))
    first, *others = told(tmp_path)
    assert first.params == {"weights.last": 0.4}
    assert first.user_attrs["overrides"] == [] and first.values == [1.4]
    assert not [trial for trial in others if trial.params == first.params]


def test_what_fits_no_network_is_told_and_the_search_goes_on(tmp_path, capsys):
    search_run(plan(tmp_path, WITH_BAD, trials=6))
    failed = [trial for trial in told(tmp_path) if trial.state == FAIL]
    assert 0 < len(failed) < 6 == len(told(tmp_path))
    assert {trial.user_attrs["failed"] for trial in failed} == {"the head does not fit"}
    assert all(trial.params["study.kind"] == "bad" for trial in failed)
    assert not (tmp_path / "trials" / f"{failed[0].number:03d}" / ".hydra").exists()


def test_where_all_fail_alike_it_ends(tmp_path):
    bad = {**SPACE, "study": {"kind": "bad"}}
    with pytest.raises(
        UserError,
        match="all 5 trials that drew something failed, the last 5 of them so: the head does not fit",
    ):
        search_run(plan(tmp_path, bad, trials=50))
    assert len(told(tmp_path)) == 5


def test_the_settings_as_they_stand_give_no_hope_to_what_is_drawn(tmp_path):
    bad = {**SPACE, "study": {"kind": "bad"}}
    with pytest.raises(UserError, match="all 5 trials that drew something failed"):
        search_run(plan(tmp_path, bad, trials=50, reference=True))
    assert [trial.state for trial in told(tmp_path)] == [COMPLETE, *[FAIL] * 5]


def test_a_bug_keeps_its_traceback_and_the_search_its_trials(tmp_path, capsys):
    def train(config, folder, trial):
        if folder.name == "001":
            raise ZeroDivisionError("a bug")
        return trials.train_run(config, folder, trial)

    with patch("branchynet.commands.search_run.train_run", train), pytest.raises(SystemExit) as ended:
        search_run(plan(tmp_path))
    said = capsys.readouterr()
    assert ended.value.code == 1 and "Traceback" in said.err and "1 trial failed by a bug" in said.err
    assert told(tmp_path)[1].user_attrs["failed"] == "ZeroDivisionError: a bug" and len(told(tmp_path)) == 5


def test_the_worst_are_ended_early_and_what_cannot_gain_is_not_trained(tmp_path):
    pruner = {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 2, "n_warmup_steps": 0}
    search_run(plan(tmp_path, pruner=pruner, trials=10))
    ended = [trial for trial in told(tmp_path) if trial.state == PRUNED]
    not_trained = [trial for trial in ended if not trial.intermediate_values]
    early = [trial for trial in ended if trial.intermediate_values]
    # Exit 1 costs 150 (1 - x) of the baseline's 100 MACs.
    assert not_trained and all(trial.params["weights.last"] <= 0.34 for trial in not_trained)
    assert early and all(len(trial.intermediate_values) == 1 for trial in early)
    best = max(trial.params["weights.last"] for trial in told(tmp_path))
    assert best not in [trial.params["weights.last"] for trial in ended]


def test_where_less_is_better_more_accuracy_still_is(tmp_path):
    search_run(plan(tmp_path, objectives=["macs"], trials=1))
    (trial,) = told(tmp_path)
    assert trial.intermediate_values == dict.fromkeys(
        range(3), pytest.approx(-trial.params["weights.last"], rel=1e-3)
    )


def test_two_objectives_have_a_frontier_and_end_nothing(tmp_path, capsys):
    pruner = {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 0, "n_warmup_steps": 0}
    search_run(plan(tmp_path, objectives=["gain", "highest_accuracy"], pruner=pruner, trials=6))
    assert {len(trial.values) for trial in told(tmp_path) if trial.state == COMPLETE} == {2}
    assert not any(trial.intermediate_values for trial in told(tmp_path))
    # More gain is less accuracy here, so all that were trained are of the frontier.
    complete = sum(trial.state == COMPLETE for trial in told(tmp_path))
    assert len(list((tmp_path / "conf/experiment").glob("best_*.yaml"))) == complete > 1
    (header,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("trial ")]
    assert header.split() == ["trial", "gain", "highest", "accuracy", "accuracy", "macs", "drawn"]


def test_another_search_does_not_go_on_with_it(whole, tmp_path):
    for changes in (
        {"space": {**SPACE, "freeze": "trunk"}},
        {"max_loss": 0.01},
        {"objectives": ["macs"]},
        {"settings": {**SETTINGS, "data": {"root": "here", "batch_size": 16}}},
    ):
        with pytest.raises(UserError, match="a search with other settings"):
            search_run(plan(whole, **changes))
    # On another machine the images may lie elsewhere.
    search_run(plan(whole, settings={**SETTINGS, "data": {"root": "elsewhere", "batch_size": 8}}))
    assert len(told(whole)) == 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"storage": "no address"}, "search.storage=no address: it cannot be used"),
        (
            {"storage": "nosuch://user:secret@host/name"},
            r"search.storage=nosuch://user:\*\*\*@host/name: it cannot",
        ),
        ({"storage": "sqlite:////nowhere/at/all.db"}, "it cannot be used"),
        ({"sampler": {"_target_": "optuna.samplers.TPESampler", "n": 1}}, "search.sampler are refused"),
        ({"sampler": {"_target_": "optuna.samplers.Nosuch"}}, "there is no such object"),
        ({"pruner": {"_target_": "optuna.pruners.MedianPruner", "n": 1}}, "search.pruner are refused"),
        ({"pruner": {"_target_": "optuna.samplers.RandomSampler"}}, "search.pruner"),
    ],
)
def test_mistakes(changes, words, tmp_path):
    with patch("branchynet.commands.search_run.TRIES", 1), pytest.raises(UserError, match=words):
        search_run(plan(tmp_path, **changes))


def test_no_password_is_shown():
    assert shown("postgresql://me:secret@host/name") == "postgresql://me:***@host/name"
    assert shown("no address") == "no address"


def test_two_processes_share_a_search_and_one_of_them_is_killed(tmp_path):
    """A trial of a killed process shows no life, and is gone on with by the other one."""
    done = {}

    def start(name, number):
        at_start = partial(search_in, tmp_path, number, heartbeat=1, trials=8)
        done[name] = call(["--version"], tmp_path, at_start=at_start)

    # The one that gets trial 3 is killed there; so both are told to be, and one of them is.
    threads = [threading.Thread(target=start, args=(name, 3)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.code for each in done.values()) == [-signal.SIGKILL, 0], done
    found = told(tmp_path)
    (lost,) = [trial for trial in found if trial.state == FAIL]
    assert lost.number == 3 and len(found) == 9
    assert sum(trial.state in (COMPLETE, PRUNED) for trial in found) == 8
    (again,) = [trial for trial in found if trial.params == lost.params and trial is not lost]
    assert again.user_attrs["run"] == lost.user_attrs["run"] == os.path.join(tmp_path, "trials", "003")
    assert len({trial.params["weights.last"] for trial in found}) == 8, "each draws its own"
    assert (tmp_path / "trials.csv").read_text().count("\n") == 10
