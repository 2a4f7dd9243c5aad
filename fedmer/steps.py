"""The steps that a client makes in its part of a round, stage after stage."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Optimizer

from fedmer.client import EmotionClient, restart
from fedmer.contracts.aggregator import Aggregator, ClientRound, Stage
from fedmer.data.batch import EpochOrder, Excerpt
from fedmer.data.batch_cache import BatchCache
from fedmer.errors import InputError
from fedmer.losses.class_terms import ClassTerms
from fedmer.schedules import Schedule
from fedmer.weights import detached


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
        modality_dropout: Chance that an utterance loses a modality in a step. In [0, 1]; at least
            one of what it has stays. Any network learns so to do without.

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


class Steps:
    """Trains whoever's weights are in the resident network.

    Args:
        client: The resident working copy; moved to the device by then.
        aggregator: Its client half is called at every step.
        training: Batch size, optimizer state and clipping.
        fabric: Device and precision.
        cache: Batches on that device.
    """

    def __init__(
        self,
        client: EmotionClient,
        aggregator: Aggregator,
        training: LocalTraining,
        fabric: Fabric,
        cache: BatchCache,
    ) -> None:
        self.client = client
        self.module = fabric.setup_module(client)
        self.aggregator = aggregator
        self.training = training
        self.fabric = fabric
        self.cache = cache
        self._parameters = dict(client.network.named_parameters())
        self.schedule = Schedule(
            client.optimizer, client.lr_scheduler, list(self._parameters.values())
        )
        """The learning rate of every round."""
        self._optimizer: Optimizer | None = None
        self._learn = {name: p for name, p in self._parameters.items() if p.requires_grad}
        self._frozen: Collection[str] = ()

    def make(
        self,
        context: ClientRound,
        stages: Sequence[Stage],
        data: Sequence[Excerpt],
        terms: ClassTerms,
        state: dict[str, Any],
    ) -> tuple[float, dict[str, Any] | None]:
        """Make the steps of all stages, with one optimizer.

        Args:
            context: The client's part of the round; counts the steps.
            stages: Of one network.
            data: The client's dialogues.
            terms: What the loss makes of its classes.
            state: That of its optimizer, where it was kept.

        Returns:
            The mean loss, and the optimizer's state where it is kept; ``state`` stays as it is.
        """
        # A module looks at whatever is set on it, which is more than a small step can afford.
        if not self.client.network.training:
            self.client.network.train()
        if self.client.class_terms is not terms:
            self.client.class_terms = terms
        keep = self.training.optimizer_state == "keep"
        total: Tensor | None = None
        optimizer = self._begin_optimizer(state, context.received.round)
        passes = [stage for stage in stages for _ in range(stage.epochs)]
        try:
            with torch.random.fork_rng(devices=self._random_devices()):
                for epoch, stage in enumerate(passes):
                    if stage is not context.stage:
                        context.stage = stage
                        self._freeze(stage.frozen)
                    # Counted over rounds, so that R rounds of E epochs draw as R * E epochs would.
                    lifetime = context.received.round * len(passes) + epoch
                    context.last_epoch = epoch == len(passes) - 1
                    for index, batch in enumerate(self._batches(context.id, data, lifetime)):
                        self.client.begin_step(context.id, lifetime, index)
                        loss = self._step(batch, optimizer, context)
                        total = loss if total is None else total + loss
        finally:
            self._freeze(())
        # No copy: an optimizer that is kept does not train the next client.
        mean = math.nan if total is None else float(total) / context.steps
        return mean, dict(optimizer.state_dict()) if keep else None

    def _batches(self, client: int, data: Sequence[Excerpt], epoch: int) -> Iterator[Any]:
        """What :meth:`_backward` gets in each step of an epoch of a client's life."""
        size = self.training.batch_size
        order = EpochOrder(len(data), self.client.seed, client, size)
        order.set_epoch(epoch)
        return self.cache.batches(data, list(order), size, client)

    def _backward(self, batch: Any, context: ClientRound) -> Tensor:
        """Leave the gradients of a step on the parameters; returns its loss."""
        batch = self.client.training_batch(batch)
        batch = self.aggregator.on_batch(batch, context.received, training=True)
        # Fabric's wrapper brings its precision to forward alone, not to this method.
        with self.fabric.autocast():
            output = self.client(batch)
            supervised = self.client.supervised_loss(output, batch)
            loss = self.aggregator.client_loss(supervised, output, batch, context)
        for parameter in self._parameters.values():
            parameter.grad = None
        self.fabric.strategy.backward(loss, None)
        return loss.detach()

    def _step(self, batch: Any, optimizer: Optimizer, context: ClientRound) -> Tensor:
        """One step; returns its loss."""
        loss = self._backward(batch, context)
        if self.training.gradient_clip_val:
            # A check of every norm would wait for the device; a loss that is not finite is
            # reported at the end.
            self.fabric.clip_gradients(
                self.module,
                optimizer,
                max_norm=self.training.gradient_clip_val,
                error_if_nonfinite=False,
            )
        self.client.on_before_optimizer_step(optimizer)
        self.aggregator.on_before_optimizer_step(context)
        self.fabric.strategy.optimizer_step(optimizer)
        context.steps += 1
        return loss

    def _freeze(self, names: Collection[str]) -> None:
        """Let these parameters have no gradient, and all others that learn at all have one."""
        if not names and not self._frozen:
            return
        self._frozen = names
        for name, parameter in self._learn.items():
            parameter.requires_grad_(name not in names)

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

    def _random_devices(self) -> list[int]:
        device = self.fabric.device
        return [device.index or 0] if device.type == "cuda" else []
