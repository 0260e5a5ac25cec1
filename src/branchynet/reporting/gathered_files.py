"""The files of a report on many runs."""

from collections.abc import Sequence
from pathlib import Path

from branchynet.errors import UserError
from branchynet.reporting.averages import Group
from branchynet.reporting.comparison import comparison_page, write_groups, write_runs
from branchynet.reporting.page import NAME as PAGE
from branchynet.reporting.page_report import comparison_html
from branchynet.runs.atomic import together
from branchynet.runs.gathered import Gathered
from branchynet.runs.started_run import OWN


def write_comparison(
    folder: Path,
    title: str,
    gathered: Gathered,
    groups: Sequence[Group],
    figures: bool = True,
    page: bool = False,
) -> None:
    """Write `report.md`, `runs.csv`, `groups.csv` and, if wanted, `figures/*.png` and `report.html`, all or none.

    Raises:
        UserError: the folder is a run's own, whose report it would replace.
    """
    if any((folder / name).exists() for name in OWN):
        raise UserError(
            f"output={folder} is a run's folder, whose own report would be replaced: name another"
        )
    with together(folder, last="report.md") as staging:
        names = []
        if figures:
            # Only now: matplotlib takes a second to import.
            from branchynet.reporting.comparison_figures import figures_of

            (staging / "figures").mkdir()
            for name, figure in figures_of(groups):
                figure.savefig(staging / "figures" / f"{name}.png", format="png")
                names.append(name)
        write_runs(staging / "runs.csv", gathered.rows)
        write_groups(staging / "groups.csv", groups)
        text = comparison_page(title, gathered, groups, names)
        (staging / "report.md").write_text(text, encoding="utf-8")
        if page:
            html = comparison_html(title, gathered, folder)
            (staging / PAGE).write_text(html, encoding="utf-8")
        else:  # an earlier one would show other runs
            (folder / PAGE).unlink(missing_ok=True)
