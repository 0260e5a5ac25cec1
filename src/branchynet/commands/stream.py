"""`branchynet stream`: test images that become harder, and what fixed and held thresholds make of them."""

from pathlib import Path

from omegaconf import DictConfig

from branchynet.commands import app
from branchynet.commands.command_line import asks_for_help, given
from branchynet.commands.paths import quote_paths
from branchynet.errors import UserError


def main() -> None:
    """Through Hydra; the run is named before a folder is made in it."""
    quote_paths()
    folder = given().get("run")
    if folder is None and not asks_for_help():
        raise UserError("run=<run folder> is missing: which finished run is to be shown on streams?")
    if folder is not None:
        from branchynet.runs.run_config import read_config

        read_config(Path(str(folder)), trust=True)  # of no run, no folder is made
    app.start(stream, "stream")


def stream(config: DictConfig, folder: Path) -> None:
    """Run what `config` asks for, and write into `folder`."""
    # Only now: torch takes seconds to import, and help has to answer at once.
    from branchynet.commands.stream_run import stream_run

    stream_run(config, folder)
