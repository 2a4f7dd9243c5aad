r"""Does a table of scores agree with itself?

The accuracy of an emotion is its recall :math:`R_k`, so with :math:`n_k` utterances of each

.. math:: \mathrm{accuracy} = \frac{\sum_k n_k R_k}{\sum_k n_k} \qquad
   \mathrm{weighted\ F1} = \frac{\sum_k n_k F_k}{\sum_k n_k}

hold exactly for one run, and for means over runs of the same test utterances. In a printed table
every number may be off by half a unit of its last digit, and the two sides by the weighted mean of
these halves and the half of the total; a row that is further off cannot have been measured as
described.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedmer.errors import InputError
from fedmer.record.reading import bounded

_SUMS = {"accuracy": "accuracy_", "weighted_f1": "f1_"}
"""Overall score -> prefix of the emotions' columns that it is the weighted mean of."""

_LONGEST = 30
"""Characters of a number in a table, beyond any."""

_SLACK = 1e-9
"""Of binary arithmetic."""


@dataclass(frozen=True)
class Finding:
    """One overall score of one row, against what the row's emotions imply.

    Args:
        row: Its name.
        score: ``accuracy`` or ``weighted_f1``.
        printed: As in the table.
        implied: By the emotions' scores and supports.
        tolerance: How far rounding can set the two apart.
    """

    row: str
    score: str
    printed: float
    implied: float
    tolerance: float

    @property
    def consistent(self) -> bool:
        return abs(self.printed - self.implied) <= self.tolerance + _SLACK

    def __str__(self) -> str:
        verdict = "agrees" if self.consistent else "DIFFERS"
        return (
            f"{self.row}: {self.score} {self.printed:.2f}, its emotions give {self.implied:.2f}; "
            f"{verdict} (by {self.printed - self.implied:+.3f}, rounding allows "
            f"{self.tolerance:.3f})"
        )


@dataclass(frozen=True)
class Audit:
    """Everything that was checked.

    Args:
        findings: Two a row.
        unchecked: Rows whose supports are left empty, because they differ between seeds or are not
            known.
    """

    findings: Sequence[Finding]
    unchecked: Sequence[str]

    @property
    def consistent(self) -> bool:
        return all(finding.consistent for finding in self.findings)


def audit_file(path: Path) -> Audit:
    """Check a CSV file, such as the ``table.csv`` of a report or one typed from a paper.

    Columns: ``row``; for every emotion NAME ``support_NAME``, ``accuracy_NAME`` and ``f1_NAME``;
    ``accuracy`` and ``weighted_f1``. Others are not looked at. Scores are in points or in [0, 1],
    all in the same unit.

    Raises:
        InputError: The file cannot be read, lacks a column, holds something else than numbers, or
            has no row that can be checked.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(bounded(csv.DictReader(file, restval="")))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} cannot be read: it is not a text file in UTF-8.") from error
    except (OSError, ValueError, csv.Error) as error:
        why = getattr(error, "strerror", None) or f"{error}"
        raise InputError(f"{path} cannot be read: {why}.") from error
    columns = list(rows[0]) if rows else []
    emotions = [name.removeprefix("support_") for name in columns if _begins(name, "support_")]
    needed = ["row", *_SUMS, *(prefix + name for name in emotions for prefix in _SUMS.values())]
    missing = [name for name in needed if name not in columns]
    if not rows or not emotions or missing:
        what = (
            f"lacks {', '.join(missing)}"
            if emotions and missing
            else "has no rows"
            if not rows
            else "has no column support_NAME"
        )
        raise InputError(
            f"{path} {what}; a table needs the columns row, accuracy, weighted_f1 and, for every "
            "emotion NAME, support_NAME, accuracy_NAME and f1_NAME."
        )
    findings, unchecked = [], []
    for row in rows:
        if any(row[f"support_{name}"].strip() for name in emotions):
            findings += _check(row, emotions, path)
        else:
            unchecked.append(row["row"])
    if not findings:
        raise InputError(
            f"No row of {path} says how many utterances each emotion has (support_NAME); without "
            "that nothing can be checked."
        )
    return Audit(findings, unchecked)


def _check(row: Mapping[str, str], emotions: Sequence[str], path: Path) -> list[Finding]:
    support = [_number(row, f"support_{name}", path)[0] for name in emotions]
    total = sum(support)
    if min(support) < 0 or total <= 0:
        raise InputError(
            f"{path}: the supports of '{row['row']}' are {', '.join(f'{n:g}' for n in support)}; "
            "expected counts of utterances, not negative and not all 0."
        )
    findings = []
    for score, prefix in _SUMS.items():
        printed, half = _number(row, score, path)
        parts = [_number(row, prefix + name, path) for name in emotions]
        implied = sum(n * value for n, (value, _) in zip(support, parts, strict=True)) / total
        halves = sum(n * half for n, (_, half) in zip(support, parts, strict=True)) / total
        findings.append(Finding(row["row"], score, printed, implied, half + halves))
    return findings


def _number(row: Mapping[str, str], column: str, path: Path) -> tuple[float, float]:
    """A number and half a unit of the last digit that is printed of it."""
    text = row[column].strip()
    digits = text.partition(".")[2]
    if not text.replace(".", "", 1).isdecimal() or not text.isascii() or len(text) > _LONGEST:
        raise InputError(
            f"{path}: {column} of '{row['row']}' is '{text[:40]}'; expected a number such as 74.08."
        )
    return float(text), 0.5 * 10.0 ** -len(digits)


def _begins(name: str | None, prefix: str) -> bool:
    return name is not None and name.startswith(prefix) and name != prefix
