"""How evenly rows serve their clients, on what each client held out."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from fedmer.record.holdouts import FEWEST, Holdouts
from fedmer.report.collect import Run
from fedmer.report.differences import Difference
from fedmer.report.grid import Cell, Grid, Table
from fedmer.report.grouping import Row
from fedmer.report.student import half_width

_HEADS = ("mean", "worst", "best", "spread (sd)", "gain", "clients that gain (%)")


def gains(run: Run, baseline: Run) -> dict[str, float]:
    """Client -> weighted F1 on its holdout less that of the baseline's run, in points.

    Only of clients whose holdouts are the same utterances, and not too few of them.
    """
    ours, theirs = run.result["holdouts"], baseline.result["holdouts"]
    return {
        name: 100 * (scores["weighted_f1"] - theirs[name]["weighted_f1"])
        for name, scores in ours.items()
        if name in theirs and scores["examples"] == theirs[name]["examples"] >= FEWEST
    }


def client_table(rows: Sequence[Row], compared: Sequence[Difference]) -> Table:
    """Weighted F1 on each client's holdout, in points.

    Args:
        rows: All of them.
        compared: Which row is the baseline of which.
    """
    named = {row.name: row for row in rows}
    baselines = {one.row: named[one.baseline] for one in compared if one.baseline}
    shown, written = [], []
    for row in rows:
        moved = _moved(row, baselines.get(row.name))
        kept = [run for run in row.runs if run.result["holdouts"]]
        for run in kept:
            for name, scores in run.result["holdouts"].items():
                values = [f"{100 * scores[key]:.4f}" for key in ("accuracy", "weighted_f1")]
                gain = moved.get(run.seed, {}).get(name)
                values.append("" if gain is None else f"{gain:.4f}")
                written.append([row.name, run.seed, name, scores["examples"], *values])
        shown.append(_line(row.name, kept, moved))
    seed, small = "worst in the first seed", f"under {FEWEST} utterances"
    grid = Grid(["", "clients", *_HEADS, seed, small], shown, text=(2 + len(_HEADS),))
    columns = ["row", "seed", "client", "examples", "accuracy", "weighted_f1", "gain"]
    return Table(grid, columns, written)


def _moved(row: Row, baseline: Row | None) -> dict[int, dict[str, float]]:
    """Seed -> what each client gains."""
    if baseline is None:
        return {}
    both = [seed for seed in row.seeds if seed in baseline.seeds]
    found = {seed: gains(row.of(seed), baseline.of(seed)) for seed in both}
    return {seed: by_client for seed, by_client in found.items() if by_client}


def _line(name: str, kept: Sequence[Run], moved: Mapping[int, Mapping[str, float]]) -> list[Cell]:
    if not kept:
        return [Cell(name), Cell("0"), *[Cell("")] * (2 + len(_HEADS))]
    each = [Holdouts.of(run.result["holdouts"]) for run in kept]
    spreads = [one.spread for one in each if one.spread is not None]
    gained = moved.values()
    numbers = [
        [100 * one.mean for one in each],
        [100 * one.low for one in spreads],
        [100 * one.high for one in spreads],
        [100 * one.deviation for one in spreads],
        [fmean(by_client.values()) for by_client in gained],
        [100 * fmean(gain > 0 for gain in by_client.values()) for by_client in gained],
    ]
    first = each[0].spread
    return [
        *(Cell(name), Cell(str(each[0].clients))),
        *(
            _over_seeds(values, signed=head == "gain")
            for head, values in zip(_HEADS, numbers, strict=True)
        ),
        Cell("" if first is None else f"{first.worst} ({first.turns} utterances)"),
        Cell(str(each[0].small) if each[0].small else ""),
    ]


def _over_seeds(values: Sequence[float], signed: bool) -> Cell:
    if not values:
        return Cell("")
    half = half_width(values)
    text = f"{fmean(values):{'+' if signed else ''}.1f}".replace("-", "\u2212")
    return Cell(text, spread="" if half is None else f"\u00b1 {half:.1f}")
