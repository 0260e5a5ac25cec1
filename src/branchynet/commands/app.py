"""What the commands share: where conf/ lies, how Hydra is started, how a mistake is told."""

import errno
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from branchynet.commands import completion, terminal
from branchynet.commands.command_line import check_form, flags, name_in_help, swept
from branchynet.commands.group_help import describe, options
from branchynet.commands.job_names import job_name, run_name
from branchynet.commands.known import check_known
from branchynet.commands.multirun import is_multirun, job_failed, quiet_launchers, settle_number, tell_job
from branchynet.commands.paths import check_letters, settle_paths
from branchynet.errors import UserError, one_line
from branchynet.runs.run_config import plain
from branchynet.training.ranks import ranks_outside

STARTED = time.time()


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
    # A command may take words that set nothing by themselves, such as the folders of `report`.
    arguments = getattr(module, "as_settings", list)(arguments)
    sys.argv = [f"branchynet {command}", *arguments]
    try:
        check_letters([*arguments, os.getcwd()])
        check_form()
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
        settle_number()
        if is_multirun() and ranks_outside().first:
            tell_job()
        try:
            if config_name not in ("train", "search"):  # whose settings have forms of their own
                check_known(plain(config), conf_folder() / f"{config_name}.yaml")
            settle_paths(config)
            return task(config, Path(HydraConfig.get().runtime.output_dir))
        except Exception as error:
            if isinstance(error, BrokenPipeError):
                # Leaves if it was that, before Hydra has a line of its own for it.
                terminal.check_stdout("\n")
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
        with quiet_launchers():
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


def config_folders() -> list[Path]:
    """Where settings are looked for: ours, and one that the command line names."""
    named = flags().config_dir
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
        # Of what Hydra does not know, nothing is to be appended: it would be no setting of ours either.
        message = re.split(r"To append to your (?:config|default list) use", message)[0]
        hint = " (see `--help` for the groups and `--cfg job` for the settings)"
        return one_line(_with_options(error, message)) + hint
    return None


def _with_options(error: BaseException, message: str) -> str:
    """What a group has, where Hydra does not say it: of one that several options are chosen from, or of one inside
    another, for `experiment=ablation/nosuch`."""
    if not isinstance(error, MissingConfigException):
        return message + _owners(message)
    group = (error.missing_cfg_file or "").rpartition("/")[0]
    names, known = options(group, config_folders()), f"Available options in '{group}':"
    if not names or known in message:
        return message
    return f"{message.partition('Available options')[0].strip()} {known} {' '.join(names)}"


def _owners(message: str) -> str:
    """Which options of the group have the setting that could not be overridden, where that is what was meant."""
    found = re.match(r"Could not override '([\w.]+)\.(\w+)'", message)
    if found is None:
        return ""
    group, name = found[1].replace(".", "/"), found[2]
    own = [
        option
        for option in options(group, config_folders())
        for folder in config_folders()
        if (path := folder / group / f"{option}.yaml").is_file()
        and re.search(rf"^{name}:", path.read_text("utf-8", "replace"), re.M)
    ]
    return f" It is a setting of {' or '.join(f'{group}={option}' for option in own)}." if own else ""


def fail(message: str, code: int = 2) -> NoReturn:
    """Print `message` as the last line on stderr and leave."""
    terminal.tell(message)
    sys.exit(code)
