"""A run's settings, and whose code they may call.

`_target_` in a config names anything that Python can import, `os.system` as well as a class: so settings that
came with someone else's run are looked at before they are used.
"""

import logging
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import InstantiationException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from branchynet.errors import UserError, reason_of
from branchynet.regular import read_regular

# What every run names is not looked up: that would import Lightning, and whoever loads a network has no use for it.
KNOWN = ("branchynet.data.module.ImageData",)
# What else a run's settings may name: for trunks and heads what gives a module, for the other parts classes.
NETWORKS = ("branchynet.networks.", "torchvision.models.")
PARTS = (
    *("branchynet.exits.", "branchynet.training.objective.", "branchynet.training.distilled."),
    "torch.optim.",
)
OWN = (*KNOWN, *NETWORKS, *PARTS)
# The group `combine` of runs of before there was one.
SEPARATE = {"_target_": "branchynet.exits.combining.Separate"}
# The group `task` of such runs.
ONE_CLASS = {"_target_": "branchynet.exits.task.Classification"}
# Settings that older runs do not have, as they were then.
LATER = (("sweep", "fit_share", 0.5),)
# The same, of rules by their `_target_`.
BY_LATENCY = {"cost": "latency_us"}
RULES_LATER: dict[str, dict[str, Any]] = {
    "branchynet.exits.rules.AccuracyFloor": BY_LATENCY,
    "branchynet.exits.rules.Knee": BY_LATENCY,
    "branchynet.exits.certified.Certified": BY_LATENCY,
    "branchynet.exits.rules.LatencyBudget": {"delta": None},
    "branchynet.exits.rules.MacBudget": {"delta": None},
}
MAX_BYTES = 1_000_000  # of settings
# libyaml's reads the same, seven times as fast; a few builds of PyYAML are without it.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_DEPTH = 50  # of settings in settings
TRUST = "if you trust whoever made this folder, add trust=true"
# Loggers and callbacks, Lightning's and ours, that do no harm, with the arguments that do none. No others: a
# logger may send what it gets to an address, and a callback that keeps checkpoints writes wherever it is told to.
HARMLESS = {
    "branchynet.callbacks.gradient_norms.GradientNorms": "first",
    "lightning.pytorch.loggers.TensorBoardLogger": "name version sub_dir prefix log_graph default_hp_metric",
    "lightning.pytorch.loggers.CSVLogger": "name version prefix flush_logs_every_n_steps",
    "lightning.pytorch.callbacks.EarlyStopping": (
        "monitor mode patience min_delta verbose strict check_finite stopping_threshold divergence_threshold "
        "check_on_train_epoch_end log_rank_zero_only"
    ),
    "lightning.pytorch.callbacks.LearningRateMonitor": "logging_interval log_momentum log_weight_decay",
    "lightning.pytorch.callbacks.ModelSummary": "max_depth",
    "lightning.pytorch.callbacks.RichModelSummary": "max_depth",
    "lightning.pytorch.callbacks.RichProgressBar": "refresh_rate leave",
    "lightning.pytorch.callbacks.TQDMProgressBar": "refresh_rate process_position leave",
}


def read_config(folder: Path, trust: bool = False) -> DictConfig:
    """What a run was started with: plain values, as they were stored.

    Without trust, nothing of it reaches out: no data set is downloaded, and the caches that it names, of baselines
    and of decoded images, are left alone.

    Args:
        folder: the run's.
        trust: also take settings that would run others' code, fetch something or write elsewhere.

    Raises:
        UserError: no run, a damaged file, or settings that ask for trust: see `check_targets`, `check_places`.
    """
    path = folder / ".hydra" / "config.yaml"
    if not path.exists():
        raise UserError(f"{folder} is no run, {path} is missing: name a run's folder")
    settings = read_yaml(path)
    if (
        not isinstance(settings, dict)
        or not isinstance(settings.get("model"), dict)
        or "data" not in settings
    ):
        raise UserError(f"{path} is damaged: it holds no settings of a run")
    for name, group in (("criterion", settings.get("criterion")), ("sweep.rule", _rule(settings))):
        if isinstance(group, dict) and "name" in group and "_target_" not in group:
            raise UserError(
                f"the run {folder} is of branchynet 0.1, which had {name}.name={group['name']}: train it again"
            )
    add_later(settings)
    # Only now: the settings of branchynet 0.1 had references.
    check_plain(settings, path)
    if not trust:
        check_targets(settings, path)
        check_places(settings, path)
        if isinstance(settings["data"], dict):
            settings["data"]["download"] = False
            if "cache" in settings["data"]:
                settings["data"]["cache"] = None
        settings["cache"] = None
    return OmegaConf.create(settings)


def add_later(settings: dict[str, Any]) -> None:
    """Add what older runs do not have, as it was then; in place."""
    settings.setdefault("combine", dict(SEPARATE))
    settings.setdefault("task", dict(ONE_CLASS))
    for group, name, value in LATER:
        if isinstance(settings.get(group), dict):
            settings[group].setdefault(name, value)
    rule = _rule(settings)
    if isinstance(rule, dict) and isinstance(target := rule.get("_target_"), str):
        for name, value in RULES_LATER.get(target, {}).items():
            rule.setdefault(name, value)


def read_yaml(path: Path) -> Any:
    """What a file holds, in bounded time and memory: no aliases, no tags.

    Raises:
        UserError: it is damaged.
    """
    try:
        text = read_regular(path, MAX_BYTES).decode("utf-8")
        depth = 0
        for event in yaml.parse(text, Loader=LOADER):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("it has an alias")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise ValueError(f"it has settings in settings, more than {MAX_DEPTH} deep")
        settings = yaml.load(text, Loader=LOADER)
        for _, value in texts(settings):
            value.encode()  # halves of UTF-16 pairs are no text
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = reason_of(error, 200)
        raise UserError(f"{path} is damaged: {reason}") from error
    return settings


def check_plain(settings: Any, path: Path) -> None:
    """A UserError for a text that would be resolved later.

    Args:
        settings: plain values.
        path: where they stand, or are to stand.
    """
    for name, value in texts(settings):
        if "${" in value:
            raise UserError(
                f"{path} is damaged: {name} is {value[:80]!r}; a run stores plain values, for what is to be looked "
                "up could be anything"
            )


def _rule(settings: dict[str, Any]) -> Any:
    sweep = settings.get("sweep")
    return sweep.get("rule") if isinstance(sweep, dict) else None


def texts(node: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a tree of plain values, keys too, with its dotted name."""
    if isinstance(node, str):
        yield name, node
    elif isinstance(node, dict):
        for key, value in node.items():
            if isinstance(key, str):
                yield f"{name}.{key}".lstrip("."), key
            yield from texts(value, f"{name}.{key}".lstrip("."))
    elif isinstance(node, list):
        for n, value in enumerate(node):
            yield from texts(value, f"{name}.{n}")


def check_places(settings: dict[str, Any], path: Path, cure: str = TRUST) -> None:
    """Refuse settings that would fetch weights, or write beside the run's folder.

    Args:
        settings: a run's, or some of them, plain values.
        path: where they stand.
        cure: what to do, for the message.

    Raises:
        UserError: the first such setting.
    """
    for place, value in texts(settings.get("logger"), "logger"):
        of_folder = place.rpartition(".")[2] in ("name", "version", "sub_dir")
        if of_folder and (Path(value).is_absolute() or ".." in Path(value).parts):
            raise UserError(f"{path} would write elsewhere, {place}={value}: {TRUST}")
    for part in _made(settings):
        target = part["_target_"]
        if not str(target).startswith("torchvision.models."):
            continue
        fetching = [key for key in part if "weights" in str(key) or key == "pretrained"]
        if str(target).count(".") > 2 or any(part[key] for key in fetching):
            raise UserError(f"{path} would have {target} fetch weights from the network: {cure}")


def plain(config: Any) -> Any:
    """The config's value as plain dicts, lists and numbers, interpolations resolved."""
    return OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config


def look_up(target: Any) -> Any:
    """What a `_target_` names, imported; Hydra's `get_object` without the lines that it logs.

    Raises:
        ImportError: there is no such object; the message is one line.
    """
    hydras = logging.getLogger(get_object.__module__)
    before, hydras.disabled = hydras.disabled, True
    try:
        return get_object(target)
    except (ImportError, ValueError, TypeError, AttributeError, InstantiationException) as error:
        raise ImportError(reason_of(error.__cause__ or error)) from error
    finally:
        hydras.disabled = before


def check_targets(config: Any, path: Path, cure: str = TRUST) -> None:
    """Refuse settings that call anything but trunks, optimisers, loggers, callbacks, and parts of ours.

    Args:
        config: a run's settings, or some of them.
        path: where they stand.
        cure: what to do, for the message.

    Raises:
        UserError: the first such call.
    """
    for part in _made(plain(config)):
        target = part["_target_"]
        if isinstance(target, str) and target in HARMLESS:
            check_arguments(part, path)
            continue
        if not _is_own(target):
            raise UserError(
                f"{path} would call {target}, which is none of the parts that a run is made of: {cure}"
            )


def check_arguments(part: dict[str, Any], path: Path) -> None:
    """A UserError if one of Lightning's loggers or callbacks is given what is not known to do no harm."""
    target = part["_target_"]
    for key, value in part.items():
        plain_value = value is None or isinstance(value, str | int | float)
        if key != "_target_" and (key not in HARMLESS[target].split() or not plain_value):
            raise UserError(f"{path} would call {target} with {key}={str(value)[:80]}: {TRUST}")


def _made(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping with a `_target_`, at any depth."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from _made(value)
    elif isinstance(node, list):
        for value in node:
            yield from _made(value)


def _is_own(target: Any) -> bool:
    """Whether a name begins as one of ours, and is one: `branchynet.networks.lenet.torch.load` is torch's."""
    if target in KNOWN:
        return True
    if not isinstance(target, str) or not target.startswith(OWN):
        return False
    try:
        found = look_up(target)
    except ImportError:
        return False
    # No methods: with a `self` from the settings, one of torchvision's would unpickle what an address gives.
    name = getattr(found, "__qualname__", ".")
    if not callable(found) or "." in name or not f"{found.__module__}.{name}".startswith(OWN):
        return False
    return _gives_module(found) if target.startswith(NETWORKS) else isinstance(found, type)


def _gives_module(found: Any) -> bool:
    """Whether it is a class of modules or a function that says so; torchvision's look-up by name is neither."""
    # Only now: help has to answer at once.
    from torch import nn

    if found.__module__.rpartition(".")[2].startswith("_"):
        return False
    try:
        given = found if isinstance(found, type) else signature(found, eval_str=True).return_annotation
    except (NameError, TypeError, ValueError):
        return False
    return isinstance(given, type) and issubclass(given, nn.Module)
