"""Reading and writing the rows of a CSV file; no torch, so that light subcommands may."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedmer.files import append, write_atomically


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file such as ``metrics.csv``, as text by column."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append_rows(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows below those that a file has; a column that a row lacks stays empty.

    Raises:
        InputError: The file cannot be written; then none of the rows is added.
    """
    if rows:
        append(path, as_csv(columns, rows, header=False))


def restart_rows(path: Path, columns: Sequence[str], done: int) -> None:
    """Leave a file with its header and the complete rows of rounds up to ``done``."""
    kept = [
        row
        for row in (read_rows(path) if path.exists() else [])
        if None not in row.values() and row["round"].isdigit() and int(row["round"]) <= done
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
