"""Flower, clients on other machines or on a Ray cluster."""

import atexit
import warnings
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import torch

from fedmer.contracts.aggregator import ServerState
from fedmer.contracts.client import ClientSide
from fedmer.contracts.executor import Executor, RemoteFederation
from fedmer.contracts.masked_sum import MaskedSum
from fedmer.data.remote import RemoteClients, Request
from fedmer.errors import InputError
from fedmer.local import LocalTrainer
from fedmer.messages import Broadcast, Summary, Weights
from fedmer.metrics import Scores, scores_of
from fedmer.protection import masked_sum
from fedmer.running_mean import ClientWeight


class Flower(Executor):
    """Clients as nodes of Flower: virtual ones on this machine, or real ones behind TLS.

    Without ``federation`` every client is a virtual node of Flower's simulation engine, on this
    machine's cores or, with ``RAY_ADDRESS`` set, on a Ray cluster. With it clients are the nodes
    that ``fedmer deploy node`` connected to the server of that folder; their data stays with them.
    A round is one message down and one up: weights down, summary and update up. Under ``SecureSum``
    the update stays with its node until the weight is known, and four small messages follow.

    A node that is not there, fails, sends what cannot be used or takes longer than ``timeout`` has
    no part in that round; the run goes on with the others.

    Args:
        federation: The folder that ``fedmer deploy init`` made, on the server.
        timeout: Seconds that a node may take for its part of a round.
        min_nodes: A round that fewer nodes finish ends the run, which can be gone on with from its
            last checkpoint; 0 is half of the cohort, rounded up.
        cpus: CPU cores of a virtual node at work.
        gpus: GPUs of a virtual node at work; may be a fraction.
        spool_gb: See :class:`~fedmer.contracts.executor.Executor`.

    Raises:
        InputError: A number is out of range, or Flower is not installed.
    """

    trainer: LocalTrainer
    carries_masked_sums = True
    sends_whole = True

    def __init__(
        self,
        federation: Path | None = None,
        timeout: float = 600.0,
        min_nodes: int = 0,
        cpus: int = 1,
        gpus: float = 0.0,
        spool_gb: float = 4.0,
    ) -> None:
        super().__init__(spool_gb)
        if not 0 < timeout < float("inf"):
            raise InputError(f"executor.timeout is {timeout}; expected seconds above 0.")
        for name, value, least in (
            ("min_nodes", min_nodes, 0),
            ("cpus", cpus, 1),
            ("gpus", gpus, 0),
        ):
            if not value >= least:
                raise InputError(f"executor.{name} is {value}; expected {least} or more.")
        self.federation = federation
        self.timeout = timeout
        self.min_nodes = min_nodes
        self.cpus = cpus
        self.gpus = gpus
        self.masked: MaskedSum | None = None
        """The sum in which clients' updates cross, or None: each by itself."""
        self.absent: set[int] = set()
        """Clients that had no part in the last round they were asked for."""
        self._run: Any = None
        self._met: RemoteClients | None = None
        self._settings: Mapping[str, Any] = {}
        _need_flower()

    @property
    def remote(self) -> RemoteFederation | None:
        return None if self.federation is None else self

    def configure(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings

    def meet(self, request: Request) -> RemoteClients:
        assert self.federation is not None
        from fedmer.flower.server.deployment import Deployment

        if not self._settings:
            raise InputError(
                "A federation's nodes build their networks by the run's configuration, which only "
                "'fedmer fit' has; start the run with it."
            )
        self._run = Deployment(self.federation, self.timeout)
        atexit.register(self.close)
        met: RemoteClients
        met, failures = self._run.meet(request, self.least(len(self._run.names)))
        for sentence in failures.values():
            warnings.warn(sentence, stacklevel=2)
        self._met = met
        return met

    def least(self, nodes: int) -> int:
        """How many of some nodes have to finish."""
        return min(self.min_nodes or ceil(nodes / 2), nodes)

    def score(self, knowledge: Broadcast) -> dict[int, Scores]:
        if self._met is None:
            return super().score(knowledge)
        counts = self._run.score(knowledge, knowledge.round + 1)
        return {client: scores_of(confusion) for client, confusion in counts.items()}

    def state_dict(self) -> dict[str, Any]:
        if self._met is None:
            return super().state_dict()
        found: dict[str, Any] = self._run.state_dict()
        return found

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        if self._met is not None:
            self._run.load_state_dict(state)

    def bind(self, trainer: ClientSide, state: ServerState) -> None:
        assert isinstance(trainer, LocalTrainer)
        super().bind(trainer, state)
        self.masked = masked_sum(trainer.privacy)
        from fedmer.flower.server.rehearsal import Rehearsal

        self.rehearsal = Rehearsal(trainer)
        if self._met is not None:
            shape = trainer.client.network.shape
            self._run.prepare(self._settings, self._met, shape.speakers)

    def open(self, received: Broadcast, cohort: Sequence[int]) -> None:
        super().open(received, cohort)
        from fedmer.flower.server.round import FlowerRound

        self._round: FlowerRound = FlowerRound(self, self._connection(), cohort)

    def train(self, client: int) -> Summary | None:
        return self._round.train(client)

    def join(self, weights: Mapping[int, ClientWeight]) -> Weights | None:
        try:
            return self._joined(weights)
        finally:
            self._round.close()

    def _joined(self, weights: Mapping[int, ClientWeight]) -> Weights | None:
        self._round.check_enough(weights.keys() - self.failures.keys())
        if self.masked is None or not self._round.sends_updates:
            return super().join(weights)
        # Nodes scale their updates by them, within a range that the mechanism fixes.
        total = sum(weight.whole for weight in weights.values())
        shares = {client: weight.whole / total for client, weight in weights.items()}
        classes = _class_shares(weights, self.trainer.aggregator.sums)
        mean = self._round.masked_mean(shares, classes, self.masked)
        self._round.check_enough(weights.keys() - self.failures.keys())
        return mean

    def close(self) -> None:
        if self._run is not None:
            self._run.close()
            self._run = None
            atexit.unregister(self.close)

    def _connection(self) -> Any:
        if self._run is None:
            from fedmer.flower.simulation import Simulation

            self._run = Simulation(self.trainer, self.cpus, self.gpus)
            atexit.register(self.close)
        return self._run


def _need_flower() -> None:
    from importlib.util import find_spec

    if find_spec("flwr") is None:
        raise InputError(
            "--executor Flower needs Flower, which is not installed; pip install 'fedmer[flower]'."
        )


def _class_shares(
    weights: Mapping[int, ClientWeight], sums: Sequence[str] = ()
) -> dict[int, list[float]]:
    """Client -> ``(K,)`` weights in the rows of classes, divided by their sums; empty if none.

    They are those of each summary of ``sums`` that crosses, and then those of the network.
    """
    given = {}
    for client, weight in weights.items():
        groups = [weight.sums[name] for name in sums if name in weight.sums]
        groups += [] if weight.classes is None else [weight.classes]
        given[client] = torch.cat([group.double().cpu() for group in groups] or [torch.zeros(0)])
    total = torch.stack(list(given.values())).sum(dim=0)
    total = torch.where(total > 0, total, 1.0)
    return {client: (rows / total).tolist() for client, rows in given.items() if len(rows)}
