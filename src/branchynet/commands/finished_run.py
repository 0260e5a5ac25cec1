"""A finished run, opened: its settings, its networks with their weights, its result.

Everything but settings and result is loaded when it is asked for, and nothing of it runs code: weights are
tensors and plain values, and the settings may name branchynet's and torchvision's own classes alone.
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from branchynet.commands.image_facts import ImageFacts, facts_of, read_facts
from branchynet.commands.run import build_network
from branchynet.commands.run_config import read_config
from branchynet.data.module import ImageData
from branchynet.errors import UserError
from branchynet.exits.criteria import Criterion, get_criterion
from branchynet.networks.branched import BranchedNetwork
from branchynet.training import baseline_cache
from branchynet.training.stages import load_network


class FinishedRun:
    """What `open_run` gives.

    `config` is what the run was started with, `result` what stands in its `result.json`. Accessing what is not
    there, or is damaged, raises a UserError.
    """

    def __init__(self, folder: Path, config: DictConfig, result: dict[str, Any]) -> None:
        self.folder, self.config, self.result = folder, config, result

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The operating point's, N-1."""
        return tuple(self.result["knee"]["thresholds"])

    @property
    def criterion_name(self) -> str:
        """Of the criterion that the thresholds are for."""
        return self.result["knee"]["criterion"]

    @property
    def criterion(self) -> Criterion:
        """From logits (B, K) to uncertainty (B,)."""
        return get_criterion(self.criterion_name)

    @cached_property
    def facts(self) -> ImageFacts:
        """Of the images; from the data set where an older run has left none."""
        return read_facts(self.folder) or facts_of(self.data)

    @cached_property
    def data(self) -> ImageData:
        """The data set, set up."""
        data: ImageData = instantiate(self.config.data)
        data.setup()
        return data

    @cached_property
    def network(self) -> BranchedNetwork:
        """N exits with the joint weights, in eval mode, on the CPU."""
        network = self._build()
        load_network(network, self._existing("checkpoints/joint/best.ckpt"))
        return network.eval()

    @cached_property
    def baseline(self) -> BranchedNetwork:
        """The network of stage 1, likewise; its trunk and last head are the baseline."""
        network = self._build()
        path = self._existing("checkpoints/baseline.pt")
        state = baseline_cache.load(path.parent, path.stem)
        if state is None:
            raise UserError(f"{path} is damaged: it should hold the baseline's tensors and nothing else")
        network.load_trunk_state_dict(state)
        return network.eval()

    def _build(self) -> BranchedNetwork:
        facts = self.facts
        return build_network(self.config.model, facts.input_shape, facts.num_classes, self.config.seed)

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
    path = folder / "result.json"
    if not path.is_file():
        raise UserError(
            f"the run {folder} is not finished, for it has no result.json: `branchynet train resume={folder}` "
            f"goes on with it"
        )
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        [float(value) for value in result["knee"]["thresholds"]]
        get_criterion(result["knee"]["criterion"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}): move it away, and `branchynet train resume={folder}` "
            f"writes it anew"
        ) from error
    return FinishedRun(folder, config, result)
