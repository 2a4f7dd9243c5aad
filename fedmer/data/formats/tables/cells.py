"""What stands in one cell: a word, a whole number, seconds, a row of features."""

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmer.data.formats.numbers import single_precision
from fedmer.errors import InputError

_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:[.,]\d+)?)")


def is_empty(value: Any) -> bool:
    """Does a cell hold nothing? Tables write that as no text, null or NaN."""
    if isinstance(value, str):
        return not value
    return value is None or (isinstance(value, float) and math.isnan(value))


def word(value: Any, where: str) -> str:
    """A cell as text; a number as it would be typed.

    Raises:
        InputError: It is neither text nor a number.

    >>> word(3.0, "row 2"), word(None, "row 2")
    ('3', '')
    """
    if isinstance(value, str):
        return value
    if is_empty(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float):
        return str(value)
    raise InputError(f"{where} holds a {type(value).__name__}; expected a word or a number.")


def whole_number(text: str) -> int | None:
    """The whole number that a text stands for, None if it is none.

    >>> whole_number("2.0"), whole_number("two")
    (2, None)
    """
    if not re.fullmatch(r"\s*[-+]?\d{1,18}(\.0*)?\s*", text):
        return None
    return int(text.partition(".")[0])


def seconds(value: Any, where: str) -> float | None:
    """A time as a number of seconds, or as ``[hours:]minutes:seconds`` with a point or a comma.

    Raises:
        InputError: It is neither.

    >>> seconds("00:16:05,500", "row 2")
    965.5
    """
    text = word(value, where).strip()
    if not text:
        return None
    clock = _CLOCK.fullmatch(text)
    if clock:
        hours, minutes, rest = clock.groups()
        return int(hours or 0) * 3600 + int(minutes) * 60 + float(rest.replace(",", "."))
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not (math.isfinite(found) and found >= 0):
        raise InputError(f"{where} is '{text[:40]}'; expected seconds, such as 12.5 or 0:12.5.")
    return found


def is_list(value: Any) -> bool:
    """Is a cell a list of numbers, as such or as the text of one in square brackets?"""
    if isinstance(value, str):
        return bool(re.fullmatch(r"\s*\[[\s\d.,eE+\-naif]*\]\s*", value)) and any(
            letter.isdigit() for letter in value
        )
    return isinstance(value, list | tuple | np.ndarray)


def feature_row(value: Any, where: str) -> NDArray[np.float32] | None:
    """A cell that holds all features of one modality as ``(D,)`` float32.

    Args:
        value: A list of numbers, or its text, separated by commas or by spaces.
        where: File, row and column.

    Returns:
        None for an empty cell.

    Raises:
        InputError: It is something else.
    """
    if is_empty(value):
        return None
    if isinstance(value, str):
        if not is_list(value):
            raise InputError(
                f"{where} is '{value[:40]}'; expected a list of numbers, such as [0.5, 1.5]."
            )
        value = value.strip()[1:-1].replace(",", " ").split()
    if not is_list(value):
        raise InputError(f"{where} holds a {type(value).__name__}; expected a list of numbers.")
    return numbers(value, lambda place: where) if len(value) else None


def numbers(values: Sequence[Any], where: Callable[[int], str]) -> NDArray[np.float32]:
    """Cells or items as ``(D,)`` float32; what is empty becomes NaN.

    Args:
        values: Numbers or their texts.
        where: Place among them -> file, row and column, for the sentence.

    Raises:
        InputError: One is no number, or beyond what float32 can do sums with.
    """
    try:
        found = np.array(values, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        found = np.array([_number(value, where(place)) for place, value in enumerate(values)])
    if found.ndim != 1:
        raise InputError(f"{where(0)} holds lists within a list; expected numbers.")
    infinite = np.isinf(found)
    if infinite.any():
        raise InputError(f"{where(int(np.argmax(infinite)))} is infinite; repair the features.")
    return single_precision(found, where(0))


def _number(value: Any, where: str) -> float:
    if is_empty(value) or (isinstance(value, str) and not value.strip()):
        return math.nan
    try:
        if isinstance(value, str | int | float):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise InputError(f"{where} is {json.dumps(value, default=str)[:40]}; expected a number.")
