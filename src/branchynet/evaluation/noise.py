"""Timings that cannot be right: what gives them away."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from branchynet.runtime.costs import Latencies, Latency

SPREAD = 0.2  # interquartile range over median, at most
DIFFERENCE = 0.15  # between what is predicted and what is measured, at most
OTHERS = 0.5  # of the cores that measuring leaves free: where others compute, at most


@dataclass(frozen=True)
class Noise:
    """One reason to doubt timings, in words, and how many times its limit it is."""

    reason: str
    times: float


def spread(latencies: Mapping[str, Latencies]) -> tuple[Noise, ...]:
    """The widest spread of all latencies (by engine), if it is above SPREAD."""
    found = []
    for engine, timed in latencies.items():
        for name, latency in _named(timed):
            share = latency.iqr_us / latency.median_us if latency.median_us else float("inf")
            reason = f"the spread of {name} on {engine} is {share:.2f} of its median"
            found.append(Noise(reason, share / SPREAD))
    return worst(found)


def difference(what: str, predicted: float, measured: float) -> Noise:
    """How far apart the two are."""
    ratio = measured / predicted
    reason = f"the measured {what} is {ratio:.2f} times the predicted one"
    return Noise(reason, (max(ratio, 1 / ratio) - 1) / DIFFERENCE)


def company(cores: float, free: int) -> Noise:
    """Others that computed on so many cores while measuring left `free` ones."""
    return Noise(f"others computed on {cores:.1f} cores meanwhile", cores / free / OTHERS)


def worst(found: Iterable[Noise]) -> tuple[Noise, ...]:
    """The one farthest above its limit; none where none is above it."""
    above = [each for each in found if each.times > 1]
    return (max(above, key=lambda each: each.times),) if above else ()


def excess(found: Iterable[Noise]) -> float:
    """How many times the limit the worst one is; 0 where there is none."""
    return max((each.times for each in found), default=0.0)


def _named(timed: Latencies) -> Iterator[tuple[str, Latency]]:
    yield "the baseline", timed.baseline
    for n in range(len(timed.exits)):
        yield f"exit {n + 1}", timed.exits[n]
        yield f"exit {n + 1} alone", timed.static[n]
        yield f"the trunk up to exit {n + 1}", timed.trunk_only[n]
