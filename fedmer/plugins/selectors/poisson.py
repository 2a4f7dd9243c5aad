"""Each client by itself, with one probability."""

from collections.abc import Sequence

import numpy as np

from fedmer.contracts.selector import Sampling, Selector
from fedmer.plugins.selectors._choose import check_clients, check_share
from fedmer.seeds import generator


class Poisson(Selector):
    """Each client takes part with one probability, whatever the others do.

    The sampling that differential privacy gains most from: whoever does not know the draw cannot
    tell whether a client was there at all. Cohorts differ in size, and one may be empty, with
    probability ``(1 - probability) ** clients``; nobody trains in such a round.

    Args:
        probability: That a client takes part in a round, in (0, 1].

    Raises:
        InputError: ``probability`` is outside (0, 1].
    """

    def __init__(self, probability: float = 0.5) -> None:
        check_share("probability", probability)
        self.probability = probability

    def select(self, round: int, sizes: Sequence[int], seed: int) -> list[int]:
        """See :meth:`Selector.select`.

        >>> Poisson(0.5).select(0, [5, 9, 2, 5], seed=0)
        [0, 1, 3]
        """
        check_clients(sizes)
        draws = generator(seed, "selection", round).random(len(sizes))
        chosen: list[int] = np.flatnonzero(draws < self.probability).tolist()
        return chosen

    def sampling(self, clients: int) -> Sampling | None:
        everybody = self.probability == 1
        return Sampling("all" if everybody else "poisson", clients, self.probability * clients)
