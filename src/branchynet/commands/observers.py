"""What looks on while a stage trains: Lightning's loggers and callbacks, ours or a stranger's, from their settings.

A group holds any number of them by names of its own, so that several options are chosen at once:
`logger=[tensorboard,csv]`.
"""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, ModelSummary
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities.model_summary import summarize
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from branchynet.errors import UserError, check_whole, not_allowed, reason_of
from branchynet.forms import problem
from branchynet.runs.build import made
from branchynet.runs.run_config import look_up


def build_loggers(group: Any, folder: Path, hparams: Mapping[str, Any]) -> list[Logger]:
    """The loggers of the group `logger`, those that keep files in the run's folder, with its settings.

    Args:
        group: plain values; None or empty: no logger.
        folder: the run's.
        hparams: the run's settings, flat.
    """
    loggers = []
    for setting, settings in _members("logger", group):
        # Where a logger takes a folder, it is the run's, unless another one is named.
        more = {"save_dir": str(folder)} if _takes(settings, "save_dir") else {}
        logger = _made(setting, settings, Logger, more)
        if isinstance(logger, TensorBoardLogger):
            logger.hparams.update(hparams)  # its own log_hyperparams would write a metric of -1
        else:
            logger.log_hyperparams(dict(hparams))
        loggers.append(logger)
    return loggers


def build_callbacks(group: Any, monitored: Iterable[str]) -> list[Callback]:
    """New callbacks of the group `callbacks`: each stage has its own, because they remember.

    Args:
        group: plain values; None or empty: no callback.
        monitored: what every stage logs.

    Raises:
        UserError: besides the settings, one that waits for what no stage logs.
    """
    callbacks = []
    for setting, settings in _members("callbacks", group):
        callback = _made(setting, settings, Callback, {})
        waits = isinstance(callback, EarlyStopping | ModelCheckpoint) and callback.monitor
        if waits and waits not in monitored:
            raise not_allowed(f"{setting}.monitor", waits, f"one of {', '.join(monitored)}")
        if isinstance(callback, EarlyStopping):
            check_whole(f"{setting}.patience", callback.patience, 0)
        if isinstance(callback, ModelSummary):
            _try_summary(setting, settings)
        callbacks.append(callback)
    return callbacks


def of_tensorboard(loggers: Sequence[Logger]) -> bool:
    """Whether TensorBoard is among them."""
    return any(isinstance(logger, TensorBoardLogger) for logger in loggers)


def _members(name: str, group: Any) -> list[tuple[str, Any]]:
    if not group:
        return []
    if "_target_" in group:  # a single one; so runs of earlier versions had it
        return [(name, group)]
    return [(f"{name}.{member}", settings) for member, settings in group.items()]


def _made(setting: str, settings: Any, kind: type, more: Mapping[str, Any]) -> Any:
    try:
        made_by = look_up(settings["_target_"])
    except Exception:  # whatever is wrong with it is said when it is made
        made_by = None
    check_types(setting, settings, made_by)
    try:
        return made(setting, settings, kind=kind, **more)
    except (MisconfigurationException, ValueError, ImportError) as error:
        reason = reason_of(error, 500)
        raise UserError(f"the settings of {setting} are refused: {reason}") from error


def check_types(setting: str, settings: Any, made_by: Any) -> None:
    """A UserError for an argument that is not what the class `made_by` says it takes: most look at it late."""
    try:
        types = get_type_hints(made_by.__init__)
    except Exception:  # not every class says its types
        return
    for name, value in settings.items():
        try:
            if name in types:
                form = TypeAdapter(types[name], config=ConfigDict(arbitrary_types_allowed=True))
                form.validate_python(value)
        except ValidationError as error:
            raise UserError(f"{setting}.{name}={value}: {problem(error)}") from None
        except PydanticUserError:
            continue  # a type of which nothing can be said


def _try_summary(setting: str, settings: Mapping[str, Any]) -> None:
    """It looks at its arguments as training begins."""
    try:
        summarize(LightningModule(), **{key: value for key, value in settings.items() if key != "_target_"})
    except (TypeError, ValueError) as error:
        raise UserError(f"the settings of {setting} are refused: {reason_of(error, 500)}") from error


def _takes(settings: Any, argument: str) -> bool:
    if not isinstance(settings, Mapping) or argument in settings:
        return False
    try:
        return argument in inspect.signature(look_up(settings["_target_"])).parameters
    except Exception:  # whatever is wrong with it is said when it is made
        return False
