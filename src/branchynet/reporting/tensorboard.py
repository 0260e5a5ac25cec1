"""What of a report goes to TensorBoard: scalars, figures, tables, hyperparameters, a layout of the curves."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams as hparams_summaries

from branchynet.evaluation import trade_offs
from branchynet.evaluation.adaptive import adaptive
from branchynet.evaluation.headroom import headroom
from branchynet.evaluation.overlap import overlaps
from branchynet.evaluation.quality import qualities
from branchynet.evaluation.recall import recalls
from branchynet.evaluation.report import (
    Report,
    balanced_accuracies,
    gain_measured,
    overhead_to_the_end,
    savings,
)
from branchynet.reporting.tables import (
    MOST_CLASSES,
    adaptive_table,
    criterion_table,
    outside_table,
    overlap_table,
    recall_table,
    rivals_table,
    summary_table,
    table_one,
    trade_offs_table,
)

# The same in every run, whatever its number of exits: TensorBoard takes a tag here as a regular expression,
# which has to match from the tag's beginning.
LAYOUT: dict[str, dict[str, list[Any]]] = {
    stage: {
        f"{stage}: accuracy on validation": ["Multiline", [rf"{stage}/val_accuracy(_exit_\d+)?$"]],
        f"{stage}: loss on validation": ["Multiline", [rf"{stage}/val_loss(_exit_\d+)?$"]],
        f"{stage}: loss in training": ["Multiline", [rf"{stage}/train_loss(_exit_\d+)?$"]],
        f"{stage}: learning rate": ["Multiline", [rf"learning_rate/{stage}$"]],
    }
    for stage in ("joint", "baseline")
}


def log_report(
    writer: SummaryWriter,
    report: Report,
    hparams: Mapping[str, Any],
    pictures: Mapping[str, np.ndarray],
    settings: str = "",
    step: int = 0,
) -> None:
    """Write everything of `report` at one step.

    Args:
        writer: of the run's folder.
        report: of the run.
        hparams: the run's settings, nested or flat; they become columns of the HParams tab.
        pictures: the figures' pixels by name, (3, H, W) uint8.
        settings: all of them as YAML, to be read; shown as text.
        step: the step that all summaries stand at.
    """
    for tag, value in scalars(report).items():
        writer.add_scalar(tag, value, step)
    for name, pixels in pictures.items():
        # Not add_figure, which imports pyplot.
        writer.add_image(f"sweep/{name}", pixels, step)
    writer.add_text("sweep/table_1", table_one(report), step)
    writer.add_text("sweep/trade_offs", trade_offs_table(report), step)
    if report.num_exits > 1:
        writer.add_text("sweep/criterion", criterion_table(report), step)
    known = overlap_table(report)
    writer.add_text("sweep/iou" if known else "sweep/recall", known or recall_table(report), step)
    if report.rivals:
        writer.add_text("sweep/rivals", rivals_table(report), step)
    if report.outside:
        writer.add_text("sweep/outside", outside_table(report), step)
    if report.adapted:
        writer.add_text("sweep/adaptive", adaptive_table(report), step)
    writer.add_text("sweep/summary", f"```\n{summary_table(report)}\n```", step)
    if settings:
        # Indented, and not between fences: whatever stands in them, it stays code.
        writer.add_text("settings", textwrap.indent(settings, "    "), step)
    writer.add_custom_scalars(LAYOUT)
    log_hparams(writer, hparams)


def scalars(report: Report) -> dict[str, float]:
    """The report's numbers by tag.

    `operating_point/gain_over_static` and those of `trade_off` are there only where there is one, those of
    `operating_point/measured_…` only where the point was run for real, those of `certificate` only where something
    is promised.
    """
    latencies, point = report.latencies[report.engine], report.point
    saved, balanced = savings(report, point), None if report.task.partly else balanced_accuracies(report)
    values = {
        "baseline/accuracy": report.baseline_accuracy,
        **({} if balanced is None else {"baseline/balanced_accuracy": balanced.baseline}),
        "baseline/macs": report.macs.baseline,
        "baseline/latency_us": latencies.baseline.median_us,
        "operating_point/accuracy": point.accuracy,
        **({} if balanced is None else {"operating_point/balanced_accuracy": balanced.point}),
        "operating_point/macs": saved.macs,
        "operating_point/latency_us": saved.latency_us,
        "operating_point/gain_macs": saved.gain_macs,
        "operating_point/gain_latency": saved.gain_latency,
        "operating_point/gain_trunk_only": saved.gain_trunk_only,
        "operating_point/noisy": float(bool(report.noise)),
    }
    if verified := report.verified.get(report.engine):
        values["operating_point/measured_accuracy"] = verified.accuracy
        values["operating_point/measured_latency_us"] = verified.latency_us
        values["operating_point/measured_gain_latency"] = gain_measured(report)
    if certificate := report.selection.certificate:
        for name in ("limit", "delta", "observed", "p_value", "samples"):
            values[f"certificate/{name}"] = getattr(certificate, name)
    overhead = overhead_to_the_end(report)
    values["overhead_to_the_end/macs"] = overhead.macs
    values["overhead_to_the_end/latency"] = overhead.latency
    values |= _headroom(report)
    values |= _criterion(report)
    values |= _recall(report)
    values |= trade_offs.scalars(report)
    if saved.gain_over_static is not None:
        values["operating_point/gain_over_static"] = saved.gain_over_static
    for n, value in enumerate(() if balanced is None else balanced.exits, 1):
        values[f"exits/balanced_accuracy_{n}"] = value
    if found := adaptive(report):
        values |= {"adaptive/accuracy": found.accuracy, "adaptive/latency_us": found.latency_us}
    for each in report.outside:
        values[f"outside/{each.source}_early"] = each.early
        values |= {f"outside/{each.source}_auroc_{n}": area for n, area in enumerate(each.auroc, 1)}
    for n, share in enumerate(report.shares or (), 1):
        values[f"exits/share_{n}"] = share
    for n, rate in enumerate(point.exit_rates, 1):
        values[f"operating_point/exit_rate_{n}"] = rate
    for n, threshold in enumerate(point.thresholds, 1):
        values[f"operating_point/threshold_{n}"] = threshold
    return values


def _headroom(report: Report) -> dict[str, float]:
    found = headroom(report.trace)
    values = {}
    for name, perfect in (("confidence", found.confidence), ("knowledge", found.knowledge)):
        saved = savings(report, perfect)
        values[f"headroom/perfect_{name}_accuracy"] = perfect.accuracy
        values[f"headroom/perfect_{name}_gain_macs"] = saved.gain_macs
        values[f"headroom/perfect_{name}_gain_latency"] = saved.gain_latency
    known = {f"headroom/auroc_{n}": value for n, value in enumerate(found.auroc, 1)}
    return values | {tag: value for tag, value in known.items() if value is not None}


def _criterion(report: Report) -> dict[str, float]:
    """AUROC stands with the headroom."""
    values: dict[str, float] = {}
    for n, found in enumerate(qualities(report), 1):
        named = {name: getattr(found, name) for name in ("calibration_error", "area", "macs", "latency_us")}
        values |= {f"criterion/{name}_{n}": value for name, value in named.items() if value is not None}
    return values


def _recall(report: Report) -> dict[str, float]:
    """Of the class that is known least; where they are few, of each at the operating point and the last exit, too.
    Of many they stand in a table. Of maps the mean IoU of all classes."""
    mapped = overlaps(report)
    if mapped is not None:
        values = {f"exits/mean_iou_{n}": each.mean for n, each in enumerate(mapped.exits, 1)}
        values |= {"baseline/mean_iou": mapped.baseline.mean, "operating_point/mean_iou": mapped.point.mean}
        few = len(report.classes) <= MOST_CLASSES
        pairs = zip(tags_of(report.classes), mapped.point.classes, strict=True) if few else ()
        return values | {f"iou/{name}": value for name, value in pairs if value is not None}
    found = recalls(report)
    values = {f"exits/lowest_recall_{n}": each.lowest for n, each in enumerate(found.exits, 1)}
    values |= {
        "baseline/lowest_recall": found.baseline.lowest,
        "operating_point/lowest_recall": found.point.lowest,
    }
    if len(report.classes) > MOST_CLASSES:
        return values
    for group, known in (("recall", found.point), ("recall_last_exit", found.exits[-1])):
        for name, value in zip(tags_of(report.classes), known.classes, strict=True):
            if value is not None:
                values[f"{group}/{name}"] = value
    return values


def tags_of(names: Sequence[str]) -> list[str]:
    """Classes' names as parts of tags, in which TensorBoard bears letters, digits, `-`, `_` and `.` alone.

    >>> tags_of(["cat", "hot dog"]), tags_of(["a b", "a/b"])
    (['cat', 'hot_dog'], ['0_a_b', '1_a_b'])
    """
    tags = [re.sub(r"[^-\w.]", "_", name)[:40] for name in names]
    return tags if len(set(tags)) == len(tags) else [f"{number}_{tag}" for number, tag in enumerate(tags)]


def as_hparams(hparams: Mapping[str, Any], prefix: str = "") -> dict[str, float | str]:
    """One level of dotted names, numbers and words: what the HParams tab shows as it was meant.

    TensorBoard would make 1.0 of True and nothing of None; here they become words, and lists their text.
    """
    flat: dict[str, float | str] = {}
    for name, value in hparams.items():
        if isinstance(value, Mapping):
            flat |= as_hparams(value, f"{prefix}{name}.")
        elif isinstance(value, bool) or value is None:
            flat[prefix + name] = {True: "yes", False: "no", None: "none"}[value]
        elif isinstance(value, int | float | str):
            flat[prefix + name] = value
        else:
            flat[prefix + name] = str(value)
    return flat


def log_hparams(writer: SummaryWriter, hparams: Mapping[str, Any]) -> None:
    """Put the settings into this very run; `SummaryWriter.add_hparams` would make a run folder of its own.

    Without the summary of the experiment, of which TensorBoard would take an arbitrary run's for all: so the
    tab shows the union of all runs' settings and scalars, and marks the settings that differ.
    """
    _, start, end = hparams_summaries(as_hparams(hparams), {})
    file_writer = writer._get_file_writer()
    assert file_writer is not None
    file_writer.add_summary(start)
    file_writer.add_summary(end)
