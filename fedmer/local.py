"""What a client does with a broadcast: train on its own data, sum up, send back."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Optimizer

from fedmer.client import EmotionClient, restart
from fedmer.conditions import ClientConditions
from fedmer.contracts.aggregator import Aggregator, ClientRound
from fedmer.contracts.client import ClientMemory
from fedmer.contracts.privacy import Privacy
from fedmer.data.batch import EVALUATION_BATCH, Batch, EpochOrder, Excerpt
from fedmer.data.batch_cache import BatchCache
from fedmer.data.client_data import ClientData
from fedmer.errors import InputError, NotFiniteError
from fedmer.losses.class_terms import NEUTRAL, ClassTerms
from fedmer.messages import Broadcast, Summary, Update, Weights
from fedmer.metrics import Scores
from fedmer.protection import on_client
from fedmer.schedules import Schedule
from fedmer.spool import Spool
from fedmer.weights import (
    FlatWeights,
    check_finite,
    copy_weights,
    detached,
    flatten,
    load_weights,
    tensors_in,
)


@dataclass(frozen=True)
class LocalTraining:
    """How every client trains in its part of a round.

    Args:
        epochs: Passes over its own dialogues.
        batch_size: Dialogues a batch.
        optimizer_state: ``reset`` starts every round with a new optimizer; ``keep`` lets a client
            keep its optimizer's state (Adam's moments) between the rounds in which it takes part.
        gradient_clip_val: Largest norm of a step's gradient; None and 0 are any.
            ``--trainer.gradient_clip_val`` sets it.
        modality_dropout: The chance in [0, 1] that a modality of an utterance is left out of a
            step; at least one of what it has stays. Any network learns so to do without.

    Raises:
        InputError: ``epochs`` or ``batch_size`` is below 1, ``gradient_clip_val`` below 0, or
            ``modality_dropout`` out of range.
    """

    epochs: int = 1
    batch_size: int = 16
    optimizer_state: Literal["reset", "keep"] = "reset"
    gradient_clip_val: float | None = None
    modality_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("epochs", self.epochs), ("batch_size", self.batch_size)):
            if value < 1:
                raise InputError(f"local.{name} is {value}; expected at least 1.")
        if not (self.gradient_clip_val or 0) >= 0:
            raise InputError(
                f"gradient_clip_val is {self.gradient_clip_val}; expected a norm above 0, or 0 for "
                "no clipping."
            )
        if not 0 <= self.modality_dropout <= 1:
            raise InputError(
                f"local.modality_dropout is {self.modality_dropout}; expected a chance in [0, 1]."
            )


def fabric_for(accelerator: str, precision: Any) -> Fabric:
    """One device at a precision of Lightning's; on a GPU products of float32 are TF32.

    Args:
        accelerator: Lightning's name for it, such as ``cpu`` or ``auto``.
        precision: Such as ``32-true`` or ``bf16-mixed``.
    """
    fabric = Fabric(accelerator=accelerator, devices=1, precision=precision)
    if fabric.device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # 10 bits of a factor instead of 23
    return fabric


class LocalTrainer:
    """Trains any client on one resident network, and remembers what clients keep.

    It is the client side of a federation in one process: weights are copied into the same network
    in place, its optimizer begins anew, and Lightning's Fabric brings device and precision.

    Args:
        client: The resident working copy; its weights are overwritten.
        data: One entry a client, by id; a client's own machine has its own entry only.
        aggregator: Its client half is called here.
        training: Epochs, batch size, optimizer state.
        fabric: Device and precision; by default one CPU device at full precision.
        class_counts: ``(C,)``, how often each class occurs at all clients together; by default in
            ``data``.
        privacy: Mechanisms, whose client halves are called here in this order.
        conditions: What some clients of a simulation send instead.

    Raises:
        InputError: The loss wants a global teacher and the rule has no global network, or the
            optimizer or the scheduler of its rate cannot be used.
    """

    def __init__(
        self,
        client: EmotionClient,
        data: Sequence[ClientData] | Mapping[int, ClientData],
        aggregator: Aggregator,
        training: LocalTraining,
        fabric: Fabric | None = None,
        class_counts: Tensor | None = None,
        privacy: Sequence[Privacy] = (),
        conditions: ClientConditions | None = None,
    ) -> None:
        self.fabric = fabric or Fabric(accelerator="cpu", devices=1)
        names = client.network.state_dict()
        self.exchanged = [name for name in names if aggregator.exchanges(name)]
        """Names of the weights that travel."""
        self.personal = [name for name in names if not aggregator.exchanges(name)]
        """Names of those that every client keeps to itself."""
        if client.loss.teacher == "global":
            if self.personal:
                raise InputError(
                    f"loss.teacher is 'global', but {aggregator.name} keeps a personal "
                    "network on every client and has no global one; use 'fused'."
                )
            client.teacher = copy.deepcopy(client.network)
        self.module = self.fabric.setup_module(client)
        self.client = client
        self.data = dict(data) if isinstance(data, Mapping) else dict(enumerate(data))
        self.aggregator = aggregator
        self.training = training
        client.modality_dropout = training.modality_dropout
        self.privacy = privacy
        self.conditions = conditions or ClientConditions()
        self.weights = flatten(client.network)
        self._parameters = list(client.network.parameters())
        self.schedule = Schedule(client.optimizer, client.lr_scheduler, self._parameters)
        self._optimizer: Optimizer | None = None
        self._initial = self.weights.clone()
        self._cache = BatchCache(self.fabric.device)
        self.memory = Spool()
        """What clients keep between rounds, by id."""
        self.class_terms = self._make_class_terms(class_counts)
        """What the loss makes of each client's classes, by id."""

    def fit(self, client: int, received: Broadcast) -> tuple[Summary, Update | None]:
        """One client's part of a round.

        Returns:
            Its summary, and those of its weights that travel. They may be the resident network's
            own, good until the next client trains; who wants them longer copies them.

        Raises:
            NotFiniteError: As :meth:`report`.
        """
        summary, update, memory = self.work(client, received, self.recall(client))
        self.remember(client, memory)
        return summary, update

    def recall(self, client: int) -> ClientMemory:
        """What a client has kept until now."""
        kept: ClientMemory = self.memory.get(client, ClientMemory())
        return kept

    def remember(self, client: int, memory: ClientMemory) -> None:
        """Keep what a client shall find when it next takes part, if anything."""
        if memory:
            self.memory[client] = memory

    def work(
        self, client: int, received: Broadcast, memory: ClientMemory
    ) -> tuple[Summary, Update | None, ClientMemory]:
        """The same as :meth:`fit`, with what the client remembers handed in and out.

        Raises:
            NotFiniteError: As :meth:`report`.
        """
        self.prepare(received, memory)
        context = self.begin(client, received, memory)
        if not self.aggregator.trains(received):
            self.client.class_terms = self.class_terms[client]
            return self.report(client, context, 0.0, memory)
        loss, optimizer = self._train(client, context, memory.optimizer)
        return self.report(client, context, loss, memory, optimizer)

    def begin(self, client: int, received: Broadcast, memory: ClientMemory) -> ClientRound:
        """What the rule's client half sees of a round; ``memory`` stays as it is."""
        # A copy, since the rule may change it in place in a round that then comes to nothing.
        return ClientRound(self.client, received, detached(memory.rule), id=client)

    def report(
        self,
        client: int,
        context: ClientRound,
        loss: float,
        before: ClientMemory,
        optimizer: dict[str, Any] | None = None,
    ) -> tuple[Summary, Update | None, ClientMemory]:
        """What a client whose trained weights are in the resident network sends and remembers.

        Args:
            client: Its id.
            context: Its part of the round, as the rule's client half left it.
            loss: Mean loss of its steps.
            before: What it remembered when the round began; stays as it is.
            optimizer: The state of its optimizer, where it is kept.

        Raises:
            NotFiniteError: Something of it is NaN or infinite. Nobody else may see such numbers,
                and what the client remembers from earlier rounds is better.
        """
        if not math.isfinite(loss):
            raise NotFiniteError(f"its loss is {loss}")
        check_finite("weights", self.weights)
        attached: Weights = {}
        with torch.no_grad(), self.fabric.autocast():
            tensors = self.aggregator.summarize(context, self._seen(client))
            if self.exchanged:
                attached = self.aggregator.attach(context, self._seen(client))
        check_finite("summary", tensors)
        check_finite("attached tensors", attached)
        summary = Summary(
            client=client,
            examples=self.data[client].examples,
            train_loss=loss,
            steps=context.steps,
            tensors=tensors,
        )
        personal = {name: self.weights[name].clone() for name in self.personal}
        trained = self.aggregator.trains(context.received)
        sent = self.sent(self.weights) if trained else FlatWeights.of({})
        weights = FlatWeights.of({**sent, **attached}) if attached else sent
        update = Update(client, weights) if weights else None
        if self.conditions:
            summary, update = self.conditions.sent(summary, update, context.received)
        kept, rule = before.privacy, self.aggregator
        if self.privacy:
            summary, update, kept = on_client(
                self.privacy, rule, summary, update, context.received, kept, self.client.seed
            )
            check_finite("protected summary", summary.tensors)
            check_finite("protected weights", {} if update is None else update.weights)
        memory = ClientMemory(context.memory, optimizer or {}, personal, kept)
        if memory:
            check_finite("memory", tensors_in([context.memory, optimizer or {}, kept]))
        return summary, update, memory

    def sent(self, weights: FlatWeights) -> FlatWeights:
        """Those that travel, of all weights of a network; a copy unless that is all of them."""
        if not self.personal:
            return weights
        return FlatWeights.of({name: weights[name] for name in self.exchanged})

    def load(self, client: int, received: Broadcast) -> None:
        """Put the weights that a client would use now into the resident network."""
        self.prepare(received, self.recall(client))

    def prepare(self, received: Broadcast, memory: ClientMemory) -> None:
        """The same as :meth:`load`, with what the client remembers handed in."""
        copy_weights(self.weights, self.start(received, memory))

    def start(self, received: Broadcast, memory: ClientMemory) -> Weights:
        """The weights that a client begins with: received, its own, or those of the first day."""
        if received.weights is not None and not self.personal:
            return received.weights
        kept = memory.weights or self._initial
        return {**{name: kept[name] for name in self.personal}, **(received.weights or {})}

    @property
    def trained(self) -> list[int]:
        """Ids of the clients that keep weights of their own by now."""
        return list(self.memory) if self.personal else []

    @torch.no_grad()
    def evaluate(self, excerpts: Sequence[Excerpt], received: Broadcast) -> Scores | None:
        """Score the resident network on excerpts; None if no utterance of them is labelled."""
        self.client.network.eval()
        metrics = self.client.metrics
        metrics.reset()
        places = range(len(excerpts))
        for batch in self._cache.batches(excerpts, places, EVALUATION_BATCH):
            with self.fabric.autocast():
                logits = self.aggregator.logits(self.client, batch, received)
            metrics.update(logits, batch)
        return None if metrics.empty else metrics.scores()

    def state_dict(self) -> dict[str, Any]:
        memory = {client: kept.state_dict() for client, kept in self.memory.items()}
        return {"memory": memory, "initial": dict(self._initial)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.memory.clear()
        for client, kept in state["memory"].items():
            self.memory[client] = ClientMemory.from_state(kept)
        self._initial = FlatWeights.of(state["initial"])

    def _train(
        self, client: int, context: ClientRound, state: dict[str, Any]
    ) -> tuple[float, dict[str, Any] | None]:
        """Mean loss, and the optimizer's state where it is kept; ``state`` is that of before."""
        # A module looks at whatever is set on it, which is more than a small step can afford.
        network, terms = self.client.network, self.class_terms[client]
        if not network.training:
            network.train()
        if self.client.class_terms is not terms:
            self.client.class_terms = terms

        if self.client.teacher is not None:
            load_weights(self.client.teacher, context.received.weights or self._initial)
            self.client.teacher.eval()
        clip = self.training.gradient_clip_val or None
        keep = self.training.optimizer_state == "keep"
        strategy = self.fabric.strategy
        total: Tensor | None = None
        optimizer = self._begin_optimizer(state, context.received.round)
        data, size = self.data[client].train, self.training.batch_size
        order = EpochOrder(len(data), self.client.seed, client, size)
        with torch.random.fork_rng(devices=self._random_devices()):
            for epoch in range(self.training.epochs):
                # Counted over rounds, so that R rounds of E epochs draw as R * E epochs would.
                lifetime = context.received.round * self.training.epochs + epoch
                context.last_epoch = epoch == self.training.epochs - 1
                order.set_epoch(lifetime)
                batches = self._cache.batches(data, list(order), size, client)
                for index, whole in enumerate(batches):
                    self.client.begin_step(client, lifetime, index)
                    batch = self.client.training_batch(whole)
                    batch = self.aggregator.on_batch(batch, context.received, training=True)
                    # Fabric's wrapper brings its precision to forward alone, not to this method.
                    with self.fabric.autocast():
                        output = self.client(batch)
                        supervised = self.client.supervised_loss(output, batch)
                        loss = self.aggregator.client_loss(supervised, output, batch, context)
                    for parameter in self._parameters:
                        parameter.grad = None
                    strategy.backward(loss, None)
                    if clip is not None:
                        # A check of every norm would wait for the device; a loss that is not
                        # finite is reported at the end.
                        self.fabric.clip_gradients(
                            self.module, optimizer, max_norm=clip, error_if_nonfinite=False
                        )
                    self.client.on_before_optimizer_step(optimizer)
                    self.aggregator.on_before_optimizer_step(context)
                    strategy.optimizer_step(optimizer)
                    context.steps += 1
                    total = loss.detach() if total is None else total + loss.detach()
        # No copy: an optimizer that is kept does not train the next client.
        mean = math.nan if total is None else float(total) / context.steps
        return mean, dict(optimizer.state_dict()) if keep else None

    def _begin_optimizer(self, state: dict[str, Any], round: int) -> Optimizer:
        """One that knows nothing but ``state`` and the round; the same one for all clients, where
        it can."""
        keep = self.training.optimizer_state == "keep"
        if keep or self._optimizer is None or not restart(self._optimizer):
            # Fabric's own call makes a class for every optimizer, which is more than a small step.
            made = self.client.new_optimizer()
            self._optimizer = self.fabric.strategy.setup_optimizer(made)
        if keep and state:
            self._optimizer.load_state_dict(detached(state))
        self.schedule.apply(self._optimizer, round)
        return self._optimizer

    def _seen(self, client: int) -> Iterator[Batch]:
        """A client's dialogues for a network that does not learn; for a rule that never asks, no
        network changes its mode."""
        self.client.network.eval()
        data = self.data[client].train
        yield from self._cache.batches(data, range(len(data)), EVALUATION_BATCH, client)

    def _make_class_terms(self, everybody: Tensor | None) -> dict[int, ClassTerms]:
        loss, network = self.client.loss, self.client.network
        if not loss.counts_classes or not self.data:
            return dict.fromkeys(self.data, NEUTRAL)
        classes = network.shape.classes
        counts = {client: data.class_counts(classes) for client, data in self.data.items()}
        if everybody is None:
            everybody = torch.stack(list(counts.values())).sum(dim=0)
        terms = {client: loss.terms(count, everybody) for client, count in counts.items()}
        if not network.class_parameters.keys().isdisjoint(self.personal):
            # Nobody else teaches a head that stays on its client what the client lacks.
            terms = {client: ClassTerms(found.weights) for client, found in terms.items()}
        return {client: found.to(self.fabric.device) for client, found in terms.items()}

    def _random_devices(self) -> list[int]:
        device = self.fabric.device
        return [device.index or 0] if device.type == "cuda" else []
