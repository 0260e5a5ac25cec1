"""The figure of uncertainties in rising order."""

import numpy as np
import pytest

from branchynet.exits.rising import rising_knee
from branchynet.reporting.rising import knee_of, rising_uncertainties


def test_every_sample_and_the_knee(three_exits):
    figure = rising_uncertainties(three_exits)
    assert len(figure.axes) == 2, "a panel for each side exit"
    curve, knee = figure.axes[0].get_lines()[:2]
    np.testing.assert_allclose(curve.get_ydata(), np.arange(8) / 10)
    np.testing.assert_allclose(curve.get_xdata(), 100 * np.arange(1, 9) / 8)
    found = rising_knee(three_exits.traces["val"].uncertainty[:, 0])
    assert knee.get_ydata()[0] == pytest.approx(found.threshold)
    assert "validation" in figure.get_suptitle()


def test_the_knee_is_of_the_split_that_thresholds_are_chosen_on(report, make_report):
    bent = report.traces["val"].at([0, *[1] * 6, 7])  # 0, six times 0.1, 0.7; on test a straight line
    assert knee_of(make_report(traces={"val": bent}), 0) == (pytest.approx(0.1), 1 / 8)
    assert knee_of(make_report(traces={"val": bent}, protocol="paper"), 0) == (0, 0)
