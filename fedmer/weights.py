"""Weights of a network as views of one vector, so that moving them is one copy."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from fedmer.errors import NotFiniteError
from fedmer.messages import Update, Weights


@dataclass(frozen=True)
class Layout:
    """Which weights there are, and where each lies in the vector of its type.

    Args:
        parts: Name, shape and type of each.
    """

    parts: tuple[tuple[str, torch.Size, torch.dtype], ...]

    @classmethod
    def of(cls, named: Mapping[str, Tensor]) -> "Layout":
        """That of weights as they are."""
        if isinstance(named, FlatWeights):
            return named.layout
        return cls(tuple((name, value.shape, value.dtype) for name, value in named.items()))

    @cached_property
    def sizes(self) -> dict[torch.dtype, list[int]]:
        """How many numbers each has, by type."""
        found: dict[torch.dtype, list[int]] = {}
        for _, shape, kind in self.parts:
            found.setdefault(kind, []).append(shape.numel())
        return found


class FlatWeights(Weights):
    """A dictionary of weights, each a view of one vector for its type of number.

    Args:
        layout: What there is.
        vectors: Type -> ``(n,)``, in the order of the names.

    >>> flat = FlatWeights.of({"w": torch.ones(2, 3), "b": torch.zeros(3)})
    >>> flat.vectors[torch.float32]
    tensor([1., 1., 1., 1., 1., 1., 0., 0., 0.])
    """

    def __init__(self, layout: Layout, vectors: Mapping[torch.dtype, Tensor]) -> None:
        self.layout = layout
        self.vectors = dict(vectors)
        pieces = {
            kind: iter(torch.split(vectors[kind], sizes)) for kind, sizes in layout.sizes.items()
        }
        super().__init__(
            (name, next(pieces[kind]).view(shape)) for name, shape, kind in layout.parts
        )

    @classmethod
    def of(cls, named: Mapping[str, Tensor]) -> "FlatWeights":
        """A copy of tensors that may lie anywhere on one device."""
        if isinstance(named, FlatWeights):
            return named.clone()
        layout = Layout.of(named)
        device = next(iter(named.values())).device if named else None
        vectors = {
            kind: torch.empty(sum(sizes), dtype=kind, device=device)
            for kind, sizes in layout.sizes.items()
        }
        flat = cls(layout, vectors)
        for name, tensor in named.items():
            flat[name].copy_(tensor.detach())
        return flat

    def clone(self) -> "FlatWeights":
        """A copy."""
        return FlatWeights(self.layout, {kind: v.clone() for kind, v in self.vectors.items()})

    def fits(self, other: Mapping[str, Tensor]) -> bool:
        """Has it the same names, shapes and types in the same order?"""
        layout = Layout.of(other)
        return layout is self.layout or layout == self.layout


def not_finite(named: Mapping[str, Tensor]) -> str:
    """The name of the first tensor that holds NaN or infinity; empty if there is none.

    A sum tells in one pass whether there may be one, since NaN and infinity stay in it; only then
    is each tensor looked at.

    >>> not_finite({"count": torch.tensor(3), "w": torch.tensor([1.0, torch.inf])})
    'w'
    >>> not_finite({"w": torch.full((2,), 3e38)})
    ''
    """
    tensors = named.vectors.values() if isinstance(named, FlatWeights) else named.values()
    sums: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        if tensor.is_floating_point():
            sums.setdefault(tensor.device, []).append(tensor.detach().sum())
    if all(math.isfinite(value) for on_one in sums.values() for value in _numbers(on_one)):
        return ""
    # Large finite numbers may have an infinite sum, and then none is found.
    found = (name for name, tensor in named.items() if not tensor.isfinite().all())
    return next(found, "")


def _numbers(scalars: list[Tensor]) -> list[float]:
    """Their values, for which their device is asked once."""
    if len(scalars) < 2:
        return [scalar.item() for scalar in scalars]
    numbers: list[float] = torch.stack([scalar.double() for scalar in scalars]).tolist()
    return numbers


def tensors_in(nested: Any, name: str = "") -> dict[str, Tensor]:
    """Name -> tensor, of all in nested dictionaries and lists, such as an optimizer's state.

    What holds itself is looked at once.

    >>> tensors_in({"state": {0: {"step": torch.tensor(2.0)}}, "lr": 0.1})
    {'state.0.step': tensor(2.)}
    """
    found: dict[str, Tensor] = {}
    waiting, seen = [(name, nested)], set()
    while waiting:
        where, value = waiting.pop()
        if isinstance(value, Tensor):
            found[where] = value
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            parts = value.items() if isinstance(value, Mapping) else enumerate(value)
            inner = [(f"{where}.{key}" if where else str(key), part) for key, part in parts]
            waiting += reversed(inner)
    return found


@torch.no_grad()
def flatten(network: nn.Module) -> FlatWeights:
    """Lay a network's parameters and buffers into one vector in place; returns that vector's views.

    Writing into the vector changes the network. Moving the network to another device afterwards
    takes it out of the vector.
    """
    state = network.state_dict(keep_vars=True)
    flat = FlatWeights.of(state)
    for name, tensor in state.items():
        tensor.data = flat[name]
    return flat


@torch.no_grad()
def load_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into a network in place, after checking names and shapes.

    Raises:
        ValueError: A name or a shape differs; the sentence says which.
    """
    copy_weights(network.state_dict(), weights)


@torch.no_grad()
def copy_weights(target: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Copy weights over others of the same names and shapes.

    Raises:
        ValueError: A name or a shape differs; the sentence says which.
    """
    if (
        isinstance(target, FlatWeights)
        and isinstance(weights, FlatWeights)
        and target.fits(weights)
    ):
        for kind, vector in target.vectors.items():
            vector.copy_(weights.vectors[kind])
        return
    if target.keys() != weights.keys():
        odd = sorted(target.keys() ^ weights.keys())
        raise ValueError(f"Weights of another network: {len(odd)} names differ, first '{odd[0]}'.")
    for name, tensor in target.items():
        if tensor.shape != weights[name].shape:
            raise ValueError(
                f"Weights of another network: '{name}' has shape {tuple(weights[name].shape)}, "
                f"expected {tuple(tensor.shape)}."
            )
        tensor.copy_(weights[name])


def laid_out_as(before: Update | None, after: Update | None) -> Update | None:
    """An update in the order, the types and the places of memory that all others count on.

    Args:
        before: What the client would have sent.
        after: What is sent instead, with the same names and shapes.

    Raises:
        ValueError: A name or a shape differs; the sentence says which.
    """
    if before is None or after is None or after is before:
        return after
    weights = FlatWeights.of(before.weights)
    copy_weights(weights, after.weights)
    return replace(after, weights=weights)


def detached(state: Any) -> Any:
    """A copy of an optimizer's state, or of other nested tensors, that no later step changes."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: detached(value) for key, value in state.items()}
    if isinstance(state, list):
        return [detached(value) for value in state]
    return state


def check_finite(what: str, named: Mapping[str, Tensor]) -> None:
    """See that a client's tensors are numbers.

    Args:
        what: They are, for the sentence, in the plural.
        named: By name.

    Raises:
        NotFiniteError: One holds NaN or infinity.
    """
    name = not_finite(named) if named else ""
    if name:
        raise NotFiniteError(f"its {what} hold NaN or infinity, first in '{name}'")
