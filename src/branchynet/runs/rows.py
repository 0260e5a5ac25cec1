"""One run or evaluation among many: a row of a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from branchynet.errors import UserError, reason_of
from branchynet.regular import read_regular
from branchynet.runs.differences import WHERE
from branchynet.runs.run_config import MAX_BYTES, read_yaml

RUN, EVALUATION, PUBLISHED = "run", "evaluation", "published"
SETTINGS = {RUN: ".hydra/config.yaml", EVALUATION: "evaluate.yaml", PUBLISHED: "config.yaml"}
# Settings that say which run is looked at, where something lies or what is shown beside it, and not what is done;
# and the seed.
NOT_OF_GROUP = (
    *("seed", "name", "experiment", "resume", "run", "from", "in_place", "trust", "page", *WHERE),
    *("data.root", "data.download", "data.cache", "data.keep", "data.num_workers", "data.eval_batch_size"),
    *("data.rivals", "engine.seconds", "engine.compare", "outside", "hydra"),
)


@dataclass(frozen=True)
class Row:
    """One run or evaluation.

    Args:
        folder: its own, with the files that it left: `sweep.csv`, `costs.csv` …
        name: of the folder, below the one that was asked for.
        kind: run | evaluation | published (a copy of a run's results, such as in docs/results).
        experiment: as in `result.json`.
        seed: likewise.
        overrides: as they were typed, an evaluation's behind its run's, without those that decide nothing
            (NOT_OF_GROUP), the seed among them.
        result: what stands in `result.json`, which has the form of `branchynet.runs.result_schema.Result`.
        trace: the trace of the reported split; None where there is none.
        group: runs of one group have the same settings but for the seed; named by the experiment and by those
            overrides that not all rows of the experiment have in common. One line, and unique.
        label: the group's name without the experiment; empty where nothing differs.
    """

    folder: Path
    name: str
    kind: str
    experiment: str
    seed: int
    overrides: tuple[str, ...]
    result: Mapping[str, Any]
    trace: Path | None
    group: str = ""
    label: str = ""


def run_of(evaluation: Path) -> Path | None:
    """The folder of the run that an evaluation is of; None where it is not there any more."""
    if evaluation.parent.name == "evaluate" and (evaluation.parent.parent / SETTINGS[RUN]).is_file():
        return evaluation.parent.parent
    named = read_yaml(evaluation / SETTINGS[EVALUATION])
    run = named.get("run") if isinstance(named, dict) else None
    return Path(run) if isinstance(run, str) and (Path(run) / SETTINGS[RUN]).is_file() else None


def settings_text(path: Path) -> bytes:
    """A file of settings, not understood.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return read_regular(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {reason_of(error)}") from error
