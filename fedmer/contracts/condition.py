"""The contract of what is wrong with some clients of a simulation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fedmer.contracts.part import PartType
from fedmer.data.batch import Excerpt
from fedmer.data.client_data import ClientData
from fedmer.errors import InputError
from fedmer.messages import Broadcast, Summary, Update
from fedmer.seeds import generator


@dataclass(frozen=True)
class ConditionContext:
    """One client that a condition holds for.

    Args:
        client: Its id.
        among: The ids of all clients that the condition holds for, this one too, ascending.
        clients: How many there are in the federation.
        classes: How many emotions there are.
        seed: For what is drawn for this client alone.
        common: For what is drawn alike for all of ``among``.
    """

    client: int
    among: Sequence[int]
    clients: int
    classes: int
    seed: int
    common: int


class Condition(metaclass=PartType):
    """Something that is wrong with some clients: with what they train on, or what they send.

    It holds for a fraction of the clients, the same ones in every round. What is validated on never
    changes, nor what a client keeps back, but that a client who lacks a modality altogether lacks
    it there too. What is tested on changes by :meth:`on_test` alone, and in its features alone.
    Several conditions hold one after the other, in the order of their list. Instances keep no
    state, and all that is drawn comes from the seeds that they are given.

    Args:
        fraction: Share of the clients that it holds for, in [0, 1], rounded to a number of clients.
        severity: How bad it is, 0 or more; a class says what it means. At 0 nothing is wrong.
        seed: Chooses the clients, together with the run's. Conditions of the same one choose the
            same clients, and a larger fraction holds for those of a smaller one too.

    Raises:
        InputError: A number is out of range.

    >>> class Silence(Condition):
    ...     def on_data(self, data, context):
    ...         return ClientData(data.name, data.train[:1])
    >>> Silence(fraction=0.4).chosen(clients=5, seed=0), Silence(fraction=0.6).chosen(5, 0)
    ([1, 2], [1, 2, 4])
    """

    severity_is_a_share: ClassVar[bool] = True
    """Is the severity at most 1?"""

    def __init__(self, fraction: float = 0.2, severity: float = 1.0, seed: int = 0) -> None:
        if type(self) is Condition:
            # A parser makes one where somebody types an option of a condition that nobody named.
            raise InputError("a condition has options but no name; add --conditions NAME.")
        name, most = type(self).__name__, 1 if self.severity_is_a_share else float("inf")
        if not 0 <= fraction <= 1:
            raise InputError(
                f"{name}: fraction is {fraction}; expected a share of the clients in [0, 1]."
            )
        if not 0 <= severity <= most or severity == float("inf"):
            wanted = "in [0, 1]" if self.severity_is_a_share else "of 0 or more"
            raise InputError(f"{name}: severity is {severity}; expected a number {wanted}.")
        self.fraction = fraction
        self.severity = severity
        self.seed = seed

    def chosen(self, clients: int, seed: int) -> list[int]:
        """The ids of the clients that it holds for, ascending.

        Args:
            clients: How many there are in the federation.
            seed: The run's.
        """
        ranking = generator(seed, "condition", self.seed).permutation(clients).tolist()
        return sorted(ranking[: int(self.fraction * clients + 0.5)])

    def on_data(self, data: ClientData, context: ConditionContext) -> ClientData:
        """What a client trains on instead; by default the same.

        Args:
            data: Its excerpts, standardised, without those that it keeps back. They may belong to
                others too: they are replaced, and not changed in place.
            context: The client.

        Raises:
            InputError: The condition cannot hold for this client.
        """
        return data

    def on_test(self, excerpts: Sequence[Excerpt], seed: int) -> Sequence[Excerpt]:
        """What a network is tested on instead; by default the same.

        Args:
            excerpts: The test part, standardised. They are replaced, and not changed in place. Of
                what is returned, features and what is present count, and nothing else.
            seed: For what is drawn.

        Returns:
            As many, in their order.

        Raises:
            InputError: The condition cannot hold for this corpus.
        """
        return excerpts

    def on_sent(
        self,
        summary: Summary,
        update: Update | None,
        received: Broadcast,
        context: ConditionContext,
    ) -> tuple[Summary, Update | None]:
        """What a client sends instead; by default the same.

        Args:
            summary: What it would send.
            update: Likewise, or None where it sends none. Its tensors may be the network's own:
                they are replaced, and not changed in place. Names, shapes and types stay.
            received: This round's broadcast.
            context: The client; seeds are of this round.
        """
        return summary, update
