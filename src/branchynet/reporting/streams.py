"""How streams that drift are shown: a table, and curves over time. Shapes: S images."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from branchynet.evaluation.streams import (
    NEAR,
    Course,
    Outcome,
    Stream,
    distance,
    rolling,
    what_is_held,
)
from branchynet.reporting.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, new_figure
from branchynet.runtime.controller import RATES, UNITS, Controller

COLOURS = {"fixed": ORANGE, "held": BLUE, "adaptive": GREEN, "bandit": PURPLE, "all to the end": GREY}


def stream_figure(
    name: str,
    streams: Sequence[Stream],
    courses: Mapping[str, Sequence[Course]],
    controller: Controller,
    window: int,
) -> Figure:
    """What is held, above, and the accuracy, below, over time; a column for each kind of drift.

    Args:
        name: of the run.
        streams: by kind of drift.
        courses: by kind of drift.
        controller: what it holds, as it began.
        window: images of which means are drawn.
    """
    figure = new_figure(max(7.0, 3.6 * len(streams)), 6)
    panels = figure.subplots(2, len(streams), sharex=True, sharey="row", squeeze=False)
    for column, stream in enumerate(streams):
        above, below = panels[:, column]
        for course in courses[stream.kind]:
            colour, wide = COLOURS[course.name], 2.0 if course.name == "held" else 1.2
            means = rolling(what_is_held(course, controller), window)[:, 0]
            images = np.arange(window, len(stream) + 1)
            above.plot(images, means, color=colour, linewidth=wide, label=course.name)
            right = (
                np.take_along_axis(stream.prediction, course.taken[:, None], axis=1) == stream.label[:, None]
            )
            below.plot(images, 100 * rolling(right.astype(float), window)[:, 0], color=colour, linewidth=wide)
            for number, sentence in course.told.items():
                if "validation" in sentence:
                    above.plot(number, 0, "v", color=BLACK, clip_on=False, zorder=5, label="drift told")
        _target(above, controller)
        for panel in (above, below):
            panel.axvspan(stream.begin, stream.end, color=GREY, alpha=0.15, linewidth=0)
            panel.grid(alpha=0.3)
        above.set_ylim(bottom=0)
        above.set_title(stream.kind, fontsize="medium")
        below.set_xlabel("images")
    unit = UNITS.get(controller.hold)
    panels[0, 0].set_ylabel("exit rate of exit 1" if unit is None else f"mean cost per image, {unit}")
    panels[1, 0].set_ylabel("accuracy, %")
    handles: dict[str, Artist] = {}
    for panel in panels[0]:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=7)
    figure.suptitle(f"{name}: images become harder where it is grey; means of the last {window:,} images")
    return figure


def _target(panel: Axes, controller: Controller) -> None:
    value = controller.target[0] if isinstance(controller.target, tuple) else controller.target
    near = NEAR if controller.hold == RATES else NEAR * value
    panel.axhline(value, color=BLACK, linestyle=":", linewidth=1, label="target, ± 5 %")
    panel.axhspan(value - near, value + near, color=BLACK, alpha=0.08, linewidth=0)


HEAD = (
    "drift",
    "thresholds",
    "mean, easy",
    "mean, hard",
    "missed by, hard",
    "worst window",
    "met after",
    "accuracy, easy",
    "accuracy, hard",
    "estimated, hard",
)


def stream_rows(outcomes: Mapping[str, Sequence[Outcome]], controller: Controller) -> list[list[str]]:
    """A line for each kind of drift and way of setting thresholds; the first one heads."""
    rows = [list(HEAD)]
    for kind, found in outcomes.items():
        for each in found:
            means = [f"{100 * m:.1f} %" if controller.hold == RATES else f"{m:,.1f}" for m in each.means]
            rows.append(
                [
                    kind,
                    each.name,
                    *means,
                    f"{100 * each.missed[1]:.1f} %",
                    f"{100 * each.worst:.1f} %",
                    "never" if each.settled is None else f"{each.settled:,}",
                    *(f"{100 * value:.2f} %" for value in each.accuracy),
                    f"{100 * each.estimated[1]:.2f} %",
                ]
            )
    return rows


def stream_page(
    name: str,
    command: str,
    streams: Sequence[Stream],
    outcomes: Mapping[str, Sequence[Outcome]],
    controller: Controller,
    window: int,
) -> str:
    """The report as Markdown."""
    stream = streams[0]
    if isinstance(controller.target, tuple):
        target = "exit rates of " + ", ".join(f"{100 * rate:.1f} %" for rate in controller.target)
    else:
        target = f"{controller.target:,.1f} {UNITS[controller.hold]} an image"
    head, *rows = stream_rows(outcomes, controller)
    table = ["| " + " | ".join(head) + " |", "|" + "---|" * 2 + "--:|" * (len(head) - 2)]
    table += ["| " + " | ".join(row) + " |" for row in rows]
    told = [
        f"- {kind}, {each.name}: {sentence}."
        for kind, found in outcomes.items()
        for each in found
        for sentence in each.told.values()
    ]
    return "\n".join(
        [
            f"# {name}: streams that become harder",
            "",
            f"`{command}`",
            "",
            f"{len(stream):,} test images in a row, easy up to image {stream.begin:,}, harder and harder up to "
            f"image {stream.end:,}, then hard. Held: {target}. The fixed thresholds are the operating point's.",
            "",
            *table,
            "",
            f"Means are of what is held. *Worst window*: how far the mean of any {window:,} images in a row is "
            "from the target. *Met after*: images from the beginning of the drift until the mean of the last "
            f"{window:,} is within {100 * NEAR:.0f} % of the target for good. *Estimated*: the accuracy as it is "
            "guessed without labels. *Adaptive* and *bandit* aim at no budget; of the first, a fifth of the images "
            "go to the end as probes, which its cost includes.",
            "",
            *(["Told:", "", *told, ""] if told else []),
            "![over time](stream.png)",
            "",
        ]
    )


def curve_rows(
    streams: Sequence[Stream],
    courses: Mapping[str, Sequence[Course]],
    controller: Controller,
    window: int,
) -> list[list[object]]:
    """Of every window, one after the other: drift, thresholds, images so far, what is held, missed, accuracy."""
    rows: list[list[object]] = []
    for stream in streams:
        for course in courses[stream.kind]:
            values = what_is_held(course, controller)
            right = np.take_along_axis(stream.prediction, course.taken[:, None], axis=1)[:, 0] == stream.label
            for stop in range(window, len(stream) + 1, window):
                part = slice(stop - window, stop)
                mean = values[part].mean(axis=0)
                missed = float(distance(mean[None], controller)[0])
                rows.append(
                    [stream.kind, course.name, stop, float(mean[0]), missed, float(right[part].mean())]
                )
    return rows
