"""Rounds in closed form, before those of another rule or after them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from fedmer.contracts.aggregator import Aggregator, Clear, ClientRound, ServerState
from fedmer.contracts.network import NetworkOutput
from fedmer.data.batch import Batch
from fedmer.errors import InputError
from fedmer.messages import Broadcast, Summary, Weights
from fedmer.plugins.aggregators.analytic import Analytic

MARK = "closed form"
"""The tensor that says that a round, or a network, is one in closed form."""


class ClosedForm(Aggregator):
    """A rule whose first or last round is one of :class:`Analytic`.

    In such a round nobody trains: the global network's head becomes the one that discriminant
    analysis gives on its embeddings, and until the next round it predicts by that head. All other
    rounds are those of the rule.

    Args:
        rule: The rule.
        start: Whether the first round is in closed form.
        finish: Whether the last round is.

    Raises:
        InputError: The rule has to see every update, so that a sum over clients is none of its
            results.
    """

    def __init__(self, rule: Aggregator, start: bool = False, finish: bool = False) -> None:
        self.rule = rule
        self.analytic = Analytic()
        self.start = start
        self.finish = finish
        if rule.sees_updates and (start or finish):
            raise InputError(
                f"A round in closed form adds up what clients send, and {rule.name} has to see "
                "each; leave out --start and --finish, or use a rule that averages."
            )
        self.streams = rule.streams
        self.sees_updates = rule.sees_updates
        # As they are, so that executors can tell which of them the rule leaves alone.
        self.on_batch = rule.on_batch  # type: ignore[method-assign]
        self.client_loss = rule.client_loss  # type: ignore[method-assign]
        self.on_before_optimizer_step = rule.on_before_optimizer_step  # type: ignore[method-assign]
        self.personal_names = rule.personal_names  # type: ignore[method-assign]
        self.stages = rule.stages  # type: ignore[method-assign]
        self.server_optimizer = rule.server_optimizer  # type: ignore[method-assign]
        self.combine = rule.combine  # type: ignore[method-assign]

    def check(self, network: nn.Module) -> None:
        self.rule.check(network)
        if self.start or self.finish:
            self.analytic.check(network)

    def check_run(self, personal: Sequence[str], rounds: int | None) -> None:
        """Refuse runs that have no such round, before anything is trained.

        Args:
            personal: Names of the weights that do not travel.
            rounds: How many there will be, or None if that is open.

        Raises:
            InputError: There is no global network, or nobody knows which round is the last.
        """
        if personal:
            raise InputError(
                f"{self.name} keeps a personal network on every client and no global one; --start "
                "and --finish analytic need a rule that exchanges all of it."
            )
        if self.finish and rounds is None:
            raise InputError(
                "--finish analytic is the last round, and --trainer.max_epochs leaves open which "
                "that is; give a number."
            )

    @property
    def name(self) -> str:
        return self.rule.name

    @property
    def reads(self) -> tuple[Clear, ...]:
        both = self.rule.reads + (self.analytic.reads if self.start or self.finish else ())
        return tuple(dict.fromkeys(both))

    @property
    def reads_masked(self) -> tuple[Clear, ...]:
        both = self.rule.reads_masked + (self.analytic.reads if self.start or self.finish else ())
        return tuple(dict.fromkeys(both))

    @property
    def sums(self) -> tuple[str, ...]:
        return self.rule.sums

    def trains(self, received: Broadcast) -> bool:
        return self._rule(received).trains(received)

    def finished(self, state: ServerState) -> bool:
        return self.rule.finished(_without(state))

    def broadcast(self, state: ServerState) -> Broadcast:
        if not self._due(state):
            return self.rule.broadcast(_without(state))
        sent = self.analytic.broadcast(replace(state, tensors={}))
        return replace(sent, tensors={MARK: torch.tensor(state.round)})

    def summarize(self, context: ClientRound, batches: Iterable[Batch]) -> Mapping[str, Tensor]:
        return self._rule(context.received).summarize(context, batches)

    def attach(self, context: ClientRound, batches: Iterable[Batch]) -> Weights:
        return self._rule(context.received).attach(context, batches)

    def mask(self, tensors: Mapping[str, Tensor], received: Broadcast) -> Mapping[str, Tensor]:
        return self._rule(received).mask(tensors, received)

    def weigh(self, summaries: Sequence[Summary], state: ServerState) -> dict[int, float]:
        if self._due(state):
            return self.analytic.weigh(summaries, state)
        return self.rule.weigh(summaries, _without(state))

    def weigh_classes(
        self, summaries: Sequence[Summary], state: ServerState
    ) -> dict[int, Tensor] | None:
        return None if self._due(state) else self.rule.weigh_classes(summaries, _without(state))

    def weigh_sums(
        self, summaries: Sequence[Summary], state: ServerState
    ) -> dict[int, dict[str, Tensor]]:
        return {} if self._due(state) else self.rule.weigh_sums(summaries, _without(state))

    def step(
        self,
        state: ServerState,
        summaries: Sequence[Summary],
        weights: Mapping[int, float],
        mean: Weights | None,
    ) -> None:
        if self._due(state):
            self.analytic.step(replace(state, tensors={}), summaries, weights, mean)
            state.tensors[MARK] = torch.tensor(state.round)
            return
        theirs = _without(state)
        self.rule.step(theirs, summaries, weights, mean)
        state.tensors = theirs.tensors

    def predict(self, output: NetworkOutput, received: Broadcast) -> Tensor:
        return self._rule(received).predict(output, received)

    def _rule(self, received: Broadcast) -> Aggregator:
        return self.analytic if MARK in received.tensors else self.rule

    def _due(self, state: ServerState) -> bool:
        """Is this round in closed form, or is it over and was?"""
        last = self.finish and state.rounds is not None and state.round == state.rounds - 1
        # A checkpoint that is only scored knows of no rounds to come.
        was = int(state.tensors.get(MARK, torch.tensor(-1))) == state.round
        return was or last or (self.start and state.round == 0)


def _without(state: ServerState) -> ServerState:
    """What the rule sees of the server's state."""
    return replace(state, tensors={n: v for n, v in state.tensors.items() if n != MARK})
