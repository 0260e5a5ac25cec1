"""The controller that the settings ask for, and the file with its state."""

import inspect
from pathlib import Path
from typing import Any

from branchynet.commands import terminal
from branchynet.errors import UserError, settings_of
from branchynet.runs.run_config import plain
from branchynet.runs.writable import check_writable
from branchynet.runtime.controller import Controller
from branchynet.runtime.profile import Profile

SETTINGS = tuple(name for name in inspect.signature(Controller).parameters if name not in ("profile", "tell"))


def build_controller(settings: Any, profile: Profile) -> Controller:
    """A controller of the group `controller`, which is not `none`, as it begins.

    Raises:
        UserError: a setting that is not allowed or that there is not.
    """
    given = plain(settings)
    given.pop("state", None)
    for name in given:
        if name not in SETTINGS:
            raise UserError(
                f"controller.{name}: there is no such setting; there are {', '.join(SETTINGS)}, state"
            )
    if given.get("limit") == "none":
        given["limit"] = None
    with settings_of("controller"):
        return Controller(profile, **given, tell=terminal.tell)


def wanted(settings: Any) -> bool:
    """Whether the group `controller` asks for one."""
    if not isinstance(plain(settings), dict):
        raise UserError(f"controller={settings}: it is a group, such as controller=latency")
    return plain(settings).get("hold") is not None


def state_file(settings: Any) -> Path | None:
    """Where its state is, and goes.

    Raises:
        UserError: a file that could not be written at the end.
    """
    state = settings.get("state")
    if state is None:
        return None
    file = Path(str(state))
    if not file.parent.is_dir():
        raise UserError(f"controller.state={state}: there is no folder {file.parent} to write it into")
    check_writable(file.parent, "name another file by controller.state=<file>")
    return file
