"""What all figures have in common."""

import numpy as np
from matplotlib.figure import Figure

from branchynet.reporting.style import (
    BLACK,
    DPI,
    SIDE_EXITS,
    exit_colour,
    new_figure,
    title,
    to_array,
    uncertainty_unit,
)


def test_a_figure_has_its_size_in_pixels_and_is_white():
    figure = new_figure(2, 1.5)
    pixels = to_array(figure)
    assert isinstance(figure, Figure)
    assert (pixels.shape, pixels.dtype) == ((3, round(1.5 * DPI), 2 * DPI), np.uint8)
    assert (pixels == 255).all()


def test_pixels_are_rows_from_the_top_and_channels_first():
    figure = new_figure(1, 1)
    panel = figure.subplots()
    panel.set_axis_off()
    red_above_blue = np.array([[[255, 0, 0]], [[0, 0, 255]]], np.uint8)
    panel.imshow(red_above_blue, aspect="auto")
    pixels = to_array(figure)
    assert pixels[:, DPI // 4, DPI // 2].tolist() == [255, 0, 0]
    assert pixels[:, -DPI // 4, DPI // 2].tolist() == [0, 0, 255]


def test_the_title_names_the_protocol_where_it_flatters(make_report):
    assert title(make_report(), "what") == "b_lenet_mnist: what"
    paper = title(make_report(protocol="paper"), "what")
    assert paper == "b_lenet_mnist: what\nprotocol: paper (thresholds chosen on test)"


def test_the_unit_is_the_criterions_own(make_report):
    assert uncertainty_unit(make_report()) == "entropy, nats"
    assert uncertainty_unit(make_report(criterion="mine", unit="bananas")) == "mine, bananas"


def test_the_last_exit_is_black_and_the_others_are_told_apart(report, three_exits):
    assert exit_colour(1, report) == exit_colour(2, three_exits) == BLACK
    assert exit_colour(0, three_exits) != exit_colour(1, three_exits)
    assert len({BLACK, *SIDE_EXITS}) == 1 + len(SIDE_EXITS)
