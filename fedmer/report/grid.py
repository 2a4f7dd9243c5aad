"""A table for people, on the page and as Markdown, and for programs, as CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any


@dataclass(frozen=True)
class Cell:
    """What stands in a place of a table.

    Args:
        text: As it is; escaped on the way out.
        strong: The best of its column.
        mark: Stands behind the text, such as a star.
        spread: Stands behind the text in small, such as a standard deviation.
        value: What the page sorts by where the text does not begin with it, such as bytes.
    """

    text: str
    strong: bool = False
    mark: str = ""
    spread: str = ""
    value: float | None = None


@dataclass(frozen=True)
class Grid:
    """A table whose first column names its rows; ``page.html`` shows it as HTML.

    Args:
        heads: Titles of the columns.
        rows: One list of cells a row.
        groups: Titles that span columns, with how many; none if empty.
        below: How many of the last rows stand apart, below a line.
        text: Columns besides the first that hold words, which are set to the left.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    groups: Sequence[tuple[str, int]] = ()
    below: int = 0
    text: Sequence[int] = ()

    def markdown(self) -> str:
        """For a text file; a column of a group has the group's title before it."""
        above = [title for title, span in self.groups for _ in range(span)]
        above = above or [""] * len(self.heads)
        heads = [
            " ".join(filter(None, (group, head)))
            for group, head in zip(above, self.heads, strict=True)
        ]
        rule = ["---" if i == 0 or i in self.text else "--:" for i in range(len(self.heads))]
        lines = [map(_escaped, heads), rule, *(map(_markdown, row) for row in self.rows)]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


@dataclass(frozen=True)
class Table:
    """The same numbers for people and for programs.

    Args:
        grid: For people.
        columns: Of the CSV file.
        rows: Of the CSV file.
    """

    grid: Grid
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def csv(self) -> str:
        return as_csv(self.columns, self.rows)


def as_csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """The text of a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def _markdown(cell: Cell) -> str:
    text = _escaped(cell.text)
    if cell.strong:
        text = f"**{text}**"
    return " ".join(filter(None, (text, _escaped(cell.spread)))) + _escaped(cell.mark)


def _escaped(text: str) -> str:
    r"""Text that Markdown shows as it is.

    >>> print(_escaped("a|b <c> *d*"))
    a\|b &lt;c&gt; \*d\*
    """
    plain = escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{sign}" if sign in "\\`*_[]|" else sign for sign in plain)
