"""What mechanisms that work on differences have in common."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from fedmer.messages import Broadcast, Update, Weights

SLACK = 1 + 1e-6
"""By how much more is clipped, so that rounding carries nothing over the bound."""


def changes(update: Update, received: Broadcast) -> Weights:
    """What training changed: an update less what was received, and what the rule attached as it is.

    Only floating-point numbers; integers, such as counts of batches, have no part in it.
    """
    start = received.weights or {}
    return {
        name: value - start[name].to(value.device) if name in start else value
        for name, value in update.weights.items()
        if value.is_floating_point()
    }


def changed(update: Update, received: Broadcast, by: Mapping[str, Tensor]) -> Update:
    """The update whose :func:`changes` are ``by``."""
    start = received.weights or {}
    weights = {
        name: start[name].to(value.device) + by[name] if name in start else by[name]
        for name, value in update.weights.items()
        if name in by
    }
    return replace(update, weights={**update.weights, **weights})


def norm(tensors: Mapping[str, Tensor]) -> float:
    """The Euclidean norm of all numbers together.

    >>> norm({"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])})
    5.0
    """
    squares = [value.double().square().sum() for value in tensors.values()]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def clip(tensors: Mapping[str, Tensor], bound: float) -> Weights:
    """All of them shrunk by one factor, so that their :func:`norm` is at most ``bound``.

    >>> clip({"a": torch.tensor([3.0, 4.0])}, bound=1.0)["a"]
    tensor([0.6000, 0.8000])
    """
    length = norm(tensors) * SLACK
    factor = min(1.0, bound / length) if length > 0 else 1.0
    return {name: value * factor for name, value in tensors.items()}
