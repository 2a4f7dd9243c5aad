"""How well a score tells members from others: area under the curve, and hits at few false ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedmer.audit.resampling import resampled
from fedmer.report.attacks import Figure

FALSE = (0.01, 0.001)
"""Shares of others that may be taken for members."""


@dataclass(frozen=True, eq=False)
class Detection:
    """Members and others, by a score that is to be higher for members.

    Args:
        score: ``(N,)``.
        member: ``(N,)`` bool.
        group: ``(N,)`` int64, such as the dialogue that each is of; one of members has no others.

    >>> one = Detection(np.array([3.0, 2.0, 1.0]), np.array([True, False, False]), np.arange(3))
    >>> one.area(), one.hits(0.01)
    (1.0, 1.0)
    """

    score: NDArray[np.float64]
    member: NDArray[np.bool_]
    group: NDArray[np.int64]

    def area(self, drawn: NDArray[np.float64] | None = None) -> float:
        """Area under the receiver operating curve: how often a member has the higher score, a tie
        counting one half.

        Args:
            drawn: How often each group counts; once by default.
        """
        members, others = self._by_score(drawn)
        above = np.cumsum(members) - members
        return float((others * (above + members / 2)).sum() / (members.sum() * others.sum()))

    def hits(self, false: float, drawn: NDArray[np.float64] | None = None) -> float:
        """The share of members above the lowest threshold that at most so many others pass.

        Args:
            false: A share of the others, in [0, 1].
            drawn: How often each group counts; once by default.
        """
        members, others = self._by_score(drawn)
        passed = np.cumsum(others) <= false * others.sum()
        # The scores up to the first that lets too many pass.
        return float(members[: int(np.argmin(np.append(passed, False)))].sum() / members.sum())

    def chance(self, false: float) -> float:
        """The :meth:`hits` to be expected of a score that says nothing.

        Of ``n`` others ``k`` may pass, and a member is above the next one with probability
        ``(k + 1) / (n + 1)``, which is far more than ``false`` where there are few others.

        >>> Detection(np.zeros(100), np.arange(100) == 0, np.arange(100)).chance(0.001)
        0.01
        """
        others = int((~self.member).sum())
        return (int(false * others) + 1) / (others + 1)

    def figures(self, name: str, seed: int) -> list[Figure]:
        """The area, and the hits at each of :data:`FALSE`, with intervals over groups.

        Args:
            name: Of what is told apart and how, before 'AUC'.
            seed: Of the run.
        """
        count = int(self.group.max()) + 1
        theirs = np.zeros(count, dtype=bool)
        theirs[self.group[self.member]] = True
        strata = [np.flatnonzero(theirs), np.flatnonzero(~theirs)]
        found = [Figure(f"{name}: AUC", self.area(), 0.5, *resampled(self.area, strata, seed))]
        for false in FALSE:

            def hits(drawn: NDArray[np.float64] | None = None, false: float = false) -> float:
                return self.hits(false, drawn)

            said = f"{name}: hits at {100 * false:g} % false"
            found.append(Figure(said, hits(), self.chance(false), *resampled(hits, strata, seed)))
        return found

    def _by_score(
        self, drawn: NDArray[np.float64] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How many members and others have each score, the highest first."""
        place, count = self._places, int(self._places.max()) + 1
        weight = 1.0 if drawn is None else drawn[self.group]
        members, others = (
            np.bincount(place, weight * are.astype(np.float64), count)
            for are in (self.member, ~self.member)
        )
        return members.astype(np.float64), others.astype(np.float64)

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        return np.unique(-self.score, return_inverse=True)[1]


def by_group(values: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """``(G,)`` means over groups 0 to G - 1.

    >>> by_group(np.array([1.0, 3.0, 5.0]), np.array([0, 0, 1]))
    array([2., 5.])
    """
    return np.bincount(groups, values) / np.bincount(groups)


def numbered(names: Sequence[str]) -> NDArray[np.int64]:
    """A number for each name, from 0 without gaps.

    >>> numbered(["b", "a", "b"])
    array([1, 0, 1])
    """
    return np.unique(np.asarray(names), return_inverse=True)[1]
