"""What rules and executors ask of the client side, and nothing more of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from torch import Tensor

from fedmer.contracts.aggregator import Aggregator
from fedmer.contracts.privacy import Privacy
from fedmer.data.batch import Excerpt
from fedmer.data.client_data import ClientData
from fedmer.messages import Broadcast, Summary, Update, Weights
from fedmer.metrics import Scores
from fedmer.spool import Spool


@dataclass(frozen=True)
class ClientMemory:
    """What a client keeps between the rounds in which it takes part. False if that is nothing.

    Args:
        rule: What the rule's client side keeps, by name.
        optimizer: The state of the optimizer, where it is kept.
        weights: Those of its weights that do not travel.
        privacy: What each mechanism keeps, by name, in the order of the mechanisms.
    """

    rule: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    weights: Weights = field(default_factory=dict)
    privacy: list[dict[str, Tensor]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """All of it that is not empty, as dictionaries, numbers and tensors."""
        return {name: value for name, value in vars(self).items() if value}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`state_dict`."""
        return cls(**state)


class ClientSide(Protocol):
    """Trains and scores any client on one resident network; :class:`~fedmer.local.LocalTrainer`.

    Attributes:
        aggregator: Its client half is called while a client trains.
        privacy: Mechanisms, whose client halves are called before anything leaves a client.
        data: One entry a client, by id.
        memory: What clients keep between rounds, by id.
        personal: Names of the weights that every client keeps to itself.
    """

    aggregator: Aggregator
    privacy: Sequence[Privacy]
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
        """Score the resident network on excerpts; None if no utterance of them is labelled."""

    def state_dict(self) -> dict[str, Any]:
        """What clients keep, for a checkpoint."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what :meth:`state_dict` gave."""
