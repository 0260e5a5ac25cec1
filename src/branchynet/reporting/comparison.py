"""Many runs side by side: tables for people and for other programs. Nothing here needs PyTorch."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from branchynet.errors import counted, printable
from branchynet.reporting.averages import Group, Value, values_of
from branchynet.reporting.gradients import gradient_table
from branchynet.reporting.paper import PaperRow, paper_row
from branchynet.reporting.text import aligned
from branchynet.runs.atomic import write_csv
from branchynet.runs.gathered import Gathered, LeftOut
from branchynet.runs.rows import EVALUATION, Row

MOST_ON_THE_TERMINAL = 40  # groups
MOST_IN_TABLE_ONE = 30
NOISY = "NOISY TIMINGS"
MOST_LEFT_OUT = 20  # on the terminal
HEADER = (
    "settings",
    "runs",
    "baseline %",
    "accuracy %",
    "less the baseline's",
    "last exit %",
    "gain, time",
    "gain, MACs",
    "exit rates %",
)
SIDE_EXITS = "side exits %"
TABLE_ONE = (
    "network",
    "accuracy %",
    "time, µs",
    "gain, time",
    "gain, MACs",
    "thresholds",
    "exit rates %",
    "gain, time of the trunk alone",
)


def terminal_table(gathered: Gathered, groups: Sequence[Group]) -> str:
    """A line for every group, below the names of their experiments, and what was left out."""
    several = any(len(group.rows) > 1 for group in groups)
    parts = []
    for experiment, there in by_experiment(groups[:MOST_ON_THE_TERMINAL]).items():
        rows = [[experiment, *HEADER[1:]], *(_cells(group, brackets=False) for group in there)]
        parts.append(aligned(rows))
    if len(groups) > MOST_ON_THE_TERMINAL:
        parts.append(f"{counted(len(groups) - MOST_ON_THE_TERMINAL, 'more group')}: see groups.csv")
    if several:
        parts.append("± is the standard deviation from run to run, of those with the same settings.")
    parts += warnings_of(gathered.rows)
    if gathered.left_out:
        shown = gathered.left_out[:MOST_LEFT_OUT]
        parts.append("\n".join(["left out:", *(f"  {_reason(each)}" for each in shown)]))
        if len(gathered.left_out) > len(shown):
            parts.append(f"  and {len(gathered.left_out) - len(shown)} more: see report.md")
    return "\n".join(parts)


def comparison_page(
    title: str, gathered: Gathered, groups: Sequence[Group], figures: Iterable[str] = ()
) -> str:
    """Markdown: a table for every experiment, Table I with the paper's rows, figures, and what was left out."""
    runs = sum(row.kind != EVALUATION for row in gathered.rows)
    evaluations = len(gathered.rows) - runs
    parts = [
        f"# {_text(title)}",
        f"{counted(runs, 'run')} and {counted(evaluations, 'evaluation')}, {counted(len(groups), 'group')} of "
        f"equal settings; {len(gathered.left_out)} left out. Accuracies are those of the test split; thresholds "
        "were chosen on validation, where nothing else is said. Every number of every run: `runs.csv`; of the "
        "groups: `groups.csv`.",
        *(_text(each).replace(NOISY, f"**{NOISY}**", 1) for each in warnings_of(gathered.rows)),
    ]
    for experiment, there in by_experiment(groups).items():
        rows = [[*_cells(group), _side_exits(group)] for group in there]
        parts += [f"## {_text(experiment)}", _markdown([[*HEADER, SIDE_EXITS], *rows])]
        gradients = gradient_table(there)
        if gradients:
            parts += ["Length of the layers' gradients, the mean over the last epoch:", _markdown(gradients)]
    parts.append(
        "± is the standard deviation from run to run of those with the same settings; in brackets, for one run, "
        "the 95 % interval over the samples, paired where the baseline's accuracy is taken off. Gains are the "
        "baseline's mean cost over the operating point's; the time is that of the run's own engine and machine. "
        "Exit rates are the operating point's; the accuracies of the last exit and of the side exits are those of "
        "all samples leaving there."
    )
    parts += ["## Beside the paper's Table I", table_one(groups)]
    names = list(figures)
    if names:
        parts += ["## Figures", "\n".join(f"![{name}](figures/{name}.png)" for name in names)]
    if gathered.left_out:
        parts += ["## Left out", "\n".join(f"- {_text(_reason(each))}" for each in gathered.left_out)]
    return "\n\n".join(parts) + "\n"


def table_one(groups: Sequence[Group]) -> str:
    """Markdown in the form of the paper's Table I: groups that repeat one of its rows, each row of the paper below
    those that do; where none does, all groups."""
    repeating = [(group, paper_row(group.first.experiment)) for group in groups]
    shown = [pair for pair in repeating if pair[1] is not None] or repeating
    rows: list[Sequence[str]] = [TABLE_ONE]
    papers = list(dict.fromkeys(paper for _, paper in shown[:MOST_IN_TABLE_ONE]))
    for paper in papers:
        for group, own in shown[:MOST_IN_TABLE_ONE]:
            if own is paper:
                rows += _of_table_one(group)
        if paper is not None:
            rows += _of_paper(paper)
    text = (
        "Costs count all heads, the criterion and the decision, but for the last column: there the trunk's "
        "segments alone are on the clock, as they were in the paper. "
    )
    if papers == [None]:
        text += "None of these experiments repeats a row of the paper. "
    if len(shown) > MOST_IN_TABLE_ONE:
        text += f"{len(shown) - MOST_IN_TABLE_ONE} more groups are in `groups.csv`. "
    return f"{_markdown(rows)}\n\n{text.strip()}"


def by_experiment(groups: Iterable[Group]) -> dict[str, list[Group]]:
    """The groups by the names of their experiments, in their order."""
    there: dict[str, list[Group]] = {}
    for group in groups:
        there.setdefault(group.first.experiment, []).append(group)
    return there


def write_runs(path: Path, rows: Sequence[Row]) -> None:
    """Write one line per run or evaluation.

    Columns: what it is, then for each number of `values_of` the number and, where some run has one, its interval
    `<name>_low` and `<name>_high`; last `set.<name>`, as it was typed, for every setting that was for some run.
    """
    found = [values_of(row) for row in rows]
    header = ["name", "kind", "experiment", "group", "seed", "protocol", "split", "rule", "criterion"]
    header += ["engine", "threads", "machine", "noisy"]
    numbers = _numbers(found, deviation=False)
    typed = [dict(_typed(row)) for row in rows]
    settings = list(dict.fromkeys(name for each in typed for name in each))
    lines = []
    for row, values, own in zip(rows, found, typed, strict=True):
        result, knee = row.result, row.result["knee"]
        line: list[Any] = [row.name, row.kind, row.experiment, row.group, row.seed, result["protocol"]]
        line += [result.get("split", "test"), knee["rule"], knee["criterion"], result["engine"]]
        line += [
            result["threads"],
            result["machine"],
            "" if (noisy := result.get("noisy")) is None else int(noisy),
        ]
        line += [_attribute(values.get(name), what) for name, what in numbers]
        lines.append([*line, *(own.get(name, "") for name in settings)])
    columns = [_column(name, what) for name, what in numbers]
    write_csv(path, [*header, *columns, *(f"set.{name}" for name in settings)], lines)


def write_groups(path: Path, groups: Sequence[Group]) -> None:
    """Write one line per group: what it is, then for each number the mean, `<name>_deviation` from run to run, and
    the means of the runs' intervals' ends."""
    numbers = _numbers([group.values for group in groups], deviation=True)
    header = ["group", "experiment", "settings", "kind", "runs", "seeds"]
    lines = []
    for group in groups:
        first = group.first
        line: list[Any] = [first.group, first.experiment, group.settings, first.kind, len(group.rows)]
        lines.append(
            [*line, group.seeds, *(_attribute(group.values.get(name), what) for name, what in numbers)]
        )
    write_csv(path, [*header, *(_column(name, what) for name, what in numbers)], lines)


def _numbers(found: Sequence[dict[str, Value]], deviation: bool) -> list[tuple[str, str]]:
    """Columns: the numbers' names with what of them is told, without those that would be empty."""
    names = sorted({name for values in found for name in values}, key=_order(found))
    told = ["value", *["deviation"] * deviation, "low", "high"]
    return [
        (name, what)
        for name in names
        for what in told
        if what == "value"
        or any(getattr(values[name], what) is not None for values in found if name in values)
    ]


def _order(found: Sequence[dict[str, Value]]) -> Any:
    """As in the run that has most of them; of others, behind their like: exit 3 behind exit 2."""
    longest = max(found, key=len, default={})
    place = {name: n for n, name in enumerate(longest)}

    def key(name: str) -> tuple[int, str]:
        stem = re.sub(r"\d+$", "", name)
        like = [n for other, n in place.items() if re.sub(r"\d+$", "", other) == stem]
        return place.get(name, max(like, default=len(place))), name

    return key


def _column(name: str, what: str) -> str:
    return name if what == "value" else f"{name}_{what}"


def _attribute(value: Value | None, what: str) -> Any:
    return None if value is None else getattr(value, what)


def _typed(row: Row) -> Iterator[tuple[str, str]]:
    for override in row.overrides:
        name, equals, value = override.partition("=")
        yield name.lstrip("+~"), value if equals else override


def _cells(group: Group, brackets: bool = True) -> list[str]:
    def cell(name: str, factor: float = 1, form: str = ".2f") -> str:
        return _cell(group.values.get(name), factor, form, brackets)

    return [
        group.settings,
        str(len(group.rows)),
        cell("baseline_accuracy", 100),
        cell("accuracy", 100),
        cell("accuracy_minus_baseline", 100, "+.2f"),
        cell("last_exit_accuracy", 100),
        cell("gain_latency"),
        cell("gain_macs"),
        _rates(group),
    ]


def _cell(value: Value | None, factor: float = 1, form: str = ".2f", brackets: bool = True) -> str:
    if value is None:
        return "–"
    text = format(factor * value.value, form)
    if value.deviation is not None:
        return f"{text} ± {format(factor * value.deviation, form.lstrip('+'))}"
    if brackets and value.low is not None and value.high is not None:
        return f"{text} [{format(factor * value.low, form)}, {format(factor * value.high, form)}]"
    return text


def _rates(group: Group) -> str:
    """The mean ones: with each one's deviation, nobody could read them."""
    rates = [value.value for name, value in group.values.items() if name.startswith("exit_rate_")]
    return ", ".join(f"{100 * rate:.1f}" for rate in rates)


def _side_exits(group: Group) -> str:
    """What each is right on where all samples leave there."""
    exits = [value.value for name, value in group.values.items() if name.startswith("exit_accuracy_")]
    return ", ".join(f"{100 * accuracy:.1f}" for accuracy in exits[:-1])


def _of_table_one(group: Group) -> list[list[str]]:
    def cell(name: str, factor: float = 1, form: str = ".2f") -> str:
        return _cell(group.values.get(name), factor, form)

    first = group.first
    engine = first.result["engine"]
    thresholds = [value.value for name, value in group.values.items() if name.startswith("threshold_")]
    name = f"{group.name}, {len(group.rows)} runs" if len(group.rows) > 1 else group.name
    return [
        [
            f"{name}: baseline",
            cell("baseline_accuracy", 100),
            f"{cell('baseline_latency_us', 1, '.1f')} {engine}",
        ]
        + ["–"] * 5,
        [
            f"{name}: with exits",
            cell("accuracy", 100),
            f"{cell('latency_us', 1, '.1f')} {engine}",
            cell("gain_latency"),
            cell("gain_macs"),
            ", ".join(f"{value:.4g}" for value in thresholds),
            _rates(group),
            cell("gain_trunk_only"),
        ],
    ]


def _of_paper(paper: PaperRow) -> list[list[str]]:
    gains = f"{paper.gain_cpu} CPU / {paper.gain_gpu} GPU"
    return [
        [f"paper: {paper.trunk}", f"{paper.baseline_accuracy:.2f}", *["–"] * 6],
        [
            f"paper: {paper.branchy}",
            f"{paper.accuracy:.2f}",
            *"–––",
            paper.thresholds,
            paper.exit_rates,
            gains,
        ],
    ]


def warnings_of(rows: Sequence[Row]) -> list[str]:
    """Sentences on what of the rows' timings is not to be believed, or does not compare."""
    texts = []
    noisy = [row.name for row in rows if row.result.get("noisy")]
    if noisy:
        texts.append(
            f"{NOISY} in {counted(len(noisy), 'run')}, {printable(noisy[0])} among them: their gains in time "
            "are not to be believed."
        )
    where = {(row.result["machine"], row.result["engine"], row.result["threads"]) for row in rows}
    if len(where) > 1:
        texts.append(
            f"Timings are of {len(where)} combinations of machine, engine and threads: microseconds do not compare "
            "among those, and gains in time with care."
        )
    return texts


def _reason(each: LeftOut) -> str:
    return printable(f"{each.name}: {each.reason}")


def _text(text: str) -> str:
    """As Markdown that says the same."""
    return re.sub(r"([\\`*_<>\[\]|#])", r"\\\1", printable(text))


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    first, *others = rows
    lines = [f"| {' | '.join(first)} |", f"|{'---|' * len(first)}"]
    lines += [f"| {' | '.join(map(_in_table, row))} |" for row in others]
    return "\n".join(lines)


def _in_table(cell: str) -> str:
    return re.sub(r"([|*_<`])", r"\\\1", printable(cell))
