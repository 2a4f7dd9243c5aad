"""The console that all tables and sentences with names in them are printed with."""

import os
import sys
from typing import Any

import rich.console
from rich.text import Text

from fedmer.printable import printable

_WIDE = 10_000
"""Columns where no terminal limits them; a table takes no more of them than it needs."""


def in_bytes(count: float) -> str:
    """A number of bytes, for people.

    >>> in_bytes(999), in_bytes(1300000)
    ('999 B', '1.3 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


class Console(rich.console.Console):
    """A console to which names from outside can be given as they are.

    Texts have no markup, and what in them would steer a terminal is written out; their line ends
    stay. Elsewhere than on a terminal, as in a pipe, a table is as wide as it needs to be, so that
    no number is cut; ``COLUMNS`` sets another width.

    Args:
        stderr: Print to the standard error stream.
    """

    def __init__(self, stderr: bool = False) -> None:
        terminal = (sys.stderr if stderr else sys.stdout).isatty()
        limited = terminal or os.environ.get("COLUMNS", "").isdigit()
        super().__init__(stderr=stderr, width=None if limited else _WIDE, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """A text as it is shown; every table cell, title and sentence passes here."""
        return super().render_str("\n".join(map(printable, text.split("\n"))), **options)

    def on_broken_pipe(self) -> None:
        """Leave it to the command line, which knows what a reader that has left means."""
        raise
