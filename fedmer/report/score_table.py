"""The main table, emotion by emotion, for people and for programs."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedmer.report.confusion import class_scores, totals
from fedmer.report.grid import Cell, Grid, Table, as_csv
from fedmer.report.grouping import Row
from fedmer.report.scores import Line, Score, support_of

PERSONAL = "\u2020"
"""Stands behind rows whose scores are those of all clients' personal networks, pooled."""


def score_table(lines: Sequence[Line], labels: Sequence[str]) -> Table:
    """Accuracy and F1 of every emotion, then overall.

    The best run of a column is strong. The CSV has points with four decimals; ``--audit`` reads it.
    """
    return Table(_grid(lines, labels), *_columns_and_rows(lines, labels))


def _grid(lines: Sequence[Line], labels: Sequence[str]) -> Grid:
    width = 2 * len(labels) + 2
    best = _best([_scores(line, width) for line in lines if line.kind == "runs"])
    rows = []
    for line in lines:
        cells = [Cell(line.name, mark=PERSONAL if line.personal else ""), Cell(str(line.seeds))]
        for place, score in enumerate(_scores(line, width)):
            eligible = line.kind == "runs" and len(best) == width
            cells.append(_cell(score, best[place] if eligible else None))
        rows.append(cells)
    return Grid(
        ["", "seeds", *(["acc.", "F1"] * len(labels)), "acc.", "wF1"],
        rows,
        [("", 2), *((label, 2) for label in labels), ("overall", 2)],
        below=sum(line.kind == "baseline" for line in lines),
    )


def _cell(score: Score | None, best: float | None = None) -> Cell:
    """A mean with its standard deviation, strong if it equals the best as printed."""
    if score is None:
        return Cell("")
    text = f"{score.mean:.2f}"
    strong = best is not None and text == f"{best:.2f}"
    spread = "" if score.deviation is None else f"\u00b1 {score.deviation:.2f}"
    return Cell(text, strong, spread=spread)


def _columns_and_rows(
    lines: Sequence[Line], labels: Sequence[str]
) -> tuple[list[str], list[list[Any]]]:
    columns = ["row", "kind", "personal", "seeds"]
    for label in labels:
        columns += [
            *(f"support_{label}", f"accuracy_{label}", f"f1_{label}"),
            *(f"sd_accuracy_{label}", f"sd_f1_{label}"),
        ]
    columns += ["accuracy", "weighted_f1", "sd_accuracy", "sd_weighted_f1"]
    rows = []
    for line in lines:
        row: list[Any] = [line.name, line.kind, "yes" if line.personal else "no", line.seeds]
        for i in range(len(labels)):
            row.append("" if line.support is None else line.support[i])
            row += _written(
                None if line.accuracies is None else line.accuracies[i],
                None if line.f1 is None else line.f1[i],
            )
        rows.append(row + _written(line.accuracy, line.weighted_f1))
    return columns, rows


def runs_csv(rows: Sequence[Row], labels: Sequence[str]) -> str:
    """``runs.csv``: every run by itself, which ``--audit`` reads too."""
    columns = ["row", "run", "seed", "which", "round"]
    for label in labels:
        columns += [f"support_{label}", f"accuracy_{label}", f"f1_{label}"]
    columns += ["accuracy", "weighted_f1", "bytes_down", "bytes_up", "seconds"]
    written = []
    for row in rows:
        for run in row.runs:
            recall, f1 = class_scores(run.confusion)
            accuracy, weighted = totals(run.confusion)
            line: list[Any] = [row.name, run.path.name, run.seed, run.which, run.round]
            for i, support in enumerate(support_of(run)):
                line += [support, f"{100 * recall[i]:.4f}", f"{100 * f1[i]:.4f}"]
            line += [f"{100 * float(accuracy):.4f}", f"{100 * float(weighted):.4f}"]
            line += [run.result.get(name, "") for name in ("bytes_down", "bytes_up", "seconds")]
            written.append(line)
    return as_csv(columns, written)


def _scores(line: Line, width: int) -> list[Score | None]:
    """In the order of the columns, of which there are so many."""
    each: list[Score | None] = [None] * (width - 2)
    if line.accuracies is not None and line.f1 is not None:
        each[0::2], each[1::2] = line.accuracies, line.f1
    return [*each, line.accuracy, line.weighted_f1]


def _best(scores: Sequence[Sequence[Score | None]]) -> list[float]:
    if len(scores) < 2:
        return []
    means = np.array([[-1.0 if s is None else s.mean for s in row] for row in scores])
    top: list[float] = means.max(axis=0).tolist()
    return top


def _written(*scores: Score | None) -> list[str]:
    """Means, then standard deviations."""
    means = ["" if s is None else f"{s.mean:.4f}" for s in scores]
    spreads = ["" if s is None or s.deviation is None else f"{s.deviation:.4f}" for s in scores]
    return means + spreads
