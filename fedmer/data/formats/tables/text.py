"""Rows of CSV, TSV and JSON Lines, one at a time."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from fedmer.data.formats.memory import MemoryBudget
from fedmer.data.formats.tables.source import Source
from fedmer.errors import InputError

DELIMITERS = b",\t;"
_LONGEST = 1 << 24
"""Characters of a line of JSON, beyond any of one utterance."""


def is_text_table(start: bytes) -> bool:
    """Does a file that starts so look like a header with delimiters, or like a JSON object?

    >>> is_text_table(b"dialogue,turn"), is_text_table(b"Once upon a time")
    (True, False)
    """
    line = start.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")[0].rstrip(b"\r")
    plain = not any(byte < 32 and byte != 9 for byte in line)
    return plain and (line.startswith(b"{") or any(byte in line for byte in DELIMITERS))


def read(path: Path, budget: MemoryBudget) -> Source:
    """A text table; of which kind is decided by its first line.

    Raises:
        InputError: It is not UTF-8, or its first row cannot be read.
    """
    budget.take(path.stat().st_size)
    rows = _decoded(path)
    first = next(rows, "")
    while first and not first.strip():
        first = next(rows, "")
    if not first.strip():
        raise InputError(f"{path} is empty; expected a header and a row an utterance.")
    return _json(path, first) if first.lstrip().startswith("{") else _delimited(path, first)


def _decoded(path: Path) -> Iterator[str]:
    """Lines as text, none longer than a line may be."""
    number = 1
    with path.open("rb") as file:
        while line := _line(file, path, number):
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path} is not UTF-8: line {number} holds the byte "
                    f"0x{line[error.start]:02x}; save it as UTF-8."
                ) from None
            yield text.removeprefix("\N{BYTE ORDER MARK}") if number == 1 else text
            number += 1


def _line(file: IO[bytes], path: Path, number: int) -> bytes:
    line = file.readline(_LONGEST + 1)
    if len(line) > _LONGEST:
        raise InputError(
            f"{path}: line {number} has more than {_LONGEST} bytes; write a line a row."
        )
    return line


def _delimited(path: Path, header: str) -> Source:
    delimiter = max("\t;,", key=header.count)
    reader = csv.reader(_decoded(path), delimiter=delimiter, strict=True)

    def rows() -> Iterator[tuple[int, list[str]]]:
        number = 1
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise InputError(
                    f"{path}: row {number} cannot be read: {error}; see that quotes are paired, "
                    "and write features as columns text_0, text_1, ..."
                ) from None
            if not cells:
                continue
            if number > 1 and len(cells) != len(columns):
                raise InputError(
                    f"{path}: row {number} has {len(cells)} cells but the header has "
                    f"{len(columns)}; quote what holds a '{delimiter}'."
                )
            yield number, cells
            number += 1

    columns: list[str] = []
    content = rows()
    columns += next(content)[1]
    return Source(columns, content)


def _json(path: Path, first: str) -> Source:
    columns = list(_object(first, path, 1))

    def rows() -> Iterator[tuple[int, list[Any]]]:
        for number, line in enumerate(_decoded(path), start=1):
            if not line.strip():
                continue
            found = _object(line, path, number)
            if found.keys() - columns:
                other = next(key for key in found if key not in columns)
                raise InputError(
                    f"{path}: row {number} has '{other}', which the first row lacks; give every "
                    "row the same keys, with null where there is nothing."
                )
            yield number, [found.get(key) for key in columns]

    return Source(columns, rows())


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: row {number} is not JSON ({error}); expected an object a line."
        ) from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: row {number} is no object; expected one a line.")
    return found
