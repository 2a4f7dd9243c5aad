"""The utterances of a batch one behind the other, without the padding between them."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fedmer.data.batch import Batch


@dataclass(frozen=True, eq=False)
class Packing:
    """Where the ``N`` utterances of a padded batch of ``B`` dialogues stand.

    About two fifths of a padded batch of conversations is padding. What works an utterance at a
    time works on ``N`` rows instead of ``B * L``; attention goes dialogue by dialogue.

    Args:
        places: ``(N,)`` int64, indices into the ``B * L`` flattened places, ascending.
        lengths: Utterances of each dialogue, ``B`` numbers whose sum is ``N``.
        longest: The padded length ``L``.

    >>> packing = Packing(torch.tensor([0, 1, 3]), [2, 1], longest=3)
    >>> packing.pack(torch.tensor([[1, 2, 0], [3, 0, 0]]))
    tensor([1, 2, 3])
    >>> packing.unpack(torch.tensor([1, 2, 3]))
    tensor([[1, 2, 0],
            [3, 0, 0]])
    """

    places: Tensor
    lengths: list[int]
    longest: int

    @classmethod
    def of(cls, batch: Batch) -> "Packing":
        """That of a batch's context mask."""
        return cls(batch.places, batch.lengths, batch.context.shape[1])

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """First row and the row behind the last, of every dialogue that has utterances."""
        ends = torch.tensor(self.lengths).cumsum(0).tolist()
        return [(e - n, e) for n, e in zip(self.lengths, ends, strict=True) if n]

    def pack(self, padded: Tensor, dim: int = 0) -> Tensor:
        """``(..., N, ...)`` of ``(..., B, L, ...)``; ``dim`` is where B stands."""
        return padded.flatten(dim, dim + 1).index_select(dim, self.places)

    def unpack(self, packed: Tensor, dim: int = 0, value: float = 0) -> Tensor:
        """``(..., B, L, ...)`` of ``(..., N, ...)``, ``value`` in padding."""
        total = len(self.lengths) * self.longest
        shape = [*packed.shape[:dim], total, *packed.shape[dim + 1 :]]
        padded = packed.new_full(shape, value).index_copy(dim, self.places, packed)
        sizes = (len(self.lengths), self.longest)
        return padded.view(*packed.shape[:dim], *sizes, *packed.shape[dim + 1 :])

    def any_so_far(self, held: Tensor) -> Tensor:
        """``(P, N)`` bool of ``(P, N)``: does an utterance hold it, or one before it?"""
        return self.pack(self.unpack(held, dim=1).cummax(dim=-1).values, dim=1)

    def any(self, held: Tensor) -> Tensor:
        """``(P, N)`` bool of ``(P, N)``: does any utterance of the same dialogue hold it?"""
        found = self.unpack(held, dim=1).any(dim=-1, keepdim=True)
        return self.pack(found.expand(-1, -1, self.longest), dim=1)
