"""The settings in conf/: each has a comment, and stands in the docs under the name that the command line has."""

import re
from itertools import pairwise

import pytest
import yaml

from branchynet.commands.app import conf_folder

CONF = conf_folder()
DOCS = CONF.parent / "docs"
# Experiments and spaces are combinations of the others' settings; hydra's are not ours.
FILES = [
    path
    for path in sorted(CONF.rglob("*.yaml"))
    if path.relative_to(CONF).parts[0] not in ("hydra", "experiment", "debug", "space")
]
# Of all groups the same: what is made, and the options that a file is built on.
PLAIN = {"_target_", "_partial_", "name", "defaults", "hydra"}


def name_of(path):
    return path.relative_to(CONF).with_suffix("").as_posix()


def settings(node, above=""):
    """Dotted names of all settings; of an item in a list by its place."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in pairs:
        name = f"{above}.{key}".lstrip(".")
        if (isinstance(value, dict) and value) or (
            isinstance(value, list) and value and isinstance(value[0], dict)
        ):
            yield from settings(value, name)
        else:
            yield name


def lines_of_settings(path):
    """(key, whether its line has a comment) for all lines with one, those of `defaults` and `hydra` left out."""
    block = ""
    for above, line in pairwise(["", *path.read_text(encoding="utf-8").splitlines()]):
        key = re.match(r"( *(?:- )?)(\w+):(.*)", line)
        if key is None:
            continue
        if not key[1]:
            block = key[2]
        if block not in ("defaults", "hydra") and key[2] not in PLAIN:
            # A group's heading speaks for itself.
            yield key[2], "#" in key[3] or not key[3].strip() or above.lstrip().startswith("#")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_setting_has_a_comment(path):
    """In its line, or where it stood first: above in the file, for a second exit, or in what the group shares."""
    explained = set()
    for each in (path.parent / "default.yaml", path):
        if each.exists():
            without = [key for key, told in lines_of_settings(each) if not told and key not in explained]
            explained |= {key for key, told in lines_of_settings(each) if told}
    assert not set(without) - explained


@pytest.mark.parametrize("path", [path for path in FILES if path.parent != CONF], ids=name_of)
def test_every_setting_of_a_group_is_in_the_docs(path):
    group = path.parent.relative_to(CONF).as_posix().replace("/", ".")
    text = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("config/*.md"))
    missing = []
    for name in settings(yaml.safe_load(path.read_text(encoding="utf-8")) or {}):
        last = name.rpartition(".")[2]
        if name.partition(".")[0] == "defaults" or last.isdigit():
            continue
        full = re.sub(r"\.\d+\.", ".*.", f"{group}.{name}")
        known = (
            f"`{group}.{name}`" in text or f"`{full}`" in text or f"`{last}`" in text or f".{last}`" in text
        )
        if not known:
            missing.append(name)
    assert not missing


@pytest.mark.parametrize("path", [path for path in FILES if path.parent == CONF], ids=name_of)
def test_every_setting_of_a_command_is_in_the_docs(path):
    text = (DOCS / f"{path.stem}.md").read_text(encoding="utf-8")
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    names = [name for name in settings(found) if name.partition(".")[0] not in ("defaults", "hydra")]
    assert not [name for name in names if f"`{name}`" not in text and f"`{name}=" not in text]


@pytest.mark.parametrize("command", ["evaluate", "export", "predict", "search", "stream"])
def test_the_help_names_every_setting_of_a_command(command):
    text = yaml.safe_load((CONF / "hydra" / "help" / f"{command}.yaml").read_text())["template"]
    own = yaml.safe_load((CONF / f"{command}.yaml").read_text())
    for key, value in own.items():
        if key not in PLAIN:
            names = [f"{key}.{inner}" for inner in value] if isinstance(value, dict) else [key]
            assert all(re.search(rf"(^|[\s]){re.escape(name)}[\s,]", text) for name in names), names
