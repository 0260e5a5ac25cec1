"""What a trained network is worth on validation, in MACs: for a search, which compares many that nobody will ship.

No engine is timed, and the test split is not looked at.
Shapes: N exits.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from branchynet.evaluation.evidence import baseline_trace, trace
from branchynet.evaluation.fitting import Fitting, Unseen
from branchynet.evaluation.settings import SweepSettings
from branchynet.exits.criteria import Criterion
from branchynet.exits.found import Search
from branchynet.exits.rules import AccuracyFloor, Cost, View
from branchynet.networks.branched import BranchedNetwork
from branchynet.runtime.costs import count_macs

# What a search may go by, and whether more of it is better.
OBJECTIVES = {
    "gain": True,
    "accuracy": True,
    "highest_accuracy": True,
    "macs": False,
    "macs_to_the_end": False,
}


@dataclass(frozen=True)
class Worth:
    """Of one network on the validation split.

    Args:
        gain: the baseline's MACs over the mean MACs of the cheapest point that loses at most what is allowed; where
            no point does, minus the accuracy that is missing, in points.
        accuracy, macs: of that point, a fraction and a mean per image; if there is none, of the most accurate one.
        highest_accuracy: of all points.
        macs_to_the_end: what leaving at the last exit costs, with all heads.
        baseline_accuracy, baseline_macs: of the network of stage 1.
        thresholds: N-1, of the point.
        exit_rates: N.
        exits: N accuracies, exit n+1 taken by every image.
    """

    gain: float
    accuracy: float
    macs: float
    highest_accuracy: float
    macs_to_the_end: int
    baseline_accuracy: float
    baseline_macs: int
    thresholds: tuple[float, ...]
    exit_rates: tuple[float, ...]
    exits: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


def worth(
    settings: SweepSettings,
    network: BranchedNetwork,
    criteria: Sequence[Criterion],
    baseline: BranchedNetwork,
    data: Any,
    fitting: Fitting | None = None,
    max_loss: float = 0.0,
) -> Worth:
    """Trace validation, try the thresholds, and take the cheapest point in MACs that loses at most `max_loss`.

    Args:
        settings: which thresholds are tried; its rule and engines are not asked.
        network: N exits, in eval mode, on the CPU.
        criteria: N, fitted.
        baseline: its trunk and last head are the baseline; in eval mode, on the CPU.
        data: has `labels`, `batches`, `input_shape` and `classes`, as `branchynet.data.module.ImageData` has.
        fitting: the images that shares or criteria were fitted on.
        max_loss: of accuracy, a fraction.
    """
    unseen, macs = Unseen(data, fitting), count_macs(network, data.input_shape, criteria)
    label = unseen.labels("val")
    trunk, task = baseline.trunk().eval(), settings.task
    seen = trace(network, criteria, unseen.normalised("val"), label, task)
    whole = baseline_trace(trunk, criteria[-1], unseen.normalised("val"), label, task)
    cost = Cost("MACs", macs.exits, macs.baseline)
    tried = Search([macs.exits], settings.max_vectors, settings.thresholds, settings.candidates)
    view = View(seen, tried, {"macs": cost}, whole.correct[:, 0])
    choice = AccuracyFloor(max_loss, cost="macs").choose(view)
    point, highest = choice.point, view.points.right.max().item() / seen.num_samples
    mean = point.mean_cost(macs.exits)
    missing = view.baseline_accuracy - max_loss - highest
    return Worth(
        gain=macs.baseline / mean if choice.feasible else -100 * missing,
        accuracy=point.accuracy,
        macs=mean,
        highest_accuracy=highest,
        macs_to_the_end=macs.exits[-1],
        baseline_accuracy=view.baseline_accuracy,
        baseline_macs=macs.baseline,
        thresholds=point.thresholds,
        exit_rates=point.exit_rates,
        exits=tuple(view.exit_accuracy.tolist()),
    )
