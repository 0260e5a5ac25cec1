"""The small networks of others that are shown beside a run's results."""

from typing import Any

import yaml

from branchynet.commands.app import conf_folder
from branchynet.data.datasets import NAMES
from branchynet.evaluation.rivals import Rival
from branchynet.runs.build import build_rivals
from branchynet.runs.run_config import plain


def rivals_of(data: Any) -> tuple[Rival, ...]:
    """Those that a run's settings of its data set name; of a run that is older than them, those of the set today.

    For they belong to the images, not to the run.
    """
    data = plain(data)
    if "rivals" not in data and data.get("name") in NAMES:
        text = (conf_folder() / "data" / f"{data['name']}.yaml").read_text(encoding="utf-8")
        data = yaml.safe_load(text)
    return build_rivals(data)
