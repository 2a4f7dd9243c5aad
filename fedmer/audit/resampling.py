"""Intervals by resampling what was attacked."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fedmer.report.attacks import Figure
from fedmer.seeds import generator

RESAMPLES = 1000


def resampled(
    measure: Callable[[NDArray[np.float64]], float],
    strata: Sequence[NDArray[np.int64]],
    seed: int,
) -> tuple[float, float]:
    """Between which values a figure lies in 95 % of resamples.

    Args:
        measure: ``(G,)``, how often each of ``G`` groups was drawn, to the figure.
        strata: Places of groups that are drawn among each other, with replacement; together all
            groups, such as dialogues.
        seed: Of the run.

    >>> low, high = resampled(lambda drawn: float(drawn[:50].sum() / 100), [np.arange(100)], 0)
    >>> 0.35 < low < 0.45 < 0.55 < high < 0.65
    True
    """
    random = generator(seed, "audit", "resamples")
    size = sum(len(stratum) for stratum in strata)
    found = []
    for _ in range(RESAMPLES):
        drawn = np.zeros(size)
        for stratum in strata:
            count = len(stratum)
            drawn[stratum] = random.multinomial(count, np.full(count, 1 / count))
        found.append(measure(drawn))
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def mean_figure(
    name: str,
    values: NDArray[np.float64],
    chance: float,
    groups: NDArray[np.int64],
    seed: int,
) -> Figure:
    """The mean of some values, with an interval over their groups.

    Args:
        name: Of the figure.
        values: ``(N,)``.
        chance: What it is where nothing can be found out.
        groups: ``(N,)``, such as the client that each value is of.
        seed: Of the run.
    """
    _, place = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(place, values), np.bincount(place)
    low, high = resampled(
        lambda drawn: float(drawn @ sums / (drawn @ counts)), [np.arange(len(sums))], seed
    )
    return Figure(name, float(values.mean()), chance, low, high)
