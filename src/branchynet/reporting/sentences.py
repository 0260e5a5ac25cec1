"""What the numbers of a report mean, in words, for people who quote them."""

from collections.abc import Sequence

from branchynet.evaluation.headroom import Perfect, headroom
from branchynet.evaluation.intervals import Interval, over_static, point_intervals, scaled
from branchynet.evaluation.overlap import overlaps
from branchynet.evaluation.report import (
    Report,
    balanced_accuracies,
    better_rivals,
    exit_accuracies,
    exits_beating_trunk,
    gain_measured,
    gap_at_point,
    overhead_to_the_end,
    savings,
    static_accuracies,
    taken_at_point,
    without_inexact,
)
from branchynet.evaluation.rivals import Rival


def sentences(report: Report) -> list[str]:
    """A few sentences: what was chosen and how, whether adaptivity pays, whether the real run agrees."""
    texts = noisy(report)
    if report.protocol == "paper":
        texts.append(
            "protocol: paper. The thresholds were chosen on the test split itself, so these numbers flatter."
        )
    if report.split == "val":
        texts.append(
            "The thresholds were chosen on the validation split that is reported: these numbers flatter."
        )
    if report.task.explained:
        texts.append(report.task.explained)
    texts.append(_choice(report))
    if report.selection.certificate:
        texts.append(f"Promised: {report.selection.certificate.promise}")
    if report.selection.note:
        texts.append(report.selection.note)
    texts.extend(_searched(report))
    texts.extend(_fitted(report))
    texts.extend(_averaged(report))
    texts.append(_over_static(report))
    beating = exits_beating_trunk(report)
    if beating:
        texts.append(_beating(report, beating[0]))
    texts.extend(_rivals(report))
    texts.append(_overhead(report))
    texts.extend(_headroom(report))
    texts.extend(_blind(report))
    texts.extend(_balanced(report))
    texts.extend(_inexact(report))
    texts.extend(_verified(report, engine) for engine in report.verified)
    if not report.verified:
        texts.append("Not run for real: chosen from the stored traces and the latencies measured with them.")
    texts.extend(_other_engine(report, engine) for engine in report.latencies if engine != report.engine)
    return texts


def noisy(report: Report) -> list[str]:
    """At most one sentence: that the timings are not to be believed, and why."""
    if not report.noise:
        return []
    reasons = "; ".join(each.reason for each in report.noise)
    return [
        f"NOISY TIMINGS: {reasons}. Measure when nothing else computes: a run by `branchynet evaluate "
        "run=<run folder> in_place=true`, an evaluation by the same command with from=network."
    ]


def percent(fraction: float) -> str:
    """0.9921 as 99.21."""
    return f"{100 * fraction:.2f}"


def percent_within(fraction: float, ends: Interval, digits: int = 2) -> str:
    """0.9921 and its interval as 99.21 [99.04, 99.38]."""
    return within(100 * fraction, scaled(ends, 100), digits)


def within(value: float, ends: Interval, digits: int = 2) -> str:
    """A number and its interval, such as 1.60 [1.14, 2.67]."""
    low, high = ends
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def rates_within(rates: Sequence[float], ends: Sequence[Interval]) -> str:
    """Exit rates in percent, each with its interval."""
    return ", ".join(percent_within(*each, digits=1) for each in zip(rates, ends, strict=True))


def microseconds(value: float) -> str:
    """With one decimal, or none from a millisecond on."""
    return f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def threads(report: Report) -> str:
    """`1 thread`, `2 threads`."""
    return "1 thread" if report.threads == 1 else f"{report.threads} threads"


def counting(report: Report) -> str:
    """What the rule looked at where that was not the time."""
    return ", counting MACs" if report.selection.cost == "macs" else ""


def _choice(report: Report) -> str:
    chosen = ", ".join(f"T{n} = {value:.4g}" for n, value in enumerate(report.point.thresholds, 1))
    saved, ends = savings(report, report.point), point_intervals(report, taken_at_point(report))
    how = f"({report.criterion}) on {report.chosen_on}{counting(report)}"
    return (
        f"The rule {report.rule} chose {chosen} {how}. Gain in MACs "
        f"{within(saved.gain_macs, ends.gain_macs)}; gain in latency with the trunk's segments alone on the "
        f"clock, as in the paper's Table I, {within(saved.gain_trunk_only, ends.gain_trunk_only)}."
    )


def _fitted(report: Report) -> list[str]:
    """How many images what was fitted after training has learned from, how many chose, and what was learned."""
    if report.fitting is None:
        return []
    chose, split = report.view.trace.num_samples, report.fitting.split
    others = "other " if split == report.chosen_on else ""
    notes = [f"exit {n}: {note}" for n, note in enumerate(report.fitting.notes, 1) if note]
    return [
        f"What is fitted after training was fitted on {report.fitting.images:,} {split} images; the thresholds "
        f"were chosen on {chose:,} {others}{report.chosen_on} images.",
        *([f"What {report.criterion} has learned: {'; '.join(notes)}."] if notes else []),
    ]


def _searched(report: Report) -> list[str]:
    """At most one sentence: how much of a large grid was kept, and what that may miss."""
    found = report.found
    if found is None or found.frontier is None:
        return []
    kept = f"Of {_many(found.vectors)} threshold vectors, {len(found.frontier):,} were kept"
    if not found.limits:
        return [f"{kept}, the frontier: on {report.chosen_on} no other is more accurate at equal cost."]
    return [
        f"{kept}, found by local search. On {report.chosen_on} no vector that costs no more than the operating "
        f"point is more than {100 * gap_at_point(report):.2f} points more accurate; along the whole frontier, "
        f"{100 * found.gap:.2f} points at most are proven."
    ]


def _many(count: int) -> str:
    return f"{count:,}" if count < 10**12 else f"{count:.1e}"


def _averaged(report: Report) -> list[str]:
    """At most one sentence: what each exit answers with."""
    if report.shares is None:
        return []
    mixed = [
        f"exit {n} with {1 - share:.2f} of its own head and {share:.2f} of exit {n - 1}'s answer"
        for n, share in enumerate(report.shares, 1)
        if share
    ]
    accuracies = ", ".join(map(percent, exit_accuracies(report)))
    alone = ", ".join(map(percent, static_accuracies(report)))
    what = ", ".join(mixed) if mixed else "none of them, for no earlier exit helps"
    return [
        f"Averaged exits, in log-probabilities: {what}. Of all samples exit 1, 2 … is right on {accuracies} %; "
        f"by its head alone, which is what a single exit has, on {alone} %."
    ]


def _over_static(report: Report) -> str:
    saved = savings(report, report.point)
    best, gain = saved.best_static, saved.gain_over_static
    ends = over_static(saved, point_intervals(report, taken_at_point(report)))
    if best is None or gain is None or ends is None:
        return f"No single exit alone is as accurate on {report.reported_on} as the operating point."
    if gain < 1:
        return (
            f"Leaving early does not pay for itself: exit {best + 1} alone is at least as accurate and takes "
            f"{within(gain, ends)} of the operating point's time."
        )
    rival = f"exit {best + 1} alone is the cheapest that is at least as accurate"
    return f"Gain over static {within(gain, ends)}: {rival}."


def _beating(report: Report, exit_index: int) -> str:
    accuracy, (first, second) = static_accuracies(report)[exit_index], report.task.reaches
    return (
        f"A single exit beats the whole trunk: exit {exit_index + 1} alone {first} "
        f"{percent(accuracy)} %, the baseline {second} {percent(report.baseline_accuracy)} %, and the exit is "
        "faster. So the trunk is weak, and the exits' merit is another one than adaptivity."
    )


def _rivals(report: Report) -> list[str]:
    """At most one sentence: whether a plain small network of no more MACs is more accurate."""
    if not report.rivals:
        return []
    macs, better = savings(report, report.point).macs, better_rivals(report)
    own = f"the operating point is right on {percent(report.point.accuracy)} % for {million(macs)} M MACs"
    if better:
        return [
            f"Small networks that are more accurate for no more MACs, as published: {_named(better)}; {own}. "
            "Counted in MACs, a plain small network is the better choice."
        ]
    known = f"Small networks known: {len(report.rivals)}"
    if any(rival.macs <= macs for rival in report.rivals):
        return [f"{known}, none more accurate for no more MACs: {own}."]
    least = min(report.rivals, key=lambda rival: rival.macs)
    return [f"{known}, none with so few MACs: {own}; the smallest is {_named([least])}, as published."]


def _named(rivals: Sequence[Rival]) -> str:
    return ", ".join(
        f"{rival.name} ({percent(rival.accuracy)} %, {million(rival.macs)} M)" for rival in rivals
    )


def million(macs: float) -> str:
    """In millions, with three digits or more: 0.129, 3.98, 125.8."""
    millions = macs / 1e6
    return f"{millions:.3f}" if millions < 1 else f"{millions:.2f}" if millions < 10 else f"{millions:.1f}"


def _overhead(report: Report) -> str:
    overhead = overhead_to_the_end(report)
    return (
        "Overhead to the end: a sample that goes through all side heads to the last exit costs "
        f"{_more(overhead.latency)} in time ({report.engine}) and {_more(overhead.macs)} in MACs than the baseline."
    )


def _more(share: float) -> str:
    return f"{100 * abs(share):.1f} % {'less' if share < 0 else 'more'}"


def _headroom(report: Report) -> list[str]:
    """What perfect exits would give, and how well the side exits know when they are right."""
    found = headroom(report.trace)
    confidence, knowledge = _gains(report, found.confidence), _gains(report, found.knowledge)
    known = ", ".join("–" if value is None else f"{value:.3f}" for value in found.auroc)
    texts = [
        f"Headroom: perfect confidence (leaving at {report.task.perfect}) would gain "
        f"{confidence}; perfect knowledge ({report.task.known}) {knowledge}."
    ]
    if found.auroc:
        texts.append(
            f"AUROC of each side exit's uncertainty for being {report.task.good} (0.5 guesses, 1 is perfect): "
            f"{known}."
        )
    return texts


def _blind(report: Report) -> list[str]:
    """At most one sentence: at which side exits the criterion tells no sample from another."""
    uncertainty = report.trace.uncertainty[:, :-1]
    blind = [n for n, values in enumerate(uncertainty.unbind(dim=1), start=1) if (values == values[0]).all()]
    if not blind or report.trace.num_samples == 1:
        return []
    where = f"exit{'s' if len(blind) > 1 else ''} {', '.join(map(str, blind))}"
    return [
        f"At {where} the criterion {report.criterion} finds all samples equally sure, so that no threshold tells "
        "one from another: all of them leave there, or none."
    ]


def _gains(report: Report, point: Perfect) -> str:
    saved, ends = savings(report, point), point_intervals(report, point.taken)
    return (
        f"{within(saved.gain_latency, ends.gain_latency)} in time and {within(saved.gain_macs, ends.gain_macs)} in "
        f"MACs at {percent_within(point.accuracy, ends.accuracy)} %"
    )


# Balanced accuracies are spoken of where the largest class has so many times the samples of the smallest.
UNEQUAL = 2


def _balanced(report: Report) -> list[str]:
    """At most one sentence about accuracies in which every class counts alike, as in the IoU of maps."""
    mapped = overlaps(report)
    if mapped is not None:
        alone = ", ".join(percent_within(each.mean, each.interval) for each in mapped.exits)
        return [
            "Over the whole data set, the mean IoU of all classes, %: baseline "
            f"{percent_within(mapped.baseline.mean, mapped.baseline.interval)}, exits alone {alone}, operating "
            f"point {percent_within(mapped.point.mean, mapped.point.interval)}."
        ]
    counts = report.trace.label.bincount()
    counts = counts[counts > 0]
    if counts.max() <= UNEQUAL * counts.min():
        return []
    balanced = balanced_accuracies(report)
    alone = "exits alone" if report.shares is None else "all samples answered at each exit"
    exits = ", ".join(percent(value) for value in balanced.exits)
    return [
        f"The classes have {counts.min():,} to {counts.max():,} samples. Balanced accuracy, the mean of each "
        f"class's, %: baseline {percent(balanced.baseline)}, {alone} {exits}, operating point "
        f"{percent(balanced.point)}."
    ]


def _inexact(report: Report) -> list[str]:
    """At most one sentence about images that differ from the published ones."""
    test, training = len(report.inexact_test), report.inexact_training
    if not test and not training:
        return []
    text = f"{test:,} of the {report.trace.num_samples:,} test images"
    if training:
        text += f" and {training:,} of those of training and validation"
    text += " are not the published ones"
    exact = without_inexact(report)
    if exact:
        baseline, point = map(percent, exact)
        text += "; on the other test images "
        text += f"the baseline is right on {baseline} %, the operating point on {point} %"
    return [text + "."]


def _verified(report: Report, engine: str) -> str:
    verified = report.verified[engine]
    outcome = "all as the sweep predicts"
    if verified.differences:
        outcome = (
            f"{verified.differences:,} not as the sweep predicts, {verified.unexplained:,} of these not near "
            "a threshold"
        )
    return (
        f"Run for real on {engine}: {report.trace.num_samples:,} samples, {outcome} "
        f"({verified.near_threshold:,} within rounding, 1e-5, of a threshold)."
    )


def _other_engine(report: Report, engine: str) -> str:
    saved = savings(report, report.point, engine)
    ends = point_intervals(report, taken_at_point(report), engine)
    gain = within(saved.gain_latency, ends.gain_latency)
    text = (
        f"On {engine}: baseline {microseconds(report.latencies[engine].baseline.median_us)} µs, operating "
        f"point {microseconds(saved.latency_us)} µs predicted (gain {gain})"
    )
    if engine in report.verified:
        measured = report.verified[engine].latency_us
        text += f", {microseconds(measured)} µs measured (gain {gain_measured(report, engine):.2f})"
    return text + "."
