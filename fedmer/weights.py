"""Weights of a network as views of one vector, so that moving them is one copy."""

from collections.abc import Mapping
from itertools import accumulate

import torch
from torch import Tensor, nn

from fedmer.messages import Weights


class FlatWeights(Weights):
    """A dictionary of weights, each a view of one vector for its type of number.

    Args:
        named: Name -> tensor; the values are not copied, only the layout.
        vectors: Type -> ``(n,)``, in the order of the names; new and uninitialised if None.

    >>> flat = FlatWeights.of({"w": torch.ones(2, 3), "b": torch.zeros(3)})
    >>> flat.vectors[torch.float32]
    tensor([1., 1., 1., 1., 1., 1., 0., 0., 0.])
    """

    def __init__(
        self, named: Mapping[str, Tensor], vectors: Mapping[torch.dtype, Tensor] | None = None
    ) -> None:
        kinds: dict[torch.dtype, list[str]] = {}
        for name, tensor in named.items():
            kinds.setdefault(tensor.dtype, []).append(name)
        self.vectors: dict[torch.dtype, Tensor] = {}
        found: Weights = {}
        for kind, names in kinds.items():
            ends = list(accumulate(named[name].numel() for name in names))
            like = named[names[0]]
            self.vectors[kind] = (
                torch.empty(ends[-1], dtype=kind, device=like.device)
                if vectors is None
                else vectors[kind]
            )
            for name, end in zip(names, ends, strict=True):
                tensor = named[name]
                part = self.vectors[kind][end - tensor.numel() : end]
                found[name] = part.view(tensor.shape)
        super().__init__((name, found[name]) for name in named)

    @classmethod
    def of(cls, named: Mapping[str, Tensor]) -> "FlatWeights":
        """A copy of tensors that may lie anywhere."""
        flat = cls(named)
        for name, tensor in named.items():
            flat[name].copy_(tensor.detach())
        return flat

    def clone(self) -> "FlatWeights":
        """A copy."""
        return FlatWeights(self, {kind: vector.clone() for kind, vector in self.vectors.items()})

    def fits(self, other: Mapping[str, Tensor]) -> bool:
        """Has it the same names, shapes and types in the same order?"""
        return [(n, t.shape, t.dtype) for n, t in self.items()] == [
            (n, t.shape, t.dtype) for n, t in other.items()
        ]


@torch.no_grad()
def flatten(network: nn.Module) -> FlatWeights:
    """Lay a network's parameters and buffers into one vector in place; returns that vector's views.

    Writing into the vector changes the network. Moving the network to another device afterwards
    takes it out of the vector.
    """
    own = network.state_dict(keep_vars=True)
    flat = FlatWeights.of(own)
    for name, tensor in own.items():
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
def copy_weights(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Copy weights over others of the same names and shapes.

    Raises:
        ValueError: A name or a shape differs; the sentence says which.
    """
    if isinstance(own, FlatWeights) and isinstance(weights, FlatWeights) and own.fits(weights):
        for kind, vector in own.vectors.items():
            vector.copy_(weights.vectors[kind])
        return
    if own.keys() != weights.keys():
        odd = sorted(own.keys() ^ weights.keys())
        raise ValueError(f"Weights of another network: {len(odd)} names differ, first '{odd[0]}'.")
    for name, target in own.items():
        if target.shape != weights[name].shape:
            raise ValueError(
                f"Weights of another network: '{name}' has shape {tuple(weights[name].shape)}, "
                f"expected {tuple(target.shape)}."
            )
        target.copy_(weights[name])
