"""The files of a report on many runs."""

import pytest
from many import write_finished

from branchynet.errors import UserError
from branchynet.reporting.averages import groups_of
from branchynet.reporting.gathered_files import write_comparison
from branchynet.runs.gathered import gather


def test_all_files_or_none_and_no_runs_own(report, tmp_path, monkeypatch):
    run = write_finished(tmp_path / "run", report)
    found = gather([run])
    groups = groups_of(found.rows)
    write_comparison(tmp_path / "out", "run", found, groups, page=True)
    files = {
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    assert files == {"report.md", "report.html", "runs.csv", "groups.csv", "figures/trade_offs.png"}
    write_comparison(tmp_path / "out", "run", found, groups, figures=False)
    assert not (tmp_path / "out" / "report.html").exists(), "it would show other runs"
    write_comparison(tmp_path / "tables", "run", found, groups, figures=False)
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {"report.md", "runs.csv", "groups.csv"}
    assert "figures/" not in (tmp_path / "tables" / "report.md").read_text()

    before = (run / "result.json").read_bytes()
    with pytest.raises(UserError, match="is a run's folder"):
        write_comparison(run, "run", found, groups)
    assert (run / "result.json").read_bytes() == before and not (run / "report.md").exists()

    monkeypatch.setattr("branchynet.reporting.gathered_files.comparison_page", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_comparison(tmp_path / "failed", "run", found, groups, figures=False)
    assert not list((tmp_path / "failed").iterdir())
