"""docs/tutorial.md, run as it stands; and that a page that does not fit is found out.

`python tests/helpers/pages.py docs/tutorial.md` writes a run's numbers into the page: on a quiet machine.
"""

from pathlib import Path

import pytest
from pages import fitting, made_up_clock, run_page

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
REAL = [
    "reading",
    "exit 1 alone    93.33  1.2",
    "Gain 1.81 [1.7,",
    "  1.9] in MACs. So it pays.",
    "figure: x",
]


def test_the_tutorial(tmp_path):
    run_page(PAGE, tmp_path, made_up_clock)


@pytest.mark.parametrize(
    "shown",
    [
        ["reading", "exit 2 alone 9.1 10", "Gain 2 [1.7, 2.9] in MACs. So it pays.", "figure: x"],
        ["…", "Gain 1.81 [1.7, 1.9] in", "  MACs. So it pays.", "…"],
        ["reading", "…", "Gain 1.81 [1.7, 1.9] …", "figure: x"],
        ["…"],
    ],
)
def test_numbers_and_wrapping_may_differ(shown):
    fitting("x", shown, REAL)


@pytest.mark.parametrize(
    ("shown", "says"),
    [
        (["reading", "exit 1 alone 93.33"], r"The page has: exit # alone #\nThe run has:  exit # alone # #"),
        (["reading", "…", "Gain 1.81 [1.7, 1.9] in time. So it pays.", "…"], "The run has:  the end"),
        (["…", "exit 1 alone 93.33 1.2"], "The page lacks: Gain # "),
        (["reading", "figure: x", "…"], "The page has: figure: x"),
        ([], "The page lacks: reading"),
    ],
)
def test_a_line_that_does_not_fit_is_named(shown, says):
    with pytest.raises(AssertionError, match=says):
        fitting("x", shown, REAL)
