"""`branchynet train`: the baseline, the joint training, the sweep, the report."""

import logging
import sys
from pathlib import Path
from shlex import quote
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf

from branchynet.commands import app, terminal
from branchynet.commands.auto_exits import join_auto_exits
from branchynet.commands.command_line import given
from branchynet.commands.evaluate import studies
from branchynet.commands.paths import quote_paths
from branchynet.errors import UserError, check_flag
from branchynet.runs.atomic import check_links, remove_leftovers
from branchynet.runs.run_config import plain, read_config
from branchynet.runs.writable import check_writable


def main() -> None:
    """A new run or multirun through Hydra, or `resume=<run folder>` from that run's own config.

    With `trust=true` a resumed run's settings may call anything, see `branchynet.runs.run_config`.
    """
    quote_paths()
    join_auto_exits()
    settings = given()
    folder = settings.pop("resume", None)
    experiment = settings.get("experiment")
    if experiment in studies():
        raise UserError(
            f"experiment={experiment} is of finished runs and trains none: "
            f"`branchynet evaluate run=<run folder> experiment={experiment}`"
        )
    if folder is None:
        app.start(start, "train")
    else:
        trust = settings.pop("trust", False)
        check_flag("trust", trust)
        if settings:
            raise UserError(
                f"resume=<run folder> takes that run's own settings: leave out {', '.join(settings)}"
            )
        resume(Path(str(folder)), trust)


def resume(folder: Path, trust: bool = False) -> dict[str, Any]:
    """Go on with the run in `folder` where it was stopped, with the config that it was started with."""
    from branchynet.commands.settings import check_settings
    from branchynet.runs.result_schema import find_result

    config = read_config(folder, trust)
    if find_result(folder) is None:
        try:
            check_settings(plain(config), stored=True)
        except UserError as error:
            raise UserError(f"the settings of the run {folder} are damaged: {error}") from error
        if not trust:
            check_links(folder, folder)
        remove_leftovers(folder)
    console = logging.StreamHandler(sys.stdout)
    console.setFormatter(terminal.OneLine())
    logging.basicConfig(level=logging.INFO, handlers=[console])
    return train(config, folder)


def start(config: DictConfig, folder: Path) -> float | None:
    """A new run in `folder`, or one that was started there with the same settings.

    Returns:
        What Hydra's sweepers are to look at, see `optimized`.
    """
    from branchynet.runs.started_run import forget_run, start_run

    check_folder(folder)
    settings = settled(plain(config))
    start_run(folder, settings, HydraConfig.get().overrides.task)
    try:
        # What is trained is what a resume would read.
        result = train(OmegaConf.create(settings), folder)
    except UserError:
        forget_run(folder)
        raise
    return optimized(result, settings["optimized_metric"])


def settled(settings: dict[str, Any]) -> dict[str, Any]:
    """A new run's settings, checked, with all that they name looked up: what the run stores."""
    from branchynet.commands.settings import check_settings

    check_settings(settings)
    name_teachers_model(settings["objective"])
    return {**settings, "model": settled_model(settings)}


def settled_model(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of the model with what is taken from the images, so that the run says what was built."""
    from branchynet.runs.auto import resolved, wants_images

    model: dict[str, Any] = settings["model"]
    if not wants_images(model):
        return model
    from branchynet.runs.build import build_data

    data = build_data(OmegaConf.create(settings["data"]))
    return resolved(model, data.input_shape, data.num_classes)


def name_teachers_model(objective: dict[str, Any]) -> None:
    """Where `teacher_model` is the name of an option of the group model, put the option's settings in its place.

    So the run stores them, and a resume needs no config folder.
    """
    name = objective.get("teacher_model")
    if isinstance(name, str):
        try:
            found = compose(overrides=[f"+model@teacher_model={name}"])
        except MissingConfigException as error:
            there = ", ".join(error.options or ())
            raise UserError(f"objective.teacher_model={name}: it is one of the models {there}") from error
        objective["teacher_model"] = plain(found.teacher_model)


def optimized(result: dict[str, Any], metric: str | None) -> float | None:
    """The number in `result.json` with this dotted name; None without a name, or for an older run without it."""
    if metric is None:
        return None
    group, _, key = metric.partition(".")
    return (result.get(group) or {}).get(key)


def train(config: DictConfig, folder: Path) -> dict[str, Any]:
    """Train, sweep and report as `config` says; what was done in `folder` before is not done again.

    Returns:
        What stands in `folder/result.json`.
    """
    # Only now: torch and Lightning take seconds to import, and help has to answer at once.
    from branchynet.commands.train_run import train_run

    check_folder(folder)
    try:
        return train_run(config, folder)
    except (KeyboardInterrupt, SystemExit):  # Lightning makes the latter of the former
        app.fail(f"stopped; `branchynet train resume={quote(str(folder))}` goes on where it was", code=130)


def check_folder(folder: Path) -> None:
    """A UserError if a run that is not finished could not be written into `folder`."""
    if not (folder / "result.json").exists():
        check_writable(folder, "name another one by hydra.run.dir=<folder>")
