"""Every update of a cohort, for rules that have to see each."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from fedmer.messages import Weights
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

    def blocks(self, around: Weights | None = None) -> Iterator[Tensor]:
        """``(I, n)`` floating-point numbers of all ``I`` clients; together all there are.

        Args:
            around: Subtract these from each client's; names and shapes of an update, at least.
        """
        centre = None
        if around is not None:
            centre = FlatWeights.of({name: around[name] for name in self._updates[0]})
        for kind, length in self._lengths():
            if kind.is_floating_point:
                for start, stop in self._steps(length):
                    rows = [update.vectors[kind][start:stop] for update in self._updates]
                    block = torch.stack(rows)
                    yield block if centre is None else block - centre.vectors[kind][start:stop]

    def sizes(self, around: Weights) -> Tensor:
        """``(I,)`` float64: the Euclidean norm of each client's difference from ``around``."""
        squares = torch.zeros(len(self.clients), dtype=torch.float64)
        for block in self.blocks(around):
            squares += block.double().square().sum(dim=1).cpu()
        return squares.sqrt()

    def apart(self) -> Tensor:
        """``(I, I)`` float64: squared Euclidean distances of all clients from each other."""
        return squared_distances(self.blocks())

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

    def sum(self, shares: Tensor) -> FlatWeights:
        """The weighted sum of all clients.

        Args:
            shares: ``(I,)`` float64, what each is multiplied by.
        """
        return self.combine(lambda block: (shares @ block.double().cpu()).to(block))

    def _lengths(self) -> list[tuple[torch.dtype, int]]:
        return [(kind, len(vector)) for kind, vector in self._updates[0].vectors.items()]

    def _steps(self, length: int) -> Iterator[tuple[int, int]]:
        step = max(1, BLOCK // len(self._updates))
        for start in range(0, length, step):
            yield start, min(start + step, length)


def squared_distances(blocks: Iterable[Tensor]) -> Tensor:
    """``(I, I)`` float64: squared Euclidean distances between the rows of blocks side by side.

    Args:
        blocks: ``(I, n)`` each, at least one.
    """
    products: list[Tensor] = []
    for block in blocks:
        # Around the middle of the rows, so that the large numbers of one do not cost the distances
        # of the others their digits.
        rows = (block.double() - block.median(dim=0).values).cpu()
        products = [sum(products, rows @ rows.T)]
    own = products[0].diagonal()
    apart = own[:, None] + own - products[0] - products[0].T
    return apart.clamp(min=0).fill_diagonal_(0)
