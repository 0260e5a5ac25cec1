"""An export that the hostile tests share."""

import child
import pytest


@pytest.fixture(scope="session")
def export(finished, tmp_path_factory):
    """Of the finished run, its segments; copy it before changing it."""
    folder = tmp_path_factory.mktemp("exported")
    done = child.call(["export", f"run={finished}", "output=export"], folder)
    assert done.code == 0, done.err
    return folder / "export"
