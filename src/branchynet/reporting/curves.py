"""A run's trade-off as it stands in its `sweep.csv`. Nothing here needs PyTorch."""

from dataclasses import dataclass

from branchynet.regular import read_regular
from branchynet.runs.rows import Row

MOST = 50_000_000  # bytes; a run lists 2,000 threshold vectors at most


@dataclass(frozen=True)
class Curve:
    """The frontier's points on the reported split, by rising MACs: accuracies (fractions), MACs and µs."""

    accuracy: tuple[float, ...]
    macs: tuple[float, ...]
    latency_us: tuple[float, ...]


def curve_of(row: Row) -> Curve | None:
    """The frontier of the split that the choice was made on; None where there is no such file, or it is no such."""
    split = row.result.get("split", "test")
    try:
        # A thousand runs have millions of lines, of which few are looked at: this is ten times as fast as csv's.
        header, *lines = read_regular(row.folder / "sweep.csv", MOST).decode("utf-8").splitlines()
        columns = header.split(",")
        wanted = [columns.index(f"{split}_{name}") for name in ("accuracy", "macs", "latency_us")]
        if columns[-2:] == ["on_frontier", "knee"]:
            lines = [line for line in lines if line.endswith((",1,0", ",1,1"))]
        points = []
        for line in lines:
            cells = line.split(",")
            points.append(tuple(float(cells[place]) for place in wanted))
    except (OSError, ValueError, IndexError):
        return None
    if not points:
        return None
    accuracy, macs, latency = zip(*sorted(points, key=lambda point: point[1]), strict=True)
    return Curve(accuracy, macs, latency)
