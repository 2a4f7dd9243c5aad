"""Reading and writing the rows of a CSV file; no torch, so that light subcommands may."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedmer.files import append, write_atomically
from fedmer.record.reading import read_rows


def append_rows(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows below those that a file has; a column that a row lacks stays empty.

    Raises:
        InputError: The file cannot be written; then none of the rows is added.
    """
    if rows:
        append(path, as_csv(columns, rows, header=False))


def restart_rows(path: Path, columns: Sequence[str], done: int) -> None:
    """Leave a file with its header and the complete rows of rounds up to ``done``.

    Raises:
        InputError: It cannot be read or written.
    """
    kept = [
        {name: row.get(name, "") for name in columns}
        for row in (read_rows(path, cut=True) if path.exists() else [])
        if None not in row.values() and _round(row) <= done
    ]
    write_atomically(path, as_csv(columns, kept))


def as_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], header: bool = True) -> str:
    r"""Rows as the text of a CSV file.

    >>> as_csv(["round", "loss"], [{"round": 1, "loss": 0.5}, {"round": 2}])
    'round,loss\n1,0.5\n2,\n'
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _round(row: Mapping[str, str]) -> float:
    """Of a row; infinite for what is none."""
    text = row.get("round", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else math.inf
