"""What stands on the command line, as Hydra reads it."""

import shlex
import sys
from collections.abc import Sequence
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from branchynet.errors import UserError


def flags() -> Any:
    """Hydra's own flags, `config_dir`, `help` …; `overrides` has the other words."""
    return get_args_parser().parse_intermixed_args(sys.argv[1:])


def words(arguments: Sequence[str]) -> list[str]:
    """What of the command line is no flag, nor a flag's value; nothing where it asks for help."""
    found = get_args_parser().parse_intermixed_args(list(arguments))
    asked = found.help or found.hydra_help or found.shell_completion
    return [] if asked else list(found.overrides)


def overrides() -> list[Override]:
    """The settings, one for each word that is no flag."""
    return OverridesParser.create().parse_overrides(flags().overrides)


def given() -> dict[str, Any]:
    """The settings by name; Hydra's own flags are left out."""
    return {override.key_or_group: override.value() for override in overrides()}


def swept() -> list[str]:
    """The settings that have several values, or a range of them, for a multirun."""
    return [override.key_or_group for override in overrides() if override.is_sweep_override()]


def asks_for_help() -> bool:
    """Whether the command line asks for help or for completion."""
    found = flags()
    return bool(found.help or found.hydra_help or found.shell_completion)


def name_in_help() -> str | None:
    """The name in `--help <name>`: of a group, an option or a setting."""
    if not {"-h", "--help"} & set(sys.argv):
        return None
    return next((word for word in flags().overrides if "=" not in word), None)


# Each says what Hydra is to do, so only one of them can.
_MODES = ("run", "multirun", "cfg", "info", "shell_completion")


def check_form() -> None:
    """A UserError for a word that sets nothing, such as a bare path, and for flags that exclude each other."""
    found = flags()
    asked = [f"--{mode.replace('_', '-')}" for mode in _MODES if getattr(found, mode)]
    if len(asked) > 1:
        raise UserError(f"{' and '.join(asked)} do not go together: leave all but one of them out")
    for word in () if asks_for_help() else flags().overrides:
        if "=" not in word and not word.startswith("~"):
            raise UserError(
                f"{word}: it sets nothing; a setting is name=value, such as run={shlex.quote(word)}"
            )
