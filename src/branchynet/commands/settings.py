"""The form of `branchynet train`'s settings, looked at before any work.

Hydra composes what the command line says; it would take `epochs=5` and `+nosuch.key=1`. The types are pydantic's
and not Hydra's structured configs: those cannot say «auto, true or false», nor let a stranger's group have settings
of its own, and their messages speak of nodes. What belongs to one object alone, a rule's distance or an image set's
path, that object checks itself as it is made.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from branchynet.errors import UserError
from branchynet.forms import Name

Auto = Literal["auto"] | bool
# Numbers in result.json that are not of the test split.
Metric = Literal[
    "validation.accuracy", "validation.gain_latency", "validation.gain_macs", "validation.gain_at_no_loss"
]


class Strict(BaseModel):
    """Settings of ours: an unknown one is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Open(BaseModel):
    """Settings of which an object takes the rest."""

    model_config = ConfigDict(extra="allow", strict=True)


class Made(Open):
    """A group that names what it makes, and has that object's own settings beside it."""

    target: Annotated[Name, Field(alias="_target_")]


class Model(Open):
    """The network; further values may stand here that its exits refer to."""

    name: Name
    trunk: Made
    exits: list[dict[str, Any]] | dict[str, Any] | Literal["auto"]
    weights: Name | None = None


class Weights(Strict):
    """Of the exits: `values`, or a straight line from `first` to `last`; and how their gradients are added up."""

    first: float
    last: float
    values: list[float] | None
    # A group of weights of somebody's own need not name them.
    trunk_gradient: Literal["sum", "mean"] = "sum"
    start: float = 1.0


class Sweep(Strict):
    """Which thresholds are tried, and which are taken."""

    rule: Made
    protocol: str
    thresholds: list[float] | None
    max_vectors: int
    # A group of settings of somebody's own need not name them.
    candidates: int | None = None
    fit_share: float = 0.5


class Engine(Open):
    """What runs inference; `_target_` for one of somebody's own, with its settings."""

    name: Name
    threads: int
    seconds: float
    compare: list[str | dict[str, Any]] | None


class Schedule(Open):
    """Of the learning rate; the other keys depend on the name."""

    name: Name


class Epochs(Strict):
    """Of the two stages."""

    baseline: int
    joint: int


def _single(group: Any) -> Any:
    """A group that is one object itself, as a logger of somebody's own may be."""
    return {"": group} if isinstance(group, dict) and "_target_" in group else group


# Loggers or callbacks, by names of their own.
Observers = Annotated[dict[str, Made], BeforeValidator(_single)]


class Train(Strict):
    """All settings of `branchynet train`."""

    model: Model
    data: Made
    task: Made
    objective: Made
    weights: Weights
    criterion: Made
    combine: Made
    sweep: Sweep
    engine: Engine
    optimizer: Made
    schedule: Schedule
    trainer: dict[str, Any]
    logger: Observers | None = None
    callbacks: Observers | None = None
    name: Name
    seed: Annotated[int, Field(ge=0)]
    init: Name
    resume: None
    resume_sweep: None = None
    cache: Name | None
    label_smoothing: float
    ema: float | None
    freeze: Literal["none", "trunk", "batch_norms"]
    channels_last: Auto
    compile: Auto
    optimized_metric: Metric | None
    page: bool
    study: dict[str, Any]
    epochs: Epochs


class Search(Strict):
    """How `branchynet search` searches."""

    trials: Annotated[int, Field(ge=1)]
    reference: bool
    objectives: Annotated[
        list[Literal["gain", "accuracy", "highest_accuracy", "macs", "macs_to_the_end"]],
        Field(min_length=1, max_length=2),
    ]
    max_loss: Annotated[float, Field(ge=0, lt=1)]
    storage: Name | None
    study: Name
    seed: Annotated[int, Field(ge=0)]
    best: Annotated[int, Field(ge=1)]
    heartbeat: Annotated[int, Field(ge=1)]
    retries: Annotated[int, Field(ge=0)]
    sampler: Made
    pruner: Made


class Searches(Strict):
    """So that its settings are named as they are on the command line."""

    search: Search


# What pydantic calls it, and what is said of it.
_WORDS = {
    "missing": "it is missing",
    "extra_forbidden": "there is no such setting",
    "none_required": "it is for `branchynet train resume=<run folder>` alone",
}
_KINDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "string_too_short": "a text that is not empty",
    "list_type": "a list, such as [1,2]",
    "dict_type": "a group of settings",
    "model_type": "a group of settings",
    "too_short": "a list of one or two",
    "too_long": "a list of one or two",
}


def check_settings(settings: Any, stored: bool = False) -> None:
    """A UserError for the first setting that does not have the form of `Train`.

    Args:
        settings: all of them, as plain values.
        stored: whether they may be another version's, which had some more or less.
    """
    _check(Train, settings, "train", ("missing", "extra_forbidden") if stored else ())


def check_search(settings: Any) -> None:
    """A UserError for the first setting below `search` that does not have the form of `Search`."""
    _check(Searches, {"search": settings}, "search")


def _check(form: type[BaseModel], settings: Any, command: str, allowed: Sequence[str] = ()) -> None:
    try:
        form.model_validate(settings)
    except ValidationError as error:
        wrong = [each for each in error.errors() if each["type"] not in allowed]
        if wrong:
            raise UserError(_sentence(wrong, command)) from None


def _sentence(errors: Sequence[Any], command: str) -> str:
    first, *others = errors
    # A union has an error for each of its members, of one place.
    same = [first, *(other for other in others if _place(other) == _place(first))]
    place, kind = _place(first), first["type"]
    given = "" if kind == "missing" else f"={_shown(first['input'])}"
    if kind in _WORDS:
        allowed = _WORDS[kind]
    else:
        allowed = "it is " + " or ".join(dict.fromkeys(_allowed(each) for each in same))
    return f"{place}{given}: {allowed}; `branchynet {command} --cfg job` shows all settings with their values"


def _allowed(error: Any) -> str:
    if error["type"] == "literal_error":
        return error["ctx"]["expected"].replace("'", "")
    if error["type"] == "greater_than_equal":
        return f"{error['ctx']['ge']} or more"
    return _KINDS.get(error["type"], error["msg"])


def _place(error: Any) -> str:
    """The setting's name, without what pydantic adds for the members of a union."""
    parts = [str(part) for part in error["loc"]]
    return ".".join(part for part in parts if part not in ("bool", "str", "float") and "[" not in part)


def _shown(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
