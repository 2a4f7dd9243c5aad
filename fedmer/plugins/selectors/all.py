"""Everybody, every round."""

from collections.abc import Sequence

from fedmer.contracts.selector import Sampling, Selector
from fedmer.plugins.selectors._choose import check_clients


class All(Selector):
    """Every client takes part in every round."""

    def select(self, round: int, sizes: Sequence[int], seed: int) -> list[int]:
        """See :meth:`Selector.select`; nothing is random.

        >>> All().select(0, [5, 9, 2], seed=0)
        [0, 1, 2]
        """
        check_clients(sizes)
        return list(range(len(sizes)))

    def sampling(self, clients: int) -> Sampling | None:
        return Sampling("all", clients, clients)
