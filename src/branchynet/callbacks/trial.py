"""A trial of a search: told how its exits do in every epoch, and judged on validation once fitting has ended."""

import copy
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from branchynet.evaluation.fitting import find_shares, fit_criteria, images_to_fit_on
from branchynet.evaluation.settings import SweepSettings
from branchynet.evaluation.worth import worth
from branchynet.networks.branched import BranchedNetwork
from branchynet.reporting.tensorboard import log_hparams
from branchynet.runs.atomic import replacing
from branchynet.runs.result_schema import TRIAL
from branchynet.runtime.costs import Macs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """What a search wants of a run: no sweep for its own sake, no timing, no look at the test split.

    Args:
        max_loss: of accuracy against the baseline, a fraction, see `branchynet.evaluation.worth`.
        tell: is called with the epoch (from 0) and the mean accuracy of the side exits on validation; what it
            raises ends the run.
        look: is called before anything is trained, with what leaving costs in MACs; likewise.
    """

    max_loss: float
    tell: Callable[[int, float], None]
    look: Callable[[Macs], None] = lambda macs: None

    def callbacks(
        self,
        baseline: BranchedNetwork,
        folder: Path,
        settings: SweepSettings,
        hparams: Mapping[str, str | int | float],
    ) -> list[Callback]:
        """For joint training; arguments as of `ThresholdSweep`."""
        return [TellAccuracy(self.tell), JudgeTrial(baseline, folder, settings, hparams, self.max_loss)]


class TellAccuracy(Callback):
    """Tells the mean accuracy of the side exits that are trained, on validation, once an epoch.

    Unweighted: what the exits' weights are may be part of the search. And without the last exit, which hardly
    differs from trial to trial.
    """

    def __init__(self, tell: Callable[[int, float], None]) -> None:
        self.tell = tell

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        module: Any = pl_module
        names = [f"joint/val_accuracy_exit_{n}" for n in range(1, module.network.num_exits)]
        found = [float(trainer.callback_metrics[name]) for name in names if name in trainer.callback_metrics]
        if found:
            self.tell(trainer.current_epoch, sum(found) / len(found))


class JudgeTrial(Callback):
    """Once fitting has ended: what the network is worth, into `trial.json` and to the loggers.

    Args:
        baseline: the network of stage 1; only its trunk and last head are used.
        folder: the trial's run.
        settings: which thresholds are tried.
        hparams: flat settings for TensorBoard's HParams tab.
        max_loss: see `worth`.
    """

    def __init__(
        self,
        baseline: BranchedNetwork,
        folder: Path,
        settings: SweepSettings,
        hparams: Mapping[str, str | int | float],
        max_loss: float,
    ) -> None:
        self.baseline = baseline
        self.folder = folder
        self.settings = settings
        self.hparams = hparams
        self.max_loss = max_loss

    @torch.no_grad()
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        trained: Any = pl_module.network
        network = copy.deepcopy(trained).cpu().eval()
        baseline = copy.deepcopy(self.baseline).cpu().eval()
        settings = self.settings
        fitting = images_to_fit_on(settings.criterion, settings.combining, data, settings.fit_share)
        network = network.with_shares(find_shares(settings.combining, network, data, fitting))
        criteria = fit_criteria(settings.criterion, network, data, fitting)
        found = worth(settings, network, criteria, baseline, data, fitting, self.max_loss).as_dict()
        values = {f"trial/{name}": value for name, value in found.items() if not isinstance(value, list)}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for tag, value in values.items():
                    logger.experiment.add_scalar(tag, value, 0)
                log_hparams(logger.experiment, self.hparams)
                logger.experiment.flush()
            else:
                logger.log_metrics(values)
                logger.save()
        with replacing(self.folder / TRIAL) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def read_trial(folder: Path) -> dict[str, Any]:
    """What `trial.json` of a trial that has ended holds."""
    found: dict[str, Any] = json.loads((folder / TRIAL).read_text(encoding="utf-8"))
    return found
