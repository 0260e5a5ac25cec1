"""The names of runs' folders, and so of runs in TensorBoard: what was overridden, in a multirun what is swept."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

# A folder's name may have 255 bytes; a number and a date stand before the overrides.
MAX_NAME = 160


def run_name(overrides: str | None) -> str:
    """`-<overrides>` as a part of a folder's name, or nothing where nothing was overridden."""
    if not overrides:
        return ""
    name = overrides.replace("/", "_").replace("\\", "_").replace(" ", "").replace("'", "")
    if len(name) > MAX_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = f"{name[: MAX_NAME - 9]}-{digest}"
    return f"-{name}"


def job_name(
    names: Collection[str], overrides: Sequence[str], params: Mapping[str, Any] | None, otherwise: str | None
) -> str:
    """A job's part of its folder's name: what differs among the jobs of a multirun, in the order it was typed.

    Args:
        names: the settings that the command line sweeps.
        overrides: the job's own.
        params: those that the sweeper's settings sweep, by name.
        otherwise: for `run_name` where none of the overrides is swept.
    """
    names = {*names, *(params or ())}
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    differing = [each.input_line or "" for each in parsed if each.key_or_group in names]
    return run_name(",".join(differing) or otherwise)
