"""What a run was started with: `.hydra/config.yaml`, written when it starts, in plain values.

Not by Hydra, which writes it before anybody can see that the folder holds another run. And without interpolations:
a stored setting is not to depend on the machine and the environment that read it.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Any

import yaml

from branchynet.errors import UserError
from branchynet.runs.atomic import check_links, remove_leftovers, replacing
from branchynet.runs.differences import first_difference
from branchynet.runs.run_config import plain, read_config, texts

FOLDER = ".hydra"
RESULT = "result.json"  # what a run has in the end
CHECKPOINTS = "checkpoints"
OWN = (RESULT, FOLDER, CHECKPOINTS)  # one of these in a folder says that it is a run's


def start_run(folder: Path, settings: Mapping[str, Any], overrides: Sequence[str] = ()) -> None:
    """Write the settings of a new run, or see that the run in `folder` has the same.

    Args:
        folder: the run's.
        settings: all of them, as plain values.
        overrides: those of the command line, for people.

    Raises:
        UserError: there is a run with other settings in the folder, or a link out of it; nothing of it was changed.
    """
    if "::" in str(folder):
        # fsspec, which writes the checkpoints, takes it for a chain of addresses.
        raise UserError(f"hydra.run.dir={folder}: a run's folder may not have :: in its name")
    check_links(folder, folder)
    path = folder / FOLDER / "config.yaml"
    for name, value in texts(settings):
        if "${" in value:
            # It could be stored, but not read again.
            raise UserError(f"{name}={value}: a setting may not have ${{ in it")
    if path.exists() and has_begun(folder):
        before = plain(read_config(folder, trust=True))
        other = first_difference(before, settings)
        if other is not None:
            raise UserError(
                f"{folder} holds a run with other settings ({other}): name another folder, or go on with that run "
                f"by `branchynet train resume={quote(str(folder))}`"
            )
    else:
        for name, content in (("config.yaml", dict(settings)), ("overrides.yaml", list(overrides))):
            with replacing(folder / FOLDER / name) as temporary:
                text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
                temporary.write_text(text, encoding="utf-8")
    remove_leftovers(folder)


def has_begun(folder: Path) -> bool:
    """Whether a run in this folder got so far that its images were known; before that its settings may be wrong."""
    # Only now: it imports PyTorch, and whoever reads many folders has no use for it.
    from branchynet.runs.image_facts import NAME as FACTS

    return any((folder / name).exists() for name in (FACTS, CHECKPOINTS, RESULT))


def forget_run(folder: Path) -> None:
    """Remove the settings of a run that never began: a mistake is to leave no folder that looks like one."""
    if not has_begun(folder):
        for name in ("config.yaml", "overrides.yaml"):
            (folder / FOLDER / name).unlink(missing_ok=True)
        with suppress(OSError):
            (folder / FOLDER).rmdir()  # only where nothing else is in it
