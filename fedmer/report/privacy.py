"""What a report says of differential privacy: epsilon beside the score that it cost."""

from collections.abc import Sequence
from statistics import fmean

from fedmer.report.grid import Cell, Grid, Table
from fedmer.report.grouping import Row


def privacy_table(rows: Sequence[Row]) -> Table:
    """Epsilon and delta of each row, the largest over its seeds, and its weighted F1."""
    shown, written = [], []
    for row in rows:
        promised = [run.result.get("privacy") or {} for run in row.runs]
        score = 100 * fmean(
            run.result[run.which]["scores"]["test"]["weighted_f1"] for run in row.runs
        )
        epsilon, delta, holds = "no limit", "", ""
        # A row promises no more than the worst of its runs.
        if all(promised):
            epsilon, delta = (
                f"{max(one[key] for one in promised):.4g}" for key in ("epsilon", "delta")
            )
            holds = promised[0]["sentence"].partition(", ")[2]
        cells = (row.name, epsilon, delta, f"{score:.2f}", holds)
        shown.append([Cell(cell) for cell in cells])
        written.append([row.name, epsilon if delta else "", delta, f"{score:.4f}"])
    grid = Grid(["", "epsilon", "delta", "weighted F1", "it holds"], shown, text=(4,))
    return Table(grid, ["row", "epsilon", "delta", "weighted_f1"], written)
