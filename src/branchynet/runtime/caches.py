"""What leaving early does to the processor's caches: their sizes, misses counted from outside, and a model.

Misses of a command are counted by Linux's `perf stat` where the processor's counters can be read (virtual machines
mostly hide them), else by valgrind's cachegrind, which runs the command on a simulated processor: slow, without
prefetching, the same on every machine. Shapes: C channels, H, W, N exits.
"""

import copy
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from branchynet.errors import UserError, check_choice
from branchynet.networks.branched import BranchedNetwork

SYSTEM = Path("/sys/devices/system/cpu/cpu0/cache")
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclass(frozen=True)
class Cache:
    """Of one core, data or both."""

    level: int
    bytes: int
    ways: int
    line: int  # bytes

    @property
    def name(self) -> str:
        """As figures and tables call it."""
        return f"L{self.level}"


def data_caches(folder: Path = SYSTEM) -> list[Cache]:
    """Of the first core, from the nearest on; none where the system does not tell."""
    found = []
    for index in sorted(folder.glob("index*")):
        told = {name: _told(index / name) for name in ("type", "level", "size")}
        ways, line = _told(index / "ways_of_associativity"), _told(index / "coherency_line_size")
        if told["type"] in ("Data", "Unified") and told["size"][-1:] in UNITS:
            size = int(told["size"][:-1]) * UNITS[told["size"][-1]]
            found.append(Cache(int(told["level"]), size, int(ways or 8), int(line or 64)))
    return sorted(found, key=lambda cache: cache.level)


def _told(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""


class Counter(Protocol):
    """Counts a command's cache misses."""

    name: str

    def missing(self) -> str:
        """What it wants and does not have, in words; empty where it can count."""

    def how(self) -> str:
        """What counts, for whoever reads the numbers."""

    def count(self, command: Sequence[str]) -> dict[str, int]:
        """The misses of a run of `command`, by the cache's name."""


class Perf:
    """The processor's own counters, by `perf stat`."""

    name = "perf"
    events: ClassVar = {"L1-dcache-load-misses": "L1 data", "cache-misses": "last level"}

    def missing(self) -> str:
        if shutil.which("perf") is None:
            return "perf is not installed (Debian: linux-perf)"
        try:
            self.count(["true"])
        except (UserError, OSError, subprocess.CalledProcessError) as error:
            return str(error)
        return ""

    def how(self) -> str:
        return "counted by perf stat: the processor's own counters"

    def count(self, command: Sequence[str]) -> dict[str, int]:
        with tempfile.NamedTemporaryFile("r") as out:
            events = ",".join(self.events)
            run = ["perf", "stat", "-x", ",", "-e", events, "-o", out.name, "--", *command]
            done = subprocess.run(run, capture_output=True, text=True)
            if done.returncode:
                raise UserError(f"perf stat fails: {done.stderr.strip()[:200]}")
            return self.read(out.read())

    def read(self, text: str) -> dict[str, int]:
        """From what `perf stat -x,` writes: value, unit, event …

        Raises:
            UserError: a counter that cannot be read.
        """
        fields = [line.split(",") for line in text.splitlines() if line.count(",") >= 3]
        values = {each[2].partition(":")[0]: each[0] for each in fields}
        for event in self.events:
            if not values.get(event, "").isdigit():
                raise UserError(f"perf cannot read the processor's counter {event} here")
        return {name: int(values[event]) for event, name in self.events.items()}


class Cachegrind:
    """A simulated processor with this one's L1 and L2, by valgrind's cachegrind."""

    name = "cachegrind"

    def __init__(self, caches: Sequence[Cache] | None = None) -> None:
        self.caches = list(data_caches() if caches is None else caches)[:2]

    def missing(self) -> str:
        if shutil.which("valgrind") is None:
            return "valgrind is not installed (Debian: valgrind)"
        return "" if len(self.caches) == 2 else f"the sizes of two caches are not in {SYSTEM}"

    def how(self) -> str:
        sizes = ", ".join(f"{cache.name} of {cache.bytes // 2**10} KiB" for cache in self.caches)
        return f"simulated by valgrind's cachegrind: {sizes}, no prefetching"

    def count(self, command: Sequence[str]) -> dict[str, int]:
        first, second = (f"{cache.bytes},{cache.ways},{cache.line}" for cache in self.caches)
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch, "out")
            options = [f"--D1={first}", f"--LL={second}", f"--cachegrind-out-file={out}"]
            run = ["valgrind", "--tool=cachegrind", "--cache-sim=yes", *options, *command]
            done = subprocess.run(run, capture_output=True, text=True)
            if done.returncode or not out.is_file():
                raise UserError(f"cachegrind fails: {(done.stderr.strip().splitlines() or ['?'])[-1][:200]}")
            return self.read(out.read_text())

    def read(self, text: str) -> dict[str, int]:
        """From cachegrind's file: the names in its line `events:`, the sums in its line `summary:`."""
        lines = dict(
            line.split(":", 1) for line in text.splitlines() if line.startswith(("events:", "summary:"))
        )
        sums = dict(zip(lines["events"].split(), map(int, lines["summary"].split()), strict=True))
        first, second = (cache.name for cache in self.caches)
        return {
            f"{first} data": sums["D1mr"] + sums["D1mw"],
            second: sums["ILmr"] + sums["DLmr"] + sums["DLmw"],  # instructions and data share it
        }


COUNTERS: dict[str, type[Perf] | type[Cachegrind]] = {"perf": Perf, "cachegrind": Cachegrind}


def counter_of(method: str) -> tuple[Counter | None, str]:
    """What counts, and in words why nothing does or something else than the best.

    Args:
        method: auto (the first that can), perf, cachegrind, or model: nothing is counted.

    Raises:
        UserError: it was named, and cannot.
    """
    check_choice("caches", method, ("auto", *COUNTERS, "model"))
    if method == "model":
        return None, ""
    wanted = COUNTERS if method == "auto" else {method: COUNTERS[method]}
    reasons: list[str] = []
    for kind in wanted.values():
        made: Counter = kind()
        if not (why := made.missing()):
            return made, "; ".join(reasons)
        reasons.append(why)
    if method != "auto":
        raise UserError(
            f"caches={method}: {reasons[0]}; caches=auto takes what is there, caches=model counts nothing"
        )
    return None, "; ".join(reasons)


@torch.no_grad()
def touched_bytes(network: BranchedNetwork, input_shape: tuple[int, int, int]) -> tuple[int, ...]:
    """A model: the bytes that an image touches until it leaves at each exit, all heads on the way included, N.

    Every weight once and every layer's output once, in float32: what has to come through the caches if it is not
    there yet. It knows nothing of how an engine tiles, reuses memory or joins layers.

    Args:
        network: N exits.
        input_shape: (C, H, W).
    """
    network = copy.deepcopy(network).to("meta").eval()
    found: list[int] = []
    sizes: dict[nn.Module, int] = {}

    def hook(module: nn.Module, _: object, output: object) -> None:
        own = sum(value.numel() for value in [*module.parameters(False), *module.buffers(False)])
        outputs = output.numel() if isinstance(output, Tensor) else 0
        sizes[module] = 4 * (own + outputs)

    for module in network.modules():
        if not any(True for _ in module.children()):
            module.register_forward_hook(hook)
    network(torch.zeros(1, *input_shape, device="meta"))
    for trunk, own in _until(network):
        parts = {each for part in (*trunk, *own) for each in part.modules()}
        found.append(4 * torch.Size(input_shape).numel() + sum(sizes.get(each, 0) for each in parts))
    return tuple(found)


def _until(network: BranchedNetwork) -> list[tuple[list[nn.Module], list[nn.Module]]]:
    """Of each exit, the trunk up to it and the heads of all exits up to it."""
    ways = network.ways()
    return [(ways[n][0], [part for _, own in ways[: n + 1] for part in own]) for n in range(len(ways))]


def mean(per_exit: Sequence[float], exit_rates: Sequence[float]) -> float:
    """Of images that leave at these rates."""
    return sum(cost * rate for cost, rate in zip(per_exit, exit_rates, strict=True))
