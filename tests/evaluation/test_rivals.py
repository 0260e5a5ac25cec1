"""Small networks of others: what may be said of them."""

import pytest

from branchynet.errors import UserError
from branchynet.evaluation.rivals import MOST, Rival, rivals_from

ONE = {"name": "small", "macs": 10_900_000, "accuracy": 0.9013, "source": "its README"}


def test_from_settings():
    assert rivals_from([ONE]) == (Rival("small", 10_900_000, 0.9013, "its README"),)
    assert rivals_from([]) == rivals_from(None) == ()


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (
            "small",
            r"^rivals=small: it is a list of points, each with name, macs, accuracy, source; \[\] for none$",
        ),
        ({"small": ONE}, "^rivals={'small'"),
        ([ONE, "small"], r"^rivals\.1=small: it is a point with name, macs, accuracy, source$"),
        ([{"name": "small", "macs": 1}], r"^rivals\.0={.*}: it is a point with"),
        ([{**ONE, "latency": 1}], r"^rivals\.0={"),
        # Percent would lie above every figure.
        (
            [{**ONE, "accuracy": 90.13}],
            r"^rivals\.0\.accuracy=90.13: it is a fraction, .*0\.926 for 92\.6 %$",
        ),
        ([{**ONE, "accuracy": 0}], r"^rivals\.0\.accuracy=0"),
        ([{**ONE, "accuracy": float("nan")}], r"^rivals\.0\.accuracy=nan"),
        ([{**ONE, "accuracy": True}], r"^rivals\.0\.accuracy=True"),
        ([{**ONE, "macs": 10.9}], r"^rivals\.0\.macs=10.9: it is a whole number above 0"),
        ([{**ONE, "macs": 0}], r"^rivals\.0\.macs=0"),
        ([{**ONE, "name": ""}], r"^rivals\.0\.name=''"),
        ([{**ONE, "name": 20}], r"^rivals\.0\.name=20"),
        (
            [{**ONE, "name": "two\nlines"}],
            r"^rivals\.0\.name='two\\nlines': it is a text in one line, at most 40",
        ),
        ([{**ONE, "name": "n" * 41}], r"^rivals\.0\.name="),
        ([{**ONE, "source": None}], r"^rivals\.0\.source=None"),
        ([ONE, {**ONE, "macs": 1}], r"^rivals names small twice: leave one out$"),
        ([ONE] * (MOST + 1), r"^rivals has 13 points: at most 12 can be told apart$"),
    ],
)
def test_mistakes_are_told_in_one_line(points, words):
    with pytest.raises(UserError, match=words) as caught:
        rivals_from(points)
    assert "\n" not in str(caught.value)
