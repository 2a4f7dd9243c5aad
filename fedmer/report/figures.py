"""The figures of a report in which every row is a line: rounds, bytes, clients, weights."""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np
from markupsafe import Markup

from fedmer.printable import drawable
from fedmer.report.collect import Run
from fedmer.report.grouping import Row
from fedmer.report.svg import colour, drawing, line_style, row_id, svg_of
from fedmer.report.tables import size

Series = dict[int, float]
"""Round -> value."""


Tile = tuple[str, Markup]
"""A title and what stands under it."""


def curves(rows: Sequence[Row]) -> list[Tile]:
    """Weighted F1 on validation and test and training loss over rounds: means and bands."""
    panels: list[tuple[str, Callable[[Run], Series]]] = [
        ("Weighted F1 on validation", lambda run: _points(run, "val_weighted_f1")),
        ("Weighted F1 on test", lambda run: _points(run, "test_weighted_f1")),
        ("Mean training loss", lambda run: _column(run, "train_loss")),
    ]
    return [
        (title, _over_rounds(rows, f"curves{place}", title, read))
        for place, (title, read) in enumerate(panels)
    ]


def bytes_against_score(rows: Sequence[Row]) -> Markup:
    """Weighted F1 on test over the bytes sent so far, with a dot at the round that is reported."""
    values = {}
    with drawing(4.8, 3.2) as figure:
        axes = figure.subplots()
        for number, row in enumerate(rows):
            scores = [_points(run, "test_weighted_f1") for run in row.runs]
            sent = [_sent(run) for run in row.runs]
            common = sorted(set.intersection(*(set(series) for series in scores)))
            x = [fmean(series[r] for series in sent) for r in common]
            y = [fmean(series[r] for series in scores) for r in common]
            style: Any = line_style(number)
            path, end = row_id(number, "path"), row_id(number, "end")
            axes.plot(x, y, color=colour(number), linestyle=style, gid=path)
            reached = fmean(sent[i][run.round] for i, run in enumerate(row.runs))
            score = fmean(_score(run) for run in row.runs)
            axes.plot(reached, score, "o", color=colour(number), markersize=6, gid=end)
            values[path] = [
                f"round {r}, {size(sent_so_far)}: {points:.2f}"
                for r, sent_so_far, points in zip(common, x, y, strict=True)
            ]
            values[end] = [f"round shown, {size(reached)}: {score:.2f}"]
        low, high = axes.dataLim.intervalx
        if high > 10 * low > 0:
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.xaxis.set_major_formatter(lambda value, _: size(value))
        axes.set(xlabel="bytes sent so far, both ways", ylabel="weighted F1 on test (points)")
        return svg_of(figure, "bytes", "Bytes against weighted F1", values)


def holdouts(rows: Sequence[Row]) -> Markup:
    """Weighted F1 of every client on its holdout: a dot a client and seed, a bar the mean."""
    values = {}
    with drawing(5.2, 1 + 0.36 * len(rows)) as figure:
        axes = figure.subplots()
        for number, row in enumerate(rows):
            found = [
                (100 * scores["weighted_f1"], f"{client}, seed {run.seed}")
                for run in row.runs
                for client, scores in run.result["holdouts"].items()
            ]
            points = [score for score, _ in found]
            # Spread over the row's height by rank, so that equal values do not hide each other.
            places = number + 0.5 * ((np.arange(len(points)) * 0.618) % 1 - 0.5)
            style: Any = {"color": colour(number), "alpha": 0.55, "markersize": 4}
            dots, bar = row_id(number, "dots"), row_id(number, "bar")
            axes.plot(points, places, "o", gid=dots, **style)
            values[dots] = [f"{who}: {score:.1f}" for score, who in found]
            if points:
                ends = [number - 0.36, number + 0.36]
                axes.plot([fmean(points)] * 2, ends, color=colour(number), gid=bar)
                values[bar] = [f"mean: {fmean(points):.1f}"] * 2
        axes.set_yticks(range(len(rows)), [drawable(row.name) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("weighted F1 on the client's holdout (points)")
        return svg_of(figure, "holdouts", "Clients on their holdouts", values)


def concentration(rows: Sequence[Row]) -> list[Tile]:
    r"""How many clients a round's mean is really made of, and the largest single weight.

    With weights :math:`w_i` of sum 1 the effective number is :math:`1 / \sum_i w_i^2`: all of them
    if they are equal, one if one has everything.
    """
    panels: list[tuple[str, Callable[[list[float]], float]]] = [
        ("Effective number of clients", lambda weights: 1 / sum(w * w for w in weights)),
        ("Largest weight", max),
    ]

    def measured(run: Run, measure: Callable[[list[float]], float]) -> Series:
        return {number: measure(weights) for number, weights in _weights(run).items()}

    return [
        (title, _over_rounds(rows, f"concentration{place}", title, partial(measured, measure=m), 0))
        for place, (title, m) in enumerate(panels)
    ]


def weight_map(run: Run, number: int) -> Markup:
    """A run's weights: a line a client, the one with most utterances on top, a column a round."""
    sizes = {int(row["client"]): int(row["examples"]) for row in run.clients}
    order = sorted(sizes, key=lambda client: (-sizes[client], client))
    rounds = sorted({int(row["round"]) for row in run.clients})
    line = {client: place for place, client in enumerate(order)}
    column = {number: place for place, number in enumerate(rounds)}
    values = np.zeros((len(order), len(rounds)))
    for row in run.clients:
        values[line[int(row["client"])], column[int(row["round"])]] = float(row["weight"])
    # Blue that grows more solid, so that it reads on a light and on a dark page.
    pixels = np.empty((*values.shape, 4))
    pixels[..., :3] = (0.20, 0.49, 0.83)
    pixels[..., 3] = values / max(float(values.max()), 1e-12)
    with drawing(4.2, 2.6) as figure:
        axes = figure.subplots()
        extent = (rounds[0] - 0.5, rounds[-1] + 0.5, len(order) + 0.5, 0.5)
        axes.imshow(pixels, aspect="auto", interpolation="nearest", extent=extent)
        axes.grid(visible=False)
        axes.set_xlabel("round")
        axes.set_ylabel("client, largest first")
        for axis in (axes.xaxis, axes.yaxis):
            _whole(axis)
        axes.set_title(f"strongest: {values.max():.3f}", loc="left", fontsize=9)
        return svg_of(figure, f"weights{number}", "Weight of every client in every round")


def _whole(axis: Any) -> None:
    """Ticks at whole numbers only."""
    axis.get_major_locator().set_params(integer=True)


def _over_rounds(
    rows: Sequence[Row],
    name: str,
    title: str,
    read: Callable[[Run], Series],
    low: float | None = None,
) -> Markup:
    """A figure of one measure over rounds, a line a row.

    Args:
        rows: What is drawn.
        name: Of the figure, unique in the page.
        title: Of the figure.
        read: Run -> its values.
        low: Where the axis of values begins; None for where they do.
    """
    values: dict[str, list[str]] = {}
    with drawing(4.2, 2.9) as figure:
        axes = figure.subplots()
        for number, row in enumerate(rows):
            values |= _band(axes, [read(run) for run in row.runs], number)
        axes.set_xlabel("round")
        _whole(axes.xaxis)
        if low is not None:
            axes.set_ylim(low, 1.08 * axes.dataLim.ymax)
        return svg_of(figure, name, f"{title}, over rounds", values)


def _band(axes: Any, series: Sequence[Series], number: int) -> dict[str, list[str]]:
    """Draw the mean over seeds, and one standard deviation to both sides.

    Returns:
        The line's id, and what each of its points is.
    """
    common = sorted(set.intersection(*(set(one) for one in series)))
    if not common:
        return {}
    values = np.array([[one[r] for r in common] for one in series])
    mean = values.mean(axis=0)
    marker = "o" if len(common) == 1 else ""
    style, line = line_style(number), row_id(number, "line")
    axes.plot(
        *(common, mean),
        color=colour(number),
        linestyle=style,
        marker=marker,
        markersize=4,
        gid=line,
    )
    said = [f"round {r}: {_shown(value)}" for r, value in zip(common, mean, strict=True)]
    if len(values) > 1:
        spread = values.std(axis=0, ddof=1)
        look: Any = {"color": colour(number), "alpha": 0.14, "linewidth": 0}
        band = row_id(number, "band")
        axes.fill_between(common, mean - spread, mean + spread, gid=band, **look)
        said = [f"{text} ± {_shown(sd)}" for text, sd in zip(said, spread, strict=True)]
    return {line: said}


def _shown(value: float) -> str:
    """In four digits.

    >>> _shown(71.8), _shown(0.04321)
    ('71.80', '0.04321')
    """
    return f"{value:.2f}" if abs(value) >= 1 or not value else f"{value:.4g}"


def _column(run: Run, name: str) -> Series:
    return {int(row["round"]): float(row[name]) for row in run.rounds if row.get(name)}


def _points(run: Run, name: str) -> Series:
    return {number: 100 * value for number, value in _column(run, name).items()}


def _score(run: Run) -> float:
    return 100 * float(run.result[run.which]["scores"]["test"]["weighted_f1"])


def _sent(run: Run) -> Series:
    total, sent = 0.0, {run.round: 0.0}
    for row in run.rounds:
        total += int(row["bytes_down"]) + int(row["bytes_up"])
        sent[int(row["round"])] = total
    return sent


def _weights(run: Run) -> dict[int, list[float]]:
    """Round -> the cohort's weights; a rule may give a client none."""
    weights: dict[int, list[float]] = {}
    for row in run.clients:
        weights.setdefault(int(row["round"]), []).append(float(row["weight"]))
    return {number: cohort for number, cohort in weights.items() if sum(cohort) > 0}
