"""How a command ends: its exit code, and a sentence where a person can mend what went wrong."""

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


def exit_code(run: Callable[[], int]) -> int:
    """Run a command; returns its exit code.

    It is 2 for input that cannot be used, and 141 if whoever reads the output wants no more of it.
    """
    try:
        try:
            return run()
        finally:
            sys.stdout.flush()
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
