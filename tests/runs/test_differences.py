"""In what settings differ."""

from branchynet.runs.differences import first_difference

SETTINGS = {"model": {"name": "a", "exits": [1, 2]}, "seed": 0, "cache": "/here"}


def test_a_setting_that_is_gone_is_a_difference():
    assert first_difference({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {}}) == "b.c"
    assert first_difference(SETTINGS, dict(reversed(SETTINGS.items()))) is None


def test_where_something_lies_is_none():
    assert first_difference(SETTINGS, {**SETTINGS, "cache": "/there"}) is None
    assert first_difference(SETTINGS, {**SETTINGS, "seed": 1}) == "seed"
