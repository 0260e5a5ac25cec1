"""`branchynet evaluate`: choose a finished run's operating point by other settings, without training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Sweep
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from branchynet.commands import app
from branchynet.commands.command_line import asks_for_help, flags, given
from branchynet.commands.group_help import options
from branchynet.commands.known import GROUPS
from branchynet.commands.paths import quote_paths
from branchynet.errors import UserError
from branchynet.runs.atomic import check_links
from branchynet.runs.run_config import plain, read_config

AS_IN_RUN = "as_in_run"
STUDIES = "experiment/thresholds"  # of the experiments those that train nothing
# Settings of a sweep that older runs do not name, as they chose: they can be set for them, too.
SINCE = {"candidates": None, "fit_share": 0.5}


def main() -> None:
    """Through Hydra, with the run's own settings as the defaults."""
    quote_paths()
    folder = given().get("run")
    check_study(given().get("experiment"))
    if isinstance(folder, Sweep):
        raise UserError("run=… names several runs: evaluate one at a time, for each has settings of its own")
    if folder is not None:
        from branchynet.runs.result_schema import read_result

        run = Path(str(folder))
        store_as_in_run(read_run_settings(run))
        # Before Hydra makes a folder for the results, and writes a multirun's settings into it.
        read_result(run)
        check_links(run / "evaluate", run)
    elif asks_for_help():
        store_as_in_run({group: {} for group in GROUPS})
    else:
        raise UserError("run=<run folder> is missing: which finished run is to be evaluated?")
    app.start(evaluate, "evaluate")


def check_study(name: object) -> None:
    """A UserError where `experiment=<name>` trains, or is in none of the folders that hold settings."""
    if not isinstance(name, str) or name in studies():
        return
    group, _, own = f"experiment/{name}".rpartition("/")
    if own in options(group, [app.conf_folder()]):
        what = "is for `branchynet train`"
    elif flags().config_dir or "hydra.searchpath" in given():  # it may be there
        return
    else:
        what = "is not there"
    raise UserError(f"experiment={name} {what}; of finished runs there are {', '.join(studies())}")


def studies() -> list[str]:
    """The experiments that are for finished runs, as `experiment=…` names them."""
    return [f"thresholds/{name}" for name in options(STUDIES, [app.conf_folder()])]


def evaluate(config: DictConfig, folder: Path) -> dict[str, Any]:
    """Evaluate as `config` says, and write into `folder`.

    Returns:
        What stands in `folder/result.json`.
    """
    # Only now: torch takes seconds to import, and help has to answer at once.
    from branchynet.commands.evaluate_run import evaluate_run

    return evaluate_run(config, folder, HydraConfig.get().overrides.task)


def read_run_settings(folder: Path) -> dict[str, Any]:
    """`criterion`, `combine`, `sweep` and `engine` of a run, as plain values; nothing of them is called.

    Raises:
        UserError: no run, or damaged settings.
    """
    config = read_config(folder, trust=True)
    try:
        groups: dict[str, Any] = {group: plain(config[group]) for group in GROUPS}
        for node in (*groups.values(), groups["sweep"]["rule"]):
            dict(node)
    except (OmegaConfBaseException, KeyError, TypeError, ValueError) as error:
        raise UserError(f"the settings of the run {folder} are damaged: {error}") from error
    return groups


def store_as_in_run(groups: Mapping[str, Any]) -> None:
    """Make the option `as_in_run` of every group."""
    store = ConfigStore.instance()
    # A list of defaults would choose other configs; a run's settings have none.
    nodes = {group: {k: v for k, v in node.items() if k != "defaults"} for group, node in groups.items()}
    sweep = {**SINCE, **nodes.pop("sweep")}
    rule = sweep.pop("rule", {})
    for group, node in nodes.items():
        store.store(group=group, name=AS_IN_RUN, node=node)
    store.store(group="sweep/rule", name=AS_IN_RUN, node={k: v for k, v in rule.items() if k != "defaults"})
    store.store(group="sweep", name=AS_IN_RUN, node={"defaults": [{"rule": AS_IN_RUN}, "_self_"], **sweep})
