"""The contract of a choice of clients."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fedmer.contracts.part import PartType


@dataclass(frozen=True)
class Sampling:
    """How cohorts are drawn, as whoever accounts for privacy has to know it.

    Args:
        kind: Every client in every round ('all'); a fixed number of them, each set as likely as
            any other ('fixed'); or each by itself with one probability ('poisson').
        clients: How many there are.
        cohort: How many take part in a round, in the mean.
    """

    kind: Literal["all", "fixed", "poisson"]
    clients: int
    cohort: float

    @property
    def probability(self) -> float:
        """That a client takes part in a round."""
        return self.cohort / self.clients


class Selector(metaclass=PartType):
    """Chooses the clients that take part in a round.

    A choice is a pure function of the seed, the round and the clients' sizes. It may be empty: then
    nobody trains in that round, and the global network stays as it is, but for the noise that a
    mechanism adds.
    """

    @abstractmethod
    def select(self, round: int, sizes: Sequence[int], seed: int) -> list[int]:
        """Choose the clients of one round.

        Args:
            round: From 0.
            sizes: ``sizes[i]`` is the number of labelled training utterances of client ``i``.
            seed: All randomness comes from it, through :mod:`fedmer.seeds`.

        Returns:
            Ids of clients, ascending, none twice.

        Raises:
            InputError: There are no clients.
        """

    def at_most(self, clients: int) -> int:
        """How many clients a round can have at the most; by default all of them."""
        return clients

    def sampling(self, clients: int) -> Sampling | None:
        """How cohorts are drawn from so many clients; by default None: by what clients hold, or in
        a way that nobody has accounted for."""
        return None
