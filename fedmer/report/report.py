"""Everything that a report says, computed before any of it is written."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedmer.errors import InputError
from fedmer.plugins.registry import unknown
from fedmer.report.collect import Collection
from fedmer.report.differences import Difference, differences
from fedmer.report.grouping import Row, constant_parts, rows_of
from fedmer.report.scores import Line, lines_of

DEFAULT_BASELINE = "FedAvg"


@dataclass(frozen=True, eq=False)
class Report:
    """What the page and the files beside it are made of.

    Args:
        rows: In the order in which they were given.
        lines: Of the main table: a line a row, then the baselines.
        baseline: The row that others are compared with.
        differences: Of every other row to it.
        constants: Rule, network and split, where all rows have the same.
        notes: Sentences on what is missing.
    """

    rows: Sequence[Row]
    lines: Sequence[Line]
    baseline: Row
    differences: Sequence[Difference]
    constants: dict[str, str]
    notes: Sequence[str]

    @property
    def labels(self) -> list[str]:
        return [str(name) for name in self.rows[0].runs[0].result["data"]["labels"]]

    @property
    def corpus(self) -> str:
        return str(self.rows[0].runs[0].result["data"]["name"])


def make_report(found: Collection, baseline: str | None) -> Report:
    """Group, average and compare.

    Args:
        found: The runs.
        baseline: The name of a row; by default that of FedAvg if there is one, else the first.

    Raises:
        InputError: There is no such row.
    """
    rows, repeated = rows_of(found.runs)
    chosen = _baseline(rows, baseline)
    notes = [*found.notes, *repeated]
    return Report(
        rows, lines_of(rows), chosen, differences(rows, chosen), constant_parts(rows), notes
    )


def _baseline(rows: Sequence[Row], name: str | None) -> Row:
    by_name = {row.name: row for row in rows}
    if name is None:
        averaged = [r for r in rows if r.runs[0].result["aggregator"] == DEFAULT_BASELINE]
        return by_name.get(DEFAULT_BASELINE) or [*averaged, rows[0]][0]
    if name not in by_name:
        raise InputError(unknown("row", name, by_name))
    return by_name[name]
