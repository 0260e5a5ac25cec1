"""In what the settings of two runs differ."""

from collections.abc import Mapping
from typing import Any

# Settings that say where things lie on this machine, or what Hydra is told, and not what is done.
WHERE = ("cache", "logger", "optimized_metric", "resume_sweep")


def first_difference(first: Any, second: Any, name: str = "") -> str | None:
    """The dotted name of the first setting that differs, None where all are equal."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for key in [*first, *(key for key in second if key not in first)]:
            if not name and key in WHERE:
                continue
            if key not in first or key not in second:
                return f"{name}{key}"
            found = first_difference(first[key], second[key], f"{name}{key}.")
            if found is not None:
                return found
        return None
    return None if first == second else name.removesuffix(".")
