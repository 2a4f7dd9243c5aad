"""Everything that a report says, computed before any of it is written."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedmer.errors import InputError
from fedmer.plugins.registry import unknown
from fedmer.report.collect import Collection
from fedmer.report.differences import Difference, differences, task
from fedmer.report.grid import Table
from fedmer.report.grouping import Row, constant_parts, rows_of
from fedmer.report.groups import GroupScores, group_scores
from fedmer.report.scores import Line, lines_of
from fedmer.report.selection import selection_table
from fedmer.report.subsets import SubsetScores, subset_scores

DEFAULT_BASELINE = "FedAvg"


@dataclass(frozen=True, eq=False)
class Report:
    """What the page and the files beside it are made of.

    Args:
        rows: In the order in which they were given.
        lines: Of the main table: a line a row, then the baselines.
        baseline: What others are compared with, in words: a row, or the rows of a rule.
        differences: Of every other row to its baseline.
        constants: Rule, network and split, where all rows have the same.
        notes: Sentences on what is missing.
        groups: Of speakers, a line a row and group; None if no groups were given.
        subsets: Of modalities, a line a row and subset, of the last round; empty for one modality.
        selection: What choosing rounds by test would be worth; None if nobody asked.
    """

    rows: Sequence[Row]
    lines: Sequence[Line]
    baseline: str
    differences: Sequence[Difference]
    constants: dict[str, str]
    notes: Sequence[str]
    groups: Sequence[GroupScores] | None = None
    subsets: Sequence[SubsetScores] = ()
    selection: Table | None = None

    @property
    def labels(self) -> list[str]:
        return [str(name) for name in self.rows[0].runs[0].result["data"]["labels"]]

    @property
    def corpus(self) -> str:
        return str(self.rows[0].runs[0].result["data"]["name"])


def make_report(
    found: Collection,
    baseline: str | None,
    groups: Mapping[str, str] | None = None,
    selection: bool = False,
) -> Report:
    """Group, average and compare.

    Args:
        found: The runs.
        baseline: The name of a row, or a rule, whose rows are each the baseline of the rows with
            their network, split and conditions; by default FedAvg without protection if there is
            one, else with it, else the first row.
        groups: Speaker -> group, to compare how groups are served.
        selection: Also what choosing rounds by test would be worth.

    Raises:
        InputError: There is no such row, no speaker has a group, or no round a test score.
    """
    rows, repeated = rows_of(found.runs)
    chosen = _baselines(rows, baseline)
    notes = [*found.notes, *repeated]
    rule = chosen[0].runs[0].result["aggregator"]
    title = (
        chosen[0].name
        if len(chosen) == 1
        else f"{rule} with the same network, split and conditions"
    )
    compared = differences(rows, chosen)
    by_group = None
    if groups is not None:
        by_group, missing = group_scores(rows, groups)
        notes += missing
    by_subset, missing = subset_scores(rows)
    notes += missing
    constants = constant_parts(rows)
    by_choice = selection_table(rows) if selection else None
    return Report(
        rows,
        lines_of(rows),
        title,
        compared,
        constants,
        notes,
        by_group,
        by_subset,
        by_choice,
    )


def _baselines(rows: Sequence[Row], name: str | None) -> list[Row]:
    """The row of this name; or of the rule of this name one row for each task that has others.

    Who names none gets the rows that protect nothing, if there are any: noise costs what a rule
    gains.
    """
    wanted = name or DEFAULT_BASELINE
    exact = [row for row in rows if row.name == wanted]
    of_rule = [row for row in rows if row.runs[0].result["aggregator"] == wanted]
    if name is not None and exact:
        return exact
    if name is not None and not of_rule:
        names = [row.name for row in rows]
        hint = unknown("row", name, names).partition(" Known: ")[0]
        # Names of rows have commas in them.
        raise InputError(f"{hint} Known: {'; '.join(names)}")
    plain = [row for row in of_rule if not row.runs[0].config.get("privacy")]
    first = {task(row): row for row in reversed([*exact, *(plain or of_rule)])}
    shared = Counter(task(row) for row in rows)
    # Alone in its task it has nobody to be compared with, and is compared itself.
    kept = [row for key, row in first.items() if shared[key] > 1]
    alone = sorted(first.values(), key=lambda row: row.runs[0].config.get("conditions") is not None)
    return [row for row in rows if row in (kept or alone[:1])] or [rows[0]]
