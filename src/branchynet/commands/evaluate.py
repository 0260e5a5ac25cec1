"""`branchynet evaluate`: choose a finished run's operating point by other settings, without training."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from branchynet.commands import app
from branchynet.commands.run_config import plain, read_config
from branchynet.errors import UserError

AS_IN_RUN = "as_in_run"
HELP = {"--help", "-h", "--hydra-help"}


def main(arguments: Sequence[str]) -> None:
    """Through Hydra, with the run's own settings as the defaults."""
    folders = [argument[4:].strip("'\"") for argument in arguments if argument.startswith("run=")]
    others = [argument for argument in arguments if not argument.startswith("run=")]
    if folders:
        store_as_in_run(read_run_settings(Path(folders[-1])))
        others.append(f"run={folders[-1]}")
    elif HELP.intersection(arguments):
        store_as_in_run({"criterion": {}, "sweep": {}, "engine": {}})
    else:
        raise UserError("run=<run folder> is missing: which finished run is to be evaluated?")
    if any(argument.startswith("sweep=") for argument in others) and not any(
        argument.startswith("sweep/rule=") for argument in others
    ):
        others.append(f"sweep/rule={AS_IN_RUN}")  # other thresholds are no other rule
    if "in_place=true" in others:
        others.append(f"hydra.run.dir={folders[-1]}")
    sys.argv[1:] = others
    app.quote_paths(["run", "hydra.run.dir"])
    app.start(evaluate, "evaluate")


def evaluate(config: DictConfig, folder: Path) -> dict[str, Any]:
    """Evaluate as `config` says, and write into `folder`.

    Returns:
        What stands in `folder/result.json`.
    """
    # Only now: torch takes seconds to import, and help has to answer at once.
    from branchynet.commands.evaluation import execute

    return execute(config, folder)


def read_run_settings(folder: Path) -> dict[str, Any]:
    """`criterion`, `sweep` and `engine` of a run, as plain values; nothing of them is called.

    Raises:
        UserError: no run, or damaged settings.
    """
    config = read_config(folder, trust=True)
    try:
        groups: dict[str, Any] = {group: plain(config[group]) for group in ("criterion", "sweep", "engine")}
        for node in (groups["criterion"], groups["engine"], groups["sweep"]["rule"]):
            str(node["name"])
    except (OmegaConfBaseException, KeyError, TypeError, ValueError) as error:
        raise UserError(f"the settings of the run {folder} are damaged: {error}") from error
    return groups


def store_as_in_run(groups: Mapping[str, Any]) -> None:
    """Make the option `as_in_run` of every group."""
    store = ConfigStore.instance()
    # A list of defaults would choose other configs; a run's settings have none.
    nodes = {group: {k: v for k, v in node.items() if k != "defaults"} for group, node in groups.items()}
    sweep = nodes["sweep"]
    rule = sweep.pop("rule", {})
    store.store(group="criterion", name=AS_IN_RUN, node=nodes["criterion"])
    store.store(group="engine", name=AS_IN_RUN, node=nodes["engine"])
    store.store(group="sweep/rule", name=AS_IN_RUN, node={k: v for k, v in rule.items() if k != "defaults"})
    store.store(group="sweep", name=AS_IN_RUN, node={"defaults": [{"rule": AS_IN_RUN}, "_self_"], **sweep})
