"""The contract of an executor: where the clients of a cohort are trained."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fedmer.errors import InputError
from fedmer.local import LocalTrainer
from fedmer.messages import Broadcast, Summary, Update, Weights
from fedmer.plugins.executors.collector import Collector
from fedmer.weights import FlatWeights


class Executor(ABC):
    """Trains the clients of a cohort and adds up what they send.

    A round calls :meth:`open`, then :meth:`train` for every client in the cohort's order, then
    :meth:`weighted_mean` once. An executor may train others of the cohort meanwhile: updates are
    added in the cohort's order, whatever order they come in.

    Args:
        spool_gb: Gigabytes (1e9 bytes) of the cohort's updates to hold in memory where the rule
            cannot add them up as they come, and as much again of what clients keep between rounds.
            The rest goes into files of a temporary folder.

    Raises:
        InputError: ``spool_gb`` is negative.
    """

    def __init__(self, spool_gb: float = 4.0) -> None:
        if not spool_gb >= 0:
            raise InputError(f"executor.spool_gb is {spool_gb}; expected 0 or more.")
        self.limit = spool_gb * 1e9

    def bind(self, trainer: LocalTrainer) -> None:
        """Receive the client side, once, before the first round."""
        self.trainer = trainer
        trainer.memory.limit = self.limit

    def open(self, received: Broadcast, cohort: Sequence[int]) -> None:
        """Begin a round of some clients, in the order in which they will be trained."""
        if received.weights is not None:
            # Laid out once, so that every client's copy of it is one.
            received = replace(received, weights=FlatWeights.of(received.weights))
        self.received = received
        self.collector = Collector(cohort, self.limit)

    @abstractmethod
    def train(self, client: int) -> Summary:
        """See that the cohort's next client is trained, and :meth:`collect` what it sends."""

    def collect(self, summary: Summary, update: Update | None) -> None:
        """Keep or add up what one client sends."""
        if update is not None:
            self.collector.take(update, self.trainer.aggregator.weight(summary))

    def weighted_mean(self, weights: Mapping[int, float]) -> tuple[Weights | None, int]:
        """The mean of the cohort's updates, and the bytes that the clients sent for it.

        Args:
            weights: Client id -> weight, sum 1.

        Returns:
            None and 0 where the rule's clients send no weights.
        """
        if not self.collector.nbytes:
            return None, 0
        return self.collector.mean(weights), self.collector.nbytes

    def close(self) -> None:  # noqa: B027 - most executors have nothing to end
        """End whatever was started; the executor may be used again afterwards."""

    def state_dict(self) -> dict[str, Any]:
        """What clients keep between rounds, for the checkpoint."""
        return self.trainer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.trainer.load_state_dict(state)
