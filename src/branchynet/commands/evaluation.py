"""The evaluation of a finished run, from what it has left or with its network."""

import json
import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch.utils.tensorboard import SummaryWriter

from branchynet.callbacks.evaluation import Evidence, SweepSettings, choose, sweep, traced_by
from branchynet.commands import app
from branchynet.commands.finished_run import FinishedRun, open_run
from branchynet.commands.image_facts import read_facts
from branchynet.commands.run import flat_hparams
from branchynet.commands.run_config import plain
from branchynet.errors import UserError
from branchynet.reporting import files
from branchynet.reporting.figures import draw_all
from branchynet.reporting.stored import read_baseline, read_costs, read_trace
from branchynet.reporting.tables import summary_table
from branchynet.reporting.tensorboard import log_report

log = logging.getLogger(__name__)

SOURCES = (None, "trace", "network")


def execute(config: DictConfig, folder: Path) -> dict[str, Any]:
    """Sweep the run `config.run` by the settings of `config`, and write what a run leaves into `folder`.

    Returns:
        What stands in `folder/result.json`.

    Raises:
        UserError: settings that are not allowed, or a run that lacks what they need.
    """
    source = config["from"]
    if source not in SOURCES:
        raise UserError(f"from={source}: it is trace, network, or null for trace where that is enough")
    for name in ("in_place", "trust"):
        app.check_flag(name, config[name])
    run = open_run(config.run, trust=config.trust)
    if not config.in_place and folder.resolve() == run.folder.resolve():
        raise UserError(
            f"the results of {run.folder} are not replaced: take another folder, or in_place=true"
        )
    for key in ("root", "path"):
        if config.data[key] is not None:
            run.config.data[key] = config.data[key]
    settings = SweepSettings(
        experiment=run.result["experiment"],
        seed=run.result["seed"],
        criterion=config.criterion.name,
        engine=plain(config.engine),
        split=config.split,
        **plain(config.sweep),
    )
    if config.in_place and settings.split != "test":
        raise UserError("in_place=true is for split=test: a run's own results are of the test split")

    evidence = None if source == "network" else stored_evidence(run)
    reason = why_network(settings, run, evidence, config.in_place)
    if source == "trace" and reason:
        raise UserError(f"from=trace is not enough, for {reason}: leave it out, and the network is run")
    if source != "network" and reason:
        log.info("running the network, for %s …", reason)
    if evidence is not None and not reason:
        report, images = choose(settings, evidence), None
    else:
        report = sweep(settings, run.network, run.baseline, run.data)
        images = run.data.images(settings.split)

    folder = run.folder if config.in_place else folder
    files.write_run(folder, report, draw_all(report, images))
    if run.config.get("logger"):
        # In place, too: of the events at one step TensorBoard shows the last ones.
        with SummaryWriter(str(folder)) as writer:
            log_report(writer, report, hparams(config, run), images)
    OmegaConf.save(config, folder / "evaluate.yaml")
    print(summary_table(report))
    log.info("written to:  %s", folder)
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def hparams(config: DictConfig, run: FinishedRun) -> dict[str, str | int | float]:
    """The run's settings for TensorBoard's HParams tab, with those of this evaluation instead of its own."""
    groups = {group: plain(config[group]) for group in ("criterion", "sweep", "engine")}
    return flat_hparams(OmegaConf.create({**plain(run.config), **groups}))


def why_network(settings: SweepSettings, run: FinishedRun, evidence: Evidence | None, in_place: bool) -> str:
    """Why the stored evidence is not enough, in words; empty where it is."""
    if in_place:
        return "in_place=true replaces what was measured by what is measured"
    if evidence is None:
        return "this run is older than baseline.npz, or is without it"
    if settings.criterion != run.criterion_name:
        return f"the stored traces are of the criterion {run.criterion_name}"
    if traced_by(settings.engines[0]) != traced_by(run.result["engine"]):
        return f"the stored traces are of the outputs of {traced_by(run.result['engine'])}"
    if settings.threads != run.result["threads"]:
        return f"the stored latencies are of engine.threads={run.result['threads']}"
    missing = [engine for engine in settings.engines if engine not in evidence.latencies]
    return f"there is no stored latency of {missing[0]}" if missing else ""


def stored_evidence(run: FinishedRun) -> Evidence | None:
    """What the run has left; None where it is too old to have left all of it.

    Raises:
        UserError: a file is damaged, or they do not fit each other.
    """
    facts = read_facts(run.folder)
    if facts is None or not (run.folder / "baseline.npz").is_file():
        return None
    baseline = read_baseline(run.folder / "baseline.npz")
    macs, latencies = read_costs(run.folder / "costs.csv")
    traces = {split: read_trace(run.folder / f"trace-{split}.npz") for split in ("val", "test")}
    exits = len(macs.exits)
    for split, trace in traces.items():
        if trace.num_exits != exits or len(baseline.correct[split]) != trace.num_samples:
            raise UserError(
                f"trace-{split}.npz, costs.csv and baseline.npz in {run.folder} are not of one run: take "
                "from=network"
            )
    return Evidence(
        classes=facts.classes,
        traces=traces,
        baseline_correct=baseline.correct,
        macs=macs,
        latencies=latencies,
        machine=run.result["machine"],
        versions=run.result["versions"],
        inexact_test=baseline.inexact_test,
        inexact_training=baseline.inexact_training,
    )
