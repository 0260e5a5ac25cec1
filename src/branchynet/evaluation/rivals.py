"""Small networks of others, cost and accuracy as published: what a network with exits has to be better than."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from branchynet.errors import ArgumentError, is_number, is_whole, not_allowed, printable

MOST = 12  # that a figure can tell apart
LONGEST = {"name": 40, "source": 200}  # characters


@dataclass(frozen=True)
class Rival:
    """A network of others, for the same images.

    Args:
        name: of the network.
        macs: multiply-accumulates for an image.
        accuracy: on the test split, a fraction, as published.
        source: who published it.

    Raises:
        UserError: an argument that is not allowed.
    """

    name: str
    macs: int
    accuracy: float
    source: str

    def __post_init__(self) -> None:
        for name, most in LONGEST.items():
            text = getattr(self, name)
            # In one line, and whole: it stands in tables.
            if not isinstance(text, str) or not 0 < len(text.strip()) <= most or printable(text) != text:
                raise not_allowed(name, repr(text)[:80], f"a text in one line, at most {most} characters")
        if not is_whole(self.macs):
            raise not_allowed("macs", self.macs, "a whole number above 0, such as 40810000")
        if not is_number(self.accuracy) or not 0 < self.accuracy <= 1:
            raise not_allowed(
                "accuracy", self.accuracy, "a fraction, above 0 and at most 1: 0.926 for 92.6 %"
            )


def rivals_from(points: Any) -> tuple[Rival, ...]:
    """From plain settings: a list of mappings with the fields of `Rival`, or None for none.

    Raises:
        UserError: something else.
    """
    if points is None:
        return ()
    names = [field.name for field in fields(Rival)]
    form = f"a list of points, each with {', '.join(names)}; [] for none"
    if not isinstance(points, list):
        raise not_allowed("rivals", str(points)[:80], form)
    if len(points) > MOST:
        raise ArgumentError("rivals", f" has {len(points)} points: at most {MOST} can be told apart")
    found = []
    for n, point in enumerate(points):
        if not isinstance(point, Mapping) or set(point) != set(names):
            raise not_allowed(f"rivals.{n}", str(point)[:80], f"a point with {', '.join(names)}")
        try:
            found.append(Rival(**point))
        except ArgumentError as error:
            raise error.below(f"rivals.{n}") from None
    named = [rival.name for rival in found]
    for name in named:
        if named.count(name) > 1:
            raise ArgumentError("rivals", f" names {name} twice: leave one out")
    return tuple(found)
