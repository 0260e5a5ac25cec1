"""`branchynet search`: places, widths, depths, weights of exits for the best gain, on Optuna."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from branchynet.commands import app
from branchynet.commands.auto_exits import join_auto_exits
from branchynet.commands.paths import quote_paths
from branchynet.commands.space import check_space, names
from branchynet.errors import UserError, not_allowed
from branchynet.runs.jobs import FOLDER as JOBS
from branchynet.runs.run_config import plain
from branchynet.runs.started_run import OWN
from branchynet.runs.writable import check_writable

# What the network of stage 1 does not depend on: a gain over a baseline that changes with the trial says nothing.
DRAWN = (
    *("model.exits", "weights", "freeze", "init", "objective", "epochs.joint"),
    *("criterion", "combine", "sweep", "study"),
)


def main() -> None:
    quote_paths()
    join_auto_exits()
    app.start(start, "search")


def start(config: DictConfig, folder: Path) -> None:
    """Begin a search in `folder`, or take part in the one that is there, as `config` says."""
    from branchynet.commands.settings import check_search, check_settings

    settings = plain(config)
    search, space = settings.pop("search"), settings.pop("space")
    check_search(search)
    check_settings(settings)
    check_space(space)
    check_drawn(names(space), settings)
    if settings["trainer"].get("devices", 1) not in (1, "1"):
        allowed = "1 in a search: start its command several times, and the processes share the trials"
        raise not_allowed("trainer.devices", settings["trainer"]["devices"], allowed)
    if find_spec("optuna") is None:
        raise UserError("branchynet search needs Optuna: pip install 'branchynet[search]'")
    check_folder(folder)
    # Only now: torch, Lightning and Optuna take seconds to import.
    from branchynet.commands.search_run import Plan, check_names, search_run

    typed = HydraConfig.get().overrides.task
    base, whole = for_trials(typed, names(space)), for_trials(typed, [])
    check_names(space, base)
    search_run(Plan(search, space, base, whole, settings, folder.absolute(), again(sys.argv, folder)))


def check_folder(folder: Path) -> None:
    """A UserError where a search cannot be in this folder, or should not."""
    own = next((name for name in (*OWN, JOBS) if (folder / name).exists()), None)
    if own is not None:
        raise UserError(
            f"hydra.run.dir={folder} is the folder of a run or a multirun, {own} is in it: name another one for "
            "the search"
        )
    check_writable(folder, "name another one by hydra.run.dir=<folder>")


def check_drawn(drawn: Sequence[str], settings: Mapping[str, Any]) -> None:
    """A UserError for a setting that the baseline depends on, or that is none.

    Args:
        drawn: names of settings.
        settings: a training's.
    """
    for name in drawn:
        dotted = name.lstrip("+~").replace("/", ".").partition("@")[0]
        if not any(dotted == each or dotted.startswith(f"{each}.") for each in DRAWN):
            if not _is_setting(dotted, settings):
                raise UserError(
                    f"space.{name}: there is no setting {dotted}; what may be drawn is of {', '.join(DRAWN)}"
                )
            raise UserError(
                f"space.{name}: a gain over a baseline that changes with the trial says nothing, so what is drawn "
                f"is of {', '.join(DRAWN)}; set {name} beside the search"
            )


def _is_setting(dotted: str, settings: Mapping[str, Any]) -> bool:
    at: Any = settings
    for part in dotted.split("."):
        if not isinstance(at, Mapping) or part not in at:
            return False
        at = at[part]
    return True


def for_trials(overrides: Sequence[str], drawn: Sequence[str]) -> list[str]:
    """Of the search's command line what every trial is trained with: all but what says how to search, and what is
    drawn instead.

    Args:
        overrides: as they were typed.
        drawn: names of settings.
    """
    own = ("search", "space")
    kept = []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        name = override.key_or_group.replace("/", ".")
        if name.partition(".")[0] not in own and override.key_or_group not in drawn:
            kept.append(override.input_line or "")
    return kept


def again(arguments: Sequence[str], folder: Path) -> str:
    """The command that goes on with this search, or takes part in it."""
    words = [word for word in arguments[1:] if not word.startswith("hydra.run.dir=")]
    return shlex.join(["branchynet", "search", *words, f"hydra.run.dir={folder}"])
