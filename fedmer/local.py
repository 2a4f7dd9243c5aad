"""What a client does with a broadcast: train on its own data, sum up, send back."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor

from fedmer.client import EmotionClient
from fedmer.data.batch import EVALUATION_BATCH, Batch, EpochOrder, Excerpt, collate
from fedmer.data.client_data import ClientData
from fedmer.errors import InputError
from fedmer.losses.distillation import inverse_frequencies
from fedmer.messages import Broadcast, Summary, Update, Weights
from fedmer.metrics import Scores
from fedmer.plugins.aggregators.base import Aggregator, ClientRound, load_weights
from fedmer.plugins.networks.base import NetworkOutput


@dataclass(frozen=True)
class LocalTraining:
    """How every client trains in its part of a round.

    Args:
        epochs: Passes over its own dialogues.
        batch_size: Dialogues a batch.
        optimizer_state: ``reset`` starts every round with a new optimizer; ``keep`` lets a client
            keep its optimizer's state (Adam's moments) between the rounds in which it takes part.
        gradient_clip_val: Largest norm of a step's gradient, or None for any;
            ``--trainer.gradient_clip_val`` sets it.

    Raises:
        InputError: ``epochs`` or ``batch_size`` is below 1.
    """

    epochs: int = 1
    batch_size: int = 16
    optimizer_state: Literal["reset", "keep"] = "reset"
    gradient_clip_val: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("epochs", self.epochs), ("batch_size", self.batch_size)):
            if value < 1:
                raise InputError(f"local.{name} is {value}; expected at least 1.")


class LocalTrainer:
    """Trains any client on one resident network, and remembers what clients keep.

    It is the client side of a federation in one process: weights are copied into the same network
    in place, an optimizer is made each round, and Lightning's Fabric brings device and precision.

    Args:
        client: The resident working copy; its weights are overwritten.
        data: One entry a client, by id.
        aggregator: Its client half is called here.
        training: Epochs, batch size, optimizer state.
        fabric: Device and precision; by default one CPU device at full precision.

    Raises:
        InputError: The loss wants a global teacher and the rule has no global network.
    """

    def __init__(
        self,
        client: EmotionClient,
        data: Sequence[ClientData],
        aggregator: Aggregator,
        training: LocalTraining,
        fabric: Fabric | None = None,
    ) -> None:
        self.fabric = fabric or Fabric(accelerator="cpu", devices=1)
        if client.loss.teacher == "global":
            if not aggregator.averages:
                raise InputError(
                    f"loss.teacher is 'global', but {type(aggregator).__name__} keeps a personal "
                    "network on every client and has no global one; use 'fused'."
                )
            client.teacher = copy.deepcopy(client.network)
        self.module = self.fabric.setup_module(client)
        self.client = client
        self.data = data
        self.aggregator = aggregator
        self.training = training
        self._initial = _snapshot(client)
        self._memory: dict[int, dict[str, Any]] = {}
        self._class_weights = self._make_class_weights()

    def fit(self, client: int, received: Broadcast) -> tuple[Summary, Update | None]:
        """One client's part of a round.

        Returns:
            Its summary, and its weights where the rule averages them.

        Raises:
            InputError: The loss is not finite.
        """
        self.load(client, received)
        memory = self._memory.get(client, {}).get("rule", {})
        own = ClientRound(self.client, received, memory)
        loss = self._train(client, own)
        summary = Summary(
            client=client,
            examples=self.data[client].examples,
            scalars={"train_loss": loss, "steps": own.steps},
            tensors=self._summarize(client, own),
        )
        weights = _snapshot(self.client)
        attached = self.aggregator.attach(own) if self.aggregator.averages else {}
        if memory:
            self._remember(client)["rule"] = memory
        if self.aggregator.averages:
            return summary, Update(client, weights | attached)
        self._remember(client)["weights"] = weights
        return summary, None

    def load(self, client: int, received: Broadcast) -> None:
        """Put the weights that a client would use now into the resident network."""
        own = self._memory.get(client, {}).get("weights")
        load_weights(self.client.network, received.weights or own or self._initial)

    @property
    def personal(self) -> list[int]:
        """Ids of the clients that keep a network of their own."""
        return sorted(c for c, memory in self._memory.items() if "weights" in memory)

    @torch.no_grad()
    def evaluate(self, excerpts: Sequence[Excerpt], received: Broadcast) -> Scores | None:
        """Score the resident network on excerpts; None if no turn of them is labelled."""
        self.client.eval()
        metrics = self.client.metrics
        metrics.reset()
        for batch in self._chunks(excerpts, range(len(excerpts)), EVALUATION_BATCH):
            metrics.update(self.aggregator.predict(self.client(batch), received), batch)
        return None if metrics.empty else metrics.scores()

    def state_dict(self) -> dict[str, Any]:
        return {"memory": self._memory, "initial": self._initial}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._memory = dict(state["memory"])
        self._initial = dict(state["initial"])

    def _train(self, client: int, own: ClientRound) -> float:
        self.client.train()
        self.client.class_weights = self._class_weights[client]

        def regulariser(output: NetworkOutput, batch: Batch, loss: Tensor) -> Tensor | None:
            own.supervised = loss
            return self.aggregator.client_loss(output, batch, own)

        self.client.regulariser = regulariser
        if self.client.teacher is not None:
            load_weights(self.client.teacher, own.received.weights or self._initial)
            self.client.teacher.eval()
        optimizer: Any = self.fabric.setup_optimizers(self.client.configure_optimizers())
        clip = self.training.gradient_clip_val
        keep = self.training.optimizer_state == "keep"
        if keep and "optimizer" in self._memory.get(client, {}):
            optimizer.load_state_dict(self._memory[client]["optimizer"])
        data, losses = self.data[client].train, []
        order = EpochOrder(len(data), self.client.seed, client)
        with torch.random.fork_rng(devices=self._random_devices()):
            for epoch in range(self.training.epochs):
                # Counted over rounds, so that R rounds of E epochs draw as R * E epochs would.
                lifetime = own.received.round * self.training.epochs + epoch
                order.set_epoch(lifetime)
                size = self.training.batch_size
                for index, batch in enumerate(self._chunks(data, list(order), size)):
                    self.client.begin_step(client, lifetime, index)
                    loss = self.module.training_step(batch, index)
                    optimizer.zero_grad()
                    self.fabric.backward(loss)
                    if clip is not None:
                        self.fabric.clip_gradients(self.module, optimizer, max_norm=clip)
                    self.client.on_before_optimizer_step(optimizer.optimizer)
                    self.aggregator.on_before_optimizer_step(own)
                    optimizer.step()
                    own.steps += 1
                    losses.append(loss.detach())
        self.client.regulariser = None
        if keep:
            self._remember(client)["optimizer"] = _detached(optimizer.state_dict())
        mean = torch.stack(losses).mean()
        if not torch.isfinite(mean):
            raise InputError(
                f"round {own.received.round}: the loss of client {client} "
                f"('{self.data[client].name}') is {float(mean)}; lower the learning rate, or look "
                "at its features with 'fedmer data describe'."
            )
        return float(mean)

    @torch.no_grad()
    def _summarize(self, client: int, own: ClientRound) -> Mapping[str, Tensor]:
        self.client.eval()
        data = self.data[client].train
        batches = self._chunks(data, range(len(data)), EVALUATION_BATCH)
        return self.aggregator.summarize(own, batches)

    def _chunks(
        self, excerpts: Sequence[Excerpt], order: Sequence[int], size: int
    ) -> Iterator[Batch]:
        for start in range(0, len(order), size):
            batch = collate([excerpts[i] for i in order[start : start + size]])
            yield batch.to(self.fabric.device)

    def _make_class_weights(self) -> list[Tensor | None]:
        kind, classes = self.client.loss.class_weights, self.client.network.shape.classes
        if kind == "none":
            return [None] * len(self.data)
        counts = [data.class_counts(classes) for data in self.data]
        if kind == "global":
            counts = [torch.stack(counts).sum(dim=0)] * len(counts)
        return [inverse_frequencies(count).to(self.fabric.device) for count in counts]

    def _remember(self, client: int) -> dict[str, Any]:
        return self._memory.setdefault(client, {})

    def _random_devices(self) -> list[int]:
        device = self.fabric.device
        return [device.index or 0] if device.type == "cuda" else []


def _snapshot(client: EmotionClient) -> Weights:
    return {name: value.detach().clone() for name, value in client.network.state_dict().items()}


def _detached(state: Any) -> Any:
    """A copy of an optimizer's state that later steps do not change."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: _detached(value) for key, value in state.items()}
    if isinstance(state, list):
        return [_detached(value) for value in state]
    return state
