"""What all figures have in common: size, colours, titles, and how they become pixels."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:  # it would import PyTorch
    from branchynet.evaluation.report import Report

DPI = 120
# Okabe and Ito's colours, which people with any kind of colour vision can tell apart.
GREEN, RED, ORANGE, BLUE, BLACK, GREY = "#009E73", "#D62F00", "#E69F00", "#0072B2", "#000000", "#9A9A9A"
WHITE, SKY, PURPLE = "#FFFFFF", "#56B4E9", "#CC79A7"
SIDE_EXITS = (BLUE, ORANGE, SKY, PURPLE, "#B8A800")


def new_figure(width: float, height: float) -> Figure:
    """A figure, width and height in inches, without pyplot: nothing global, nothing to close."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def to_array(figure: Figure) -> np.ndarray:
    """The figure's pixels, (3, H, W) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].transpose(2, 0, 1).copy()


def title(report: "Report", what: str) -> str:
    """The experiment, `what` is shown, and the protocol where it is the paper's."""
    protocol = "" if report.protocol == "validation" else "\nprotocol: paper (thresholds chosen on test)"
    return f"{report.experiment}: {what}{protocol}"


def uncertainty_unit(report: "Report") -> str:
    """The criterion and its unit, such as `entropy, nats`."""
    return f"{report.criterion}, {report.unit}"


def exit_colour(exit_index: int, report: "Report") -> str:
    """The colour of an exit (0-based); the last one is black."""
    last = exit_index == report.num_exits - 1
    return BLACK if last else SIDE_EXITS[exit_index % len(SIDE_EXITS)]
