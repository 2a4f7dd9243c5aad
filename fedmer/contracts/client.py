"""What rules and executors ask of the client side, and nothing more of it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fedmer.contracts.aggregator import Aggregator
from fedmer.data.batch import Excerpt
from fedmer.data.client_data import ClientData
from fedmer.messages import Broadcast, Summary, Update
from fedmer.metrics import Scores
from fedmer.spool import Spool


class ClientSide(Protocol):
    """Trains and scores any client on one resident network; :class:`~fedmer.local.LocalTrainer`.

    Attributes:
        aggregator: Its client half is called while a client trains.
        data: One entry a client, by id.
        memory: What clients keep between rounds, by id.
        personal: Names of the weights that every client keeps to itself.
    """

    aggregator: Aggregator
    data: dict[int, ClientData]
    memory: Spool
    personal: list[str]

    def fit(self, client: int, received: Broadcast) -> tuple[Summary, Update | None]:
        """One client's part of a round; the update is good until the next client trains.

        Raises:
            NotFiniteError: Something of it is NaN or infinite; nothing that it kept has changed.
        """

    def load(self, client: int, received: Broadcast) -> None:
        """Put the weights that a client would use now into the resident network."""

    def evaluate(self, excerpts: Sequence[Excerpt], received: Broadcast) -> Scores | None:
        """Score the resident network on excerpts; None if no turn of them is labelled."""

    def state_dict(self) -> dict[str, Any]:
        """What clients keep, for a checkpoint."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what :meth:`state_dict` gave."""
