"""What choosing a round by its test score would be worth: a bias to know of, and never a result."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from fedmer.errors import InputError
from fedmer.report.collect import Run
from fedmer.report.grid import Cell, Grid, Table
from fedmer.report.grouping import Row
from fedmer.report.student import half_width

_TEST, _VAL = "test_weighted_f1", "val_weighted_f1"
NOT_A_RESULT = (
    "The columns 'by test' are not a result: a round was chosen by the very labels that it is "
    "scored on, as no run of fedmer does. They say how much selection alone adds on the same runs."
)


@dataclass(frozen=True)
class Selected:
    """Weighted F1 on test of one run, in points, by how its round was chosen.

    Args:
        rounds: How many rounds were scored on test.
        last: Of the last of them.
        validation: Of the one with the highest weighted F1 on validation; None without one.
        test: The highest of all.
    """

    rounds: int
    last: float
    validation: float | None
    test: float

    @classmethod
    def of(cls, run: Run) -> "Selected | None":
        """That of a run's ``metrics.csv``; None if it scored no round on test."""
        scored = [row for row in run.rounds if row.get(_TEST)]
        if not scored:
            return None
        scores = [100 * float(row[_TEST]) for row in scored]
        chosen = None
        if all(row.get(_VAL) for row in scored):
            best = max(range(len(scored)), key=lambda place: float(scored[place][_VAL]))
            chosen = scores[best]
        return cls(len(scores), scores[-1], chosen, max(scores))

    @property
    def added(self) -> float:
        """By the choice on test, over that on validation or else the last round; 0 or more."""
        return self.test - (self.last if self.validation is None else self.validation)


def selection_table(rows: Sequence[Row]) -> Table:
    """Weighted F1 on test of the rounds chosen by validation and by test, of the same runs.

    Raises:
        InputError: No run has the test scores of its rounds.
    """
    shown, written = [], []
    for row in rows:
        found = {run.seed: Selected.of(run) for run in row.runs}
        known = {seed: one for seed, one in found.items() if one is not None}
        for seed, one in known.items():
            chosen = "" if one.validation is None else f"{one.validation:.4f}"
            numbers = [f"{one.last:.4f}", chosen, f"{one.test:.4f}", f"{one.added:.4f}"]
            written.append([row.name, seed, one.rounds, *numbers])
        if not known:
            continue
        each = list(known.values())
        validation = [one.validation for one in each if one.validation is not None]
        shown.append(
            [
                *(Cell(row.name), Cell(str(len(each)))),
                Cell(f"{fmean(one.rounds for one in each):g}"),
                _over_seeds([one.last for one in each]),
                _over_seeds(validation),
                _over_seeds([one.test for one in each]),
                _over_seeds([one.added for one in each], "+"),
            ]
        )
    if not shown:
        raise InputError(
            "No run has test scores of its rounds in metrics.csv, so that there is nothing to "
            "select from; leave --selection out."
        )
    heads = ["", "seeds", "rounds scored", "last round", "by validation", "by test", "by test adds"]
    columns = ["row", "seed", "rounds", "last", "by_validation", "by_test", "by_test_adds"]
    return Table(Grid(heads, shown), columns, written)


def _over_seeds(values: Sequence[float], sign: str = "") -> Cell:
    if not values:
        return Cell("")
    half = half_width(values)
    return Cell(f"{fmean(values):{sign}.2f}", spread="" if half is None else f"\u00b1 {half:.2f}")
