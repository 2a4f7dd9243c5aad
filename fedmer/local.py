"""What a client does with a broadcast: train on its own data, sum up, send back."""

import copy
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from fedmer.client import EmotionClient
from fedmer.conditions import ClientConditions
from fedmer.contracts.aggregator import Aggregator, ClientRound
from fedmer.contracts.client import ClientMemory
from fedmer.contracts.privacy import Privacy
from fedmer.data.batch import EVALUATION_BATCH, Batch, Excerpt
from fedmer.data.batch_cache import BatchCache
from fedmer.data.client_data import ClientData
from fedmer.dialogue_steps import DialogueSteps, check_dialogues
from fedmer.errors import InputError, NotFiniteError
from fedmer.losses.class_terms import NEUTRAL, ClassTerms
from fedmer.messages import Broadcast, Summary, Update, Weights
from fedmer.metrics import Scores
from fedmer.protection import on_client, step_noise
from fedmer.spool import Spool
from fedmer.steps import LocalTraining, Steps
from fedmer.weights import (
    FlatWeights,
    check_finite,
    copy_weights,
    detached,
    flatten,
    load_weights,
    tensors_in,
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
        InputError: The loss wants a global teacher and the rule has no global network, the
            optimizer or the scheduler of its rate cannot be used, or a mechanism that hides
            dialogues cannot take the gradient of each.
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
        names = list(client.network.state_dict())
        stays = set(aggregator.personal_names(client.network))
        stages = aggregator.stages(client.network, training.epochs)
        self.stages = [stage for stage in stages if not stage.personal]
        """Of the network that a client receives, or of the only one that it has."""
        self.second = [stage for stage in stages if stage.personal]
        """Of its second network, where it has two."""
        self.exchanged = [name for name in names if name not in stays]
        """Names of the weights that travel."""
        self.personal = names if self.second else [name for name in names if name in stays]
        """Names of those that every client keeps to itself, and that are evaluated."""
        if client.loss.teacher == "global":
            if stays:
                raise InputError(
                    f"loss.teacher is 'global', but {aggregator.name} keeps a personal "
                    "network on every client and has no global one; use 'fused'."
                )
            client.teacher = copy.deepcopy(client.network)
        if self.second and training.optimizer_state == "keep":
            raise InputError(
                f"local.optimizer_state is 'keep', but {aggregator.name} trains two networks on "
                "every client; use 'reset'."
            )
        self.client = client
        self.data = dict(data) if isinstance(data, Mapping) else dict(enumerate(data))
        self.aggregator = aggregator
        self.training = training
        client.modality_dropout = training.modality_dropout
        self.privacy = privacy
        self.conditions = conditions or ClientConditions()
        self._cache = BatchCache(self.fabric.device)
        parts = (client, aggregator, training, self.fabric, self._cache)
        hiding = next((type(m).__name__ for m in privacy if m.hides_dialogues), "")
        if hiding:
            precision = str(self.fabric.strategy.precision.precision)
            check_dialogues(hiding, client, aggregator, precision)
        self._hiding = DialogueSteps(*parts) if hiding else None
        self.steps = self._hiding or Steps(*parts)
        self.schedule = self.steps.schedule
        self.weights = flatten(client.network)
        self._initial = self.weights.clone()
        self.memory = Spool()
        """What clients keep between rounds, by id."""
        self.class_terms = self._make_class_terms(class_counts, stays)
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
        terms = self.class_terms[client]
        if not self.aggregator.trains(received):
            self.client.class_terms = terms
            return self.report(client, context, 0.0, memory)
        if self.client.teacher is not None:
            load_weights(self.client.teacher, received.weights or self._initial)
            self.client.teacher.eval()
        data, second = self.data[client].train, None
        if self._hiding is not None:
            memory = self._hide(self._hiding, client, received, memory)
        if self.second:
            second = self._train_second(context)
            copy_weights(self.weights, received.weights or self._initial)
        loss, optimizer = self.steps.make(context, self.stages, data, terms, memory.optimizer)
        return self.report(client, context, loss, memory, optimizer, second)

    def _hide(
        self, hiding: DialogueSteps, client: int, received: Broadcast, memory: ClientMemory
    ) -> ClientMemory:
        """Set the noise of a client's steps; returns what it remembers then."""
        plan = hiding.plan(len(self.data[client].train), self.stages)
        hiding.noise, kept = step_noise(
            self.privacy, plan, client, received, memory.privacy, self.client.seed
        )
        return replace(memory, privacy=kept)

    def _train_second(self, context: ClientRound) -> Weights:
        """Train the client's second network, which is the resident one; returns its weights."""
        terms = _alone(self.class_terms[context.id])
        apart = replace(context, steps=0)
        data = self.data[context.id].train
        loss, _ = self.steps.make(apart, self.second, data, terms, {})
        if not math.isfinite(loss):
            raise NotFiniteError(f"the loss of its personal network is {loss}")
        check_finite("personal weights", self.weights)
        return {name: value.clone() for name, value in self.weights.items()}

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
        second: Weights | None = None,
    ) -> tuple[Summary, Update | None, ClientMemory]:
        """What a client whose trained weights are in the resident network sends and remembers.

        Args:
            client: Its id.
            context: Its part of the round, as the rule's client half left it.
            loss: Mean loss of its steps.
            before: What it remembered when the round began; stays as it is.
            optimizer: The state of its optimizer, where it is kept.
            second: The weights of its second network, where it has two.

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
        personal = second or {name: self.weights[name].clone() for name in self.personal}
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
        if len(self.exchanged) == len(weights):
            return weights
        return FlatWeights.of({name: weights[name] for name in self.exchanged})

    def load(self, client: int, received: Broadcast) -> None:
        """Put the weights that a client would use now into the resident network."""
        self.prepare(received, self.recall(client))

    def prepare(self, received: Broadcast, memory: ClientMemory) -> None:
        """The same as :meth:`load`, with what the client remembers handed in."""
        copy_weights(self.weights, self.start(received, memory))

    def start(self, received: Broadcast, memory: ClientMemory) -> Weights:
        """The weights of a client's network: received, personal, or those of the first day."""
        if received.weights is not None and not self.personal:
            return received.weights
        kept = memory.weights or self._initial
        return {**(received.weights or {}), **{name: kept[name] for name in self.personal}}

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

    def _seen(self, client: int) -> Iterator[Batch]:
        """A client's dialogues for a network that does not learn; for a rule that never asks, no
        network changes its mode."""
        self.client.network.eval()
        data = self.data[client].train
        yield from self._cache.batches(data, range(len(data)), EVALUATION_BATCH, client)

    def _make_class_terms(
        self, everybody: Tensor | None, stays: Collection[str]
    ) -> dict[int, ClassTerms]:
        loss, network = self.client.loss, self.client.network
        if not loss.counts_classes or not self.data:
            return dict.fromkeys(self.data, NEUTRAL)
        classes = network.shape.classes
        counts = {client: data.class_counts(classes) for client, data in self.data.items()}
        if everybody is None:
            everybody = torch.stack(list(counts.values())).sum(dim=0)
        terms = {client: loss.terms(count, everybody) for client, count in counts.items()}
        if not network.class_parameters.keys().isdisjoint(stays):
            terms = {client: _alone(found) for client, found in terms.items()}
        return {client: found.to(self.fabric.device) for client, found in terms.items()}


def _alone(terms: ClassTerms) -> ClassTerms:
    """Without offsets: nobody else teaches a head that stays on its client what it lacks."""
    return ClassTerms(terms.weights)
