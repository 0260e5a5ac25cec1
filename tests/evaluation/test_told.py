"""How far a long computation is."""

import logging

from branchynet.evaluation import told
from branchynet.evaluation.told import Told


def test_what_is_quick_is_not_told_of_and_what_is_long_is_every_five_seconds(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    now = [0.0]
    monkeypatch.setattr(told.time, "monotonic", lambda: now[0])
    tell = Told("searching")
    for second in range(13):
        now[0] = second
        tell(second / 13)
    assert [record.getMessage() for record in caplog.records] == [
        "searching: 38 %, 5 s …",
        "searching: 77 %, 10 s …",
    ]
