"""Gradient norms of many runs in a table."""

from many import write_finished

from branchynet.reporting.averages import groups_of
from branchynet.reporting.comparison import comparison_page
from branchynet.reporting.gradients import gradient_table, norms_of
from branchynet.runs.gathered import gather

LOG = """epoch,joint/gradient_norm/conv1,joint/gradient_norm/trunk,joint/loss
0,{a},9.0,
0,,,1.5
1,{b},3.0,
"""


def kept(run, a, b, version=0):
    (run / "csv" / f"version_{version}").mkdir(parents=True)
    (run / "csv" / f"version_{version}" / "metrics.csv").write_text(LOG.format(a=a, b=b))


def test_the_last_epochs_norms_stand_side_by_side(make_report, tmp_path):
    for number, (weights, seed) in enumerate([("with", 0), ("with", 1), ("without", 0), ("none", 0)]):
        run = write_finished(tmp_path / str(number), make_report(), [f"weights={weights}"], seed=seed)
        if weights != "none":
            kept(run, 5.0, 1.0 + seed)
    kept(tmp_path / "2", 7.0, 0.25, version=10)  # it was gone on with
    gathered = gather([tmp_path])
    groups = groups_of(gathered.rows)
    assert gradient_table(groups) == [
        ["settings", "runs", "conv1", "trunk"],
        ["weights=with", "2", "1.5 ± 0.71", "3 ± 0"],
        ["weights=without", "1", "0.25", "3"],
    ]
    page = comparison_page("x", gathered, groups)
    assert "| weights=without | 1 | 0.25 | 3 |" in page and "mean over the last epoch" in page
    assert gradient_table(groups[2:]) == []


def test_a_damaged_log_is_none(tmp_path):
    kept(tmp_path, 1.0, "longer")
    (tmp_path / "csv" / "version_1" / "metrics.csv").mkdir(parents=True)
    assert norms_of(tmp_path) == {"conv1": 1.0, "trunk": 9.0}
    assert norms_of(tmp_path / "nowhere") == {}
