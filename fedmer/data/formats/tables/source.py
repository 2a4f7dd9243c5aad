"""What all kinds of tables have in common: columns, and rows that come one at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Source:
    """A table that is being read.

    Args:
        columns: Names, in the file's order.
        rows: Number of a row and its cells, as many as there are columns.
        label_names: The emotions' names, where the file says them.
    """

    columns: Sequence[str]
    rows: Iterator[tuple[int, Sequence[Any]]]
    label_names: Sequence[str] = ()
