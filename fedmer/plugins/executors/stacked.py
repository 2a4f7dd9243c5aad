"""Stacked, many small clients at once in one product."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.optim import Optimizer

from fedmer.client import fuse
from fedmer.contracts.aggregator import Aggregator, ServerState
from fedmer.contracts.client import ClientSide
from fedmer.contracts.executor import Executor
from fedmer.data.batch import Batch, EpochOrder, collate
from fedmer.data.corpus import UNLABELLED
from fedmer.errors import InputError, NotFiniteError
from fedmer.local import LocalTrainer
from fedmer.losses.class_terms import ClassTerms
from fedmer.messages import Broadcast, Summary
from fedmer.seeds import derive
from fedmer.weights import copy_weights

ELEMENTWISE = ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop")
"""Optimizers of torch that treat every number by itself, so that a stack of clients is no news."""


class Stacked(Executor):
    """Many clients at once: their weights are stacked, and one product serves all of them.

    It pays for networks so small that a step costs more in calls than in arithmetic. Results are
    those of :class:`~fedmer.plugins.executors.inline.Inline` within 1e-5 without dropout, and not
    bit for bit, since products of another shape round otherwise. Dropout, that of modalities too,
    is drawn for the stack, so that with it the numbers differ and their distribution does not.

    The rule must leave the local loss and the gradients alone, as FedAvg, its server optimizers
    and Local do; the optimizer must treat every number by itself; the network must be one that
    ``torch.func.vmap`` can run, which recurrent ones are not, nor SDT, which looks at how long
    dialogues are to skip padding; and the precision must be single.

    Args:
        clients: How many at once.
        threads: CPU threads of torch.
        spool_gb: See :class:`~fedmer.contracts.executor.Executor`.

    Raises:
        InputError: A value is out of range.
    """

    trainer: LocalTrainer

    def __init__(self, clients: int = 32, threads: int = 1, spool_gb: float = 4.0) -> None:
        super().__init__(spool_gb)
        for name, value in (("clients", clients), ("threads", threads)):
            if value < 1:
                raise InputError(f"executor.{name} is {value}; expected at least 1.")
        self.clients = clients
        self.threads = threads

    def bind(self, trainer: ClientSide, state: ServerState) -> None:
        """Receive the client side.

        Raises:
            InputError: The rule, the optimizer or the network cannot be stacked; says which.
        """
        assert isinstance(trainer, LocalTrainer)
        super().bind(trainer, state)
        obstacle = self.obstacle(trainer)
        if obstacle:
            raise InputError(f"The executor Stacked cannot be used: {obstacle} Use Inline.")
        torch.set_num_threads(self.threads)

    @staticmethod
    def obstacle(trainer: LocalTrainer) -> str:
        """A sentence on why clients cannot be stacked; empty if they can."""
        rule, network = trainer.aggregator, trainer.client.network
        hooks = ("on_batch", "client_loss", "on_before_optimizer_step")
        if any(getattr(rule, h).__func__ is not getattr(Aggregator, h) for h in hooks):
            return f"{rule.name} changes what a client minimises."
        if rule.stages.__func__ is not Aggregator.stages:  # type: ignore[attr-defined]
            return f"{rule.name} trains in stages of its own."
        for mechanism in trainer.privacy:
            if mechanism.hides_dialogues:
                return f"{type(mechanism).__name__} takes each dialogue's gradient by itself."
        if trainer.client.loss.teacher == "global":
            return "the loss has a global teacher."
        precision = trainer.fabric.strategy.precision.precision
        if precision != "32-true":
            return f"the precision is {precision}."
        if trainer.training.optimizer_state == "keep":
            return "local.optimizer_state is 'keep'."
        name = type(trainer.client.new_optimizer()).__name__
        if name not in ELEMENTWISE:
            return f"the optimizer {name} may mix clients."
        if not network.stackable:
            return f"{type(network).__name__} has steps that torch.func.vmap cannot stack."
        return ""

    def open(self, received: Broadcast, cohort: Sequence[int]) -> None:
        super().open(received, cohort)
        self._queue = list(cohort)
        self._done: dict[int, Summary | None] = {}

    def train(self, client: int) -> Summary | None:
        if not self.trainer.aggregator.trains(self.received):
            return self.fit(client)
        if client not in self._done:
            chosen, self._queue = self._queue[: self.clients], self._queue[self.clients :]
            self._train_together(chosen)
        return self._done[client]

    def _train_together(self, clients: Sequence[int]) -> None:
        with self.trainer.client.network.under_vmap():
            found = {client: (weights, losses) for client, weights, losses in self._train(clients)}
        for client in clients:
            weights, losses = found[client]
            copy_weights(self.trainer.weights, {**self.trainer.weights, **weights})
            memory = self.trainer.recall(client)
            context = self.trainer.begin(client, self.received, memory)
            context.steps = len(losses)
            loss = float(torch.stack(losses).mean())
            try:
                summary, update, memory = self.trainer.report(client, context, loss, memory)
            except NotFiniteError as error:
                self.leave_out(client, f"was left out: {error}")
                self._done[client] = None
                continue
            self.trainer.remember(client, memory)
            self.collect(summary, update)
            self._done[client] = summary

    def _train(
        self, clients: Sequence[int]
    ) -> Iterator[tuple[int, dict[str, Tensor], list[Tensor]]]:
        """Every client's id, trained weights, and loss of each step."""
        trainer, network = self.trainer, self.trainer.client.network
        plans = {client: list(self._plan(client)) for client in clients}
        # Those with most steps first, so that who is still at work is always a slice from 0.
        order = sorted(clients, key=lambda client: -len(plans[client]))
        starts = [trainer.start(self.received, trainer.recall(client)) for client in order]
        names = [name for name, _ in network.named_parameters()]
        stack = {
            name: nn.Parameter(torch.stack([weights[name] for weights in starts])) for name in names
        }
        optimizer = fuse(trainer.client.optimizer(stack.values()))
        trainer.schedule.apply(optimizer, self.received.round)
        network.train()
        losses: dict[int, list[Tensor]] = {client: [] for client in clients}
        with torch.random.fork_rng(devices=[]):
            for step in range(len(plans[order[0]])):
                active = [client for client in order if step < len(plans[client])]
                if len(active) < len(order):
                    for place in range(len(active), len(order)):
                        yield order[place], _row(stack, place), losses[order[place]]
                    _shrink(stack, optimizer, len(active))
                    order = active
                torch.manual_seed(
                    derive(trainer.client.seed, "stacked", self.received.round, order[0], step)
                )
                found = self._losses(stack, [plans[client][step] for client in order], order)
                optimizer.zero_grad()
                torch.autograd.backward(found.sum())
                if trainer.training.gradient_clip_val:
                    _clip(stack, trainer.training.gradient_clip_val)
                optimizer.step()
                for client, loss in zip(order, found.detach(), strict=True):
                    losses[client].append(loss)
        for place, client in enumerate(order):
            yield client, _row(stack, place), losses[client]

    def _plan(self, client: int) -> Iterator[list[Any]]:
        """The excerpts of every step of a client's round, as Inline takes them."""
        training, data = self.trainer.training, self.trainer.data[client].train
        seed = self.trainer.client.seed
        order = EpochOrder(len(data), seed, client, training.batch_size)
        for epoch in range(training.epochs):
            order.set_epoch(self.received.round * training.epochs + epoch)
            places = list(order)
            for start in range(0, len(places), training.batch_size):
                yield [data[i] for i in places[start : start + training.batch_size]]

    def _losses(
        self, stack: Mapping[str, Tensor], excerpts: Sequence[list[Any]], clients: Sequence[int]
    ) -> Tensor:
        """Every client's loss on its batch, ``(K,)``."""
        client = self.trainer.client
        batch = _batch_of_batches(excerpts)
        terms = [self.trainer.class_terms[number].parts for number in clients]
        stacked = {name: torch.stack([parts[name] for parts in terms]) for name in terms[0]}

        def loss(parameters: dict[str, Tensor], parts: dict[str, Any], classes: Any) -> Tensor:
            seen = client.training_batch(Batch(**parts))
            output = functional_call(client.network, parameters, (seen,))
            found: Tensor = client.loss(output, seen, ClassTerms(**classes))
            return found

        mapped = vmap(loss, in_dims=(0, 0, 0 if stacked else None), randomness="different")
        found: Tensor = mapped(dict(stack), batch, stacked)
        return found


def _batch_of_batches(excerpts: Sequence[list[Any]]) -> dict[str, Any]:
    """Batches of several clients, padded to one shape, as ``Batch``'s arguments.

    Every tensor has the clients in front, ``(K, B, L, ...)``.
    """
    sizes = [len(part) for part in excerpts]
    whole = collate([excerpt for part in excerpts for excerpt in part])
    places = torch.full((len(sizes), max(sizes)), sum(sizes))
    start = 0
    for row, size in zip(places, sizes, strict=True):
        row[:size] = torch.arange(start, start + size)
        start += size

    def spread(rows: Tensor, value: float = 0) -> Tensor:
        # One more dialogue without utterances, for clients that have fewer than others.
        nobody = rows.new_full((1, *rows.shape[1:]), value)
        return torch.cat([rows, nobody])[places]

    return {
        "features": {name: spread(rows) for name, rows in whole.features.items()},
        "present": {name: spread(rows) for name, rows in whole.present.items()},
        "context": spread(whole.context),
        "labelled": spread(whole.labelled),
        "labels": spread(whole.labels, UNLABELLED),
        "roles": spread(whole.roles),
        "positions": spread(whole.positions),
    }


def _row(stack: Mapping[str, Tensor], place: int) -> dict[str, Tensor]:
    return {name: rows[place].detach().clone() for name, rows in stack.items()}


@torch.no_grad()
def _shrink(stack: dict[str, nn.Parameter], optimizer: Optimizer, count: int) -> None:
    """Keep the first clients' weights and what the optimizer knows of them."""
    for name, old in stack.items():
        stack[name] = nn.Parameter(old[:count].clone())
        optimizer.state[stack[name]] = {
            kind: value[:count].clone() if torch.is_tensor(value) and value.dim() else value
            for kind, value in optimizer.state.pop(old, {}).items()
        }
    optimizer.param_groups[0]["params"] = list(stack.values())


@torch.no_grad()
def _clip(stack: Mapping[str, Tensor], norm: float) -> None:
    """Scale every client's gradient down to a norm, each by itself."""
    gradients = [rows.grad for rows in stack.values() if rows.grad is not None]
    squares = torch.stack([g.flatten(1).square().sum(dim=1) for g in gradients]).sum(dim=0)
    factors = (norm / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factors.view(-1, *[1] * (gradient.dim() - 1)))
