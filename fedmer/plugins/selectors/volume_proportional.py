"""Some clients, those with much data more often."""

from collections.abc import Sequence

import numpy as np

from fedmer.contracts.selector import Selector
from fedmer.plugins.selectors._choose import check_clients, check_share, part_of
from fedmer.seeds import generator


class VolumeProportional(Selector):
    """A fraction of the clients, drawn one by one with probability proportional to their data.

    ``ceil(fraction * clients)`` of them, without replacement: each draw is proportional to the
    sizes of those not drawn yet. A client without data is drawn last. Unlike :class:`TopVolume`,
    everybody's turn comes.

    Args:
        fraction: How many of the clients, in (0, 1].

    Raises:
        InputError: ``fraction`` is outside (0, 1].
    """

    def __init__(self, fraction: float = 0.5) -> None:
        check_share("fraction", fraction)
        self.fraction = fraction

    def select(self, round: int, sizes: Sequence[int], seed: int) -> list[int]:
        """See :meth:`Selector.select`.

        >>> VolumeProportional(0.5).select(0, [1, 10**9, 10**9, 1], seed=0)
        [1, 2]
        """
        check_clients(sizes)
        # Drawing one by one is the order in which exponential clocks of rate ``size`` ring
        # (Efraimidis and Spirakis 2006), which needs no probabilities and so no division by zero.
        clocks = generator(seed, "selection", round).exponential(size=len(sizes))
        volume = np.asarray(sizes, dtype=np.float64)
        rings = np.full(len(sizes), np.inf)
        np.divide(clocks, volume, out=rings, where=volume > 0)
        first = np.argsort(rings, kind="stable")[: part_of(self.fraction, len(sizes))]
        return sorted(first.tolist())

    def at_most(self, clients: int) -> int:
        return part_of(self.fraction, clients)
