"""Settings that nobody reads: Hydra takes any by `+`, and a mistyped name would change nothing, silently."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from branchynet.errors import UserError

# Of these the object that they make says what it takes.
GROUPS = ("criterion", "combine", "sweep", "engine")


def check_known(settings: Mapping[str, Any], file: Path) -> None:
    """A UserError for a setting that the command's own file in conf/ does not have.

    Args:
        settings: all of them, as plain values.
        file: `conf/<command>.yaml`.
    """
    known = yaml.safe_load(file.read_text(encoding="utf-8"))
    # What the groups that it chooses make says itself what it takes.
    chosen = [name for each in known["defaults"] if isinstance(each, Mapping) for name in each]
    _check({name: value for name, value in settings.items() if name not in chosen}, known, "")


def _check(settings: Mapping[str, Any], known: Mapping[str, Any], prefix: str) -> None:
    for name, value in settings.items():
        if name not in known:
            allowed = ", ".join(key for key in known if key not in ("defaults", "hydra"))
            raise UserError(f"{prefix}{name}={value}: there is no such setting; there are {allowed}")
        if isinstance(value, Mapping) and isinstance(known[name], Mapping):
            _check(value, known[name], f"{prefix}{name}.")
