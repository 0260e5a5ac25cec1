"""`branchynet <command> [overrides]`."""

import sys

from branchynet.commands import COMMANDS, terminal

USAGE = """\
branchynet: networks with side exits

usage: branchynet <command> [overrides]

commands:
{commands}

`branchynet <command> --help` shows the command's config groups and settings.
"""


def main() -> None:
    """Run one command. Nothing heavy is imported before it is known which."""
    terminal.prepare()
    try:
        command(sys.argv[1:])
    except OSError:
        terminal.check_stdout("\n")  # if it was that
        raise
    finally:
        terminal.check_stdout()


def command(arguments: list[str]) -> None:
    """What the command line's `arguments` ask for."""
    usage = USAGE.format(commands="\n".join(f"  {name:<10}{text}" for name, text in COMMANDS.items()))
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage, end="")
        sys.exit(0 if arguments else 2)
    if arguments[0] in ("-V", "--version"):
        from branchynet import __version__

        print(f"branchynet {__version__}")
        return
    if arguments[0] not in COMMANDS:
        terminal.tell(f"there is no command {arguments[0]!r}: known are {', '.join(COMMANDS)}")
        sys.exit(2)

    from branchynet.commands.app import run

    run(arguments[0], arguments[1:])


if __name__ == "__main__":
    main()
