"""The evaluation of a finished run, from what it has left or with its network."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from branchynet.commands.caches import study_caches
from branchynet.commands.hparams import flat_hparams
from branchynet.commands.known import GROUPS
from branchynet.commands.pages import evaluation_of, of_thresholds, wants_page
from branchynet.commands.rivals import rivals_of
from branchynet.data.batches import at_once
from branchynet.data.normalise import normalisation, normalise
from branchynet.data.outside import OutsideImages, check_sources
from branchynet.errors import UserError, check_flag, settings_of
from branchynet.evaluation.adaptive import adapted
from branchynet.evaluation.evidence import Evidence, traced_by
from branchynet.evaluation.fitting import Unseen, find_shares, fit_criteria, images_to_fit_on, same_images
from branchynet.evaluation.outside import look_outside, uncertainties
from branchynet.evaluation.settings import SweepSettings, check_split
from branchynet.evaluation.study import choose, sweep
from branchynet.exits.rules import check_rule
from branchynet.reporting.caches import caches_page, write_caches
from branchynet.reporting.figures import pictures
from branchynet.reporting.files import write_run
from branchynet.reporting.page_run import run_page
from branchynet.reporting.tables import summary_table
from branchynet.reporting.tensorboard import log_report
from branchynet.runs.atomic import replacing
from branchynet.runs.build import build_objective, build_sweep
from branchynet.runs.finished_run import FinishedRun, open_run
from branchynet.runs.result_schema import read_result
from branchynet.runs.run_config import plain
from branchynet.runs.stored import CRITERION, StoredCriterion
from branchynet.runs.writable import check_writable
from branchynet.runtime.caches import counter_of

log = logging.getLogger(__name__)

SOURCES = (None, "trace", "network")


def evaluate_run(config: DictConfig, folder: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Sweep the run `config.run` by the settings of `config`, and write what a run leaves into `folder`.

    Args:
        config: the settings.
        folder: where the results go; not looked at with `in_place`.
        overrides: what of the settings was typed, for whoever compares evaluations.

    Returns:
        What stands in `folder/result.json`.

    Raises:
        UserError: settings that are not allowed, or a run that lacks what they need.
    """
    source = config["from"]
    if source not in SOURCES:
        raise UserError(f"from={source}: it is trace, network, or null for trace where that is enough")
    for name in ("adaptive", "in_place", "trust"):
        check_flag(name, config[name])
    outside = plain(config.outside)
    check_sources(outside)
    if config.caches is not None:
        counter_of(config.caches)  # before any work
    run = open_run(config.run, trust=config.trust)
    if not config.in_place and folder.resolve() == run.folder.resolve():
        raise UserError(
            f"the results of {run.folder} are not replaced: take another folder, or in_place=true"
        )
    run.look_for_images(**config.data)
    check_split(config.split, config.sweep.protocol)
    rivals = rivals_of(run.config.data)
    task = run.task
    settings = build_sweep(config, run.result["experiment"], run.result["seed"], config.split, rivals, task)
    for name in ("adaptive", "outside") if task.partly else ():
        if config[name]:
            raise UserError(f"{name}={config[name]}: with task={task.name} there is none; leave it out")
    paged = wants_page(config) and not task.partly  # a page counts right answers
    command = evaluation_of(run.folder, of_thresholds(overrides)) if paged else None
    with settings_of("sweep.rule"):
        check_rule(settings.rule, len(run.result["exits"]))
    if config.in_place and settings.split != "test":
        raise UserError("in_place=true is for split=test: a run's own results are of the test split")

    folder = run.folder if config.in_place else folder
    for below in (folder, folder / "figures"):
        if not below.is_symlink():  # a link is not followed, but replaced
            check_writable(below, "name another one by hydra.run.dir=<folder>, and leave in_place out")
    evidence = None if source == "network" else run.evidence
    criterion, combine = plain(config.criterion), plain(config.combine)
    if config.caches is not None and criterion != run.stored_criterion.settings:
        raise UserError("caches=… is for the run's own criterion: leave criterion=… out")
    reason = "outside=… shows it other images" if outside else ""
    reason = reason or why_network(settings, criterion, combine, run, evidence, config.in_place)
    if source == "trace" and reason:
        raise UserError(f"from=trace is not enough, because {reason}: leave it out, and the network is run")
    if source != "network" and reason:
        log.info("running the network, because %s …", reason)
    if evidence is not None and not reason:
        report, images, stored = choose(settings, evidence), None, run.stored_criterion
        image = None
    else:
        with settings_of("sweep"):
            fitting = images_to_fit_on(settings.criterion, settings.combining, run.data, settings.fit_share)
        found = run.stored_criterion if (run.folder / CRITERION).is_file() else None
        if found is not None and found.combine == combine and same_images(found.fitting, fitting):
            network = run.network
        else:
            shares = find_shares(settings.combining, run.separate, run.data, fitting)
            network, found = run.separate.with_shares(shares), None
        known = found is not None and found.settings == criterion
        criteria = run.criteria if known else fit_criteria(settings.criterion, network, run.data, fitting)
        unseen = Unseen(run.data, fitting)
        root = config.data.root or os.environ.get("BRANCHYNET_DATA") or run.config.data.root
        images, image = unseen.images(settings.split), unseen.image
        shown = {name: OutsideImages(name, images, root) for name in outside}
        report = sweep(settings, network, criteria, run.baseline, run.data, fitting)
        unsure = {
            name: uncertainties(
                partial(_normalised, source, run),
                len(source),
                network,
                criteria,
                settings.engine,
                report.threads,
                run.data.input_shape,
            )
            for name, source in shown.items()
        }
        report = replace(report, outside=look_outside(report.trace, unsure, report.point.thresholds))
        stored = StoredCriterion.of(
            criterion, traced_by(settings.engine), criteria, combine, network.shares, report.fitting
        )

    if config.adaptive:
        most = settings.criterion.largest(len(report.classes))
        report = replace(report, adapted=adapted(report, most))
    page = None if command is None else run_page(report, image, command)
    drawn = pictures(report, images)
    write_run(folder, report, drawn, stored, page)
    if config.caches is not None:
        caches = study_caches(run, config.caches, report.point.thresholds)
        write_caches(folder, caches)
        print(caches_page(caches))
    if run.config.get("logger"):
        # In place, too: of the events at one step TensorBoard shows the last ones.
        with SummaryWriter(str(folder)) as writer:
            log_report(writer, report, hparams(run, settings), drawn, resolved(run, config))
    with replacing(folder / "evaluate.yaml") as temporary:
        OmegaConf.save({**plain(config), "overrides": list(overrides)}, temporary)
    print(summary_table(report))
    log.info("written to:  %s", folder)
    return read_result(folder)


def hparams(run: FinishedRun, settings: SweepSettings) -> dict[str, str | int | float]:
    """The run's settings for TensorBoard's HParams tab, with those of this evaluation instead of its own."""
    objective = build_objective(run.config, len(run.result["exits"]), run.config.freeze == "trunk")
    return flat_hparams(run.config, objective.weights, settings)


def resolved(run: FinishedRun, config: DictConfig) -> str:
    """The same for its text tab, all settings as YAML."""
    own = {group: plain(config[group]) for group in GROUPS}
    return OmegaConf.to_yaml(OmegaConf.create({**plain(run.config), **own}))


def why_network(
    settings: SweepSettings,
    criterion: dict[str, Any],
    combine: dict[str, Any],
    run: FinishedRun,
    evidence: Evidence | None,
    in_place: bool,
) -> str:
    """Why the stored evidence is not enough, in words; empty where it is.

    Args:
        settings: what is asked for.
        criterion: the settings of its criterion.
        combine: those of what an exit answers.
        run: has the stored evidence.
        evidence: that evidence, None where it is not all there.
        in_place: whether the run's results are replaced.
    """
    if in_place:
        return "in_place=true replaces what was measured"
    if evidence is None:
        return f"this run is older than baseline.npz and {CRITERION}, or is without one of them"
    if criterion != run.stored_criterion.settings:
        return f"the stored traces are of the criterion {run.criterion_name}"
    if combine != run.stored_criterion.combine:
        return f"the stored traces are of exits that answer otherwise, {_words(run.stored_criterion.combine)}"
    if settings.criterion.learns or settings.combining.fits:
        fitting = run.stored_criterion.fitting
        if fitting is None:
            return "this run is of before images were set aside for what is fitted: it chose on the same ones"
        if fitting.share not in (None, settings.fit_share):
            return f"what is fitted was fitted with sweep.fit_share={fitting.share:g}"
    if traced_by(settings.engine) != run.stored_criterion.traced_by:
        return f"the stored traces are of the outputs of {run.stored_criterion.traced_by}"
    if settings.measuring.threads != run.result["threads"]:
        return f"the stored latencies are of engine.threads={run.result['threads']}"
    missing = [each.name for each in settings.measuring.engines if each.name not in evidence.latencies]
    return f"there is no stored latency of {missing[0]}" if missing else ""


def _normalised(source: OutsideImages, run: FinishedRun) -> Iterator[Tensor]:
    """Images that the network should not know, as its own would be given to it: (B, C, H, W) float32 each."""
    factors = normalisation(run.data.mean, run.data.std)
    return (normalise(x, *factors) for x in source.batches(at_once(run.data.input_shape)))


def _words(settings: Mapping[str, Any]) -> str:
    """Settings of a part, such as `Average shares=None`."""
    others = [f"{name}={value}" for name, value in settings.items() if name != "_target_"]
    return " ".join([str(settings.get("_target_")).rpartition(".")[2], *others])
