"""Text files of a run folder from anybody, read within bounds."""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from fedmer.errors import InputError

MAX_JSON = 16_000_000
"""Bytes; a result with ten thousand clients has about two million."""

MAX_CELLS = 20_000_000
"""Of a table; a thousand rounds of a thousand clients have seven million."""

REMEDY = "leave the run out of the report, or run it again"


def read_json(path: Path, most: int = MAX_JSON) -> Any:
    """What a JSON file says.

    Args:
        path: The file.
        most: Bytes that it may have.

    Raises:
        InputError: It cannot be read, is too large or too deep, or is not JSON in UTF-8; NaN and
            infinity are no JSON.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file; {REMEDY}.")
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise InputError(f"{path} has more than {most} bytes; {REMEDY}.")
        return json.loads(content.decode("utf-8"), parse_constant=_constant)
    except InputError:
        raise
    except RecursionError:
        raise InputError(f"{path} is nested too deeply; {REMEDY}.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        # Not UTF-8, not JSON, or a number of thousands of digits.
        raise InputError(f"{path} is not JSON ({str(error)[:200]}); {REMEDY}.") from None


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def read_rows(path: Path, cut: bool = False) -> list[dict[str, str]]:
    """The rows of a CSV file such as ``metrics.csv``, as text by column.

    A row that was cut short lacks columns, as :class:`csv.DictReader` has it.

    Args:
        path: The file.
        cut: May it end anywhere, within a character even, because whoever wrote it was killed?

    Raises:
        InputError: It cannot be read, is not CSV in UTF-8, has a column twice, a row longer than
            its first line, or more than :data:`MAX_CELLS` cells.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file; {REMEDY}.")
    try:
        errors = "replace" if cut else "strict"
        with path.open(newline="", encoding="utf-8", errors=errors) as file:
            return list(bounded(csv.DictReader(file)))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path} is damaged ({error}); {REMEDY}.") from None


def bounded(reader: "csv.DictReader[str]") -> Iterator[dict[str, str]]:
    """The rows of a reader, as long as they are such as fit into memory and under its columns.

    Raises:
        ValueError: A column occurs twice, a row is longer than the first line, or there are more
            than :data:`MAX_CELLS` cells.
    """
    columns = reader.fieldnames or []
    if len(set(columns)) < len(columns):
        raise ValueError("a column occurs twice")
    for number, row in enumerate(reader, 1):
        if None in row:
            raise ValueError(f"row {number} has more cells than the first line")
        if number * len(columns) > MAX_CELLS:
            raise ValueError(f"more than {MAX_CELLS} cells")
        yield row


def check_rows(
    rows: Sequence[dict[str, str]],
    path: Path,
    whole: Sequence[str],
    numbers: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> None:
    """See that the columns that a report reads hold numbers.

    Args:
        rows: Of :func:`read_rows`.
        path: Of the file, for the sentence.
        whole: Columns of whole numbers, not negative and below 2^53.
        numbers: Columns of finite numbers, not negative.
        optional: Columns of any numbers, which may be missing or empty.

    Raises:
        InputError: One does not, or a row lacks a cell.
    """
    for number, row in enumerate(rows, 1):
        for column in (*whole, *numbers, *optional):
            cell = row.get(column, "") if column in optional else row.get(column)
            if cell is None:
                lacks = "has no such column" if column not in row else "has fewer cells than others"
                raise InputError(f"{path} is damaged ({column}: row {number} {lacks}); {REMEDY}.")
            if not (_is_whole(cell) if column in whole else _is_number(cell, column in optional)):
                raise InputError(
                    f"{path} is damaged ({column} is '{cell[:40]}' in row {number}); {REMEDY}."
                )
        if None in row.values():
            raise InputError(
                f"{path} is damaged (row {number} has other cells than the first line); {REMEDY}."
            )


def _is_whole(cell: str) -> bool:
    return cell.isascii() and cell.isdecimal() and len(cell) < 16


def _is_number(cell: str, optional: bool) -> bool:
    try:
        value = float(cell or "nan")
    except ValueError:
        return False
    return optional or (math.isfinite(value) and value >= 0)
