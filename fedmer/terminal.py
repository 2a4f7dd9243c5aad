"""What a command takes from a shell and gives back to it: words, and an exit code."""

import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from fedmer.errors import InputError
from fedmer.files import DISK, unwritable
from fedmer.printable import printable

_OUT = 1
"""The standard output, as the system knows it."""


def at_home(word: str) -> str:
    """The word with ``~/`` expanded, which a shell leaves alone within quotes and behind ``=``."""
    option, equals, value = word.partition("=")
    if equals and option.startswith("--") and value.startswith("~/"):
        return f"{option}={Path(value).expanduser()}"
    return str(Path(word).expanduser()) if word.startswith("~/") else word


def exit_code(run: Callable[[], int]) -> int:
    """Run a command; returns its exit code.

    It is 2 for input that cannot be used, for which a sentence is printed, and 141 if whoever reads
    the output wants no more of it.
    """
    try:
        try:
            return run()
        finally:
            sys.stdout.flush()
    except SystemExit as end:
        # How a parser ends, after --help for example.
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except InputError as error:
        print(f"fedmer: error: {printable(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        if not _reader_has_left():
            raise
        # What is still buffered would be written once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), _OUT)
        return 128 + signal.SIGPIPE
    except OSError as error:
        # A full disk can meet whatever writes, such as a log, or a logger of Lightning's.
        if error.errno not in DISK:
            raise
        said = unwritable(Path(error.filename or "A file"), error)
        print(f"fedmer: error: {printable(str(said))}", file=sys.stderr)
        return 2


def _reader_has_left() -> bool:
    """Was the output piped to a program that has ended, as ``head`` does?"""
    poll = select.poll()
    poll.register(_OUT, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
