"""A row among many: which run an evaluation is of."""

import pytest
from many import write_evaluation, write_finished

from branchynet.errors import UserError
from branchynet.runs.rows import run_of, settings_text


def test_an_evaluation_is_of_the_run_that_it_lies_in_though_that_was_moved(report, tmp_path):
    run = write_finished(tmp_path / "before" / "run", report)
    write_evaluation(run / "evaluate" / "as_in_run", report, [], run=str(run))
    (tmp_path / "before").rename(tmp_path / "after")
    assert run_of(tmp_path / "after" / "run" / "evaluate" / "as_in_run") == tmp_path / "after" / "run"


def test_elsewhere_it_names_it_and_a_run_that_is_gone_is_none(report, tmp_path):
    run = write_finished(tmp_path / "run", report)
    folder = write_evaluation(tmp_path / "elsewhere", report, [], run=str(run))
    assert run_of(folder) == run
    run.rename(tmp_path / "moved")
    assert run_of(folder) is None


def test_settings_that_are_no_file_are_told(tmp_path):
    (tmp_path / "config.yaml").mkdir()
    with pytest.raises(UserError, match=r"config\.yaml is damaged"):
        settings_text(tmp_path / "config.yaml")
