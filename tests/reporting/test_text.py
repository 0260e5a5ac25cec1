"""Tables for the terminal."""

import subprocess
import sys

import pytest

from branchynet.reporting.text import aligned


def test_columns_are_as_wide_as_their_widest_cell():
    assert aligned([["name", "n", "of"], ["a", "10", "1"], ["longer", "9", "100"]]) == (
        "---------------\nname     n   of\n---------------\na       10    1\nlonger   9  100\n---------------"
    )


def test_a_row_that_is_too_short_is_a_bug():
    with pytest.raises(ValueError, match="zip"):
        aligned([["name", "n"], ["a"]])


def test_it_needs_no_torch():
    """`branchynet predict` on an export has none."""
    code = "import sys, branchynet.reporting.text; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
