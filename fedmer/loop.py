"""One round of a federation, readable top to bottom."""

import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fedmer.contracts.aggregator import Aggregator, ServerState
from fedmer.contracts.executor import Executor, client_weights
from fedmer.contracts.privacy import Guarantee, Plan
from fedmer.contracts.selector import Selector
from fedmer.data.standardise import Standardise
from fedmer.errors import InputError
from fedmer.local import LocalTrainer
from fedmer.masked_round import out_of_sum, withhold
from fedmer.messages import Broadcast, Summary, Weights
from fedmer.metrics import Scores
from fedmer.network_average import NetworkAverage, ServerOptions
from fedmer.protection import ServerProtection, check, masked_sum
from fedmer.running_mean import ClientWeight
from fedmer.weights import not_finite, tensors_in

_SHOWN = 3
"""How many failures a sentence names."""


@dataclass(frozen=True)
class RoundReport:
    """What happened in a round.

    Args:
        round: From 0.
        summaries: The cohort's, by client id.
        weights: Client id -> weight in the mean, sum 1.
        lr: The clients' learning rate.
        class_weights: Client id -> ``(C,)`` weights in the rows of each class, sum 1 or 0; empty
            where the rule has none.
        bytes_down: Sent by the server, to all clients together.
        bytes_up: Sent by all clients together.
        seconds: Wall-clock time from the broadcast to the server's step.
        failures: Id of each client of the cohort that has no part in the result -> why.
        withheld: Do clients not say with what loss they learnt?
        spent: What all rounds so far have told of any client, where a mechanism says it.
    """

    round: int
    summaries: Sequence[Summary]
    weights: Mapping[int, float]
    lr: float
    class_weights: Mapping[int, Tensor]
    bytes_down: int
    bytes_up: int
    seconds: float
    failures: Mapping[int, str] = field(default_factory=dict)
    withheld: bool = False
    spent: Guarantee | None = None

    @property
    def train_loss(self) -> float:
        """Mean loss of the cohort, weighted by examples; NaN if nobody says one."""
        if self.withheld or not self.summaries:
            return math.nan
        examples = sum(summary.examples for summary in self.summaries)
        total = sum(s.train_loss * s.examples for s in self.summaries)
        return total / examples

    def row(self, scores: Mapping[str, Scores]) -> dict[str, float]:
        """The round in numbers, as loggers and ``metrics.csv`` have it.

        ``round`` (from 1), ``clients`` that were averaged, their learning rate ``lr`` and mean
        ``train_loss``, ``bytes_down`` and ``bytes_up`` of that round, its ``seconds``, and the
        total scores of the parts that were evaluated (``val_weighted_f1``). No ``train_loss`` where
        clients say none, and an ``epsilon`` where a mechanism promises one.

        Args:
            scores: ``val`` and ``test``, as far as they were evaluated after the round.
        """
        row: dict[str, float] = {
            "round": self.round + 1,
            "clients": len(self.summaries),
            "lr": self.lr,
            "bytes_down": self.bytes_down,
            "bytes_up": self.bytes_up,
            "seconds": round(self.seconds, 4),
        }
        if not math.isnan(self.train_loss):
            row["train_loss"] = self.train_loss
        if self.spent is not None:
            row["epsilon"] = self.spent.epsilon
        for part, found in scores.items():
            row |= {f"{part}_{name}": value for name, value in found.totals.items()}
        return row


@dataclass(frozen=True)
class Place:
    """A batch of the Trainer's: one place in the cohort of a round, and who has it.

    Args:
        number: From 0, in the order in which clients begin.
        round: From 0.
        client: Its id; None beyond the cohort, which may be smaller than the largest one.
        name: What the client is called, ``""`` where there is none.
    """

    number: int
    round: int
    client: int | None
    name: str


class FederatedLoop:
    """Selects, broadcasts, trains, weighs, adds up, steps.

    No Trainer is needed: :meth:`run_round` is a whole round. Under Lightning,
    :class:`~fedmer.federated.FederatedModule` calls the same three parts, :meth:`begin`,
    :meth:`train` and :meth:`finish`, at the start, in the middle and at the end of an epoch.

    Args:
        network: The global network, changed in place.
        aggregator: The rule.
        selector: Who takes part.
        executor: Where clients run.
        trainer: The client side.
        seed: Where the selector's choice comes from.
        rounds: How many there will be, or None if that is open.
        server: What the server does beside its rule.
        besides: What of clients' data crosses outside of rounds -> the option that ends it.
        standardise: How clients' features are standardised.

    Raises:
        InputError: The rule cannot work with the network, the server's learning rate is no number
            in single precision, a mechanism does not go with the rule or the executor, or there is
            no global network to average.
    """

    def __init__(
        self,
        network: nn.Module,
        aggregator: Aggregator,
        selector: Selector,
        executor: Executor,
        trainer: LocalTrainer,
        seed: int,
        rounds: int | None = None,
        server: ServerOptions | None = None,
        besides: Mapping[str, str] | None = None,
        standardise: Standardise = "none",
    ) -> None:
        aggregator.check(network)
        self.sizes = [client.examples for client in trainer.data.values()]
        self.state = ServerState(network, rounds=rounds, sizes=self.sizes)
        self.aggregator = aggregator
        self.selector = selector
        self.executor = executor
        self.trainer = trainer
        self.seed = seed
        self.optimizer: Optimizer = aggregator.server_optimizer(network.parameters())
        for group in self.optimizer.param_groups:
            if not group["lr"] <= torch.finfo(torch.float32).max:
                raise InputError(f"aggregator.lr is {group['lr']}; expected less than 3.4e38.")
        sent = trainer.sent(trainer.weights)
        clients = len(self.sizes)
        drawn = selector.sampling(clients) if clients else None
        plan = Plan(aggregator, clients, bool(sent), drawn, rounds, besides or {}, standardise)
        check(trainer.privacy, plan, executor, sent)
        # What a released model's noise was drawn from must not be known to those who get it.
        secret = secrets.randbits(63) if executor.remote is not None else seed
        self.protection = ServerProtection(trainer.privacy, secret, plan)
        self._masked = masked_sum(trainer.privacy)
        self._average = NetworkAverage(network, (server or ServerOptions()).average)
        if self._average.rounds > 1 and trainer.personal:
            raise InputError(
                f"server.average is {self._average.rounds:g}, but clients of "
                f"{type(aggregator).__name__} keep personal weights, so that there is no global "
                "network to average; leave --server.average out."
            )
        executor.bind(trainer, self.state)

    def run_round(self, round: int) -> RoundReport:
        """One round, from the selection to the server's step."""
        cohort = self.begin(round)
        for client in cohort:
            self.train(client)
        return self.finish()

    def begin(self, round: int) -> list[int]:
        """Choose the cohort and broadcast to it; returns its ids, the largest client first.

        So a worker that begins last has little left to do, and clients of a size stand together.
        """
        if not self.sizes:
            raise InputError("There are no clients; a federation needs at least one.")
        self._started = time.perf_counter()
        self.state.round = round
        # Nor may the draw of cohorts, where a promise counts on it.
        seed = self.seed if self.protection.spent is None else self.protection.seed
        chosen = self.selector.select(round, self.sizes, seed)
        self._cohort = sorted(chosen, key=lambda client: (-self.sizes[client], client))
        sent = self.aggregator.broadcast(self.state)
        self._received = self.protection.announce(sent, self._cohort)
        self._summaries: list[Summary] = []
        if self._cohort:
            self.executor.open(self._received, self._cohort)
        return self._cohort

    def train(self, client: int) -> Summary | None:
        """Let the cohort's next client train; returns its summary, or None if it failed."""
        summary = self.executor.train(client)
        if summary is not None:
            self._summaries.append(summary)
        return summary

    def finish(self, server_step: Callable[[], Any] | None = None) -> RoundReport:
        """Weigh, add up and step.

        Args:
            server_step: Steps the server optimizer; by default ``self.optimizer.step``. Lightning
                passes its own wrapper, which counts the step.

        Raises:
            InputError: No client has a part in the result, or the result is not finite. What was
                saved after earlier rounds is then the last of this run.
        """
        if not self._cohort:
            return self._finish_without(server_step)
        summaries = sorted(self._summaries, key=lambda summary: summary.client)
        weighed = self._weigh(summaries)
        mean = self.executor.join(weighed)
        failures = self.executor.failures
        if failures.keys() & weighed.keys():
            # Lost after they were weighed, so that the others weigh more.
            summaries = [summary for summary in summaries if summary.client not in failures]
        if not summaries:
            raise InputError(self._nobody(failures))
        total = sum(weighed[summary.client].whole for summary in summaries)
        weights = {s.client: weighed[s.client].whole / total for s in summaries}
        classes = _shares({client: weighed[client].classes for client in weights})
        sums: Weights = {}
        if self._masked is not None:
            mean, sums = out_of_sum(self.aggregator, self._masked, mean)
        mean = self.protection.on_server(mean, self._received, summaries, weights, classes)
        self._step(summaries, weights, {**(mean or {}), **sums} if sums else mean, server_step)
        if not self.aggregator.trains(self._received):
            # A head in closed form is far from those before; a mean with them is neither.
            self._average.restart()
        self._average.add(self.state.network)
        return RoundReport(
            round=self.state.round,
            summaries=summaries,
            weights=weights,
            lr=self.trainer.schedule.rate(self.state.round),
            class_weights=classes,
            bytes_down=self.executor.traffic.down,
            bytes_up=self.executor.traffic.up,
            seconds=time.perf_counter() - self._started,
            failures=dict(failures),
            withheld=self.protection.withholds_numbers,
            spent=self.protection.spent,
        )

    @property
    def finished(self) -> bool:
        """Is there nothing left to learn, or no round left that keeps a mechanism's promise?"""
        return self.aggregator.finished(self.state) or self.protection.finished

    def _finish_without(self, server_step: Callable[[], Any] | None) -> RoundReport:
        """A round that nobody was asked to take part in: noise alone, or nothing."""
        before = self._received.weights
        mean = self.protection.on_server(before, self._received, [], {}, {})
        if mean is before:
            self.optimizer.zero_grad()
            (server_step or self.optimizer.step)()
        else:
            self._step([], {}, mean, server_step)
        self._average.add(self.state.network)
        seconds = time.perf_counter() - self._started
        round, spent = self.state.round, self.protection.spent
        rate = self.trainer.schedule.rate(round)
        return RoundReport(round, [], {}, rate, {}, 0, 0, seconds, spent=spent)

    def _step(
        self,
        summaries: Sequence[Summary],
        weights: Mapping[int, float],
        mean: Weights | None,
        server_step: Callable[[], Any] | None,
    ) -> None:
        self._check_finite("the mean of the clients' weights", mean or {})
        self.optimizer.zero_grad()
        self.aggregator.step(self.state, summaries, weights, mean)
        (server_step or self.optimizer.step)()
        self._check_finite("the server's result", self._kept())

    def _weigh(self, summaries: Sequence[Summary]) -> dict[int, ClientWeight]:
        """By client id, up to common factors."""
        if not summaries:
            return {}
        masked = self._masked
        weights = client_weights(self.aggregator, summaries, self.state, masked is not None)
        return weights if masked is None else withhold(masked, weights)

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and predicts: the global one, or the mean of the last."""
        return self._average.network

    def knowledge(self) -> Broadcast:
        """What a client would receive now, with the weights that are evaluated."""
        known = self.aggregator.broadcast(self.state)
        if known.weights is None or self.evaluated is self.state.network:
            return known
        return replace(known, weights=dict(self.evaluated.state_dict()))

    def _kept(self) -> dict[str, Tensor]:
        """All that the server takes from a round into the next."""
        steps = tensors_in(list(self.optimizer.state.values()), "optimizer")
        kept = tensors_in(self.protection.tensors, "privacy")
        return {**self.state.network.state_dict(), **self.state.tensors, **steps, **kept}

    def _check_finite(self, what: str, named: Mapping[str, Tensor]) -> None:
        name = not_finite(named)
        if name:
            raise InputError(
                f"Round {self.state.round + 1}: {what} holds NaN or infinity, first in '{name}', "
                "though what every client sent is finite; lower the learning rate of the clients, "
                "or that of the server where the rule has one."
            )

    def _nobody(self, failures: Mapping[int, str]) -> str:
        shown = "; ".join(list(failures.values())[:_SHOWN])
        more = f"; and {len(failures) - _SHOWN} more" if len(failures) > _SHOWN else ""
        return (
            f"Round {self.state.round + 1}: no client has a part in the result ({shown}{more}). "
            "If numbers are not finite, lower the learning rate, or look at the features with "
            "'fedmer data describe'."
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything but the global network and the server optimizer, which Lightning saves."""
        spent = self.protection.spent
        return {
            "round": self.state.round,
            "tensors": self.state.tensors,
            "executor": self.executor.state_dict(),
            **self.protection.state_dict(),
            **({} if spent is None else {"spent": spent.as_dict()}),
            **self._average.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what :meth:`state_dict` gave.

        Raises:
            InputError: It has the mean of other networks than this run wants.
        """
        self._average.load_state_dict(state)
        self.state.tensors = dict(state["tensors"])
        self.state.round = state.get("round", 0)
        self.executor.load_state_dict(state["executor"])
        self.protection.load_state_dict(state)


def _shares(classes: Mapping[int, Tensor | None]) -> dict[int, Tensor]:
    """Weights of classes divided by their sums over the clients; none where the rule has none."""
    given = {client: rows for client, rows in classes.items() if rows is not None}
    total = torch.stack(list(given.values())).sum(dim=0) if given else torch.zeros(0)
    return {client: rows / torch.where(total > 0, total, 1.0) for client, rows in given.items()}
