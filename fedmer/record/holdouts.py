"""How evenly clients are served, measured on holdouts that are large enough."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any

FEWEST = 10
"""Labelled utterances from which a holdout counts for the worst, the best and the spread: the score
of fewer is mostly chance."""


@dataclass(frozen=True)
class Spread:
    """Weighted F1 of clients on holdouts that are large enough.

    Args:
        worst: Name of the client with the lowest score.
        turns: Labelled utterances of that client's holdout.
        low: The lowest score.
        high: The highest score.
        deviation: Of the scores, with ``n``.
    """

    worst: str
    turns: int
    low: float
    high: float
    deviation: float


@dataclass(frozen=True)
class Holdouts:
    """What the holdouts of a run say.

    Args:
        clients: How many have one.
        small: How many of them have fewer than :data:`FEWEST` labelled utterances.
        mean: Mean weighted F1 of all.
        spread: Of those that are not small; None if all are.
    """

    clients: int
    small: int
    mean: float
    spread: Spread | None

    @classmethod
    def of(cls, found: Mapping[str, Mapping[str, Any]]) -> "Holdouts":
        """Those of a ``result.json``: client -> scores and ``examples``; at least one.

        >>> found = {"Ann": {"weighted_f1": 0.5, "examples": 12}}
        >>> Holdouts.of({**found, "Bo": {"weighted_f1": 0.0, "examples": 3}})
        ... # doctest: +NORMALIZE_WHITESPACE
        Holdouts(clients=2, small=1, mean=0.25,
                 spread=Spread(worst='Ann', turns=12, low=0.5, high=0.5, deviation=0.0))
        """
        scores = {name: float(client["weighted_f1"]) for name, client in found.items()}
        large = {name: s for name, s in scores.items() if found[name]["examples"] >= FEWEST}
        spread = None
        if large:
            worst = min(large, key=lambda name: large[name])
            spread = Spread(
                worst,
                int(found[worst]["examples"]),
                large[worst],
                max(large.values()),
                pstdev(large.values()),
            )
        return cls(len(scores), len(scores) - len(large), fmean(scores.values()), spread)
