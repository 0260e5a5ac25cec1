"""Test images by the exit that they took. Shapes: C channels, H, W, N exits, S samples."""

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from branchynet.evaluation.report import Report, taken_at_point
from branchynet.reporting.style import BLACK, RED, new_figure, title, uncertainty_unit

SAMPLES_PER_EXIT = 10
# Longer pairs of class names do not fit over one image.
PAIR_LENGTH = 12


def sample_images(report: Report, images: Tensor) -> Figure:
    """Some test images by the exit that they took at the operating point, surest left, least sure right.

    Over each stand label → prediction, or how right a map is, and the uncertainty; what does harm is red.

    Args:
        report: of the run.
        images: (S, C, H, W) uint8 in the trace's order; three channels are colours, others are shown grey.
    """
    trace = report.trace
    if len(images) != trace.num_samples or images.dtype != torch.uint8:
        raise ValueError(f"{trace.num_samples} uint8 images wanted, {len(images)} {images.dtype} given")
    taken, rates = taken_at_point(report), report.point.exit_rates
    figure = new_figure(10, 0.6 + 1.4 * report.num_exits)
    panels = figure.subplots(report.num_exits, SAMPLES_PER_EXIT, squeeze=False)
    for n, row in enumerate(panels):
        samples = surest_and_least_sure(trace.uncertainty[:, n], taken == n, SAMPLES_PER_EXIT)
        for panel in row:
            panel.set_axis_off()
        for panel, sample in zip(row, samples, strict=False):
            wrong = not trace.good[sample, n]
            panel.imshow(_picture(images[sample]), cmap="gray", vmin=0, vmax=255)
            panel.set_title(
                f"{_said(report, sample, n)}\n{trace.uncertainty[sample, n]:.2g}",
                color=RED if wrong else BLACK,
                fontweight="bold" if wrong else "normal",
                fontsize=8,
            )
        row[0].text(
            -0.25,
            0.5,
            f"exit {n + 1}\n{100 * rates[n]:.1f} %",
            transform=row[0].transAxes,
            ha="right",
            va="center",
        )
        if not samples:
            text = row[0].text(0, 0.5, "no sample leaves here", transform=row[0].transAxes, va="center")
            text.set_in_layout(False)  # else it would push the other columns aside
    said = f"{report.task.score}, %," if report.task.partly else "label→prediction"
    what = f"{said} and {uncertainty_unit(report)}, surest left, least sure right; {report.task.bad} ones red"
    figure.suptitle(title(report, what), fontsize="medium")
    return figure


def surest_and_least_sure(uncertainty: Tensor, chosen: Tensor, count: int) -> list[int]:
    """Up to `count` of the `chosen` samples: the surest half, then the least sure half, surer ones first.

    Args:
        uncertainty: (S,).
        chosen: (S,) bool.
        count: at most this number of indices; ties keep the data set's order.
    """
    indices = torch.nonzero(chosen)[:, 0]
    order: list[int] = indices[torch.sort(uncertainty[indices], stable=True).indices].tolist()
    if len(order) <= count:
        return order
    return order[: count - count // 2] + order[len(order) - count // 2 :]


def _said(report: Report, sample: int, n: int) -> str:
    """What exit n+1 answers, beside what is so."""
    trace = report.trace
    if trace.partly:
        return f"{100 * trace.correct[sample, n]:.0f} %"
    label, prediction = int(trace.label[sample]), int(trace.prediction[sample, n])
    return _pair(report.classes[label], report.classes[prediction])


def _pair(label: str, prediction: str) -> str:
    arrow = "→" if len(label) + len(prediction) <= PAIR_LENGTH else "→\n"
    return f"{label}{arrow}{prediction}"


def _picture(image: Tensor) -> np.ndarray:
    """(C, H, W) to what imshow takes: colour for three channels, else the channels' mean."""
    picture = image.permute(1, 2, 0) if len(image) == 3 else image.float().mean(0)
    return picture.numpy()
