"""From settings to objects: the network, the data, and one object for each group.

Everything is made here and nowhere else, so that a run is built again as it was.
Shapes: C channels, H, W, K classes.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from branchynet.errors import ArgumentError, UserError, reason_of, settings_of
from branchynet.evaluation.rivals import Rival, rivals_from
from branchynet.evaluation.settings import Measuring, SweepSettings
from branchynet.exits.combining import Combining
from branchynet.exits.criteria import Criterion
from branchynet.exits.rules import Rule
from branchynet.exits.task import CLASSIFICATION, Task
from branchynet.networks.attach import DoesNotFit, attach
from branchynet.networks.automatic import AUTO
from branchynet.networks.branched import BranchedNetwork
from branchynet.networks.weights import most_bytes, network_state, read_checkpoint
from branchynet.runs.run_config import look_up, plain
from branchynet.runtime.base import Backend
from branchynet.runtime.catalogue import get_backend
from branchynet.training.class_weights import class_weights
from branchynet.training.gradients import Gradients
from branchynet.training.objective import Objective, exit_weights, side_weights
from branchynet.training.seeds import derive_seed

if TYPE_CHECKING:
    from branchynet.data.module import ImageData


# What a trunk's arguments are called, here and elsewhere.
CHANNELS = ("in_channels", "in_chans", "channels")
CLASSES = ("num_classes", "classes")
SIZES = ("size", "image_size", "img_size")


def made(setting: str, settings: Any, kind: Any = None, as_it_is: str | None = None, **more: Any) -> Any:
    """The object that a group's settings describe by `_target_` and arguments.

    Not by Hydra's `instantiate`: that resolves interpolations once more, after they have been looked at.

    Args:
        setting: the group's name; in front of what the object says of its arguments.
        settings: a mapping with `_target_`, and `_partial_: true` where a function of further arguments is wanted.
            Mappings inside it may have a `_target_`, too.
        kind: the class that it is to be of; None: anything.
        as_it_is: an argument whose settings the object wants, and not what they describe.
        more: further arguments.

    Raises:
        UserError: there is no such object, it refuses its arguments, a file that it wants is not there, or it is
            of another kind.
    """
    settings = plain(settings)
    if not isinstance(settings, Mapping) or "_target_" not in settings:
        raise UserError(f"{setting}={settings}: it has no _target_; choose it by {_group(setting)}=<name>")
    target = settings["_target_"]
    try:
        function = look_up(target)
    except ImportError as error:
        raise UserError(
            f"{setting}._target_={target}: there is no such object ({error}); is its package installed, or "
            "its folder on PYTHONPATH?"
        ) from error
    arguments = {
        key: value if key == as_it_is else _nested(f"{setting}.{key}", value)
        for key, value in settings.items()
        if key not in _OF_MADE
    }
    given = next((name for name in arguments if name in more), None)
    if given is not None:
        raise UserError(
            f"{setting}.{given}: it is not for {setting}, it comes from other settings; leave it out"
        )
    arguments |= more
    if settings.get("_partial_"):
        return partial(function, **arguments)
    try:
        with settings_of(setting):
            result = function(**arguments)
    except (TypeError, AttributeError) as error:
        reason = reason_of(error, 500)
        raise UserError(
            f"the settings of {setting} are refused: {reason}; see conf/{_group(setting)}"
        ) from error
    except OSError as error:
        raise UserError(f"{setting}: {target} fails ({type(error).__name__}: {reason_of(error)})") from error
    if kind is not None and not isinstance(result, kind):
        raise UserError(
            f"{setting}._target_={target}: it makes {type(result).__name__}, where {kind.__name__} is wanted"
        )
    return result


_OF_MADE = ("_target_", "_partial_")


def _nested(setting: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return made(setting, value)
        return {key: _nested(f"{setting}.{key}", each) for key, each in value.items()}
    if isinstance(value, list):
        return [_nested(f"{setting}.{n}", each) for n, each in enumerate(value)]
    return value


def _group(setting: str) -> str:
    return setting.replace(".", "/")


def build_data(data: Any) -> "ImageData":
    """The data set, set up."""
    from branchynet.data.module import ImageData as Wanted  # only here: it brings Lightning

    # Those are shown beside the results; the images know nothing of them.
    settings = {name: value for name, value in plain(data).items() if name != "rivals"}
    made_data: ImageData = made("data", settings, Wanted)
    with settings_of("data"):
        made_data.setup()
    return made_data


def build_network(
    model: DictConfig,
    input_shape: tuple[int, int, int],
    num_classes: int,
    seed: int,
    setting: str = "model",
) -> BranchedNetwork:
    """The network of `model` for such images and classes, with the initial weights of `seed`.

    The trunk's weights do not depend on the exits: the heads draw from a seed of their own. `setting` is the
    model's place among the settings.
    """
    torch.manual_seed(derive_seed(seed, "trunk"))
    trunk = made(f"{setting}.trunk", model.trunk, nn.Module)
    torch.manual_seed(derive_seed(seed, "heads"))
    exits = plain(model.exits)
    if isinstance(exits, list):
        exits = [_with_head(f"{setting}.exits.{n}", description) for n, description in enumerate(exits)]
    with settings_of(setting), as_images_are(setting, model.trunk if setting == "model" else {}):
        return attach(trunk, exits, input_shape, num_classes)


@contextmanager
def as_images_are(setting: str, trunk: Mapping[str, Any]) -> Iterator[None]:
    """Inside, a trunk that does not fit the images is told together with its settings that would.

    Args:
        setting: the model's place among the settings.
        trunk: the trunk's settings.
    """
    try:
        yield
    except DoesNotFit as error:
        known = [name for name in trunk if name in CHANNELS + CLASSES + SIZES and trunk[name] != AUTO]
        cure = " ".join(f"{setting}.trunk.{name}={AUTO}" for name in known)
        raise UserError(f"{error}; as the images are: {cure}" if known else str(error)) from error


def check_size(build: Callable[[], BranchedNetwork], weights: Path, trunk_alone: bool = False) -> None:
    """A UserError for a network that is larger than the file of its weights, before it takes memory that is not
    there; `trunk_alone` where the file need not hold more."""
    try:
        with torch.device("meta"):
            network = build()
        state = network.trunk_state_dict() if trunk_alone else network.state_dict()
        needed = sum(tensor.nbytes for tensor in state.values())
    except RuntimeError as error:
        if "overflow" not in str(error):
            return  # a trunk of somebody's own need not know the meta device
        needed = math.inf
    if needed > weights.stat().st_size:
        raise UserError(f"{weights} is smaller than the network of the settings: they are not of one run")


def load_weights(network: BranchedNetwork, path: Path) -> None:
    """From a checkpoint of the same network, or a `baseline.pt` of the same trunk: then the side heads stay new.

    Raises:
        UserError: neither.
    """
    content = read_checkpoint(path, "take checkpoints/joint/best.ckpt of a run", most_bytes(network))
    if isinstance(content, dict) and set(content) == set(network.trunk_state_dict()):
        network.load_trunk_state_dict(content)
    else:
        network.load_state_dict(network_state(network, content, path))


def build_task(task: Any) -> Task:
    """What the network is asked for."""
    return made("task", task, Task)


def build_criterion(criterion: Any, task: Task = CLASSIFICATION) -> Criterion:
    """How unsure an exit is: one object, as its settings make it, as the task has it."""
    return task.judging(made("criterion", criterion, Criterion))


def build_combining(combine: Any) -> Combining:
    """What an exit answers."""
    return made("combine", combine, Combining)


def build_rule(rule: Any) -> Rule:
    """Which operating point to take."""
    return made("sweep.rule", rule, Rule)


def build_backend(engine: Any, setting: str = "engine") -> Backend:
    """An engine: one of ours by its name, or another by `_target_`. `setting` is its place among the settings."""
    if not isinstance(engine, Mapping):
        return get_backend(engine, setting)
    if "_target_" in engine:
        own = {key: value for key, value in engine.items() if key not in _OF_MEASURING}
        return made(setting, own, Backend)
    with settings_of(setting):
        for name, value in engine.items():
            if name not in _OF_MEASURING:
                allowed = ", ".join(_OF_MEASURING)
                raise ArgumentError(name, f"={value}: there is no such setting; there are {allowed}")
        return get_backend(engine.get("name"))


_OF_MEASURING = ("name", "threads", "seconds", "compare")


def build_measuring(engine: Any) -> Measuring:
    """The engine of the choice, and those to compare with."""
    engine = plain(engine)
    others = enumerate(engine.get("compare") or ())
    backends = [build_backend(engine), *(build_backend(each, f"engine.compare.{n}") for n, each in others)]
    distinct: dict[str, Backend] = {}
    for backend in backends:
        distinct.setdefault(backend.name, backend)
    with settings_of("engine"):
        return Measuring(tuple(distinct.values()), engine["threads"], engine["seconds"])


def build_rivals(data: Any) -> tuple[Rival, ...]:
    """The small networks of others that the settings of a data set name; older ones name none."""
    with settings_of("data"):
        return rivals_from(plain(data).get("rivals"))


def build_sweep(
    config: DictConfig,
    experiment: str,
    seed: int,
    split: str = "test",
    rivals: tuple[Rival, ...] = (),
    task: Task = CLASSIFICATION,
) -> SweepSettings:
    """How the operating point is chosen, by the groups `criterion`, `combine`, `sweep` and `engine` of `config`."""
    sweep = plain(config.sweep)
    rule = build_rule(sweep.pop("rule", None))
    criterion, measuring = build_criterion(config.criterion, task), build_measuring(config.engine)
    combining = build_combining(config.combine)
    known = {field.name for field in fields(SweepSettings)} - {"rivals", "combining", "task"}
    unknown = next((name for name in sweep if name not in known), None)
    if unknown is not None:
        raise UserError(f"sweep.{unknown}: there is no such setting; see conf/sweep")
    with settings_of("sweep"):
        return SweepSettings(
            experiment,
            seed,
            criterion,
            rule,
            measuring,
            split=split,
            rivals=rivals,
            combining=combining,
            task=task,
            **sweep,
        )


def build_class_weights(config: DictConfig, label: Tensor, num_classes: int) -> tuple[float, ...] | None:
    """How much an image of each class counts in both stages, by the labels (S, …) of the training split."""
    with settings_of("objective"):
        counts = label.flatten().bincount(minlength=num_classes)[:num_classes].tolist()
        return class_weights(plain(config.objective).get("class_weights"), counts)


def build_objective(
    config: DictConfig,
    num_exits: int,
    frozen: bool = False,
    of_classes: tuple[float, ...] | None = None,
) -> Objective:
    """What joint training minimises.

    Args:
        config: a run's settings.
        num_exits: N.
        frozen: whether the trunk is: then the last exit's weight counts as 0.
        of_classes: what `class_weights` of the settings come to, see `build_class_weights`.
    """
    settings = plain(config.objective)
    if isinstance(settings, Mapping) and settings.get("class_weights") is not None:
        settings = {**settings, "class_weights": of_classes}
    with settings_of("weights"):
        weights = exit_weights(plain(config.weights), num_exits)
    weights = side_weights(weights) if frozen else weights
    return made("objective", settings, Objective, as_it_is="teacher_model", weights=weights)


def build_gradients(config: DictConfig) -> Gradients:
    """How the exits' gradients are added up; runs of before there was a choice have none."""
    spec = plain(config.weights)
    with settings_of("weights"):
        return Gradients(**{name: spec[name] for name in ("trunk_gradient", "start") if name in spec})


def _with_head(setting: str, description: Any) -> Any:
    """The description of an exit, with its head's `_target_` as a function of `shape` and `num_classes`; likewise
    those of the exits inside."""
    if not isinstance(description, Mapping):
        return description
    made_of = dict(description)
    if isinstance(description.get("head"), Mapping):
        made_of["head"] = made(f"{setting}.head", {**description["head"], "_partial_": True})
    if isinstance(description.get("exits"), list):
        inside = enumerate(description["exits"])
        made_of["exits"] = [_with_head(f"{setting}.exits.{n}", each) for n, each in inside]
    return made_of
