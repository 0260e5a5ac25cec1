"""What a search draws from: a tree of settings like a training's, with distributions in the places of values.

    {choice: [a, b]}                    one of these
    {int: [low, high], step: 1}         a whole number, both ends included; log: true for one by its logarithm
    {float: [low, high], log: true}     a number
    {list: …, length: …}                so many items, each drawn for itself; the length may be the name of a list
                                        beside it, which then has as many
    {maybe: …}                          as an item of a list: there or not

All else is taken as it stands. What is inside something that is not there is not drawn: so a search is conditional.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from branchynet.errors import ArgumentError, UserError, check_flag, is_number, is_whole, settings_of

WORDS = ("choice", "int", "float", "list", "maybe")
_MORE = {"int": ("step", "log"), "float": ("step", "log"), "list": ("length",)}
Scalar = None | bool | int | float | str
# Behind the name of an item that may be there: what is drawn for the item may be a number, which has that name.
THERE = ".there"


class Ask(Protocol):
    """What draws: a trial of Optuna's."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...


def draw(space: Mapping[str, Any], ask: Ask) -> dict[str, Any]:
    """A value for every setting of the space, by its dotted name.

    Args:
        space: settings, nested as in conf/.
        ask: is asked for each distribution, by the dotted name of its place.
    """
    found: dict[str, Any] = {}
    _branch(space, "", ask, found)
    return found


def lies_at(space: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """What would have to be drawn to have these settings, by the name of each distribution; None: nothing would.

    What the space leaves open, as the parts of an exit that it does not name, is not compared.

    Args:
        space: as `draw` takes it.
        settings: of a training, nested.
    """
    asked = _AsItStands(settings)
    try:
        drawn = draw(space, asked)
    except LookupError:
        return None
    return asked.drawn if all(_same(value, _at(settings, name)) for name, value in drawn.items()) else None


def names(space: Mapping[str, Any]) -> list[str]:
    """The settings that the space sets, by their dotted names."""
    return list(draw(space, _First()))


def check_space(space: Any) -> None:
    """A UserError for a space that cannot be drawn from, or draws nothing; all that may be drawn is looked at."""
    if not isinstance(space, Mapping) or not space:
        raise UserError(f"space={space}: it is a tree of settings, see conf/space")
    asked = _First()
    with settings_of("space"):
        draw(space, asked)
    if not asked.names:
        raise UserError(
            "the space has nothing to draw, such as `optimizer.lr: {float: [0.001, 0.01]}`: see conf/space"
        )


def turns(space: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Draws that have each choice at least once, with as much as possible there: to look at all that is named."""
    asked = _First()
    draw(space, asked)
    for turn in range(asked.most):
        yield draw(space, _First(turn))


def written(name: str, value: Any) -> str:
    """A setting as a word of the command line."""
    return f"{name}={_text(value)}"


def _branch(node: Mapping[str, Any], above: str, ask: Ask, found: dict[str, Any]) -> None:
    for key, value in node.items():
        name = f"{above}.{key}".lstrip(".")
        if isinstance(value, Mapping) and _word(name, value) is None:
            _branch(value, name, ask, found)
        else:
            found[name] = _value(value, name, ask, {})


def _word(name: str, node: Mapping[str, Any]) -> str | None:
    """The kind of a distribution, None where it is none.

    Raises:
        ArgumentError: it is of two kinds, or has something else beside it.
    """
    words = [word for word in WORDS if word in node]
    if not words:
        return None
    word = words[0]
    allowed = (word, *_MORE.get(word, ()))
    other = next((key for key in node if key not in allowed), None)
    if other is not None:
        raise ArgumentError(
            f"{name}.{other}", f": beside {word} stands {' or '.join(allowed[1:]) or 'nothing'}"
        )
    return word


def _value(node: Any, name: str, ask: Ask, beside: Mapping[str, Any]) -> Any:
    """Args: beside: what was drawn before in the same mapping."""
    if isinstance(node, Mapping):
        word = _word(name, node)
        if word is not None:
            return _DRAWN[word](node, name, ask, beside)
        drawn: dict[str, Any] = {}
        for key, value in node.items():
            drawn[str(key)] = _value(value, f"{name}.{key}", ask, drawn)
        return drawn
    if isinstance(node, list):
        return [each for n, item in enumerate(node) for each in _item(item, f"{name}.{n}", ask)]
    return node


def _item(node: Any, name: str, ask: Ask) -> list[Any]:
    """An item of a list, which may not be there."""
    if isinstance(node, Mapping) and _word(name, node) == "maybe":
        there = ask.suggest_categorical(name + THERE, (True, False))
        return [_value(node["maybe"], name, ask, {})] if there else []
    return [_value(node, name, ask, {})]


def _choice(node: Mapping[str, Any], name: str, ask: Ask, beside: Mapping[str, Any]) -> Any:
    choices = node["choice"]
    if not isinstance(choices, list) or not choices:
        raise ArgumentError(f"{name}.choice", f"={choices}: it is a list of at least one value")
    # Optuna keeps plain values alone: lists and mappings go by their text.
    by_text = {_kept(each): each for each in choices}
    return by_text[ask.suggest_categorical(name, tuple(by_text))]


def _kept(value: Any) -> Scalar:
    return value if isinstance(value, Scalar) else json.dumps(value)


def _int(node: Mapping[str, Any], name: str, ask: Ask, beside: Mapping[str, Any]) -> int:
    low, high = _span(node, name, "int")
    step = node.get("step", 1)
    if not (is_whole(low, -(10**9)) and is_whole(high, -(10**9)) and is_whole(step)):
        raise ArgumentError(name, f"={dict(node)}: int has whole numbers, and step is one above 0")
    log = _log(node, name, low, step != 1)
    return ask.suggest_int(name, low, high, step=step, log=log)


def _float(node: Mapping[str, Any], name: str, ask: Ask, beside: Mapping[str, Any]) -> float:
    low, high = _span(node, name, "float")
    step = node.get("step")
    if step is not None and not (is_number(step) and step > 0):
        raise ArgumentError(f"{name}.step", f"={step}: it is a number above 0, or null")
    drawn = ask.suggest_float(name, low, high, step=step, log=_log(node, name, low, step is not None))
    return float(f"{drawn:.4g}")  # what people can read, and type


def _span(node: Mapping[str, Any], name: str, word: str) -> tuple[Any, Any]:
    span = node[word]
    if not (isinstance(span, list) and len(span) == 2 and all(map(is_number, span)) and span[0] <= span[1]):
        raise ArgumentError(f"{name}.{word}", f"={span}: it is [lowest, highest]")
    return span[0], span[1]


def _log(node: Mapping[str, Any], name: str, low: float, stepped: bool) -> bool:
    log: bool = node.get("log", False)
    check_flag(f"{name}.log", log)
    if log and (low <= 0 or stepped):
        raise ArgumentError(f"{name}.log", "=True: that is for numbers above 0 without a step")
    return log


def _list(node: Mapping[str, Any], name: str, ask: Ask, beside: Mapping[str, Any]) -> list[Any]:
    length = node.get("length")
    if isinstance(length, str):
        if not isinstance(beside.get(length), list):
            raise ArgumentError(
                f"{name}.length", f"={length}: it is a number, or a list that stands above it"
            )
        count = len(beside[length])
    else:
        count = _value(length, f"{name}.length", ask, {})
    if not is_whole(count, 0):
        raise ArgumentError(f"{name}.length", f"={count}: it is a whole number, 0 or more, or draws one")
    return [each for n in range(count) for each in _item(node["list"], f"{name}.{n}", ask)]


def _maybe(node: Mapping[str, Any], name: str, ask: Ask, beside: Mapping[str, Any]) -> Any:
    raise ArgumentError(f"{name}.maybe", ": that is for an item of a list, which is there or not")


_DRAWN = {"choice": _choice, "int": _int, "float": _float, "list": _list, "maybe": _maybe}


class _First:
    """Draws so that as much as possible is there: to look at a space.

    Args:
        turn: which choice is taken, from 0; the first one where there are not so many.
    """

    def __init__(self, turn: int = 0) -> None:
        self.turn = turn
        self.names: list[str] = []
        self.most = 1  # choices of one distribution

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.names.append(name)
        if name.endswith(THERE):
            return True
        self.most = max(self.most, len(choices))
        return choices[self.turn] if self.turn < len(choices) else choices[0]

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        self.names.append(name)
        return high

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        self.names.append(name)
        return high


class _AsItStands:
    """Draws what stands in settings.

    Args:
        settings: nested.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self.drawn: dict[str, Any] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        if name.endswith(THERE):
            there = _at(self.settings, name.removesuffix(THERE), None) is not None
            return self._kept(name, there, True)
        value = _kept(_at(self.settings, name))
        return self._kept(name, value, value in choices)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        value = self._number(name)
        inside = is_whole(value, low) and value <= high and (value - low) % step == 0
        return int(self._kept(name, value, inside))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        value = self._number(name)
        return float(self._kept(name, value, is_number(value) and low <= value <= high))

    def _number(self, name: str) -> Any:
        above, _, last = name.rpartition(".")
        if last != "length":
            return _at(self.settings, name)
        items = _at(self.settings, above)
        return len(items) if isinstance(items, list) else 1

    def _kept(self, name: str, value: Any, inside: bool) -> Any:
        if not inside:
            raise LookupError(name)
        self.drawn[name] = value
        return value


def _at(settings: Any, name: str, *otherwise: Any) -> Any:
    """What stands at a dotted name; in place of a list may stand the one value that all its items have."""
    for part in name.split("."):
        if isinstance(settings, list) and part.isdecimal() and int(part) < len(settings):
            settings = settings[int(part)]
        elif isinstance(settings, Mapping) and part in settings:
            settings = settings[part]
        elif isinstance(settings, list | Mapping) or not part.isdecimal():
            if otherwise:
                return otherwise[0]
            raise LookupError(name)
    return settings


def _same(drawn: Any, stands: Any) -> bool:
    """Whether what stands is what is drawn, as far as that goes."""
    if isinstance(drawn, Mapping):
        return isinstance(stands, Mapping) and all(
            key in stands and _same(value, stands[key]) for key, value in drawn.items()
        )
    if isinstance(drawn, list):
        each = stands if isinstance(stands, list) else [stands] * len(drawn)
        return len(each) == len(drawn) and all(map(_same, drawn, each))
    return bool(drawn == stands)


# What Hydra reads as a text without quotes; none of the words that it reads as something else.
_PLAIN = re.compile(r"(?!(?i:null|true|false|nan|inf)$)[A-Za-z_][A-Za-z0-9_./-]*").fullmatch


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        if _PLAIN(value):
            return value
        # Before a quote, and nowhere else, a backslash is Hydra's own.
        escaped = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), value)
        return f"'{escaped}'"
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_text(each)}" for key, each in value.items()) + "}"
    return repr(value)
