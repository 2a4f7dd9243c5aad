"""Every update of a cohort, for rules that have to see each."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from fedmer.weights import FlatWeights

BLOCK = 2**22
"""Numbers of a cohort's updates that are looked at together."""


class CohortUpdates:
    """Every update of a cohort, for a rule that has to see each.

    They are read in blocks of limited size from where they wait, so that memory does not grow with
    the cohort.

    Args:
        updates: Client id -> its update, in the cohort's order.
    """

    def __init__(self, updates: Mapping[int, FlatWeights]) -> None:
        self.clients = list(updates)
        """Ids, in the order of the rows of a block."""
        self._updates = list(updates.values())

    def blocks(self) -> Iterator[Tensor]:
        """``(I, n)`` floating-point numbers of all ``I`` clients; together all there are."""
        for kind, length in self._lengths():
            if kind.is_floating_point:
                for start, stop in self._steps(length):
                    yield torch.stack(
                        [update.vectors[kind][start:stop] for update in self._updates]
                    )

    def combine(self, rule: Callable[[Tensor], Tensor]) -> FlatWeights:
        """Join them block by block.

        Args:
            rule: ``(I, n)`` -> ``(n,)``, of floating-point numbers. Of integers and booleans the
                largest is taken.
        """
        joined = self._updates[0].clone()
        parts = (rule(block) for block in self.blocks())
        for kind, length in self._lengths():
            for start, stop in self._steps(length) if kind.is_floating_point else []:
                joined.vectors[kind][start:stop] = next(parts)
            if not kind.is_floating_point:
                for update in self._updates[1:]:
                    torch.maximum(
                        joined.vectors[kind], update.vectors[kind], out=joined.vectors[kind]
                    )
        return joined

    def _lengths(self) -> list[tuple[torch.dtype, int]]:
        return [(kind, len(vector)) for kind, vector in self._updates[0].vectors.items()]

    def _steps(self, length: int) -> Iterator[tuple[int, int]]:
        step = max(1, BLOCK // len(self._updates))
        for start in range(0, length, step):
            yield start, min(start + step, length)
