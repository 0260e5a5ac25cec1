"""The terminal: what it cannot show is written in other letters, and what cannot be written is told in one line."""

import codecs
import logging
import os
import sys

from branchynet.errors import printable

# Signs of ours, for terminals that know ASCII or Latin-1 alone; other letters become `\u4f60`.
IN_ASCII = {"µ": "u", "…": "...", "–": "-", "×": "x", "→": "->", "≤": "<=", "≥": ">="}


def prepare() -> None:
    """Make stdout and stderr such that no letter ends a run, here and in the processes that are started from here.

    Leaves with exit code 2 where stdout is closed.
    """
    codecs.register_error("legible", legible)
    # A log line that cannot be written is no reason for a traceback; `check_stdout` tells of it.
    logging.raiseExceptions = False
    closed = sys.stdout is None
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            # Else the next file that is opened would get this number, and be written into by whoever prints.
            silence(number)
            setattr(sys, name, os.fdopen(number, "w", closefd=False))
        getattr(sys, name).reconfigure(errors="legible")
    if closed:
        tell("stdout is closed: give it a file, or /dev/null")
        sys.exit(2)
    os.environ["PYTHONIOENCODING"] = f"{sys.stdout.encoding}:backslashreplace"


def legible(error: UnicodeError) -> tuple[str, int]:
    """How Python is to write what an encoding lacks; see `codecs.register_error`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(IN_ASCII.get(letter) or escaped(letter) for letter in letters), error.end


def escaped(letter: str) -> str:
    r"""As Python and JSON write it: `\u4f60`, or beyond these `\U0001f600`."""
    number = ord(letter)
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


class OneLine(logging.Formatter):
    """Of log lines: nothing in them controls the terminal, whatever names they quote."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).expandtabs(4).split("\n")))


def check_stdout(text: str = "") -> None:
    """Write `text` and what stdout still holds; leaves with an exit code where that cannot be done."""
    try:
        print(text, end="", flush=True)
    except OSError as error:
        silence(1)  # Python flushes once more as it leaves, and would complain
        if isinstance(error, BrokenPipeError):
            sys.exit(141)  # as the shell has it for a program in a pipe that nobody reads any more
        tell(f"stdout cannot be written ({error.strerror})")
        sys.exit(2)


def silence(number: int) -> None:
    """Let a file descriptor write nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)


def tell(message: str) -> None:
    """Print a line on stderr, if it can be written."""
    try:
        print(f"branchynet: {printable(message)}", file=sys.stderr)
    except OSError:
        silence(2)
