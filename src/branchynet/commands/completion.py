"""Tab completion in the shell: commands, groups, options, settings and paths.

Hydra completes a program of one word and what comes after it. Our program is two words, `branchynet train`, so
the scripts are ours; what may stand next is Hydra's business.
"""

import io
import os
import re
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

from branchynet.commands import COMMANDS
from branchynet.errors import UserError

_COMMANDS = " ".join(COMMANDS)

# Bash breaks words at `=`, Hydra does not: of an answer only what belongs to bash's word may be given back.
_BASH = f"""\
_branchynet_completion() {{
    local line="${{COMP_LINE:0:$COMP_POINT}}"
    local word="${{line##* }}" last="${{COMP_WORDS[$COMP_CWORD]}}" IFS=$'\\n' answer
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "$(printf '%s\\n' {_COMMANDS})" -- "$last"))
        return
    fi
    if [ "$last" = "=" ]; then last=""; fi
    for answer in $(COMP_LINE="$line" "${{COMP_WORDS[0]}}" "${{COMP_WORDS[1]}}" -sc query=bash 2>/dev/null); do
        COMPREPLY+=("${{answer#"${{word%"$last"}}"}}")
    done
}}
complete -o nospace -o default -F _branchynet_completion branchynet
"""
_FISH = f"""\
function _branchynet_completion
    set -l words (commandline -opc)
    COMP_LINE=(commandline -cp | string collect) $words[1] $words[2] -sc query=fish 2>/dev/null
end
complete -c branchynet -n __fish_use_subcommand -f -a '{_COMMANDS}'
complete -c branchynet -n 'not __fish_use_subcommand' -a '(_branchynet_completion)'
"""
INSTALL = {
    "bash": _BASH,
    "zsh": "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n" + _BASH,
    "fish": _FISH,
}
UNINSTALL = {
    "bash": "complete -r branchynet\nunset -f _branchynet_completion\n",
    "zsh": "compdef -d branchynet\nunset -f _branchynet_completion\n",
    "fish": "complete -e -c branchynet\nfunctions -e _branchynet_completion\n",
}


def asked_for(arguments: Sequence[str]) -> bool:
    """Whether the command line is about completion, `-sc …`."""
    return any(argument in ("-sc", "--shell-completion") for argument in arguments)


def complete(arguments: Sequence[str], main: Callable[[], object]) -> None:
    """Print what `-sc install=<shell>`, `uninstall=<shell>` or `query=<shell>` asks for.

    A query's line stands in the environment variable COMP_LINE; its answers are printed one a line.

    Args:
        arguments: behind the command's name.
        main: the command itself; it reads `sys.argv`.
    """
    words = [argument for argument in arguments if "=" in argument]
    action, _, shell = words[0].partition("=") if len(words) == 1 else ("", "", "")
    if action not in ("install", "uninstall", "query") or shell not in INSTALL:
        raise UserError(
            "-sc wants install=<shell>, uninstall=<shell> or query=<shell>, of bash, zsh or fish, such as "
            '`eval "$(branchynet train -sc install=bash)"`'
        )
    if action == "query":
        print("\n".join(answers(os.environ.get("COMP_LINE", ""), main)))
    else:
        print({"install": INSTALL, "uninstall": UNINSTALL}[action][shell], end="")


def answers(line: str, main: Callable[[], object]) -> list[str]:
    """What may stand at the end of a command line; nothing where it cannot be read as far as it goes."""
    behind = re.match(r"\s*\S+\s+\S+(\s.*)$", line)
    if behind is None:
        return []
    found = io.StringIO()
    # Hydra's answer for fish is one a line.
    typed = patch("sys.argv", ["branchynet", "-sc", "query=fish"])
    environment = patch.dict(os.environ, COMP_LINE=f"branchynet{behind[1]}")
    with typed, environment, redirect_stdout(found), redirect_stderr(io.StringIO()):
        try:
            main()
        except (Exception, SystemExit):
            return []
    return found.getvalue().strip("\n").split("\n") if found.getvalue().strip() else []
