"""What others compute meanwhile, on the cores that this process may use; known on Linux alone."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")
# Columns of a core's line there: user, nice, system, irq, softirq, steal. The others are idle or counted in these.
BUSY = (1, 2, 3, 6, 7, 8)


@dataclass(frozen=True)
class Reading:
    """Seconds, each since some moment of its own: of the clock, of all computing on our cores, of our own."""

    clock: float
    everybody: float
    own: float


def read() -> Reading | None:
    """Now; None where the system does not say."""
    try:
        cores = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        lines = [line.split() for line in STAT.read_text(encoding="utf-8").splitlines()]
        ticks = sum(int(line[column]) for line in lines if line and line[0] in cores for column in BUSY)
        return Reading(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), time.process_time())
    except (AttributeError, OSError, ValueError, IndexError):
        return None


def others(begin: Reading | None, end: Reading | None) -> float:
    """On how many cores others computed between two readings, on average; 0 where that is not known."""
    if begin is None or end is None or end.clock <= begin.clock:
        return 0.0
    theirs = (end.everybody - begin.everybody) - (end.own - begin.own)
    return max(0.0, theirs / (end.clock - begin.clock))


def free_cores(threads: int) -> int:
    """How many cores `threads` of ours leave to others; at least one: where there is none, they share ours."""
    affinity = getattr(os, "sched_getaffinity", None)
    return max(1, (len(affinity(0)) if affinity else os.cpu_count() or 1) - threads)
