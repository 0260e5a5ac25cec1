"""Run time and cache misses over a threshold (the paper's Figure 6): figure, table, and how it was counted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from branchynet.reporting.style import BLACK, GREY, SIDE_EXITS, new_figure
from branchynet.runs.atomic import together, write_csv
from branchynet.runtime.caches import Cache


@dataclass(frozen=True)
class CachePoint:
    """At one threshold of exit 1, of the images that were run."""

    threshold: float
    exit_rates: tuple[float, ...]
    latency_us: float  # measured, per image, one by one
    touched: float  # bytes per image, by the model
    misses: Mapping[str, float]  # per image, by the cache's name; empty: not counted


@dataclass(frozen=True)
class CacheStudy:
    """The points, and how they came about."""

    experiment: str
    images: int
    points: Sequence[CachePoint]
    caches: Sequence[Cache]
    how: str  # what counted the misses; empty: nothing did
    note: str  # why nothing did, or nothing better; empty: no word

    @property
    def sentence(self) -> str:
        """How to read it."""
        counted = f"Misses are {self.how}" if self.how else "No misses were counted"
        because = f" ({self.note})" if self.note else ""
        return (
            f"{counted}{because}. {self.images} images, one by one, one thread; the host's loop in Python counts. "
            "Bytes touched are a model: every weight and every layer's output on the way, once."
        )


def write_caches(folder: Path, study: CacheStudy) -> None:
    """Write `caches.csv`, `caches.md` and `figures/caches.png`."""
    names = list(study.points[0].misses)
    exits = range(1, len(study.points[0].exit_rates) + 1)
    header = ["threshold_1", *(f"exit_rate_{n}" for n in exits), "latency_us", "touched_bytes"]
    header += [f"misses_{name.replace(' ', '_')}" for name in names]
    rows = [
        [
            point.threshold,
            *point.exit_rates,
            point.latency_us,
            point.touched,
            *(point.misses[n] for n in names),
        ]
        for point in study.points
    ]
    with together(folder, last="caches.md") as staging:
        (staging / "figures").mkdir()
        caches_figure(study).savefig(staging / "figures" / "caches.png", format="png")
        write_csv(staging / "caches.csv", header, rows)
        (staging / "caches.md").write_text(caches_page(study), encoding="utf-8")


def caches_page(study: CacheStudy) -> str:
    """A table and how to read it."""
    names = list(study.points[0].misses)
    heads = ["T_1", "exit rates %", "time, µs", "touched, KiB", *(f"misses of {name}" for name in names)]
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    for point in study.points:
        rates = ", ".join(f"{100 * rate:.1f}" for rate in point.exit_rates)
        cells = [f"{point.threshold:.4g}", rates, f"{point.latency_us:,.0f}", f"{point.touched / 2**10:,.0f}"]
        cells += [f"{point.misses[name]:,.0f}" for name in names]
        lines.append(f"| {' | '.join(cells)} |")
    sizes = ", ".join(f"{cache.name} {cache.bytes / 2**10:,.0f} KiB" for cache in study.caches)
    told = f" The caches here: {sizes}." if sizes else ""
    return "\n".join([*lines, "", study.sentence + told, ""])


def caches_figure(study: CacheStudy) -> Figure:
    """Over the threshold of exit 1: time, misses if they were counted, and the bytes touched beside the caches."""
    names = list(study.points[0].misses)
    figure = new_figure(7, 8 if names else 6)
    panels = figure.subplots(3 if names else 2, 1, sharex=True)
    x = [point.threshold for point in study.points]
    line = {"marker": "o", "markersize": 4}
    panels[0].plot(x, [point.latency_us for point in study.points], color=BLACK, **line)
    panels[0].set_ylabel("time per image, µs")
    for name, colour in zip(names, SIDE_EXITS, strict=False):
        panels[1].plot(x, [point.misses[name] for point in study.points], color=colour, label=name, **line)
    if names:
        panels[1].set_ylabel("misses per image")
        panels[1].set_yscale("log")
        panels[1].legend(fontsize="small")
    last = panels[-1]
    last.plot(
        x,
        [point.touched / 2**10 for point in study.points],
        color=SIDE_EXITS[0],
        label="touched, a model",
        **line,
    )
    highest = max(point.touched for point in study.points)
    for cache in study.caches:
        if cache.bytes < 4 * highest:  # what is far above would squeeze the curve
            last.axhline(cache.bytes / 2**10, color=GREY, linestyle=":")
            last.annotate(cache.name, (x[-1], cache.bytes / 2**10), color=GREY, va="bottom", ha="right")
    last.set_ylabel("KiB per image")
    last.set_ylim(bottom=0)
    last.legend(fontsize="small")
    last.set_xlabel("threshold of exit 1, the others held")
    for panel in panels:
        panel.grid(alpha=0.3)
    how = study.how or "no misses were counted"
    figure.suptitle(f"{study.experiment}: caches over a threshold\n{how}", fontsize="medium")
    return figure
