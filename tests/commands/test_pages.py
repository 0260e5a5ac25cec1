"""Whether commands write pages, and the command that stands there."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from branchynet.commands import pages
from branchynet.commands.pages import evaluation_of, of_thresholds, wants_page
from branchynet.errors import UserError


def test_where_bokeh_is_missing_one_line_says_so(monkeypatch, caplog):
    caplog.set_level("INFO")
    assert wants_page(OmegaConf.create({"page": True})) and wants_page(OmegaConf.create({}))
    assert not wants_page(OmegaConf.create({"page": False})) and not caplog.records
    monkeypatch.setattr(pages, "why_no_page", lambda: "there is no Bokeh")
    assert not wants_page(OmegaConf.create({"page": False})) and not caplog.records
    assert not wants_page(OmegaConf.create({"page": True}))
    assert [record.getMessage() for record in caplog.records] == ["there is no Bokeh"]
    with pytest.raises(UserError, match="page=5: it is true or false"):
        wants_page(OmegaConf.create({"page": 5}))


def test_the_command_is_for_a_shell():
    folder = Path("/a folder/run")
    assert evaluation_of(folder) == "branchynet evaluate 'run=/a folder/run'"
    found = evaluation_of(folder, ["criterion=margin"])
    assert found == "branchynet evaluate 'run=/a folder/run' criterion=margin"


def test_of_the_overrides_those_that_say_what_thresholds_are_of():
    typed = [
        "run=there",
        "criterion=margin",
        "sweep/rule=knee",
        "sweep.rule.distance=1",
        "sweep.protocol=paper",
    ]
    typed += [
        "in_place=true",
        "experiment=thresholds/rules",
        "+criterion.k=3",
        "data.root=here",
        "adaptive=true",
    ]
    kept = ["criterion=margin", "sweep.protocol=paper", "+criterion.k=3", "data.root=here"]
    assert of_thresholds(typed) == kept
