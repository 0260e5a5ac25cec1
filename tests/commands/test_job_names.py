"""What the folders of runs are called."""

import sys

import pytest

from branchynet.commands.command_line import swept
from branchynet.commands.job_names import MAX_NAME, job_name, run_name


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (None, ""),
        ("", ""),
        ("seed=1,weights=early", "-seed=1,weights=early"),
        ("init=/some/where/best.ckpt", "-init=_some_where_best.ckpt"),
    ],
)
def test_run_names(overrides, name):
    assert run_name(overrides) == name


def test_long_run_names_are_cut_but_stay_apart():
    first, second = run_name("a=" + "1" * 300), run_name("a=" + "1" * 299 + "2")
    assert first != second and len(first) <= MAX_NAME + 1


def test_a_jobs_name_is_what_is_swept_as_it_was_typed(monkeypatch):
    """Overrides that all jobs have are left out."""
    settings = ("experiment=a,b", "epochs.joint=2", "weights.values=[1.0,0.3],[1.0,1.0]", "+seed=range(0,2)")
    monkeypatch.setattr(sys, "argv", ["branchynet train", "-m", *settings])
    names = swept()
    assert names == ["experiment", "weights.values", "seed"]
    own = ["experiment=b", "epochs.joint=2", "weights.values=[1.0,0.3]", "+seed=1"]
    assert job_name(names, own, None, "all") == "-experiment=b,weights.values=[1.0,0.3],+seed=1"
    # The sweeper's own settings sweep, too; and where nothing is swept, all that was typed is the name.
    assert job_name([], own, {"epochs.joint": "2,3"}, "all") == "-epochs.joint=2"
    assert job_name([], own, None, "all") == "-all" and job_name([], [], None, None) == ""
