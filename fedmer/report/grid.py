"""A table for people: as HTML and as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape


@dataclass(frozen=True)
class Cell:
    """What stands in a place of a table.

    Args:
        text: As it is; escaped on the way out.
        strong: The best of its column.
        mark: Stands behind the text, such as a star.
        spread: Stands behind the text in small, such as a standard deviation.
    """

    text: str
    strong: bool = False
    mark: str = ""
    spread: str = ""


@dataclass(frozen=True)
class Grid:
    """A table whose first column names its rows.

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
    text: Sequence[int] = field(default=())

    def html(self) -> str:
        """A ``<table>`` that scrolls where it is wider than the page."""
        out = ['<div class="wide"><table>', "<thead>"]
        if self.groups:
            spans = "".join(
                f'<th colspan="{span}" scope="colgroup">{escape(title)}</th>'
                for title, span in self.groups
            )
            out.append(f'<tr class="groups">{spans}</tr>')
        heads = "".join(
            f'<th scope="col"{self._left(i)}>{escape(head)}</th>'
            for i, head in enumerate(self.heads)
        )
        out += [f"<tr>{heads}</tr>", "</thead>", "<tbody>"]
        for number, row in enumerate(self.rows):
            if self.below and number == len(self.rows) - self.below:
                out.append('</tbody><tbody class="below">')
            first = f'<th scope="row">{_html(row[0])}</th>'
            cells = "".join(
                f"<td{self._left(i)}>{_html(cell)}</td>" for i, cell in enumerate(row[1:], start=1)
            )
            out.append(f"<tr>{first}{cells}</tr>")
        return "\n".join([*out, "</tbody></table></div>"])

    def markdown(self) -> str:
        """The same for a text file; a column of a group has the group's title before its own."""
        above = [title for title, span in self.groups for _ in range(span)]
        above = above or [""] * len(self.heads)
        heads = [
            " ".join(filter(None, (group, head)))
            for group, head in zip(above, self.heads, strict=True)
        ]
        rule = ["---" if i == 0 or i in self.text else "--:" for i in range(len(self.heads))]
        lines = [map(_escaped, heads), rule, *(map(_markdown, row) for row in self.rows)]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"

    def _left(self, column: int) -> str:
        return ' class="left"' if column == 0 or column in self.text else ""


def _html(cell: Cell) -> str:
    text = escape(cell.text)
    if cell.strong:
        text = f"<b>{text}</b>"
    if cell.spread:
        text += f" <small>{escape(cell.spread)}</small>"
    return text + escape(cell.mark)


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
    return "".join(f"\\{letter}" if letter in "\\`*_[]|" else letter for letter in plain)
