"""A finished run, opened: its settings, its networks with their weights, its result.

Everything but settings and result is loaded when it is asked for, and nothing of it runs code: weights are
tensors and plain values, and the settings may name branchynet's and torchvision's own classes alone.
"""

import os
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig

from branchynet.errors import UserError
from branchynet.evaluation.evidence import Evidence
from branchynet.evaluation.noise import Noise
from branchynet.exits.certificate import Certificate
from branchynet.exits.combining import Shares
from branchynet.exits.criteria import Criterion, for_exits
from branchynet.exits.task import Task
from branchynet.networks.branched import BranchedNetwork
from branchynet.networks.weights import check_fits, load_network
from branchynet.runs import baseline_cache
from branchynet.runs.build import (
    build_backend,
    build_criterion,
    build_data,
    build_network,
    build_task,
    check_size,
)
from branchynet.runs.image_facts import ImageFacts, facts_of, read_facts
from branchynet.runs.result_schema import NAME as RESULT
from branchynet.runs.result_schema import Result, read_result
from branchynet.runs.run_config import check_targets, plain, read_config
from branchynet.runs.stored import CRITERION, StoredCriterion, read_criterion, read_evidence, read_trace
from branchynet.runtime.base import Backend
from branchynet.runtime.catalogue import ENGINES
from branchynet.runtime.profile import Profile, certified_by, validation_of

if TYPE_CHECKING:
    from branchynet.data.module import ImageData


class FinishedRun:
    """What `open_run` gives.

    `config` is what the run was started with, `result` what stands in its `result.json`. Accessing what is not
    there, or is damaged, raises a UserError.
    """

    def __init__(self, folder: Path, config: DictConfig, result: dict[str, Any], trust: bool = False) -> None:
        self.folder, self.config, self.result, self._trust = folder, config, result, trust

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The operating point's, N-1."""
        return tuple(self.result["knee"]["thresholds"])

    @property
    def certificate(self) -> Certificate | None:
        """What its rule promised of the operating point on new data; None: nothing."""
        found = Result.model_validate(self.result).knee.certificate
        return None if found is None else found.content()

    @property
    def criterion_name(self) -> str:
        """Of the criterion that the thresholds are for."""
        return self.result["knee"]["criterion"]

    @cached_property
    def task(self) -> Task:
        """What the network is asked for."""
        return build_task(self.config.task)

    @cached_property
    def stored_criterion(self) -> StoredCriterion:
        """What the run's traces and thresholds are of."""
        stored = read_criterion(self._existing(CRITERION))
        assert stored is not None  # it exists
        if not self._trust:
            check_targets([dict(stored.settings), dict(stored.combine)], self.folder / CRITERION)
        return stored

    @cached_property
    def criteria(self) -> tuple[Criterion, ...]:
        """N, from an exit's logits (B, K) to its uncertainty (B,), as they were fitted."""
        stored = self.stored_criterion
        shapes = self.network.feature_shapes(self.facts.input_shape)
        criteria = for_exits(build_criterion(stored.settings, self.task), shapes, self.facts.num_classes)
        path = self.folder / CRITERION
        if len(stored.states) != len(criteria):
            raise UserError(
                f"{path} is damaged: it is of {len(stored.states)} exits, the network has {len(criteria)}"
            )
        for criterion, state in zip(criteria, stored.states, strict=True):
            what = f"{path} is of another criterion"
            check_fits(criterion.state_dict(), state, what, "take that of the same run")
            criterion.load_state_dict(dict(state))
        return criteria

    @property
    def evidence(self) -> Evidence | None:
        """What the run's choice was made from; None where it is too old to have left all of it."""
        facts = read_facts(self.folder)
        if facts is None or not all((self.folder / name).exists() for name in ("baseline.npz", CRITERION)):
            return None
        evidence = read_evidence(self.folder, facts.classes, self.result["machine"], self.result["versions"])
        evidence = replace(evidence, shares=self._shares(), fitting=self.stored_criterion.fitting)
        self._check_own(evidence)
        if self.result.get("noisy") is True:
            evidence = replace(evidence, noise=(Noise("they were noisy in the run that they are of", 1.0),))
        return evidence

    @cached_property
    def profile(self) -> Profile:
        """What is known of the network at run time: its costs, and what its exits said on validation."""
        if self.task.partly:
            raise UserError(
                f"the run {self.folder} is of task={self.task.name}: controllers and adapted thresholds go by "
                "answers that are right or wrong; leave them out"
            )
        exits = self.result["exits"]
        trace = read_trace(self._existing("trace-val.npz"))
        if trace.num_exits != len(exits):
            raise UserError(
                f"trace-val.npz in {self.folder} is another run's than result.json: take the run's own"
            )
        return Profile(
            thresholds=self.thresholds,
            costs={name: tuple(exit[name] for exit in exits) for name in ("latency_us", "macs")},
            validation=validation_of(trace.uncertainty, trace.prediction, trace.correct, self.thresholds),
            most=self.criteria[0].largest(self.facts.num_classes),
            certified=certified_by(self.certificate, self.thresholds),
        )

    def _check_own(self, evidence: Evidence) -> None:
        """A UserError where the evidence is of another run than the result: files of two runs may fit, too."""
        for split, trace in evidence.traces.items():
            if (trace.alone is None) != (evidence.shares is None):
                has = "has none" if trace.alone is None else "has one"
                raise UserError(
                    f"trace-{split}.npz in {self.folder} {has} of the arrays alone, which is there where exits "
                    "average, and only there: take the run's own, or from=network"
                )
        exits = evidence.traces["test"].correct.double().mean(dim=0).tolist()
        baseline = evidence.baseline_correct["test"].double().mean().item()
        told = [each["accuracy"] for each in self.result["exits"]]
        if not np.allclose(
            [*exits, baseline], [*told, self.result["baseline"]["accuracy"]], rtol=0, atol=1e-6
        ):
            raise UserError(
                f"trace-test.npz or baseline.npz in {self.folder} is another run's than result.json: take the "
                "run's own files, or from=network"
            )

    @cached_property
    def backend(self) -> Backend:
        """The engine that the thresholds were chosen with."""
        name = self.result["engine"]
        if name in ENGINES:
            return ENGINES[name]
        own = build_backend(plain(self.config.engine))
        if own.name != name:
            raise UserError(
                f"the run {self.folder} was evaluated on the engine {name}, which is not here: name another"
            )
        return own

    @cached_property
    def facts(self) -> ImageFacts:
        """Of the images; from the data set where an older run has left none."""
        return read_facts(self.folder) or facts_of(self.data)

    @property
    def files_size(self) -> str:
        """How image files are brought to the images' size, as in training if it had files: `ImageFiles.size`."""
        # An older run has not kept it: if it had files, it has a setting of their size.
        return self.facts.files_size or ("crop" if "size" in self.config.data else "bilinear")

    @cached_property
    def data(self) -> "ImageData":
        """The data set, set up."""
        settings = self.config.data
        path = settings.get("path")
        if path is not None and not os.path.isabs(path) and not os.path.exists(path):
            raise UserError(
                f"{self.folder}: data.path={path}, where the run found its images, is below the folder that it was "
                "started in: start there, too, or give data.path=<where they are>"
            )
        if settings.get("classes") is not None and (facts := read_facts(self.folder)) is not None:
            settings = {
                **plain(settings),
                "classes": list(facts.classes),
            }  # their file need not be there any more
        return build_data(settings)

    def look_for_images(self, root: str | None, path: str | None, cache: str | None = None) -> None:
        """From now on, in these places instead of where the run found them; None leaves one as it was."""
        for key, place in (("root", root), ("path", path), ("cache", cache)):
            if place is not None:
                self.config.data[key] = os.path.abspath(place)  # of this folder, not of the run's

    @cached_property
    def network(self) -> BranchedNetwork:
        """N exits with the joint weights, answering as they did for the run's result; in eval mode, on the CPU."""
        return self.separate.with_shares(self._shares())

    @cached_property
    def separate(self) -> BranchedNetwork:
        """The same network, whose exits answer with what their own heads say; modules are shared."""
        weights = self._existing("checkpoints/joint/best.ckpt")
        check_size(self._build, weights)
        network = self._build()
        load_network(network, weights)
        return network.eval()

    def _shares(self) -> Shares | None:
        """Of the exits' answers. They stand in the result, too: what is lost or mixed up is noticed."""
        told = self.result.get("shares")
        stored = self.stored_criterion.shares if told or (self.folder / CRITERION).is_file() else None
        if stored != (None if told is None else tuple(map(float, told))):
            raise UserError(
                f"{self.folder / CRITERION} is of another run than {RESULT}: its shares are {stored}; take the "
                "run's own"
            )
        return stored

    @cached_property
    def baseline(self) -> BranchedNetwork:
        """The network of stage 1, in eval mode, on the CPU; its trunk and last head are the baseline."""
        network = self._build()
        path = self._existing("checkpoints/baseline.pt")
        state = baseline_cache.load(path.parent, path.stem, network.trunk_state_dict())
        if state is None:
            raise UserError(f"{path} is damaged: it should hold the baseline's tensors and nothing else")
        network.load_trunk_state_dict(state)
        return network.eval()

    def _build(self) -> BranchedNetwork:
        facts = self.facts
        network = build_network(self.config.model, facts.input_shape, facts.num_classes, self.config.seed)
        if network.num_exits != len(self.result["exits"]):
            raise UserError(
                f"{self.folder / RESULT} is of {len(self.result['exits'])} exits, the network of the settings has "
                f"{network.num_exits}: they are not of one run"
            )
        return network

    def _existing(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise UserError(
                f"the run {self.folder} has no {name} any more: its weights are needed here; train it again"
            )
        return path


def open_run(folder: Path | str, trust: bool = False) -> FinishedRun:
    """Open a finished run's folder.

    Args:
        folder: the run's.
        trust: also take settings that name classes of others, see `check_targets`.

    Raises:
        UserError: no run, one that is not finished, or damaged files.
    """
    folder = Path(folder)
    config = read_config(folder, trust)
    return FinishedRun(folder, config, read_result(folder), trust)
