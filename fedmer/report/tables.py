"""The tables beside the main one: differences and bytes."""

from collections.abc import Sequence
from statistics import fmean

from fedmer.report.collect import Run
from fedmer.report.differences import Difference, Interval
from fedmer.report.grid import Cell, Grid, Table
from fedmer.report.grouping import Row

CLEAR = " *"
"""Marks a difference whose interval excludes zero."""


def difference_table(found: Sequence[Difference]) -> Table:
    """Differences to the baseline row in points, with their intervals."""
    shown, written = [], []
    for one in found:
        seeds = ", ".join(map(str, one.seeds))
        shown.append(
            [
                Cell(one.row),
                Cell(seeds),
                *interval_cells(one.accuracy),
                *interval_cells(one.weighted_f1),
                Cell(one.note),
            ]
        )
        written.append(
            [
                *(one.row, one.baseline, seeds.replace(",", "")),
                *interval_numbers(one.accuracy),
                *interval_numbers(one.weighted_f1),
                one.note,
            ]
        )
    grid = Grid(
        ["", "seeds", "difference", "95 % interval", "difference", "95 % interval", ""],
        shown,
        [("", 2), ("accuracy", 2), ("weighted F1", 2), ("", 1)],
        text=(1, 6),
    )
    scores = [
        f"{name}{end}" for name in ("accuracy", "weighted_f1") for end in ("", "_low", "_high")
    ]
    return Table(grid, ["row", "baseline", "seeds", *scores, "note"], written)


def byte_table(rows: Sequence[Row]) -> Table:
    """What crossed the wire, as means over seeds."""
    shown, written = [], []
    for row in rows:
        down, up = (
            fmean(run.result[name] for run in row.runs) for name in ("bytes_down", "bytes_up")
        )
        rounds = fmean(max(run.result["rounds"], 1) for run in row.runs)
        until = fmean(bytes_until(run, run.round) for run in row.runs)
        score = 100 * fmean(
            run.result[run.which]["scores"]["test"]["weighted_f1"] for run in row.runs
        )
        sizes = [down, up, (down + up) / rounds, until]
        shown.append(
            [
                *(Cell(row.name), Cell(f"{rounds:g}")),
                *(Cell(size(number), value=number) for number in sizes),
                Cell(f"{score:.2f}"),
            ]
        )
        written.append([row.name, f"{rounds:g}", *(f"{n:.0f}" for n in sizes), f"{score:.4f}"])
    grid = Grid(
        ["", "rounds", "down", "up", "a round", "until the round shown", "weighted F1"], shown
    )
    columns = ["row", "rounds", "bytes_down", "bytes_up", "bytes_a_round", "bytes_until_shown"]
    return Table(grid, [*columns, "weighted_f1"], written)


def bytes_until(run: Run, number: int) -> int:
    """Sent both ways in the rounds up to this one."""
    return sum(
        int(row["bytes_down"]) + int(row["bytes_up"])
        for row in run.rounds
        if int(row["round"]) <= number
    )


def size(count: float) -> str:
    """Bytes with a unit.

    >>> size(999), size(1500), size(2.5e9)
    ('999 B', '1.5 kB', '2.5 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def interval_cells(interval: Interval | None) -> list[Cell]:
    if interval is None:
        return [Cell(""), Cell("")]
    mark = CLEAR if interval.clear else ""
    difference = Cell(_signed(interval.difference), interval.clear, mark)
    if interval.low is None or interval.high is None:
        return [difference, Cell("")]
    return [difference, Cell(f"{_signed(interval.low)} to {_signed(interval.high)}")]


def interval_numbers(interval: Interval | None) -> list[str]:
    if interval is None:
        return ["", "", ""]
    values = (interval.difference, interval.low, interval.high)
    return ["" if value is None else f"{100 * value:.4f}" for value in values]


def _signed(difference: float) -> str:
    """In points, with a sign that is as long as the other.

    >>> _signed(-0.0123), _signed(0)
    ('\u22121.23', '+0.00')
    """
    return f"{100 * difference:+.2f}".replace("-", "\u2212")
