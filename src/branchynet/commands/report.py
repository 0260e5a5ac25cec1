"""`branchynet report`: every run and evaluation below some folders in one table."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from branchynet.commands import app
from branchynet.commands.command_line import asks_for_help, given, words
from branchynet.commands.paths import quote_paths, quoted
from branchynet.errors import UserError, check_flag
from branchynet.runs.run_config import plain

log = logging.getLogger(__name__)


def as_settings(arguments: Sequence[str]) -> list[str]:
    """The command line with the folders that stand there by themselves as the setting `folders`."""
    folders = [word for word in words(arguments) if "=" not in word or os.path.isdir(word)]
    if not folders:
        return list(arguments)
    others = list(arguments)
    for folder in folders:
        others.remove(folder)
    return [*others, f"folders=[{','.join(map(quoted, folders))}]"]


def main() -> None:
    quote_paths()
    if "folders" not in given() and not asks_for_help():
        raise UserError("no folder is named: `branchynet report outputs` looks at all runs in outputs/")
    app.start(report, "report")


def report(config: DictConfig, _: Path) -> None:
    """Gather and write what `config` asks for."""
    from branchynet.commands.pages import wants_page
    from branchynet.reporting.averages import groups_of
    from branchynet.reporting.comparison import terminal_table
    from branchynet.reporting.gathered_files import write_comparison
    from branchynet.runs.gathered import gather
    from branchynet.runs.writable import check_writable

    check_flag("figures", config.figures)
    page = wants_page(config)
    named = plain(config.folders)
    folders = [named] if isinstance(named, str) else named
    if not isinstance(folders, list) or not folders or not all(isinstance(each, str) for each in folders):
        raise UserError(f"folders={named}: it is a folder, or a list of them, such as folders=[outputs]")
    paths = [Path(os.path.expanduser(each)) for each in folders]
    output = Path(config.output) if config.output is not None else paths[0] / "report"
    found = gather(paths)
    if not found.rows:
        reasons = "; ".join(f"{each.name}: {each.reason}" for each in found.left_out[:3])
        raise UserError(f"no finished run in {', '.join(folders)}{f' ({reasons})' if reasons else ''}")
    check_writable(output, "name another one by output=<folder>")
    groups = groups_of(found.rows)
    print(terminal_table(found, groups))
    write_comparison(output, ", ".join(folders), found, groups, config.figures, page)
    log.info("written to:  %s", output)
