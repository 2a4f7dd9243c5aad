"""The figures of a report in which every row is a line: rounds, bytes, clients, weights."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from markupsafe import Markup

from fedmer.printable import drawable
from fedmer.report.collect import Run
from fedmer.report.grouping import Row
from fedmer.report.svg import colour, drawing, line_style, svg_of
from fedmer.report.tables import size

Series = dict[int, float]
"""Round -> value."""


def curves(rows: Sequence[Row]) -> Markup:
    """Training loss and weighted F1 on validation and test over rounds: means and bands."""
    panels: list[tuple[str, Callable[[Run], Series]]] = [
        ("weighted F1 on validation (points)", lambda run: _points(run, "val_weighted_f1")),
        ("weighted F1 on test (points)", lambda run: _points(run, "test_weighted_f1")),
        ("mean training loss of the cohort", lambda run: _column(run, "train_loss")),
    ]
    with drawing(11, 3.6) as figure:
        for axes, (title, read) in zip(figure.subplots(1, 3), panels, strict=True):
            for number, row in enumerate(rows):
                _band(axes, [read(run) for run in row.runs], number)
            axes.set_title(drawable(title), loc="left", fontsize=10)
            axes.set_xlabel("round")
            _whole(axes.xaxis)
        return svg_of(figure, "curves", "Convergence over rounds")


def bytes_against_score(rows: Sequence[Row]) -> Markup:
    """Weighted F1 on test over the bytes sent so far, with a dot at the round that is reported."""
    with drawing(7.5, 4) as figure:
        axes = figure.subplots()
        for number, row in enumerate(rows):
            scores = [_points(run, "test_weighted_f1") for run in row.runs]
            sent = [_sent(run) for run in row.runs]
            common = sorted(set.intersection(*(set(series) for series in scores)))
            x = [fmean(series[r] for series in sent) for r in common]
            y = [fmean(series[r] for series in scores) for r in common]
            style: Any = line_style(number)
            axes.plot(x, y, color=colour(number), linestyle=style)
            axes.plot(
                fmean(sent[i][run.round] for i, run in enumerate(row.runs)),
                fmean(_score(run) for run in row.runs),
                "o",
                color=colour(number),
                markersize=6,
            )
        low, high = axes.dataLim.intervalx
        if high > 10 * low > 0:
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.xaxis.set_major_formatter(lambda value, _: size(value))
        axes.set(xlabel="bytes sent so far, both ways", ylabel="weighted F1 on test (points)")
        return svg_of(figure, "bytes", "Bytes against weighted F1")


def holdouts(rows: Sequence[Row]) -> Markup:
    """Weighted F1 of every client on its holdout: a dot a client and seed, a bar the mean."""
    with drawing(7.5, 1 + 0.42 * len(rows)) as figure:
        axes = figure.subplots()
        for number, row in enumerate(rows):
            values = [
                100 * scores["weighted_f1"]
                for run in row.runs
                for scores in run.result["holdouts"].values()
            ]
            # Spread over the row's height by rank, so that equal values do not hide each other.
            places = number + 0.5 * ((np.arange(len(values)) * 0.618) % 1 - 0.5)
            axes.plot(values, places, "o", color=colour(number), alpha=0.55, markersize=4)
            if values:
                axes.plot([fmean(values)] * 2, [number - 0.36, number + 0.36], color=colour(number))
        axes.set_yticks(range(len(rows)), [drawable(row.name) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("weighted F1 on the client's holdout (points)")
        return svg_of(figure, "holdouts", "Clients on their holdouts")


def concentration(rows: Sequence[Row]) -> Markup:
    r"""How many clients a round's mean is really made of, and the largest single weight.

    With weights :math:`w_i` of sum 1 the effective number is :math:`1 / \sum_i w_i^2`: all of them
    if they are equal, one if one has everything.
    """
    panels: list[tuple[str, Callable[[list[float]], float]]] = [
        ("effective number of clients", lambda weights: 1 / sum(w * w for w in weights)),
        ("largest weight", max),
    ]
    with drawing(9, 3.2) as figure:
        for axes, (title, measure) in zip(figure.subplots(1, 2), panels, strict=True):
            for number, row in enumerate(rows):
                series = [{r: measure(w) for r, w in _weights(run).items()} for run in row.runs]
                _band(axes, series, number)
            axes.set_title(drawable(title), loc="left", fontsize=10)
            axes.set_xlabel("round")
            axes.set_ylim(0, 1.08 * axes.dataLim.ymax)
            _whole(axes.xaxis)
        return svg_of(figure, "concentration", "Concentration of weights over rounds")


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
        axes.set_title(f"darkest: {values.max():.3f}", loc="left", fontsize=9)
        return svg_of(figure, f"weights{number}", "Weight of every client in every round")


def _whole(axis: Any) -> None:
    """Ticks at whole numbers only."""
    axis.get_major_locator().set_params(integer=True)


def _band(axes: Any, series: Sequence[Series], number: int) -> None:
    """The mean over seeds, and one standard deviation to both sides."""
    common = sorted(set.intersection(*(set(one) for one in series)))
    if not common:
        return
    values = np.array([[one[r] for r in common] for one in series])
    mean = values.mean(axis=0)
    marker = "o" if len(common) == 1 else ""
    style = line_style(number)
    axes.plot(common, mean, color=colour(number), linestyle=style, marker=marker, markersize=4)
    if len(values) > 1:
        spread = values.std(axis=0, ddof=1)
        axes.fill_between(
            common, mean - spread, mean + spread, color=colour(number), alpha=0.14, linewidth=0
        )


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
