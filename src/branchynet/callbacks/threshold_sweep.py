"""After fitting: choose the exit thresholds on validation, prove the choice on test, report it.

Shapes: C channels, H, W, K classes, N exits, S samples, V threshold vectors.
"""

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn

from branchynet.errors import UserError
from branchynet.exits.criteria import Criterion, get_criterion
from branchynet.exits.frontier import pareto
from branchynet.exits.select import Reference, check_rule, select
from branchynet.exits.sweep import check_grid, evaluate_grid, threshold_grid
from branchynet.exits.trace import Trace, compute_trace
from branchynet.networks.branched import BranchedNetwork
from branchynet.reporting import files
from branchynet.reporting.figures import draw_all
from branchynet.reporting.report import PROTOCOLS, Report, Verified
from branchynet.reporting.tables import summary_table
from branchynet.reporting.tensorboard import log_report
from branchynet.runtime.costs import count_macs, describe_machine, measure_latencies
from branchynet.runtime.engine import check_engine, make_classifier, make_engine
from branchynet.runtime.verify import compare, run_for_real

log = logging.getLogger(__name__)

CHUNK = 1000  # images per forward pass of a trace


class ThresholdSweep(Callback):
    """Sweeps the exit thresholds once fitting has ended, and writes and logs what a run leaves.

    The network is traced on the validation and the test split; every threshold vector is evaluated on the
    trace; the rule picks one by its accuracy on validation and by measured latencies; that one is reported
    on test and then run for real, sample by sample, on every engine asked for.

    Args:
        baseline: the network of stage 1; only its trunk and last head are used.
        folder: where the files go.
        experiment, seed: named in the results.
        criterion: how unsure an exit is: a name of `branchynet.exits.criteria`.
        engine: `name` (what the choice is made with), `threads`, `seconds` (of measuring per candidate),
            `compare` (names of further engines to measure and run).
        rule: `name` and its parameters, see `branchynet.exits.select`.
        protocol: `validation`, or `paper`: choose on test, as the paper did (section IV), for comparison only.
        thresholds: tried at every exit; None takes them from the validation split's own uncertainties.
        max_vectors: at most so many threshold vectors.
        hparams: flat settings for TensorBoard's HParams tab.

    The fitted module has a `network` (BranchedNetwork); the trainer's datamodule has `split`, `images`,
    `inexact`, `input_shape`, `num_classes` and `classes`, as `branchynet.data.module.ImageData` has.
    """

    def __init__(
        self,
        baseline: BranchedNetwork,
        folder: Path,
        experiment: str,
        seed: int,
        criterion: str,
        engine: Mapping[str, Any],
        rule: Mapping[str, Any],
        protocol: str = "validation",
        thresholds: Sequence[float] | None = None,
        max_vectors: int = 40_000,
        hparams: Mapping[str, str | int | float] | None = None,
    ) -> None:
        if protocol not in PROTOCOLS:
            raise UserError(f"sweep.protocol={protocol}: it is one of {', '.join(PROTOCOLS)}")
        check_rule(rule)
        check_grid(max_vectors, thresholds)
        self.criterion = get_criterion(criterion)
        self.criterion_name = criterion
        self.baseline = baseline
        self.folder = folder
        self.experiment = experiment
        self.seed = seed
        self.engines = tuple(dict.fromkeys([engine["name"], *(engine.get("compare") or ())]))
        self.threads = engine["threads"]
        for name in self.engines:
            check_engine(name, self.threads)
        self.seconds = engine["seconds"]
        if not 0 < self.seconds < math.inf:
            raise UserError(f"engine.seconds={self.seconds}: it is a number above 0")
        self.rule = dict(rule)
        self.protocol = protocol
        self.thresholds = thresholds
        self.max_vectors = max_vectors
        self.hparams = dict(hparams or {})

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
        report = self.sweep(network, baseline, data)

        images = data.images("test")
        figures = draw_all(report, images)
        files.write_run(self.folder, report, figures)
        if isinstance(trainer.logger, TensorBoardLogger):
            log_report(trainer.logger.experiment, report, self.hparams, images)
        print(summary_table(report))

    def sweep(self, network: BranchedNetwork, baseline: BranchedNetwork, data: Any) -> Report:
        """Trace, cost, sweep, select, and run the selected point: everything but the writing.

        Args:
            network: N exits, in eval mode, on the CPU.
            baseline: likewise; its trunk and last head are the baseline.
            data: splits, see the class.
        """
        main, *_ = self.engines
        trunk = baseline.trunk().eval()
        traces = {split: trace_split(network, data.split(split), self.criterion) for split in ("val", "test")}
        correct = {split: trunk_correct(trunk, data.split(split)) for split in ("val", "test")}
        accuracies = {split: int(right.sum()) / len(right) for split, right in correct.items()}
        macs = count_macs(network, data.input_shape)
        latencies = {
            engine: measure_latencies(
                engine, network, trunk, self.criterion, data.input_shape, self.threads, self.seconds
            )
            for engine in self.engines
        }
        exit_us = torch.tensor([latency.median_us for latency in latencies[main].exits], dtype=torch.float64)

        choice = "test" if self.protocol == "paper" else "val"
        grid = threshold_grid(traces[choice], self.max_vectors, self.thresholds)
        points = {split: evaluate_grid(trace, grid) for split, trace in traces.items()}
        selection = select(
            self.rule,
            points[choice],
            latency_us=exit_us,
            macs=torch.tensor(macs.exits, dtype=torch.float64),
            baseline=Reference(accuracies[choice], latencies[main].baseline.median_us, macs.baseline),
            exit_accuracy=traces[choice].correct.double().mean(dim=0),
        )
        thresholds = points["test"].thresholds[selection.index].tolist()
        machine, versions = describe_machine()
        return Report(
            experiment=self.experiment,
            seed=self.seed,
            protocol=self.protocol,
            engine=main,
            threads=self.threads,
            machine=machine,
            versions=versions,
            criterion=self.criterion_name,
            num_classes=data.num_classes,
            classes=data.classes,
            trace_val=traces["val"],
            trace_test=traces["test"],
            baseline_accuracy=accuracies["test"],
            baseline_val_accuracy=accuracies["val"],
            macs=macs,
            latencies=latencies,
            points_val=points["val"],
            points_test=points["test"],
            frontier=pareto(points[choice].mean_cost(exit_us), points[choice].accuracy),
            selection=selection,
            rule=self.rule,
            verified={
                engine: self._verify(engine, network, trunk, thresholds, traces["test"], data)
                for engine in self.engines
            },
            baseline_correct=correct["test"],
            inexact_test=data.inexact("test"),
            inexact_training=len(data.inexact("train")) + len(data.inexact("val")),
        )

    def _verify(
        self,
        name: str,
        network: BranchedNetwork,
        trunk: nn.Module,
        thresholds: Sequence[float],
        trace: Trace,
        data: Any,
    ) -> Verified:
        """Run the operating point over the test split for real, sample by sample."""
        engine = make_engine(name, network, self.criterion, thresholds, data.input_shape, self.threads)
        baseline = make_classifier(name, trunk, data.input_shape, self.threads)
        x, y = data.split("test")
        run = run_for_real(engine, baseline, x.numpy(), self.threads)
        differences = compare(
            run.outcome, trace.uncertainty.numpy(), trace.prediction.numpy(), engine.thresholds
        )
        if name == "torch" and differences.unexplained:
            # The trace is of the same network in the same library: this would be a bug of ours.
            raise RuntimeError(f"{differences.unexplained} samples did not leave where the sweep says")
        taken = torch.from_numpy(run.outcome.exit)
        return Verified(
            accuracy=float((torch.from_numpy(run.outcome.prediction) == y).double().mean()),
            exit_rates=tuple((taken.bincount(minlength=network.num_exits).double() / len(taken)).tolist()),
            latency_us=run.latency_us,
            latency_iqr_us=run.latency_iqr_us,
            baseline_latency_us=run.baseline_latency_us,
            differences=differences.differences,
            near_threshold=differences.near_threshold,
            unexplained=differences.unexplained,
        )


def trace_split(network: nn.Module, split: tuple[Tensor, Tensor], criterion: Criterion) -> Trace:
    """The trace of a split, (images (S, C, H, W), labels (S,))."""
    x, y = split
    return compute_trace(network, zip(x.split(CHUNK), y.split(CHUNK), strict=True), criterion)


def trunk_correct(trunk: nn.Module, split: tuple[Tensor, Tensor]) -> Tensor:
    """(S,) bool: which samples of a split, (images (S, C, H, W), labels (S,)), the undivided network gets right."""
    x, y = split
    with torch.inference_mode():
        answers = [trunk(part).argmax(dim=1) for part in x.split(CHUNK)]
    return torch.cat(answers) == y
