"""Changes of the weights that a client sends."""

from collections.abc import Callable, Mapping
from math import sqrt

import torch
from torch import Tensor

from fedmer.contracts.condition import Condition
from fedmer.errors import InputError
from fedmer.messages import Broadcast, Update, Weights


def changed(
    update: Update | None,
    received: Broadcast,
    condition: Condition,
    change: Callable[[str, Tensor], Tensor],
) -> Update:
    """An update whose difference from what was received is another.

    What is no floating-point number stays. What a rule attached counts from 0.

    Args:
        update: The client's.
        received: This round's broadcast.
        condition: For the sentence.
        change: Name and difference -> the difference instead.

    Raises:
        InputError: The rule's clients send no weights.
    """
    if update is None:
        name = type(condition).__name__
        raise InputError(
            f"--conditions {name} changes the weights that clients send, and those of this rule "
            "send none; use a rule that exchanges weights, such as FedAvg, or another condition."
        )
    start: Mapping[str, Tensor] = received.weights or {}
    weights: Weights = {}
    for name, value in update.weights.items():
        before = start.get(name, torch.zeros_like(value))
        floats = value.is_floating_point()
        weights[name] = before + change(name, value - before) if floats else value
    return Update(update.client, weights)


def noise(update: Update | None, received: Broadcast, size: float, seed: int) -> dict[str, Tensor]:
    """Random numbers for every weight, together ``size`` times as long as the client's change."""
    if update is None:
        return {}
    random, start = torch.Generator().manual_seed(seed), received.weights or {}
    drawn, lengths, own = {}, 0.0, 0.0
    for name, value in update.weights.items():
        if value.is_floating_point():
            drawn[name] = torch.randn(value.shape, generator=random).to(value)
            lengths += float(drawn[name].double().square().sum())
            change = value - start.get(name, torch.zeros_like(value))
            own += float(change.double().square().sum())
    factor = size * sqrt(own / lengths)
    return {name: factor * value for name, value in drawn.items()}
