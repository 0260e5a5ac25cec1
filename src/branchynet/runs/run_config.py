"""A run's settings, and whose code they may call.

`_target_` in a config names anything that Python can import, `os.system` as well as a class: so settings that
came with someone else's run are looked at before they are used.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import InstantiationException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from branchynet.errors import UserError

# What conf/ names: parts of this package, torch's optimisers, Lightning's loggers; and trunks.
OWN = (
    "branchynet.networks.",
    "branchynet.data.module.ImageData",
    "branchynet.exits.",
    "branchynet.training.",
    "torch.optim.",
    "torchvision.models.",
    "lightning.pytorch.loggers.",
)
# What every run names is not looked up: that would import Lightning, and whoever loads a network has no use for it.
KNOWN = ("branchynet.data.module.ImageData", "lightning.pytorch.loggers.TensorBoardLogger")


def read_config(folder: Path, trust: bool = False) -> DictConfig:
    """What a run was started with.

    Raises:
        UserError: no run, a damaged file, or settings that would run others' code, see `check_targets`.
    """
    path = folder / ".hydra" / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is no run, {path} is missing: name a run's folder")
    try:
        config = OmegaConf.load(path)
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not isinstance(config, DictConfig) or "model" not in config or "data" not in config:
        raise UserError(f"{path} is damaged: it holds no settings of a run")
    if not trust:
        check_targets(config, path)
    groups = {"criterion": config.get("criterion"), "sweep.rule": OmegaConf.select(config, "sweep.rule")}
    for name, group in groups.items():
        if isinstance(group, DictConfig) and "name" in group and "_target_" not in group:
            raise UserError(
                f"the run {folder} is of branchynet 0.1, which had {name}.name={group.name}: train it again"
            )
    return config


def plain(config: Any) -> Any:
    """The config's value as plain dicts, lists and numbers, interpolations resolved."""
    return OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config


def check_targets(config: Any, path: Path) -> None:
    """Refuse settings that call anything but networks, optimisers, loggers and data of known packages.

    Args:
        config: a run's settings, or some of them.
        path: where they stand.

    Raises:
        UserError: the first such call.
    """
    try:
        settings = plain(config)
    except OmegaConfBaseException as error:
        raise UserError(f"{path} is damaged: {error}") from error
    for target in _targets(settings):
        if not _is_own(target):
            raise UserError(
                f"{path} would call {target}, which is neither branchynet's nor torchvision's: if you trust "
                f"whoever made this folder, add trust=true"
            )


def _targets(node: Any) -> Iterator[Any]:
    """Every value of a `_target_`, at any depth."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "_target_":
                yield value
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


def _is_own(target: Any) -> bool:
    """Whether a name begins as one of ours, and is one: `branchynet.networks.lenet.torch.load` is torch's."""
    if target in KNOWN:
        return True
    if not isinstance(target, str) or not target.startswith(OWN):
        return False
    try:
        found = get_object(target)
    except (InstantiationException, ImportError, ValueError):
        return False
    # No methods: with a `self` from the settings, one of torchvision's would unpickle what an address gives.
    name = getattr(found, "__qualname__", ".")
    return callable(found) and "." not in name and f"{found.__module__}.{name}".startswith(OWN)
