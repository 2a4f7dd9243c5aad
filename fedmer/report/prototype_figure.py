"""Where the prototypes of a run lie, in two dimensions, and how they moved."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from fedmer.printable import drawable
from fedmer.report.svg import INK, colour, drawing, svg_of


def project(
    prototypes: NDArray[np.float64], known: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], float]:
    """The two directions in which the prototypes of all rounds and classes differ most.

    Args:
        prototypes: ``(R, C, D)``.
        known: ``(R, C)``; others are not looked at.

    Returns:
        ``(R, C, 2)`` principal components, NaN where not known, and the fraction of the variance
        that they show, in [0, 1].

    >>> lying = np.array([[[0.0, 0.0, 7.0], [3.0, 4.0, 7.0]]])
    >>> places, explained = project(lying, np.ones((1, 2), dtype=bool))
    >>> float(abs(places[0, 0, 0] - places[0, 1, 0])), explained
    (5.0, 1.0)
    """
    points = prototypes[known]
    places = np.full((*known.shape, 2), np.nan)
    if not len(points):
        return places, 0.0
    centred = points - points.mean(axis=0)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    found = np.zeros((len(points), 2))
    for axis, direction in enumerate(directions[:2]):
        # The sign of a direction is arbitrary; its largest entry is made positive.
        sign = 1.0 if direction[np.abs(direction).argmax()] >= 0 else -1.0
        found[:, axis] = centred @ direction * sign
    places[known] = found
    variance = sizes**2
    explained = float(variance[:2].sum() / variance.sum()) if variance.sum() > 0 else 1.0
    return places, explained


def _apart(
    labels: Sequence[str], places: NDArray[np.float64], known: NDArray[np.bool_]
) -> list[tuple[str, NDArray[np.float64], NDArray[np.float64]]]:
    """Names, the ends of their paths, and places beside the ends where they do not overlap."""
    extent = np.nanmax(places, axis=(0, 1)) - np.nanmin(places, axis=(0, 1))
    gap = np.maximum(extent, 1e-12) * (0.3, 0.055)
    ends = [
        (label, places[known[:, number], number][-1])
        for number, label in enumerate(labels)
        if known[:, number].any()
    ]
    settled: list[tuple[str, NDArray[np.float64], NDArray[np.float64]]] = []
    for label, end in sorted(ends, key=lambda item: float(item[1][1])):
        place = end + gap * (0.07, 0.0)
        for _, _, below in settled:
            if abs(place[0] - below[0]) < gap[0] and place[1] - below[1] < gap[1]:
                place[1] = below[1] + gap[1]
        settled.append((label, end, place))
    return settled


def prototype_figure(
    name: str,
    rounds: NDArray[np.int64],
    prototypes: NDArray[np.float64],
    known: NDArray[np.bool_],
    labels: Sequence[str],
) -> tuple[Markup, float]:
    """One path a class, from its first round (small) to the last (large, with the class's name).

    Args:
        name: Of letters and digits, unique in the page.
        rounds: ``(R,)``.
        prototypes: ``(R, C, D)``.
        known: ``(R, C)``.
        labels: ``C`` names.

    Returns:
        The figure, and the fraction of the variance that it shows.
    """
    places, explained = project(prototypes, known)
    values = {}
    with drawing(4.6, 3.8) as figure:
        axes = figure.subplots()
        for number in range(len(labels)):
            path = places[known[:, number], number]
            if not len(path):
                continue
            sizes = np.linspace(3, 30, len(path))
            line = f"path{number}"
            axes.plot(*path.T, color=colour(number), linewidth=0.9, alpha=0.8, gid=line)
            axes.scatter(path[:, 0], path[:, 1], s=sizes, color=colour(number), linewidths=0)
            values[line] = [f"{labels[number]}, round {r}" for r in rounds[known[:, number]]]
        axes.margins(0.14)
        for label, end, place in _apart(labels, places, known):
            axes.annotate(
                drawable(label), tuple(end), tuple(place), color=INK, fontsize=8.5, va="center"
            )
        axes.set(xlabel="first principal component", ylabel="second")
        axes.set_title(f"rounds {rounds[0]} to {rounds[-1]}", loc="left", fontsize=9)
        return svg_of(figure, name, "Prototypes in two dimensions", values), explained
