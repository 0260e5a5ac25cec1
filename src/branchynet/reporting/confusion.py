"""Which class is taken for which, by exit. Shapes: K classes, M of them shown, N exits, S samples."""

import math
from collections.abc import Iterator

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from branchynet.errors import printable
from branchynet.evaluation.recall import recalls
from branchynet.evaluation.report import Report, taken_at_point
from branchynet.reporting.style import BLACK, WHITE, new_figure, title

MOST_CLASSES = (
    20  # where there are more, those are shown that the operating point knows least, and the others as one
)
MOST_COUNTS = 12  # classes whose cells have room for a number
COLUMNS = 4
OTHERS = "others"


def confusion_figure(report: Report) -> Figure:
    """A matrix for each exit, of the samples that leave there at the operating point, and one of all samples at the
    last exit: rows are the true classes, columns the answers.

    A cell's colour is its share of the row's samples in this panel; the number in it is how many they are.
    """
    shown = shown_classes(report)
    names = [_short(report.classes[number]) for number in shown]
    names += [OTHERS] if len(shown) < len(report.classes) else []
    panels = list(_panels(report, shown))
    rows = math.ceil(len(panels) / COLUMNS)
    columns = min(len(panels), COLUMNS)
    size = max(2.6, 0.24 * len(names) + 0.8)
    figure = new_figure(size * columns + 0.6, size * rows + 0.8)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for panel in axes.flat[len(panels) :]:
        panel.set_visible(False)
    for panel, (name, counts) in zip(axes.flat, panels, strict=False):
        _draw(panel, counts, name)
    ticks = range(len(names))
    axes[0, 0].set_xticks(ticks, names)
    axes[0, 0].set_yticks(ticks, names)
    for n, panel in enumerate(axes.flat[: len(panels)]):
        panel.tick_params("x", rotation=90, labelsize="x-small")
        panel.tick_params("y", labelsize="x-small")
        if n % columns == 0:
            panel.set_ylabel("true class")
        if n + columns >= len(panels):  # the lowest of its column
            panel.tick_params("x", labelbottom=True)
            panel.set_xlabel("answer")
    what = f"which class is taken for which on {report.reported_on} (colour: share of the row)"
    if len(shown) < len(report.classes):
        what += f", of {len(report.classes):,} classes the {len(shown)} that are known least"
    figure.suptitle(title(report, what))
    return figure


def shown_classes(report: Report) -> list[int]:
    """All classes' numbers, or of many those that have samples and are known least at the operating point."""
    known = recalls(report).point.classes
    if len(known) <= MOST_CLASSES:
        return list(range(len(known)))
    there = [number for number, value in enumerate(known) if value is not None]
    return sorted(sorted(there, key=lambda number: known[number] or 0.0)[:MOST_CLASSES])


def confusion(label: Tensor, answer: Tensor, shown: list[int], classes: int) -> Tensor:
    """How many samples of each class shown are taken for each: (M, M) int64, or (M+1, M+1), the others last.

    >>> confusion(torch.tensor([0, 0, 2, 1]), torch.tensor([0, 1, 1, 2]), [0], 3).tolist()
    [[1, 1], [0, 2]]
    """
    place = torch.full((classes,), len(shown))
    place[shown] = torch.arange(len(shown))
    size = len(shown) + (len(shown) < classes)
    return torch.bincount(place[label] * size + place[answer], minlength=size * size).reshape(size, size)


def _panels(report: Report, shown: list[int]) -> Iterator[tuple[str, Tensor]]:
    trace, taken, classes = report.trace, taken_at_point(report), len(report.classes)
    for n in range(report.num_exits):
        here = taken == n
        counts = confusion(trace.label[here], trace.prediction[here, n], shown, classes)
        yield f"leave at exit {n + 1}: {int(here.sum()):,}", counts
    counts = confusion(trace.label, trace.prediction[:, -1], shown, classes)
    yield f"all at exit {report.num_exits}: {trace.num_samples:,}", counts


def _draw(panel: Axes, counts: Tensor, name: str) -> None:
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    panel.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    panel.set_title(name, fontsize="small")
    if len(counts) > MOST_COUNTS:
        return
    for row, column in counts.nonzero().tolist():
        colour = WHITE if shares[row, column] > 0.6 else BLACK
        text = f"{int(counts[row, column])}"
        panel.text(column, row, text, ha="center", va="center", color=colour, fontsize=5.5)


def _short(name: str) -> str:
    name = printable(name).replace("$", r"\$")
    return name if len(name) <= 14 else f"{name[:13]}…"
