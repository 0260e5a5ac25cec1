"""How an operating point is chosen, measured and named."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from branchynet.errors import UserError, check_choice, is_number, not_allowed
from branchynet.evaluation.fitting import SHARE
from branchynet.evaluation.rivals import Rival
from branchynet.exits.combining import Combining, Separate
from branchynet.exits.criteria import Criterion
from branchynet.exits.rules import Rule
from branchynet.exits.sweep import check_grid
from branchynet.exits.task import CLASSIFICATION, Task
from branchynet.runtime.base import Backend, check_threads

PROTOCOLS = ("validation", "paper")
SPLITS = ("test", "val")


@dataclass(frozen=True)
class Measuring:
    """What runs inference when latency is measured.

    Args:
        engines: the one that the choice is made with, then others that are measured and run, too.
        threads: of computation, on every engine.
        seconds: of measuring, for each candidate.

    Raises:
        UserError: an argument that is not allowed, or an engine that this machine does not have.
    """

    engines: Sequence[Backend]
    threads: int = 1
    seconds: float = 0.5

    def __post_init__(self) -> None:
        check_threads(self.threads)
        if not is_number(self.seconds) or not 0 < self.seconds < math.inf:
            raise not_allowed("seconds", self.seconds, "a number above 0")
        for engine in self.engines:
            engine.check()


@dataclass(frozen=True)
class SweepSettings:
    """How an operating point is chosen.

    Args:
        experiment, seed: named in the results.
        criterion: how unsure an exit is.
        rule: which point to take.
        measuring: engines and threads.
        protocol: `validation`, or `paper`: choose on test, as the paper did (section IV), for comparison only.
        thresholds: tried at every exit; None takes them from the uncertainties of the split of the choice.
        max_vectors: the most threshold vectors that are tried.
        candidates: how many thresholds are tried at each exit; None: as many as `max_vectors` allows.
        split: what is reported: `test`, or `val`, so that test need not be looked at.
        rivals: small networks of others to show beside.
        combining: what an exit answers.
        task: what the network is asked for.
        fit_share: of the validation images, those that shares and criteria are fitted on where there are no
            calibration images; the choice is made on the others.

    Raises:
        UserError: an argument that is not allowed.
    """

    experiment: str
    seed: int
    criterion: Criterion
    rule: Rule
    measuring: Measuring
    protocol: str = "validation"
    thresholds: Sequence[float] | None = None
    max_vectors: int = 40_000
    candidates: int | None = None
    split: str = "test"
    rivals: tuple[Rival, ...] = ()
    combining: Combining = field(default_factory=Separate)
    fit_share: float = SHARE
    task: Task = CLASSIFICATION

    def __post_init__(self) -> None:
        check_choice("protocol", self.protocol, PROTOCOLS)
        check_grid(self.max_vectors, self.thresholds, self.candidates)
        check_split(self.split, self.protocol)
        if not is_number(self.fit_share) or not 0 < self.fit_share < 1:
            raise not_allowed(
                "fit_share", self.fit_share, "a share of the validation images, between 0 and 1"
            )
        if self.protocol == "paper" and getattr(self.rule, "promises", False):
            raise UserError(
                f"protocol=paper chooses on test, and then the rule {self.rule.name} can promise nothing of new "
                "data: leave one out"
            )

        if self.task.partly:
            self._check_partly()

    def _check_partly(self) -> None:
        """A UserError for what is for one answer an image, right or wrong."""
        name = self.task.name
        if getattr(self.rule, "whole", False):
            raise UserError(
                f"the rule {self.rule.name} counts right and wrong answers, and with task={name} one is partly "
                "right: take accuracy_floor, gain_floor, knee, latency_budget or mac_budget"
            )
        if not isinstance(self.combining, Separate):
            raise UserError(
                f"combine={self.combining.name} averages one answer for an image: with task={name} take "
                "combine=none"
            )
        for engine in self.measuring.engines:
            if not engine.exact:
                raise UserError(
                    f"engine={engine.name} rounds otherwise than PyTorch, and with task={name} PyTorch's traces "
                    "alone serve: take torch, torch_compile, onnxruntime or openvino"
                )

    @property
    def engine(self) -> Backend:
        """What the choice is made with."""
        return self.measuring.engines[0]


def check_split(split: str, protocol: str) -> None:
    """A UserError unless this split can be reported under this protocol."""
    check_choice("split", split, SPLITS)
    if split != "test" and protocol == "paper":
        raise UserError(f"split={split} with protocol=paper, which chooses on test: leave one out")
