"""One round over Flower: messages out, answers in, and a masked sum where it is asked for."""

import sys
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from flwr.app import RecordDict

from fedmer.contracts.executor import Traffic
from fedmer.contracts.masked_sum import MaskedSum
from fedmer.errors import InputError
from fedmer.flower.class_rows import put_rows, rows_of, weighed
from fedmer.flower.records import portable
from fedmer.flower.server.mail import Answer, Mail
from fedmer.flower.server.masked_sum import masked_sum
from fedmer.flower.server.rehearsal import Rehearsal
from fedmer.flower.server.relay import Relay
from fedmer.flower.terms import digest_of
from fedmer.flower.wire import (
    FIT,
    MOST_EXAMPLES,
    RefusedError,
    header,
    put_broadcast,
    take_answer,
)
from fedmer.local import LocalTrainer
from fedmer.messages import Broadcast, Summary, Update, Weights
from fedmer.weights import FlatWeights

_NAMED = 5
"""Names in a sentence."""


class Connection(Protocol):
    """A running Flower federation, virtual or real."""

    relay: Relay

    def nodes(self) -> dict[int, int]:
        """Client -> node, of the clients that are connected."""

    def complete(self, client: int, content: RecordDict) -> None:
        """Add to a message what this kind of federation needs."""

    def note(
        self,
        down: Mapping[int, int],
        up: Mapping[int, int],
        round: int = 0,
        finished: Collection[int] = (),
    ) -> None:
        """Write down for the operator what messages weighed, and who had a part in a round."""

    def keep(self, client: int, answer: RecordDict) -> None:
        """Take out of an answer what this kind of federation adds."""

    def close(self) -> None:
        """Hang up."""


class FlowerExecutor(Protocol):
    """What a round asks of the executor whose round it is; see
    :class:`~fedmer.plugins.executors.flower.Flower`."""

    trainer: LocalTrainer
    rehearsal: Rehearsal
    received: Broadcast
    traffic: Traffic
    failures: dict[int, str]
    absent: set[int]
    timeout: float
    masked: MaskedSum | None

    def least(self, nodes: int) -> int:
        """How many of some nodes have to finish."""

    def take(self, summary: Summary, update: Update) -> None:
        """Keep an update, or add it up."""

    def leave_out(self, client: int, why: str) -> None:
        """End a client's part in this round without a result."""


def say(sentence: str) -> None:
    """Tell whoever waits what for, beside the progress bar."""
    print(sentence, file=sys.stderr, flush=True)


def wait_for(
    connection: Connection, clients: Mapping[int, str], least: int, seconds: float
) -> dict[int, int]:
    """Client -> node, of all that are connected.

    Where fewer than ``least`` of ``clients`` are, it waits for them: nodes come back by themselves
    when a network or a server does.

    Args:
        connection: The way to the nodes.
        clients: Those to wait for, with their names.
        least: How many of them have to be there.
        seconds: How long to wait at most.
    """
    deadline = time.monotonic() + seconds
    announced = False
    while True:
        nodes = connection.nodes()
        here = len(nodes.keys() & set(clients))
        if here >= least or time.monotonic() > deadline:
            return nodes
        if not announced:
            missing = [name for client, name in clients.items() if client not in nodes]
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            say(
                f"waiting up to {seconds:.0f} s for {', '.join(missing[:_NAMED])}{more}; "
                f"{here} of at least {least} nodes are connected"
            )
            announced = True
        time.sleep(1.0)


class FlowerRound:
    """A cohort at work.

    Args:
        executor: Whose round it is; what comes in is collected there.
        connection: The way to the nodes.
        cohort: Clients.
    """

    def __init__(
        self, executor: FlowerExecutor, connection: Connection, cohort: Sequence[int]
    ) -> None:
        self.executor = executor
        self.connection = connection
        self.cohort = cohort
        self.summaries: dict[int, Summary] = {}
        self._least = executor.least(len(cohort))
        names = {client: executor.trainer.data[client].name for client in cohort}
        self._nodes = wait_for(connection, names, self._least, executor.timeout)
        self._expected, self._update = executor.rehearsal.layouts(executor.received)
        for client in cohort:
            if client not in self._nodes:
                self._fail(client, "is not connected")
        # Serialised once, and the same bytes in every message.
        self._broadcast = RecordDict()
        put_broadcast(self._broadcast, executor.received)
        self._broadcast = portable(self._broadcast)
        messages = {c: (self._nodes[c], self._content(c)) for c in cohort if c in self._nodes}
        self._asked = b""
        """The digest of what all were asked to learn, for a masked sum."""
        if executor.masked is not None and messages:
            self._asked = digest_of(next(iter(messages.values()))[1])
        group = str(executor.received.round + 1)
        self._mail = Mail(connection.relay, messages, FIT, group, executor.timeout)
        self._down, self._up = self._mail.down, self._mail.up
        """Client -> bytes of this round, to it and from it."""
        self._tally()

    def train(self, client: int) -> Summary | None:
        """Wait for a client's summary; None if it has failed."""
        while client not in self.summaries and client not in self.executor.failures:
            for sender, answer in self._mail.receive().items():
                self._tally()
                self._take(sender, answer)
        return self.summaries.get(client)

    def close(self) -> None:
        """Write down for the operator what the round has cost, and who had a part in it."""
        finished = self.summaries.keys() - self.executor.failures.keys()
        self.connection.note(self._down, self._up, self.executor.received.round + 1, finished)

    @property
    def sends_updates(self) -> bool:
        """Does the rule ask for any this round?"""
        return self._update is not None

    def check_enough(self, clients: Collection[int]) -> None:
        """See that enough clients have a part in the result.

        Raises:
            InputError: They are too few.
        """
        if len(clients) < self._least:
            why = "; ".join(self.executor.failures.values())
            raise InputError(
                f"Round {self.executor.received.round + 1}: {len(clients)} of {len(self.cohort)} "
                f"nodes finished, and executor.min_nodes asks for {self._least} ({why}). "
                "Earlier rounds are kept; go on from the last checkpoint when the nodes are back."
            )

    def masked_mean(
        self,
        weights: Mapping[int, float],
        classes: Mapping[int, Sequence[float]],
        masked: MaskedSum,
    ) -> Weights:
        """The weighted mean of the updates that nodes have kept, seen as a whole only.

        Args:
            weights: Client -> weight, sum 1.
            classes: Client -> ``(K,)`` weights in the rows of each class, sum 1 or 0: those of each
                summary that crosses, and those of the network where the rule has such. A class
                without a weight keeps its rows, and has rows of 0 in a summary.
            masked: The sum that was asked for.

        Raises:
            InputError: Too few nodes stayed to the end.
        """
        executor = self.executor
        assert self._update is not None
        parts = [(name, shape) for name, shape, _ in self._update.parts]
        axes = executor.trainer.client.network.class_parameters
        rows, _ = rows_of(parts, axes, executor.trainer.aggregator.sums)
        rows = weighed(rows, len(next(iter(classes.values()), ())))
        nodes = {self._nodes[client]: weight for client, weight in weights.items()}
        found = self.connection.relay.call(
            masked_sum,
            nodes,
            executor.received.round,
            masked,
            executor.timeout,
            self._asked,
            {self._nodes[client]: rows for client, rows in classes.items()},
            rows,
        )
        clients = {node: client for client, node in self._nodes.items()}
        self._down.update({clients[node]: count for node, count in found.down.items()})
        self._up.update({clients[node]: count for node, count in found.up.items()})
        self._tally()
        for client in weights:
            if self._nodes[client] not in found.nodes:
                why = found.failures.get(self._nodes[client], "was lost in the masked sum")
                self._fail(client, why)
        if found.total is None:
            why = "; ".join(executor.failures.values())
            raise InputError(
                f"Round {executor.received.round + 1}: fewer than privacy.threshold "
                f"{masked.threshold:g} of the {len(weights)} nodes stayed to the end of the "
                f"masked sum, so that it cannot be unmasked ({why}). Earlier rounds are kept; "
                "go on from the last checkpoint when the nodes are back."
            )
        kept = sum(weight for c, weight in weights.items() if self._nodes[c] in found.nodes)
        change = found.total / kept
        if found.classes:
            totals = np.sum([found.classes[node] for node in found.nodes], axis=0)
            factors = np.divide(1.0, totals, out=np.zeros_like(totals), where=totals > 0)
            put_rows(change, found.total, factors.tolist(), rows)
        return self._restore(torch.from_numpy(change))

    def _restore(self, change: torch.Tensor) -> Weights:
        """Weights out of the mean change; from what a rule attached nothing was subtracted."""
        received = self.executor.received.weights or {}
        assert self._update is not None
        device = self.executor.trainer.fabric.device
        parts = self._update.parts
        mean = FlatWeights.of(
            {name: torch.empty(shape, dtype=kind, device=device) for name, shape, kind in parts}
        )
        pieces = torch.split(change.to(device), [value.numel() for value in mean.values()])
        for (name, value), piece in zip(mean.items(), pieces, strict=True):
            start = received[name].double() if name in received else 0.0
            value.copy_(start + piece.view(value.shape))
        return mean

    def _tally(self) -> None:
        traffic = self.executor.traffic
        traffic.down, traffic.up = self._down.total(), self._up.total()

    def _content(self, client: int) -> RecordDict:
        content = RecordDict(dict(self._broadcast))
        keep = self.executor.masked is not None
        content["round"] = header(self.executor.received.round, client, keep)
        self.connection.complete(client, content)
        return content

    def _take(self, client: int, answer: Answer) -> None:
        executor = self.executor
        if answer.content is None:
            self._fail(client, answer.failure)
            return
        try:
            self.connection.keep(client, answer.content)
            device = executor.trainer.fabric.device
            most, steps = self._most(client)
            summary, update = take_answer(
                answer.content, client, self._expected, self._update, device, most, steps
            )
            if (update is None) != (executor.masked is not None or self._update is None):
                raise RefusedError("its update is missing, or was not asked for")
        except RefusedError as error:
            self._fail(client, f"was refused: {error}")
            return
        self.summaries[client] = summary
        if client in executor.absent:
            executor.absent.remove(client)
            say(f"round {executor.received.round + 1}: {self._name(client)} is back")
        if update is not None:
            executor.take(summary, update)

    def _most(self, client: int) -> tuple[int, int]:
        """How many utterances a client can have learnt from, and in how many steps.

        One that came too late to describe its data gets no more weight than all others together.
        """
        trainer = self.executor.trainer
        data = trainer.data[client]
        if any(mechanism.withholds_numbers for mechanism in trainer.privacy):
            return MOST_EXAMPLES, MOST_EXAMPLES
        turns = data.examples or max(1, sum(other.examples for other in trainer.data.values()))
        if not trainer.aggregator.trains(self.executor.received):
            return turns, 0
        # Every dialogue has a labelled utterance, unless a split gave it to another client.
        return turns, trainer.training.epochs * max(turns, len(data.train))

    def _fail(self, client: int, why: str) -> None:
        self.executor.leave_out(client, why)
        self.executor.absent.add(client)

    def _name(self, client: int) -> str:
        return self.executor.trainer.data[client].name
