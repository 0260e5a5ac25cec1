"""The one exception that means: the user can mend this. And the wording that all mistakes of one kind share."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

MOST_PROCESSORS = 64  # even on a small machine; more than that, and more than its cores, is a slip


class UserError(Exception):
    """A mistake by the user, worded for the user.

    The message is one line that says what is wrong, what is allowed and what to do. The commands
    print it on stderr and leave with exit code 2; every other exception is a bug of ours and keeps
    its traceback.
    """


class ArgumentError(UserError):
    """An argument that is not allowed. The message begins with its name, as a programmer knows it.

    The commands know the same argument by a longer name, the setting's, and put it in front: see `settings_of`.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}{problem}")
        self.name, self.problem = name, problem

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are made again from their message alone, which would not do: other processes get ours, too.
        return type(self), (self.name, self.problem)

    def below(self, setting: str) -> "ArgumentError":
        """The same mistake in the argument's place among the settings."""
        return ArgumentError(f"{setting}.{self.name}", self.problem)


class UnknownName(UserError):
    """A name that none has, whatever else is set: of a place, of a layer's setting."""


def not_allowed(name: str, value: Any, allowed: str) -> ArgumentError:
    """`<name>=<value>: it is <allowed>`."""
    return ArgumentError(name, f"={value}: it is {allowed}")


@contextmanager
def settings_of(setting: str) -> Iterator[None]:
    """Inside, a wrong argument is named as the setting `<setting>.<argument>`."""
    try:
        yield
    except ArgumentError as error:
        raise error.below(setting) from error.__cause__


def check_choice(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """An ArgumentError unless `value` is one of those allowed."""
    if value not in allowed:
        raise not_allowed(name, value, f"one of {', '.join(map(str, allowed))}")


def check_flag(name: str, value: Any) -> None:
    """An ArgumentError unless `value` is true or false."""
    if not isinstance(value, bool):
        raise not_allowed(name, value, "true or false")


def check_whole(name: str, value: Any, least: int = 1, most: int | None = None, hint: str = "") -> None:
    """An ArgumentError unless `value` is a whole number from `least` to `most`; `hint` is added to what it says."""
    if is_whole(value, least) and (most is None or value <= most):
        return
    span = f", {least} … {most}" if most is not None else " above 0" if least == 1 else f", {least} or more"
    raise not_allowed(name, value, f"a whole number{span}{hint}")


def check_processors(name: str, value: Any, least: int = 1) -> None:
    """An ArgumentError unless `value` is a number of threads or processes that this machine can be asked for."""
    check_whole(name, value, least)
    cores = os.cpu_count() or 1
    most = max(MOST_PROCESSORS, 4 * cores)
    if value > most:
        raise not_allowed(name, value, f"at most {most}: this machine has {cores} cores")


def is_whole(value: Any, least: int = 1) -> bool:
    """Whether `value` is a whole number, at least `least`; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: Any) -> bool:
    """Whether `value` is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def one_line(text: str) -> str:
    """`text` without line breaks and indentation."""
    return " ".join(text.split())


def counted(count: int, what: str) -> str:
    """`1 image`, `2 images`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def reason_of(error: BaseException, most: int = 160) -> str:
    """What an error of another library says, on one line of at most so many characters."""
    return one_line(str(error))[:most]


# Control characters, those that turn the direction of writing, and halves of UTF-16 pairs.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` with escapes, `\\u001b`, for what would control a terminal or cannot be encoded.

    For names of others: of files, classes, machines. JSON stays the same JSON.
    """
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
