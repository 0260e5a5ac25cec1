"""`branchynet train`: the baseline, the joint training, the sweep, the report."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Sweep
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf

from branchynet.commands import app, terminal
from branchynet.commands.auto_exits import join_auto_exits
from branchynet.commands.command_line import flags, given
from branchynet.commands.evaluate import studies
from branchynet.commands.multirun import is_multirun, job_begins, typed
from branchynet.commands.paths import quote_paths, quoted
from branchynet.errors import UserError, check_flag
from branchynet.runs.atomic import check_links, remove_leftovers
from branchynet.runs.jobs import jobs_of
from branchynet.runs.lock import Held, locked
from branchynet.runs.run_config import plain, read_config
from branchynet.runs.started_run import RESULT
from branchynet.runs.writable import check_writable
from branchynet.training.ranks import ranks_outside

if TYPE_CHECKING:
    from branchynet.data.module import ImageData


def main() -> None:
    """A new run or multirun through Hydra, or `resume=<run folder>` from that run's own config.

    With `trust=true` a resumed run's settings may call anything, see `branchynet.runs.run_config`. With
    `resume_sweep=<folder>` the multirun goes on that is there.
    """
    quote_paths()
    join_auto_exits()
    settings = given()
    folder = settings.pop("resume", None)
    sweep = settings.pop("resume_sweep", None)
    experiment = settings.get("experiment")
    if experiment in studies():
        raise UserError(
            f"experiment={experiment} is of finished runs and trains none: "
            f"`branchynet evaluate run=<run folder> experiment={experiment}`"
        )
    if folder is None:
        if sweep is not None:
            go_on_with_multirun(sweep)
        if not flags().multirun:
            app.start(start, "train")
            return
        if ranks_outside().size > 1:
            raise UserError("several processes were started to train one run together: leave -m out")
        from branchynet.commands.sweeper import left_out

        with left_out(resumes=sweep is not None):
            app.start(start, "train")
    else:
        if sweep is not None:
            raise UserError(
                "resume=… goes on with one run, resume_sweep=… with a multirun: leave one of them out"
            )
        trust = settings.pop("trust", False)
        check_flag("trust", trust)
        if settings:
            raise UserError(
                f"resume=<run folder> takes that run's own settings: leave out {', '.join(settings)}"
            )
        resume(Path(str(folder)), trust)


def go_on_with_multirun(folder: object) -> None:
    """Let the command line be that of a multirun in `folder`, which has jobs already.

    Raises:
        UserError: it has none.
    """
    if isinstance(folder, Sweep):
        raise UserError("resume_sweep=… names several folders: a multirun has one")
    here = [word for word in sys.argv if _name(word) == "hydra.sweep.dir"]
    if here:
        raise UserError(f"resume_sweep={folder} is the multirun's folder: leave {here[0]} out")
    if not jobs_of(Path(str(folder))):
        raise UserError(f"resume_sweep={folder}: no job of a multirun is in this folder")
    place = f"hydra.sweep.dir={quoted(str(folder))}"
    program, *words = [place if _name(word) == "resume_sweep" else word for word in sys.argv]
    sys.argv[:] = [program, *([] if flags().multirun else ["--multirun"]), *words]


def _name(word: str) -> str:
    return word.lstrip("+").partition("=")[0]


def resume(folder: Path, trust: bool = False) -> dict[str, Any]:
    """Go on with the run in `folder` where it was stopped, with the config that it was started with."""
    from branchynet.commands.settings import check_settings
    from branchynet.runs.result_schema import find_result

    config = read_config(folder, trust)
    unfinished = find_result(folder) is None
    if unfinished:
        try:
            check_settings(plain(config), stored=True)
        except UserError as error:
            raise UserError(f"the settings of the run {folder} are damaged: {error}") from error
        if not trust:
            check_links(folder, folder)
    console = logging.StreamHandler(sys.stdout)
    console.setFormatter(terminal.OneLine())
    logging.basicConfig(level=logging.INFO, handlers=[console])
    if not ranks_outside().first:
        return train(config, folder)
    with at_work(folder):
        if unfinished:
            remove_leftovers(folder)
        return train(config, folder)


def start(config: DictConfig, folder: Path) -> float | None:
    """A new run in `folder`, or one that was started there with the same settings.

    Returns:
        What Hydra's sweepers are to look at, see `optimized`.
    """
    from branchynet.runs.started_run import forget_run, start_run

    ranks = ranks_outside()
    check_named(ranks.size)
    if ranks.first and is_multirun():
        job_begins()
    check_folder(folder)
    settings, data = settled(plain(config))
    if not ranks.first:
        train(OmegaConf.create(settings), folder, data)
        return None
    with at_work(folder):
        start_run(folder, settings, typed(HydraConfig.get()))
        try:
            # What is trained is what a resume would read.
            result = train(OmegaConf.create(settings), folder, data)
        except UserError:
            forget_run(folder)
            raise
    return optimized(result, settings["optimized_metric"])


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Inside, no other process trains the run in this folder.

    Raises:
        UserError: one does.
    """
    try:
        with locked(folder / ".lock"):
            yield
    except Held as error:
        raise UserError(f"{folder}: another process trains this run; wait for it, or end it") from error


def check_named(processes: int) -> None:
    """A UserError where each of several processes would have a run folder of its own."""
    named = [each for each in HydraConfig.get().overrides.hydra if ".dir=" in each]
    if processes > 1 and not is_multirun() and not named:
        raise UserError(
            f"{processes} processes train one run together: name its folder by hydra.run.dir=<folder>"
        )


def settled(settings: dict[str, Any]) -> tuple[dict[str, Any], "ImageData | None"]:
    """A new run's settings, checked, with all that they name looked up: what the run stores; and its images, where
    they had to be looked at for that."""
    from branchynet.commands.settings import check_settings

    check_settings(settings)
    name_teachers_model(settings["objective"])
    # Only where it is wanted: it brings torch.
    from branchynet.runs.auto import resolved, wants_images

    if not wants_images(settings["model"]):
        return settings, None
    from branchynet.runs.build import build_data

    data = build_data(OmegaConf.create(settings["data"]))
    return {**settings, "model": resolved(settings["model"], data.input_shape, data.num_classes)}, data


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


def train(config: DictConfig, folder: Path, data: "ImageData | None" = None) -> dict[str, Any]:
    """Train, sweep and report as `config` says; what was done in `folder` before is not done again.

    Args:
        config: the run's settings.
        folder: the run's.
        data: its images, where they are read already.

    Returns:
        What stands in `folder/result.json`.
    """
    # Only now: torch and Lightning take seconds to import, and help has to answer at once.
    from branchynet.commands.train_run import train_run

    check_folder(folder)
    if not ranks_outside().first:
        logging.disable(logging.INFO)
    try:
        return train_run(config, folder, data=data)
    except (KeyboardInterrupt, SystemExit) as error:  # Lightning makes the latter of the former
        if isinstance(error, SystemExit) and error.code != 1:
            raise  # Slurm's launcher has queued the job again
        app.fail(f"stopped; {how_to_go_on(folder)} goes on where it was", code=130)


def how_to_go_on(folder: Path) -> str:
    """What to type for a run, or for the multirun that it is a job of."""
    if HydraConfig.initialized() and is_multirun():
        return f"the same command with resume_sweep={quote(HydraConfig.get().sweep.dir)}"
    return f"`branchynet train resume={quote(str(folder))}`"


def check_folder(folder: Path) -> None:
    """A UserError if a run that is not finished could not be written into `folder`."""
    if not (folder / RESULT).exists():
        check_writable(folder, "name another one by hydra.run.dir=<folder>")
