"""The contract of a choice of clients."""

from abc import abstractmethod
from collections.abc import Sequence

from fedmer.contracts.part import PartType


class Selector(metaclass=PartType):
    """Chooses the clients that take part in a round.

    A choice is a pure function of the seed, the round and the clients' sizes. It is never empty.
    """

    @abstractmethod
    def select(self, round: int, sizes: Sequence[int], seed: int) -> list[int]:
        """Choose the clients of one round.

        Args:
            round: From 0.
            sizes: ``sizes[i]`` is the number of labelled training utterances of client ``i``.
            seed: All randomness comes from it, through :mod:`fedmer.seeds`.

        Returns:
            Ids of clients, ascending, at least one, none twice.

        Raises:
            InputError: There are no clients.
        """

    def at_most(self, clients: int) -> int:
        """How many clients a round can have at the most; by default all of them."""
        return clients
