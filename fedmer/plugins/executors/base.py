"""The contract of an executor, and the weighted mean that it owes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fedmer.local import LocalTrainer
from fedmer.messages import Broadcast, Summary, Update, Weights


class Executor(ABC):
    """Trains the clients of a cohort and adds up what they send.

    A round calls :meth:`open`, then :meth:`train` with at most :attr:`concurrency` clients at a
    time until the cohort is through, then :meth:`weighted_mean` once. The result never depends on
    which executor does it.
    """

    concurrency: int = 1
    """How many clients to hand over at once."""

    def bind(self, trainer: LocalTrainer) -> None:
        """Receive the client side, once, before the first round."""
        self.trainer = trainer

    @abstractmethod
    def open(self, received: Broadcast) -> None:
        """Begin a round."""

    @abstractmethod
    def train(self, clients: Sequence[int]) -> list[Summary]:
        """Train some clients of the cohort, in ascending order of their ids."""

    @abstractmethod
    def weighted_mean(self, weights: Mapping[int, float]) -> tuple[Weights | None, int]:
        """The mean of the cohort's updates, and the bytes that the clients sent for it.

        Args:
            weights: Client id -> weight, sum 1.

        Returns:
            None and 0 where the rule's clients send no weights.
        """

    def state_dict(self) -> dict[str, Any]:
        """What clients keep between rounds, for the checkpoint."""
        return self.trainer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.trainer.load_state_dict(state)


class RunningMean:
    """A weighted mean that holds one sum, however many updates are added.

    Sums are in float64, so that the mean of equal weights is those weights bit for bit. Integer
    and boolean buffers, such as counts of batches seen, take the maximum.

    >>> mean = RunningMean()
    >>> mean.add({"w": torch.tensor([1.0])}, 1.0)
    >>> mean.add({"w": torch.tensor([4.0])}, 2.0)
    >>> mean.result()
    {'w': tensor([3.])}
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._types: dict[str, torch.dtype] = {}
        self._total = 0.0

    def add(self, weights: Weights, weight: float) -> None:
        """Add one client's weights with its weight >= 0."""
        for name, tensor in weights.items():
            if not tensor.is_floating_point():
                value = tensor.clone()
                self._sums[name] = (
                    torch.maximum(self._sums[name], value) if name in self._sums else value
                )
            elif name in self._sums:
                self._sums[name].add_(tensor.double(), alpha=weight)
            else:
                self._sums[name] = tensor.double() * weight
            self._types[name] = tensor.dtype
        self._total += weight

    def result(self) -> Weights:
        """The mean, in the dtypes that came in.

        Raises:
            ValueError: The weights added up to nothing.
        """
        if not self._total > 0:
            raise ValueError("A weighted mean needs weights with a positive sum.")
        return {
            name: (value / self._total).to(self._types[name])
            if self._types[name].is_floating_point
            else value
            for name, value in self._sums.items()
        }


class Collector:
    """Takes the cohort's updates and gives their weighted mean.

    Where the rule fixes a client's weight from its own summary, updates run into one sum and are
    let go; otherwise they wait here until all weights are known.
    """

    def __init__(self) -> None:
        self._running = RunningMean()
        self._waiting: dict[int, Update] = {}
        self.nbytes = 0

    def take(self, update: Update, weight: float | None) -> None:
        """Take one client's update.

        Args:
            update: What it sent.
            weight: Its weight up to a common factor, or None if that is not known yet.
        """
        self.nbytes += update.nbytes
        if weight is None:
            self._waiting[update.client] = update
        else:
            self._running.add(update.weights, weight)

    def mean(self, weights: Mapping[int, float]) -> Weights:
        """The mean; for updates that waited by these weights, in the order of client ids."""
        for client in sorted(self._waiting):
            self._running.add(self._waiting[client].weights, weights[client])
        return self._running.result()
