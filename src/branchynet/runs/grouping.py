"""Which of many runs are of one group: those with the same settings but for the seed. And the groups' names."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from branchynet.errors import UserError
from branchynet.runs.differences import first_difference
from branchynet.runs.rows import (
    EVALUATION,
    NOT_OF_GROUP,
    PUBLISHED,
    RUN,
    SETTINGS,
    Row,
    run_of,
    settings_text,
)
from branchynet.runs.run_config import add_later, read_yaml

# What of an evaluation's settings takes the place of its run's.
EVALUATED = ("criterion", "combine", "sweep", "engine")
# Lines of stored settings that differ where nothing does that decides something.
_SEED = re.compile(rb"^\s*seed: \d+\n|^(run|cache): .*\n|^- (run|seed)=.*\n", re.M)


def grouped(rows: Sequence[Row]) -> Iterator[Row]:
    """The rows, in their order, with `group` and `label`."""
    of_experiment: dict[str, list[Row]] = {}
    for row in rows:
        of_experiment.setdefault(row.experiment, []).append(row)
    common = {name: _common(there) for name, there in of_experiment.items()}
    kinds = {name: len({row.kind for row in there}) > 1 for name, there in of_experiment.items()}
    labels: dict[int, str] = {}
    taken: set[tuple[str, str]] = set()
    for alike in _partition(rows, lambda row: (row.experiment, row.kind, row.overrides)):
        first = alike[0]
        label = " ".join(each for each in first.overrides if each not in common[first.experiment])
        if kinds[first.experiment] and first.kind != RUN and not label:
            label = first.kind
        other: tuple[Mapping[str, Any], str] | None = None
        for same in _of_equal_settings(alike):
            name = label
            if len(same) < len(alike):
                settings = _settings(same[0])
                other = other or (settings, label)
                name = label if other[0] is settings else f"{label} ({_other(other[0], settings)})".strip()
            number = 2
            unique = name
            while (first.experiment, unique) in taken:
                unique, number = f"{name} #{number}".strip(), number + 1
            taken.add((first.experiment, unique))
            labels |= {id(row): unique for row in same}
    for row in rows:
        label = labels[id(row)]
        yield replace(row, label=label, group=f"{row.experiment} {label}".strip())


def _common(rows: Sequence[Row]) -> set[str]:
    """The overrides that all rows have; what was typed for those published, nobody knows."""
    typed = [set(row.overrides) for row in rows if row.kind != PUBLISHED]
    return set.intersection(*typed) if typed else set()


def _partition(rows: Iterable[Row], key: Callable[[Row], Any]) -> list[list[Row]]:
    parts: dict[Any, list[Row]] = {}
    for row in rows:
        parts.setdefault(key(row), []).append(row)
    return list(parts.values())


def _of_equal_settings(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows of equal overrides, by all their settings: the experiment's file may have been changed between."""
    if len(rows) == 1:
        return [list(rows)]
    # Most are equal letter by letter, and need not be understood, which takes ten times as long.
    by_text = _partition(rows, lambda row: (json.dumps(_facts(row)), *_texts(row)))
    if len(by_text) == 1:
        return by_text
    parts: dict[str, list[Row]] = {}
    for same in by_text:
        parts.setdefault(json.dumps(_settings(same[0]), sort_keys=True, default=str), []).extend(same)
    return list(parts.values())


def _facts(row: Row) -> dict[str, Any]:
    """What `result.json` says of the settings."""
    result = row.result
    named = {name: result.get(name) for name in ("protocol", "engine", "threads", "split")}
    named |= {name: result["knee"][name] for name in ("rule", "criterion")}
    return {**named, "macs": [result["baseline"]["macs"], *(each["macs"] for each in result["exits"])]}


def _texts(row: Row) -> tuple[bytes, ...]:
    return tuple(_SEED.sub(b"", settings_text(path)) for path in _settings_files(row))


def _settings_files(row: Row) -> list[Path]:
    run = run_of(row.folder) if row.kind == EVALUATION else row.folder
    paths = [] if run is None else [run / SETTINGS[PUBLISHED if row.kind == PUBLISHED else RUN]]
    return [path for path in (*paths, row.folder / SETTINGS[EVALUATION]) if path.is_file()]


def _settings(row: Row) -> dict[str, Any]:
    """All that decides something, and that can be read."""
    settings: dict[str, Any] = {}
    for path in _settings_files(row):
        try:
            found = read_yaml(path)
        except UserError:
            found = {"damaged": str(path)}  # like no other's
        if isinstance(found, dict):
            evaluated = path.name == SETTINGS[EVALUATION]
            settings |= {k: v for k, v in found.items() if not evaluated or k in EVALUATED}
    add_later(settings)
    return {**_without(settings, NOT_OF_GROUP), "result": _facts(row)}


def _without(settings: Mapping[str, Any], names: Iterable[str], prefix: str = "") -> dict[str, Any]:
    """The settings but those named and the seeds; null is the same as nothing, which is what older runs have."""
    kept: dict[str, Any] = {}
    for key, value in settings.items():
        if f"{prefix}{key}" in names or key == "seed" or value is None:
            continue
        kept[key] = _without(value, names, f"{prefix}{key}.") if isinstance(value, Mapping) else value
    return kept


def _other(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """What differs between two groups of the same overrides: `optimizer.lr=0.1`."""
    name = first_difference(first, second)
    if name is None:
        return "other settings"
    value: Any = second
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return f"{name}={value}"[:80]
