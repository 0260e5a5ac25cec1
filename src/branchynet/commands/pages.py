"""The pages that commands write: whether, and what stands there to be copied."""

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from branchynet.errors import check_flag
from branchynet.reporting.page import why_no_page

log = logging.getLogger(__name__)

# What thresholds are of: other overrides of an evaluation change nothing at given thresholds.
OF_THRESHOLDS = ("criterion", "combine", "engine", "sweep", "split", "data", "trust")


def wants_page(config: DictConfig) -> bool:
    """Whether a page is to be written and can be; says in one line where it cannot."""
    wanted = config.get("page", True)  # older runs do not say
    check_flag("page", wanted)
    missing = why_no_page() if wanted else ""
    if missing:
        log.info(missing)
    return wanted and not missing


def evaluation_of(folder: Path, overrides: Sequence[str] = ()) -> str:
    """The command that evaluates a run, for a shell."""
    return shlex.join(["branchynet", "evaluate", f"run={folder.resolve()}", *overrides])


def of_thresholds(overrides: Sequence[str]) -> list[str]:
    """Those of an evaluation's overrides that say what its thresholds are of."""
    return [each for each in overrides if _of_thresholds(each.lstrip("+~").partition("=")[0])]


def _of_thresholds(name: str) -> bool:
    return name.split(".")[0].split("/")[0] in OF_THRESHOLDS and not name.startswith(
        ("sweep/rule", "sweep.rule")
    )
