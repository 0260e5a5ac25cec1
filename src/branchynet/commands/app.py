"""What the commands share: where conf/ lies, how Hydra is started, how a mistake is told."""

import errno
import hashlib
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from branchynet.commands import completion, terminal
from branchynet.commands.group_help import describe
from branchynet.commands.multirun import is_multirun, job_failed
from branchynet.errors import UserError

STARTED = time.time()
# A folder's name may have 255 bytes; a number and a date stand before the overrides.
MAX_NAME = 160

# The settings that are paths, in whatever command: on the command line they are taken as they are.
PATHS = (
    *("init", "resume", "cache", "data.path", "data.root"),
    *("run", "export", "input", "output"),
    *("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"),
)
INITS = ("baseline", "scratch")  # not paths

_QUOTED = r"""('(\\.|[^'\\])*'|"(\\.|[^"\\])*")"""
_HYDRAS_OWN = re.compile(rf"|(?i:null)|{_QUOTED}(\s*,\s*{_QUOTED})*|choice\(.*\)").fullmatch


def conf_folder() -> Path:
    """conf/: inside the package in an installed wheel, at the top of the checkout otherwise."""
    package = Path(__file__).parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def run(command: str, arguments: Sequence[str]) -> None:
    """Run `command` with Hydra's `arguments`; leaves with exit code 2 after a user's mistake."""
    # Hydra would print its own errors and leave with 1; so it hands them on, and they become one line here.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register_resolvers()
    module = import_module(f"branchynet.commands.{command}")
    sys.argv = [f"branchynet {command}", *arguments]
    try:
        check_letters([*arguments, os.getcwd()])
        if completion.asked_for(arguments):
            completion.complete(arguments, module.main)
        elif name := name_in_help():
            print(describe(name, command, config_folders()), end="")
        else:
            module.main()
    except Exception as error:
        message = user_message(error)
        if message is not None:
            fail(message)
        raise
    except KeyboardInterrupt:
        fail("stopped", code=130)


def register_resolvers() -> None:
    """What the settings in conf/ refer to."""
    # A number, not a call: Hydra hands it on to the processes that run a multirun's jobs, which share a folder.
    pid = os.getpid()
    OmegaConf.register_new_resolver("pid", lambda: pid, replace=True)
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    OmegaConf.register_new_resolver(
        "if", lambda condition, yes, no: yes if condition is True else no, replace=True
    )


def start(task: Callable[[DictConfig, Path], object], config_name: str) -> None:
    """Compose `config_name` from the command line and call `task(config, run folder)`, once or per job.

    What it returns is Hydra's sweeper's. A job of a multirun that fails does not end it, see `multirun`.
    """

    begun = False

    def job(config: DictConfig) -> object:
        nonlocal begun
        begun = True
        try:
            settle_paths(config)
            return task(config, Path(HydraConfig.get().runtime.output_dir))
        except Exception as error:
            message = user_message(error)
            if message is not None:
                remove_unused(Path(HydraConfig.get().runtime.output_dir))
            if is_multirun():
                return job_failed(error, message)
            # Here and not only in `run`: Hydra would print a line of its own before it.
            if message is None:
                raise
            fail(message)

    OmegaConf.register_new_resolver("job_name", partial(job_name, swept()), replace=True)
    try:
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=config_name)(job)()
    except OSError as error:
        # Hydra makes the folder before it calls us.
        if begun or error.filename is None:
            raise
        raise UserError(
            f"the folder {error.filename} cannot be written ({error.strerror}): name another one by "
            "hydra.run.dir=<folder>, for a multirun by hydra.sweep.dir=<folder>"
        ) from error


def remove_unused(folder: Path) -> None:
    """Remove a job's folder that Hydra has made if nothing was written into it; and the one around it, unless it
    was named on the command line."""
    named = [override for override in HydraConfig.get().overrides.hydra if ".dir=" in override]
    for path in (folder,) if named else (folder, folder.parent):
        with suppress(OSError):
            if path.stat().st_mtime >= STARTED and not Path.cwd().is_relative_to(path.resolve()):
                path.rmdir()  # only where it is empty


def quote_paths() -> None:
    """Quote the values of all path settings on the command line, so that Hydra takes them as they are.

    Its grammar has a meaning for `=`, `,`, spaces, quotes and brackets, and no letters but ASCII's. Left alone is
    what is Hydra's own: null, something quoted, several of that (they are swept over), and choice(…).
    """
    for place, argument in enumerate(sys.argv):
        name, equals, value = argument.partition("=")
        if not equals or name.lstrip("+") not in PATHS or _HYDRAS_OWN(value):
            continue
        if name == "init" and set(value.split(",")) <= set(INITS):
            continue  # several of these words are swept over, too
        value = os.path.expanduser(value)
        # Before a quote, and nowhere else, a backslash is Hydra's own.
        escaped = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), value)
        sys.argv[place] = f"{name}='{escaped}'"


def settle_paths(config: DictConfig) -> None:
    """Let the paths among the settings be of the user's folder and of the one where the command was started.

    `~` is the user's folder. With `hydra.job.chdir=true` a task runs in another folder than the paths are of.
    """
    hydra_config = HydraConfig.get()
    for name in PATHS:
        value = None if name.startswith("hydra.") else OmegaConf.select(config, name)
        if not isinstance(value, str) or not value or (name == "init" and value in INITS):
            continue
        value = os.path.expanduser(value)
        if hydra_config.job.chdir:
            value = os.path.join(hydra_config.runtime.cwd, value)
        OmegaConf.update(config, name, value)


def check_letters(texts: Sequence[str]) -> None:
    """A UserError if one of these names of files cannot be written down."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            shown = text.encode(errors="backslashreplace").decode()
            raise UserError(
                f"{shown}: this has bytes that are no letters in UTF-8; rename the file or folder"
            ) from None


def given() -> dict[str, Any]:
    """The settings on the command line by name, as Hydra reads them; its own flags are left out."""
    overrides = get_args_parser().parse_intermixed_args(sys.argv[1:]).overrides
    parsed = OverridesParser.create().parse_overrides(overrides)
    return {override.key_or_group: override.value() for override in parsed}


def swept() -> list[str]:
    """The settings on the command line that have several values, or a range of them, for a multirun."""
    overrides = get_args_parser().parse_intermixed_args(sys.argv[1:]).overrides
    parsed = OverridesParser.create().parse_overrides(overrides)
    return [override.key_or_group for override in parsed if override.is_sweep_override()]


def asks_for_help() -> bool:
    """Whether the command line asks for help or for completion, as Hydra reads it."""
    flags = get_args_parser().parse_intermixed_args(sys.argv[1:])
    return bool(flags.help or flags.hydra_help or flags.shell_completion)


def name_in_help() -> str | None:
    """The name in `--help <name>`: of a group, an option or a setting."""
    if not {"-h", "--help"} & set(sys.argv):
        return None
    flags = get_args_parser().parse_intermixed_args(sys.argv[1:])
    return next((word for word in flags.overrides if "=" not in word), None)


def config_folders() -> list[Path]:
    """Where settings are looked for: ours, and one that the command line names."""
    named = get_args_parser().parse_intermixed_args(sys.argv[1:]).config_dir
    return [conf_folder(), *([Path(named)] if named else [])]


# What the machine does not allow is no bug.
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def user_message(error: BaseException) -> str | None:
    """One line for a user's mistake; None if `error` is a bug of ours."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return one_line(str(cause))
        if isinstance(cause, OSError) and cause.errno in _FORBIDDEN and cause.filename is not None:
            return one_line(f"{cause.filename} cannot be read or written ({cause.strerror})")
        cause = cause.__cause__
    if isinstance(error, InstantiationException) and not isinstance(error.__cause__, TypeError):
        return None
    if isinstance(error, ValueError) and str(error).startswith("Config group override must be"):
        null = ", ".join(word for word in sys.argv[1:] if word.endswith("=null"))
        return f"{null}: a group of settings is not null; choose one of its options, or leave it out"
    if isinstance(error, OverrideParseException):
        return one_line(f"the override {error.override!r} cannot be read: {error.message}")
    if isinstance(error, HydraException | OmegaConfBaseException):
        message = str(error).partition("Config search path")[0]
        hint = " (see `--help` for the groups and `--cfg job` for the settings)"
        return one_line(message) + hint
    return None


def one_line(text: str) -> str:
    """`text` without line breaks and indentation."""
    return " ".join(text.split())


def fail(message: str, code: int = 2) -> NoReturn:
    """Print `message` as the last line on stderr and leave."""
    terminal.tell(message)
    sys.exit(code)


def run_name(overrides: str | None) -> str:
    """`-<overrides>` as a part of a folder's name, or nothing where nothing was overridden."""
    if not overrides:
        return ""
    name = overrides.replace("/", "_").replace("\\", "_").replace(" ", "").replace("'", "")
    if len(name) > MAX_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = f"{name[: MAX_NAME - 9]}-{digest}"
    return f"-{name}"


def job_name(
    names: Collection[str], overrides: Sequence[str], params: Mapping[str, Any] | None, otherwise: str | None
) -> str:
    """A job's part of its folder's name: what differs among the jobs of a multirun, in the order it was typed.

    Args:
        names: the settings that the command line sweeps.
        overrides: the job's own.
        params: those that the sweeper's settings sweep, by name.
        otherwise: for `run_name` where none of the overrides is swept.
    """
    names = {*names, *(params or ())}
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    differing = [each.input_line or "" for each in parsed if each.key_or_group in names]
    return run_name(",".join(differing) or otherwise)
