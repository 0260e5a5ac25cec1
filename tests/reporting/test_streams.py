"""Streams as they are shown: the same numbers in table, page, file and figure."""

from functools import partial

import numpy as np
import pytest

from branchynet.evaluation.streams import Stream, fixed, held, outcome
from branchynet.reporting.streams import COLOURS, curve_rows, stream_figure, stream_page, stream_rows
from branchynet.runtime.controller import Controller
from branchynet.runtime.profile import Profile, validation_of


@pytest.fixture(scope="module")
def shown():
    random = np.random.default_rng(0)
    unsure = np.float32(random.uniform(0, 1, (4000, 2)))
    unsure[2000:] **= 0.2
    zeros = np.zeros((4000, 2), np.int64)
    validation = validation_of(unsure[:2000], zeros[:2000], zeros[:2000] == 0, (0.5,))
    profile = Profile((0.5,), {"latency_us": (10.0, 50.0), "macs": (1.0, 5.0)}, validation, 1.0)
    stream = Stream("blur", unsure, zeros, zeros[:, 0], 2000, 2500)
    return stream, profile


@pytest.mark.parametrize("hold", ["latency_us", "exit_rates"])
def test_table_page_and_curves_agree(hold, shown):
    stream, profile = shown
    controller = Controller(profile, hold)
    courses = {
        "blur": [fixed(stream, profile), held(stream, lambda tell: Controller(profile, hold, tell=tell))]
    }
    outcomes = {"blur": [outcome(stream, each, controller, 500) for each in courses["blur"]]}
    head, *rows = stream_rows(outcomes, controller)
    assert [row[:2] for row in rows] == [["blur", "fixed"], ["blur", "held"]]
    assert all(len(row) == len(head) for row in rows)
    assert rows[0][head.index("met after")] == "never" and rows[1][head.index("met after")] != "never"
    page = stream_page("toy", "branchynet stream", [stream], outcomes, controller, 500)
    for row in rows:
        assert "| " + " | ".join(row) + " |" in page
    assert page.count("not like validation's") == 1
    assert ("exit rates of" in page) == (hold == "exit_rates") and ("µs an image" in page) == (
        hold != "exit_rates"
    )
    curves = curve_rows([stream], courses, controller, 500)
    assert len(curves) == 16 and curves[0][:3] == ["blur", "fixed", 500]
    values = [row[3] for row in curves if row[1] == "held"]
    assert np.mean(values[:4]) == pytest.approx(outcomes["blur"][1].means[0], rel=1e-9)
    figure = stream_figure("toy", [stream], courses, controller, 500)
    above, below = figure.axes
    line = next(each for each in above.lines if each.get_label() == "held")
    assert line.get_ydata()[-1] == pytest.approx(values[-1]) and line.get_color() == COLOURS["held"]
    assert len(below.lines) == 2 and "drift told" in [
        text.get_text() for text in figure.legends[0].get_texts()
    ]


def test_every_way_has_a_colour(shown):
    stream, profile = shown
    assert fixed(stream, profile).name in COLOURS
    assert (
        held(stream, partial(Controller, profile, "macs", None, 0.01, 16, 0.0, 1.0, None, 1e6)).name
        in COLOURS
    )
    assert len(set(COLOURS.values())) == len(COLOURS)
