"""Some clients, each as likely as any other."""

from collections.abc import Sequence

from fedmer.contracts.selector import Sampling, Selector
from fedmer.plugins.selectors._choose import check_clients, check_share, part_of
from fedmer.seeds import generator


class Uniform(Selector):
    """A fraction of the clients, drawn anew each round, each as likely as any other.

    ``ceil(fraction * clients)`` of them, without replacement (McMahan et al. 2017, FedAvg).

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

        >>> len(Uniform(0.5).select(0, [5, 9, 2], seed=0))
        2
        """
        check_clients(sizes)
        chosen = generator(seed, "selection", round).choice(
            len(sizes), part_of(self.fraction, len(sizes)), replace=False
        )
        return sorted(chosen.tolist())

    def at_most(self, clients: int) -> int:
        return part_of(self.fraction, clients)

    def sampling(self, clients: int) -> Sampling | None:
        cohort = part_of(self.fraction, clients)
        return Sampling("all" if cohort == clients else "fixed", clients, cohort)
