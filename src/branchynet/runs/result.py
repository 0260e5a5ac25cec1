"""The dictionary that `result.json` holds. Other programs read it: its keys are stable."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from branchynet.evaluation.adaptive import adaptive
from branchynet.evaluation.headroom import Perfect, headroom
from branchynet.evaluation.intervals import PointIntervals, answer_intervals, over_static, point_intervals
from branchynet.evaluation.overlap import Overlap, overlaps
from branchynet.evaluation.quality import calibrated, qualities
from branchynet.evaluation.recall import Recall, recalls
from branchynet.evaluation.report import (
    Report,
    Savings,
    balanced_accuracies,
    exit_accuracies,
    gain_measured,
    gap_at_point,
    overhead_to_the_end,
    savings,
    static_accuracies,
    taken_at,
    taken_at_point,
    without_inexact,
)
from branchynet.evaluation.trade_offs import on_validation
from branchynet.exits.point import OperatingPoint
from branchynet.runs.atomic import replacing


def result_dict(report: Report) -> dict[str, Any]:
    """What `result.json` says: plain floats, ints and strings; accuracies are fractions on the test split.

    `noisy` says whether the timings are doubted, `noise` why. `exits[n]` is what forcing every sample out at
    exit n+1 gives. A `balanced_accuracy` is the mean of the shares of each class that are right.
    `gain_over_static` is None where no single exit is as accurate as the operating point, `measured` where the
    point was not run for real. Only where the data names images that differ from the published ones:
    `inexact_test_images` and `inexact_training_images` (validation included) count them, and `without_inexact`
    has the accuracies on the other test images, or is None. Only where the data set names some: `rivals`,
    published numbers of small networks of others. Only where images from outside were shown: `outside`, see
    `Outside`. Only where exits average: `shares`, and each exit's `static_accuracy`, its head's by itself. Only
    where the accuracies are of another split than test: `split`. Only where the rule promises something of new
    data: `knee.certificate`. Only where something was fitted after training: `fitting`, on how many images of
    which split, and how many others chose. `validation` has what the choice gives there, see `on_validation`;
    `headroom` what perfect exits would, see `Headroom`; `criterion_quality` how good the criterion is, see
    `Quality`; `recall` how well each class is known, see `Recall`. `interval` and `intervals` are 95 % intervals
    over the samples.

    Only of maps: `task`, and `iou`, how well they fit the truth over the whole data set, see `Overlap`; there an
    accuracy is the mean of the images' own IoU, and there are no `recall` and `balanced_accuracy`.

    Only where not every threshold vector that was tried was kept: `sweep`, see `Swept`. Only where thresholds were
    adapted to the images that are reported: `adaptive`, see `Adaptive`.

    Raises:
        ValueError: a number is not finite, which JSON cannot say.
    """
    latencies, point = report.latencies[report.engine], report.point
    saved = savings(report, point)
    own = point_intervals(report, taken_at_point(report))
    static = over_static(saved, own)
    verified, certificate = report.verified.get(report.engine), report.selection.certificate
    balanced = None if report.task.partly else balanced_accuracies(report)
    mapped = overlaps(report)
    result: dict[str, Any] = {
        "experiment": report.experiment,
        "seed": int(report.seed),
        "protocol": report.protocol,
        "engine": report.engine,
        "threads": int(report.threads),
        "machine": report.machine,
        "versions": {name: str(version) for name, version in report.versions.items()},
        "noisy": bool(report.noise),
        "noise": [each.reason for each in report.noise],
        "baseline": {
            "accuracy": float(report.baseline_accuracy),
            "macs": int(report.macs.baseline),
            "latency_us": float(latencies.baseline.median_us),
            **({} if balanced is None else {"balanced_accuracy": balanced.baseline}),
            "interval": list(answer_intervals(report, report.baseline_correct[report.split])[0]),
        },
        "exits": [
            {
                "accuracy": accuracy,
                "macs": int(report.macs.exits[n]),
                "latency_us": float(latencies.exits[n].median_us),
                "static_macs": int(report.macs.static[n]),
                "static_latency_us": float(latencies.static[n].median_us),
                **({} if balanced is None else {"balanced_accuracy": balanced.exits[n]}),
                "interval": list(answer_intervals(report, report.trace.correct[:, n])[0]),
            }
            for n, accuracy in enumerate(exit_accuracies(report))
        ],
        "knee": {
            "rule": report.rule,
            "criterion": report.criterion,
            "thresholds": list(point.thresholds),
            **_point(point, saved),
            "gain_trunk_only": float(saved.gain_trunk_only),
            "gain_over_static": saved.gain_over_static,
            "measured": verified
            and {
                "accuracy": float(verified.accuracy),
                "latency_us": float(verified.latency_us),
                "gain_latency": float(gain_measured(report)),
            },
            **({} if balanced is None else {"balanced_accuracy": balanced.point}),
            "intervals": {
                **_intervals(own),
                "gain_trunk_only": list(own.gain_trunk_only),
                "gain_over_static": static and list(static),
            },
        },
    }
    if certificate is not None:
        result["knee"]["certificate"] = dataclasses.asdict(certificate)
    on_val = point_intervals(report, taken_at(report, report.selection.point, "val"), split="val")
    result["validation"] = {**on_validation(report), "intervals": _intervals(on_val)}
    overhead, found = overhead_to_the_end(report), headroom(report.trace)
    result["overhead_to_the_end"] = {"macs": overhead.macs, "latency": overhead.latency}
    result["headroom"] = {
        "perfect_confidence": _perfect(report, found.confidence),
        "perfect_knowledge": _perfect(report, found.knowledge),
        "auroc": list(found.auroc),
    }
    result["criterion_quality"] = {
        "calibrated": calibrated(report),
        "exits": [dataclasses.asdict(each) for each in qualities(report)],
    }
    if mapped is None:
        known = recalls(report)
        result["recall"] = {
            "classes": list(report.classes),
            "samples": list(known.samples),
            "baseline": _recall(known.baseline),
            "exits": [_recall(each) for each in known.exits],
            "knee": _recall(known.point),
        }
    else:
        result["task"] = report.task.name
        result["iou"] = {
            "classes": list(report.classes),
            "pixels": list(mapped.pixels),
            "baseline": _iou(mapped.baseline),
            "exits": [_iou(each) for each in mapped.exits],
            "knee": _iou(mapped.point),
        }
    if len(report.inexact_test) or report.inexact_training:
        exact = without_inexact(report)
        result["inexact_test_images"] = len(report.inexact_test)
        result["inexact_training_images"] = int(report.inexact_training)
        result["without_inexact"] = exact and {"baseline_accuracy": exact[0], "accuracy": exact[1]}
    if report.rivals:
        result["rivals"] = [dataclasses.asdict(rival) for rival in report.rivals]
    if report.outside:
        result["outside"] = [dataclasses.asdict(each) for each in report.outside]
    if there := adaptive(report):
        result["adaptive"] = dataclasses.asdict(there)
    if report.shares is not None:
        result["shares"] = list(report.shares)
        for each, accuracy in zip(result["exits"], static_accuracies(report), strict=True):
            each["static_accuracy"] = accuracy
    if report.fitting is not None:
        result["fitting"] = {
            "split": report.fitting.split,
            "images": report.fitting.images,
            "images_of_choice": report.view.trace.num_samples,
        }
    if report.found is not None and report.found.frontier is not None:
        result["sweep"] = {
            "vectors": report.found.vectors,
            "kept": len(report.found.frontier),
            "gap": report.found.gap,
            "gap_at_point": gap_at_point(report),
        }
    if report.split != "test":
        result["split"] = report.split
    _refuse_non_finite(result, "result.json")
    return result


def _recall(found: Recall) -> dict[str, Any]:
    return {
        "recall": list(found.classes),
        "intervals": [each and list(each) for each in found.intervals],
        "balanced_accuracy_interval": list(found.balanced_interval),
    }


def _iou(found: Overlap) -> dict[str, Any]:
    return {"mean_iou": found.mean, "interval": list(found.interval), "iou": list(found.classes)}


def _perfect(report: Report, point: Perfect) -> dict[str, Any]:
    ends = point_intervals(report, point.taken)
    return {**_point(point, savings(report, point)), "intervals": _intervals(ends)}


def _point(point: OperatingPoint, saved: Savings) -> dict[str, Any]:
    return {
        "accuracy": point.accuracy,
        "exit_rates": list(point.exit_rates),
        "macs": float(saved.macs),
        "latency_us": float(saved.latency_us),
        "gain_macs": float(saved.gain_macs),
        "gain_latency": float(saved.gain_latency),
    }


def _intervals(ends: PointIntervals) -> dict[str, Any]:
    return {
        "accuracy": list(ends.accuracy),
        "accuracy_minus_baseline": list(ends.accuracy_minus_baseline),
        "exit_rates": [list(each) for each in ends.exit_rates],
        "gain_macs": list(ends.gain_macs),
        "gain_latency": list(ends.gain_latency),
    }


def write_result(path: Path, report: Report) -> None:
    """Write `result.json` (see `result_dict`)."""
    text = json.dumps(result_dict(report), indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _refuse_non_finite(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_non_finite(item, f"{where}: {key}" if ":" not in where else f"{where}.{key}")
    elif isinstance(value, list):
        for n, item in enumerate(value):
            _refuse_non_finite(item, f"{where}[{n}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}, which JSON cannot say")
