"""What conditions have in common that change the weights which a client sends."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import sqrt

import torch
from torch import Tensor

from fedmer.contracts.condition import Condition, ConditionContext
from fedmer.errors import InputError
from fedmer.messages import Broadcast, Summary, Update, Weights

Change = Callable[[str, Tensor], Tensor]
"""Name of a weight, and how training changed it -> the change that is sent instead."""


class ChangedUpdate(Condition):
    """Clients that send another change of their weights than what training made.

    What is no floating-point number stays. What a rule attached counts from 0.
    """

    severity_is_a_share = False

    @abstractmethod
    def change(self, update: Update, received: Broadcast, context: ConditionContext) -> Change:
        """What becomes of every change.

        Args:
            update: What the client would send.
            received: This round's broadcast.
            context: The client; seeds are of this round.
        """

    def on_sent(
        self,
        summary: Summary,
        update: Update | None,
        received: Broadcast,
        context: ConditionContext,
    ) -> tuple[Summary, Update | None]:
        if update is None:
            raise InputError(
                f"--conditions {type(self).__name__} changes the weights that clients send, and "
                "those of this rule send none; use a rule that exchanges weights, such as FedAvg, "
                "or another condition."
            )
        change = self.change(update, received, context)
        start: Mapping[str, Tensor] = received.weights or {}
        weights: Weights = {}
        for name, value in update.weights.items():
            before = start.get(name, torch.zeros_like(value))
            floats = value.is_floating_point()
            weights[name] = before + change(name, value - before) if floats else value
        return summary, replace(update, weights=weights)


def noise(update: Update, received: Broadcast, size: float, seed: int) -> Change:
    """Random numbers instead of every change, together ``size`` times as long as the client's."""
    random, start = torch.Generator().manual_seed(seed), received.weights or {}
    drawn, lengths, changed = {}, 0.0, 0.0
    for name, value in update.weights.items():
        if value.is_floating_point():
            drawn[name] = torch.randn(value.shape, generator=random).to(value)
            lengths += float(drawn[name].double().square().sum())
            change = value - start.get(name, torch.zeros_like(value))
            changed += float(change.double().square().sum())
    factor = size * sqrt(changed / lengths)
    return lambda name, change: factor * drawn[name]
