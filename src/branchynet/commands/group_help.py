"""`branchynet <command> --help <name>`: the settings of a group, an option or a place, with their comments.

They are printed as they stand in conf/, where every setting has a comment with its unit and its alternatives.
"""

import re
import textwrap
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import yaml

from branchynet.errors import UserError


def describe(name: str, command: str, folders: Sequence[Path]) -> str:
    """The text for a group (`trainer`), one of its options (`data/mnist`) or a setting of the command (`epochs`).

    Args:
        name: of one of these.
        command: `train`, …: its own settings are in `<command>.yaml`.
        folders: of configs, ours and others; of equal names the last one's is taken.

    Raises:
        UserError: there is nothing of that name.
    """
    name = name.strip("/").removesuffix(".yaml")
    groups = _groups(folders)
    if name in groups:
        return _of_group(name, groups[name], command, folders)
    group, _, option = name.rpartition("/")
    if option in groups.get(group, {}):
        return _of_option(group, option, groups[group])
    first = name.partition(".")[0]
    if block := _block(_primary(command, folders), first):
        return block
    if first in groups:  # one of its settings
        return _of_group(first, groups[first], command, folders)
    every = [*groups, *(f"{group}/{option}" for group, options in groups.items() for option in options)]
    like = get_close_matches(name, every, 1)
    meant = f"; did you mean {like[0]}?" if like else ""
    raise UserError(
        f"--help {name}: there is no such group or setting; groups are {', '.join(sorted(groups))}, an option is "
        f"<group>/<option>, and `branchynet {command} --cfg job` shows all settings{meant}"
    )


def options(group: str, folders: Sequence[Path]) -> list[str]:
    """The names of a group's options; none where there is no such group."""
    return list(_groups(folders).get(group, {}))


def _groups(folders: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """Every group with its options, by name."""
    groups: dict[str, dict[str, Path]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.yaml")):
            group = path.parent.relative_to(folder).as_posix()
            if group != "." and group.partition("/")[0] != "hydra":
                groups.setdefault(group, {})[path.stem] = path
    return groups


def _of_group(group: str, options: dict[str, Path], command: str, folders: Sequence[Path]) -> str:
    """A line for every option, and the whole of the one that is taken by default, or of all where they are few."""
    width = max(map(len, options))
    lines = [f"{group}: choose by `{group}=<option>`", ""]
    lines += [f"  {option:{width}}  {_headline(path)}" for option, path in options.items()]
    default = _default(group, _primary(command, folders), options)
    if default is not None:
        lines += ["", f"By default {group}={default}:", "", _of_option(group, default, options).rstrip()]
    others = next((option for option in options if option != default), None)
    if others is not None:
        lines += ["", f"Another one with its settings: `--help {group}/{others}`"]
    return "\n".join(lines) + "\n"


def _of_option(group: str, option: str, options: dict[str, Path]) -> str:
    """Its file, and those of the same group that it is built on."""
    text = options[option].read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    defaults = content.get("defaults", []) if isinstance(content, dict) else []
    below = [each for each in defaults if isinstance(each, str) and each in options and each != option]
    parts = [f"# {group}/{option}\n{text}", *(_of_option(group, each, options) for each in below)]
    return "\n".join(parts)


def _headline(path: Path) -> str:
    """The first sentence of the comment at a file's head."""
    comment = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# "))
    sentence = re.split(r"(?<=[.;]) ", " ".join(comment))[0].rstrip(".;")
    return textwrap.shorten(sentence, 100, placeholder=" …")


def _default(group: str, primary: Path, options: dict[str, Path]) -> str | None:
    """The option that a command takes where none is chosen."""
    for entry in yaml.safe_load(primary.read_text(encoding="utf-8")).get("defaults", []):
        if isinstance(entry, dict) and entry.get(group) in options:
            return entry[group]
    parent, _, last = group.rpartition("/")
    above = primary.parent / parent / "default.yaml"  # as `sweep/rule` is chosen in sweep/default.yaml
    if parent and above.is_file():
        for entry in yaml.safe_load(above.read_text(encoding="utf-8")).get("defaults", []):
            if isinstance(entry, dict) and entry.get(last) in options:
                return entry[last]
    return None


def _primary(command: str, folders: Sequence[Path]) -> Path:
    return folders[0] / f"{command}.yaml"


def _block(path: Path, key: str) -> str | None:
    """The lines of a top-level setting, with the comment above it and the settings below it."""
    match = re.search(
        rf"^(?:# .*\n)*{re.escape(key)}:.*\n(?:[ \t]+.*\n)*", path.read_text(encoding="utf-8"), re.M
    )
    return match[0] if match and key not in ("defaults", "hydra") else None
