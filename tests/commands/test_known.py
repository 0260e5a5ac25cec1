"""A setting that nobody reads is told of."""

import pytest

from branchynet.commands.app import conf_folder
from branchynet.commands.known import check_known
from branchynet.errors import UserError


@pytest.mark.parametrize(
    ("command", "settings", "name"),
    [
        ("predict", {"export": "x", "nosuch": 1}, "nosuch"),
        ("predict", {"image_files": {"invert": True, "size": "refuse"}}, "image_files.size"),
        ("export", {"image_files": {"size": "refuse", "nosuch": 3}}, "image_files.nosuch"),
        ("export", {"data": {"root": "x", "nosuch": 1}}, "data.nosuch"),
        ("evaluate", {"run": "x", "sweep": {"nosuch": 1}, "criteron": {}}, "criteron"),
    ],
)
def test_it_is_named_and_so_are_those_there_are(command, settings, name):
    file = conf_folder() / f"{command}.yaml"
    with pytest.raises(UserError, match=rf"^{name}=.*there is no such setting; there are \w+, "):
        check_known(settings, file)
    group, _, key = name.partition(".")
    known = {k: v for k, v in settings.items() if k != name}
    if key:
        known[group] = {k: v for k, v in settings[group].items() if k != key}
    check_known(known, file)
