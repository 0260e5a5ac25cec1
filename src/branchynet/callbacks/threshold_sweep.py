"""After fitting: choose the exit thresholds on validation, prove the choice on test, report it."""

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from branchynet.evaluation.evidence import traced_by
from branchynet.evaluation.fitting import Unseen, find_shares, fit_criteria, images_to_fit_on
from branchynet.evaluation.settings import SweepSettings
from branchynet.evaluation.study import sweep
from branchynet.networks.branched import BranchedNetwork
from branchynet.reporting.figures import pictures
from branchynet.reporting.files import write_run
from branchynet.reporting.page_run import run_page
from branchynet.reporting.tables import summary_table
from branchynet.reporting.tensorboard import log_report, scalars
from branchynet.runs.run_config import SEPARATE
from branchynet.runs.stored import StoredCriterion

log = logging.getLogger(__name__)


class ThresholdSweep(Callback):
    """Sweeps the exit thresholds once fitting has ended, and writes and logs what a run leaves.

    The network is traced on the validation and the test split; every threshold vector is evaluated on the
    trace; the rule picks one by its accuracy on validation and by measured latencies; that one is reported
    on test and then run for real, sample by sample, on every engine asked for.

    Args:
        baseline: the network of stage 1; only its trunk and last head are used.
        folder: where the files go.
        settings: how the operating point is chosen and measured.
        criterion: the settings that made the criterion, for whoever loads the run.
        hparams: flat settings for TensorBoard's HParams tab.
        resolved: all settings as YAML, for its text tab.
        combine: the settings that made what an exit answers, likewise.
        command: that evaluates the run, for its page; None: no page is written.

    The fitted module has a `network` (BranchedNetwork); the trainer's datamodule has `labels`, `batches`,
    `images`, `inexact`, `input_shape` and `classes`, as `branchynet.data.module.ImageData` has.
    """

    def __init__(
        self,
        baseline: BranchedNetwork,
        folder: Path,
        settings: SweepSettings,
        criterion: Mapping[str, Any],
        hparams: Mapping[str, str | int | float] | None = None,
        resolved: str = "",
        combine: Mapping[str, Any] = SEPARATE,
        command: str | None = None,
    ) -> None:
        self.baseline = baseline
        self.folder = folder
        self.settings = settings
        self.criterion = criterion
        self.hparams = dict(hparams or {})
        self.resolved = resolved
        self.combine = combine
        self.command = command

    @torch.no_grad()
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        # Copies on the CPU, where the engines run: the trace then has the very numbers that they see.
        trained: Any = pl_module.network
        network = copy.deepcopy(trained).cpu().eval()
        baseline = copy.deepcopy(self.baseline).cpu().eval()
        data.setup("test")
        log.info("sweeping the thresholds …")
        settings = self.settings
        fitting = images_to_fit_on(settings.criterion, settings.combining, data, settings.fit_share)
        # First what exits answer, then what judges those answers.
        network = network.with_shares(find_shares(settings.combining, network, data, fitting))
        criteria = fit_criteria(settings.criterion, network, data, fitting)
        report = sweep(settings, network, criteria, baseline, data, fitting)

        unseen = Unseen(data, fitting)
        drawn = pictures(report, unseen.images(settings.split))
        stored = StoredCriterion.of(
            self.criterion, traced_by(settings.engine), criteria, self.combine, network.shares, report.fitting
        )
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                log_report(logger.experiment, report, self.hparams, drawn, self.resolved)
                logger.experiment.flush()
            else:
                logger.log_metrics(scalars(report))
                logger.save()
        # Last: a run that has its result is finished, and nothing is made up for afterwards.
        page = None
        if self.command is not None:
            page = run_page(report, unseen.image, self.command)
        write_run(self.folder, report, drawn, stored, page)
        print(summary_table(report))
