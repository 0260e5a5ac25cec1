"""Paths on the command line: taken as they are, and of the folder where the command was started."""

import os
import re
import sys
from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from branchynet.errors import UserError

# The settings that are paths, in whatever command: on the command line they are taken as they are.
PATHS = (
    *(
        "init",
        "resume",
        "resume_sweep",
        "cache",
        "data.path",
        "data.root",
        "data.cache",
        "objective.teacher",
        "model.weights",
    ),
    *("run", "export", "input", "output", "controller.state"),
    *("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"),
)
INITS = ("baseline", "pretrained", "scratch")  # of `init`: all else is a path
WORDS = {"init": INITS, "objective.teacher": ("last", "average")}  # values that are no paths

_QUOTED = r"""('(\\.|[^'\\])*'|"(\\.|[^"\\])*")"""
_HYDRAS_OWN = re.compile(rf"|(?i:null)|{_QUOTED}(\s*,\s*{_QUOTED})*|choice\(.*\)").fullmatch


def quote_paths() -> None:
    """Quote the values of all path settings on the command line, so that Hydra takes them as they are.

    Its grammar has a meaning for `=`, `,`, spaces, quotes and brackets, and no letters but ASCII's. Left alone is
    what is Hydra's own: null, something quoted, several of that (they are swept over), and choice(…).
    """
    for place, argument in enumerate(sys.argv):
        name, equals, value = argument.partition("=")
        if not equals or name.lstrip("+") not in PATHS or _HYDRAS_OWN(value):
            continue
        if set(value.split(",")) <= set(WORDS.get(name.lstrip("+"), ())):
            continue  # several of these words are swept over, too
        sys.argv[place] = f"{name}={quoted(os.path.expanduser(value))}"


def quoted(value: str) -> str:
    """A text that Hydra's grammar takes as it is."""
    # Before a quote, and nowhere else, a backslash is Hydra's own.
    escaped = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), value)
    return f"'{escaped}'"


def settle_paths(config: DictConfig) -> None:
    """Let the paths among the settings be of the user's folder and of the one where the command was started.

    `~` is the user's folder. With `hydra.job.chdir=true` a task runs in another folder than the paths are of.
    """
    hydra_config = HydraConfig.get()
    for name in PATHS:
        value = None if name.startswith("hydra.") else OmegaConf.select(config, name)
        if not isinstance(value, str) or not value or value in WORDS.get(name, ()):
            continue
        value = os.path.expanduser(value)
        if hydra_config.job.chdir:
            value = os.path.join(hydra_config.runtime.cwd, value)
        OmegaConf.update(config, name, value)


def check_letters(texts: Sequence[str]) -> None:
    """A UserError if one of these names of files cannot be written down."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            shown = text.encode(errors="backslashreplace").decode()
            raise UserError(
                f"{shown}: this has bytes that are no letters in UTF-8; rename the file or folder"
            ) from None
