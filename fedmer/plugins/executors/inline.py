"""Inline, one client after the other."""

import torch

from fedmer.contracts.aggregator import ServerState
from fedmer.contracts.client import ClientSide
from fedmer.contracts.executor import Executor
from fedmer.errors import InputError
from fedmer.messages import Summary


class Inline(Executor):
    """One client after the other, in this process, on one resident network.

    Args:
        threads: CPU threads of torch. One by default, because the products of a small network
            gain nothing from a second, and lose much wherever another program is running; raise
            it for wide networks (hidden 256 and up) on an idle machine.
        spool_gb: See :class:`~fedmer.contracts.executor.Executor`.

    Raises:
        InputError: ``threads`` is below 1, or ``spool_gb`` negative.
    """

    def __init__(self, threads: int = 1, spool_gb: float = 4.0) -> None:
        super().__init__(spool_gb)
        if threads < 1:
            raise InputError(f"executor.threads is {threads}; expected at least 1.")
        self.threads = threads

    def bind(self, trainer: ClientSide, state: ServerState) -> None:
        super().bind(trainer, state)
        torch.set_num_threads(self.threads)

    def train(self, client: int) -> Summary | None:
        return self.fit(client)
