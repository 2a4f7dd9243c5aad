"""Scores by what is there: each subset of the modalities, and clients by what they have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from fedmer.record.votes import Votes
from fedmer.report.confusion import totals
from fedmer.report.differences import Interval, Paired, paired_bootstrap
from fedmer.report.grid import Cell, Grid, Table
from fedmer.report.grouping import Row
from fedmer.report.scores import Score
from fedmer.report.tables import interval_cells, interval_numbers

if TYPE_CHECKING:
    from rich.table import Table as Shown


@dataclass(frozen=True)
class SubsetScores:
    """How well a row does with some of the modalities.

    Args:
        row: Name of the row.
        modalities: Such as ``text+audio``.
        accuracy: Over seeds.
        weighted_f1: The same.
        within: Between which values resampling of dialogues and seeds moves weighted F1.
        lost: Weighted F1 minus that with all modalities; None for these themselves.
    """

    row: str
    modalities: str
    accuracy: Score
    weighted_f1: Score
    within: Interval
    lost: Interval | None


def scores_by_subset(row: str, seeds: Sequence[Mapping[str, Votes]]) -> list[SubsetScores]:
    """The scores of every subset that all seeds have, in the order of the first.

    Args:
        row: Its name.
        seeds: For each seed, subset -> votes, with all modalities first.
    """
    names = [name for name in seeds[0] if all(name in found for found in seeds)]
    matrices = {name: [found[name].by_dialogue()[1] for found in seeds] for name in names}
    scores = []
    for name in names:
        mine = matrices[name]
        accuracy, weighted = totals(np.stack([confusion.sum(axis=0) for confusion in mine]))
        whole = matrices[names[0]]
        scores.append(
            SubsetScores(
                *(row, name, Score.over(accuracy), Score.over(weighted)),
                _interval([(confusion, np.zeros_like(confusion)) for confusion in mine]),
                None if name == names[0] else _interval(list(zip(mine, whole, strict=True))),
            )
        )
    return scores


def _interval(pairs: Sequence[Paired]) -> Interval:
    """Of weighted F1; beside what counted nothing, whose score is 0, it is that of the score."""
    return paired_bootstrap(pairs)[1]


def subset_scores(rows: Sequence[Row]) -> tuple[list[SubsetScores], list[str]]:
    """Scores of every row and subset, and sentences on the rows that kept none."""
    found, notes = [], []
    for row in rows:
        seeds = [run.subset_votes for run in row.runs]
        if all(seeds):
            found += scores_by_subset(row.name, seeds)
        elif any(seeds):
            notes.append(f"Not all runs of {row.name} kept votes by modalities; run them again.")
    return found, notes


def subset_table(found: Sequence[SubsetScores]) -> Table:
    """A line a row and subset, in points."""
    shown, written = [], []
    for one in found:
        scores = (one.accuracy, one.weighted_f1)
        cells = [Cell(one.row), Cell(one.modalities)]
        for score in scores:
            spread = "" if score.deviation is None else f"\u00b1 {score.deviation:.2f}"
            cells.append(Cell(f"{score.mean:.2f}", spread=spread))
        shown.append([*cells, Cell(_limits(one.within)), *interval_cells(one.lost)])
        written.append(
            [
                *(one.row, one.modalities),
                *(f"{score.mean:.4f}" for score in scores),
                *interval_numbers(one.within)[1:],
                *interval_numbers(one.lost),
            ]
        )
    ends = ["95 % interval", "to all", "95 % interval"]
    grid = Grid(["", "modalities", "accuracy", "weighted F1", *ends], shown, text=(1,))
    lost = ["difference", "difference_low", "difference_high"]
    columns = ["row", "modalities", "accuracy", "weighted_f1", "low", "high", *lost]
    return Table(grid, columns, written)


def having_table(rows: Sequence[Row]) -> Table:
    """Weighted F1 on holdouts, for clients that have the same modalities, in points.

    A row for each set of modalities that some client has; none where a run does not say.
    """
    shown, written = [], []
    for row in rows:
        by_set: dict[str, list[tuple[int, float]]] = {}
        for run in row.runs:
            for client in run.result["holdouts"].values():
                if client.get("modalities"):
                    score = (run.seed, 100 * client["weighted_f1"])
                    by_set.setdefault("+".join(client["modalities"]), []).append(score)
        for name, scores in sorted(by_set.items(), key=lambda item: (-item[0].count("+"), item[0])):
            seeds = {seed for seed, _ in scores}
            values = [value for _, value in scores]
            cells = [
                f"{len(scores) / len(seeds):.3g}",
                f"{fmean(values):.1f}",
                f"{min(values):.1f}",
            ]
            shown.append([Cell(text) for text in (row.name, name, *cells)])
            written.append([row.name, name, cells[0], f"{fmean(values):.4f}", f"{min(values):.4f}"])
    grid = Grid(["", "clients with", "clients", "mean", "worst"], shown, text=(1,))
    return Table(grid, ["row", "modalities", "clients", "mean", "worst"], written)


def shown_subsets(found: Sequence[SubsetScores], corpus: str) -> "Shown":
    """The subsets of one network for a terminal, in points."""
    from rich.table import Table as Shown

    table = Shown(title=f"{corpus}: test by modalities, in points")
    table.add_column("modalities")
    for name in ("accuracy", "wF1", "95 % interval", "to all", "95 % interval"):
        table.add_column(name, justify="right")
    for one in found:
        scores = (f"{score.mean:.1f}" for score in (one.accuracy, one.weighted_f1))
        lost = [cell.text + cell.mark for cell in interval_cells(one.lost)]
        table.add_row(one.modalities, *scores, _limits(one.within), *lost)
    return table


def _limits(interval: Interval) -> str:
    assert interval.low is not None
    assert interval.high is not None
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"
