"""Clients trained in this process, and what each of them sends kept."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from fedmer.local import LocalTrainer
from fedmer.loop import FederatedLoop
from fedmer.messages import Broadcast, Summary, Update, Weights
from fedmer.plugins.executors.inline import Inline
from fedmer.protection import ServerProtection, masked_sum
from fedmer.running_mean import ClientWeight
from fedmer.weights import FlatWeights


@dataclass(frozen=True, eq=False)
class Message:
    """What a server sees of one client in one round, after the run's protections.

    Args:
        round: From 0.
        client: Its id.
        summary: As it was sent.
        received: What the client began with; None where no weights come down.
        weights: As it was sent; under a masked sum the mean of the cohort, since nothing else is
            seen of the client. None where no weights go up.
        trained: The client's network after training, which nobody else has; None where weights go
            up.
    """

    round: int
    client: int
    summary: Summary
    received: Weights | None
    weights: Weights | None
    trained: Weights | None

    @property
    def change(self) -> Weights:
        """The weights less those received, of floating-point numbers that both have."""
        received, weights = self.received or {}, self.weights or {}
        return {
            name: value - received[name]
            for name, value in weights.items()
            if name in received and value.is_floating_point()
        }


class Recorder(Inline):
    """One client after the other, as :class:`Inline`; a masked sum is added up in the clear.

    The sum is the same but for rounding, and nothing but the sum goes into a message.
    """

    carries_masked_sums = True

    trainer: LocalTrainer

    def __init__(self) -> None:
        super().__init__()
        self._sent: list[tuple[Summary, Weights | None, Weights | None]] = []
        self._mean: Weights | None = None

    def collect(self, summary: Summary, update: Update | None) -> None:
        weights = None if update is None else FlatWeights.of(update.weights)
        trained = self.trainer.weights.clone() if weights is None else None
        self._sent.append((summary, weights, trained))
        super().collect(summary, update)

    def join(self, weights: Mapping[int, ClientWeight]) -> Weights | None:
        mean = super().join(weights)
        self._mean = None if mean is None else FlatWeights.of(mean)
        return mean

    def run(self, loop: FederatedLoop, round: int) -> list[Message]:
        """One round of a loop that has this executor; what the server saw, by client."""
        self._sent, self._mean = [], None
        loop.run_round(round)
        if not self._sent:
            return []
        hidden = masked_sum(self.trainer.privacy) is not None
        received = self.received.weights
        return [
            Message(
                *(round, summary.client, summary, received),
                *(self._mean if hidden else weights, trained),
            )
            for summary, weights, trained in self._sent
        ]


class Rehearsed(ServerProtection):
    """Protections of rounds that nobody gets anything of, so that no budget ends them."""

    def announce(self, received: Broadcast, cohort: Collection[int]) -> Broadcast:
        return self.known(received, cohort)
