"""The contract of an executor: where the clients of a cohort are trained."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from fedmer.collector import Collector
from fedmer.contracts.aggregator import Aggregator, ServerState
from fedmer.contracts.client import ClientSide
from fedmer.contracts.network import Network
from fedmer.contracts.part import PartType
from fedmer.data.remote import RemoteClients, Request
from fedmer.errors import InputError, NotFiniteError
from fedmer.messages import Broadcast, Summary, Update, Weights
from fedmer.metrics import Scores
from fedmer.running_mean import ClientWeight
from fedmer.weights import FlatWeights


@dataclass
class Traffic:
    """Bytes of a round, of all clients together.

    Args:
        down: From the server.
        up: To it.
    """

    down: int = 0
    up: int = 0


class RemoteFederation(Protocol):
    """What an executor can do besides, whose clients have their data on machines of their own."""

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Receive the run's configuration, by which clients build their side of it."""

    def meet(self, request: Request) -> RemoteClients:
        """Ask the clients to describe their data, once, before the first round.

        Raises:
            InputError: Too few answer, or what they hold does not go together.
        """


class Executor(metaclass=PartType):
    """Trains the clients of a cohort and adds up what they send.

    A round calls :meth:`open`, then :meth:`train` for every client in the cohort's order, then
    :meth:`join` once. An executor may train others of the cohort meanwhile: updates are
    added in the cohort's order, whatever order they come in. Between two calls ``traffic`` and
    ``failures`` say what the round has cost so far, and who has no part in it.

    Args:
        spool_gb: Gigabytes (1e9 bytes) of the cohort's updates to hold in memory where the rule
            cannot add them up as they come, and as much again of what clients keep between rounds.
            The rest goes into files of a temporary folder.

    Raises:
        InputError: ``spool_gb`` is negative.
    """

    carries_masked_sums: bool = False
    """Can it add up what clients send without anybody seeing a part of it? Then :meth:`bind` finds
    the sum that a mechanism asks for in the client side's ``privacy``."""

    sends_whole: bool = False
    """Does it send all numbers of an update, though a mechanism has compressed them? Then such a
    mechanism is refused."""

    def __init__(self, spool_gb: float = 4.0) -> None:
        if not spool_gb >= 0:
            raise InputError(f"executor.spool_gb is {spool_gb}; expected 0 or more.")
        self.limit = spool_gb * 1e9

    @property
    def remote(self) -> "RemoteFederation | None":
        """The way to clients on machines of their own; None where the server has all data."""
        return None

    def bind(self, trainer: ClientSide, state: ServerState) -> None:
        """Receive the client side and the server's state, once, before the first round."""
        self.trainer = trainer
        self.state = state
        trainer.memory.limit = self.limit

    def open(self, received: Broadcast, cohort: Sequence[int]) -> None:
        """Begin a round of some clients, in the order in which they will be trained."""
        if received.weights is not None:
            # Laid out once, so that every client's copy of it is one.
            received = replace(received, weights=FlatWeights.of(received.weights))
        self.received = received
        self.collector = Collector(cohort, self.limit, self._class_axes())
        self.traffic = Traffic()
        self.failures: dict[int, str] = {}
        """Client id -> why it has no part in this round."""

    @abstractmethod
    def train(self, client: int) -> Summary | None:
        """See that the cohort's next client is trained, and :meth:`collect` what it sends.

        A client whose training ends with :class:`~fedmer.errors.NotFiniteError` is left out.

        Returns:
            Its summary; None if it stands in ``failures`` now.
        """

    def fit(self, client: int) -> Summary | None:
        """Let one client do its part of the round here and now, as :meth:`train` wants it done."""
        try:
            summary, update = self.trainer.fit(client, self.received)
        except NotFiniteError as error:
            self.leave_out(client, f"was left out: {error}")
            return None
        self.collect(summary, update)
        return summary

    def leave_out(self, client: int, why: str) -> None:
        """End a client's part in this round without a result; what it kept before stays.

        Args:
            client: Its id.
            why: What follows its name in a sentence.
        """
        self.collector.leave_out(client)
        self.failures[client] = f"{self.trainer.data[client].name} {why}"

    def collect(self, summary: Summary, update: Update | None) -> None:
        """Keep or add up what one client sends."""
        self.traffic.down += self.received.nbytes
        self.traffic.up += summary.nbytes
        if update is not None:
            self.traffic.up += update.nbytes
            self.take(summary, update)

    def take(self, summary: Summary, update: Update) -> None:
        """Keep an update, or add it up where its weight is known by now."""
        rule, weight = self.trainer.aggregator, None
        if rule.streams and not rule.sees_updates:
            masked = any(name in update.weights for name in rule.sums)
            weight = client_weights(rule, [summary], self.state, masked)[summary.client]
        self.collector.take(update, weight)

    def join(self, weights: Mapping[int, ClientWeight]) -> Weights | None:
        """The cohort's updates, joined; None where the rule's clients send no weights.

        Args:
            weights: Client id -> weight.
        """
        rule = self.trainer.aggregator
        if self.collector.empty:
            return None
        if rule.sees_updates:
            whole = {client: weight.whole for client, weight in weights.items()}
            return rule.combine(self.collector.updates(), whole, self.state)
        return self.collector.mean(weights, self.received.weights)

    def _class_axes(self) -> dict[str, int]:
        network = self.state.network
        return network.class_parameters if isinstance(network, Network) else {}

    def score(self, knowledge: Broadcast) -> dict[int, Scores]:
        """Score each client's own holdout, by its personal network or the global one.

        Args:
            knowledge: What a client would receive now.
        """
        trainer = self.trainer
        shared = not trainer.personal
        if shared:
            trainer.load(0, knowledge)
        found = {}
        for client, data in trainer.data.items():
            if data.holdout:
                if not shared:
                    trainer.load(client, knowledge)
                scores = trainer.evaluate(data.holdout, knowledge)
                if scores is not None:
                    found[client] = scores
        return found

    def close(self) -> None:
        """End whatever was started; the executor may be used again afterwards."""

    def state_dict(self) -> dict[str, Any]:
        """What clients keep between rounds, for the checkpoint."""
        return self.trainer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if "memory" in state:  # else it is with clients elsewhere
            self.trainer.load_state_dict(state)


def client_weights(
    rule: Aggregator, summaries: Sequence[Summary], state: ServerState, masked: bool
) -> dict[int, ClientWeight]:
    """Client id -> its weight by a rule.

    Args:
        rule: The rule.
        summaries: Of the clients.
        state: The server's.
        masked: Do parts of summaries cross in a masked sum?
    """
    classes = rule.weigh_classes(summaries, state) or {}
    sums = rule.weigh_sums(summaries, state) if masked and rule.sums else {}
    return {
        client: ClientWeight(whole, classes.get(client), sums.get(client, {}))
        for client, whole in rule.weigh(summaries, state).items()
    }
