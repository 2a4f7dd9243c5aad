"""Those with the most data, of those who are there."""

from collections.abc import Sequence

import numpy as np

from fedmer.contracts.selector import Selector
from fedmer.plugins.selectors._choose import check_clients, check_share, part_of
from fedmer.seeds import generator


class TopVolume(Selector):
    """The clients with the most data among those online: the paper's rule.

    "Online clients and top 50 % data volume", read as: each client is online with probability
    ``online``, independently, this round; the ``ceil(fraction * n)`` with the most labelled
    utterances of the ``n`` online take part, of equally large ones the lower ids. If nobody is
    online, everybody counts as online. The paper gives no probability.

    With ``online=1`` nothing is random: with ``fraction=0.5`` the smaller half of the clients, and
    any emotion only they have, is never trained on. Chance lets some of them in, but the smallest
    hardly ever: of 20 clients about 12 take part at least once in 24 rounds at ``online=0.8``, 14
    at 0.5. Use :class:`VolumeProportional` where everybody's turn should come.

    Args:
        online: The probability that a client is there, in (0, 1].
        fraction: How many of those there take part, in (0, 1].

    Raises:
        InputError: ``online`` or ``fraction`` is outside (0, 1].
    """

    def __init__(self, online: float = 0.8, fraction: float = 0.5) -> None:
        check_share("online", online)
        check_share("fraction", fraction)
        self.online = online
        self.fraction = fraction

    def select(self, round: int, sizes: Sequence[int], seed: int) -> list[int]:
        """See :meth:`Selector.select`.

        >>> TopVolume(online=1, fraction=0.5).select(0, [5, 9, 2, 5], seed=0)
        [0, 1]
        """
        check_clients(sizes)
        draws = generator(seed, "selection", round).random(len(sizes))
        there = np.flatnonzero(draws < self.online)
        if len(there) == 0:
            there = np.arange(len(sizes))
        largest_first = there[np.argsort(-np.asarray(sizes)[there], kind="stable")]
        return sorted(largest_first[: part_of(self.fraction, len(there))].tolist())

    def at_most(self, clients: int) -> int:
        return part_of(self.fraction, clients)
