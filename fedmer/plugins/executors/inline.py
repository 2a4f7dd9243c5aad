"""Inline, one client after the other."""

from collections.abc import Mapping, Sequence

import torch

from fedmer.errors import InputError
from fedmer.local import LocalTrainer
from fedmer.messages import Broadcast, Summary, Weights
from fedmer.plugins.executors.base import Collector, Executor


class Inline(Executor):
    """One client after the other, in this process, on one resident network.

    Args:
        threads: CPU threads of torch. One by default, because the products of a small network
            gain nothing from a second, and lose much wherever another program is running; raise
            it for wide networks (hidden 256 and up) on an idle machine.

    Raises:
        InputError: ``threads`` is below 1.
    """

    def __init__(self, threads: int = 1) -> None:
        if threads < 1:
            raise InputError(f"executor.threads is {threads}; expected at least 1.")
        self.threads = threads

    def bind(self, trainer: LocalTrainer) -> None:
        super().bind(trainer)
        torch.set_num_threads(self.threads)

    def open(self, received: Broadcast) -> None:
        self._received = received
        self._collector = Collector()

    def train(self, clients: Sequence[int]) -> list[Summary]:
        summaries = []
        for client in clients:
            summary, update = self.trainer.fit(client, self._received)
            if update is not None:
                self._collector.take(update, self.trainer.aggregator.weight(summary))
            summaries.append(summary)
        return summaries

    def weighted_mean(self, weights: Mapping[int, float]) -> tuple[Weights | None, int]:
        if not self._collector.nbytes:
            return None, 0
        return self._collector.mean(weights), self._collector.nbytes
