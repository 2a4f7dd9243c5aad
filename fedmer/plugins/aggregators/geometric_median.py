"""GeometricMedian, whose distances to all clients have the least sum."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from fedmer.cohort_updates import CohortUpdates, squared_distances
from fedmer.contracts.aggregator import Clear, ClientRound, ServerState
from fedmer.data.batch import Batch
from fedmer.errors import InputError
from fedmer.messages import Summary, Weights
from fedmer.plugins.aggregators._every_update import EveryUpdate
from fedmer.seeds import derive

SKETCH = "sketch"
WIDTH = 1024
"""Numbers in a sketch: distances are right to about 1 / sqrt(2 WIDTH), 2 %."""
ITERATIONS = 100
SMOOTHING = 1e-6
"""The least distance, in median distances from the middle client, so that none divides by 0."""
FARTHEST = 1e6
"""The largest distance, in the same: who is beyond counts nothing, since sums with its numbers
would leave those of the others no digits."""


class GeometricMedian(EveryUpdate):
    r"""The weights whose distances to those of all clients have the least sum.

    .. math::

        w^{t+1} = \operatorname{argmin}_v \sum_i \lVert w_i - v \rVert

    found by Weiszfeld's repeated weighted sums

    .. math::

        v \leftarrow \sum_i \lambda_i w_i, \qquad
        \lambda_i = \frac{1 / \max(\nu, \lVert w_i - v \rVert)}
        {\sum_j 1 / \max(\nu, \lVert w_j - v \rVert)}

    from the mean of that half on that is nearest to the middle client. K. Pillutla et al., "Robust
    Aggregation for Federated Learning", IEEE Transactions on Signal Processing 2022 (RFA). Fewer
    than half of the clients cannot carry it away. Since :math:`v` stays a weighted sum of what
    clients sent, its distances follow from those between clients,

    .. math::

        \lVert w_i - v \rVert^2 = (D \lambda)_i - \tfrac12 \lambda^\top D \lambda, \qquad
        D_{ij} = \lVert w_i - w_j \rVert^2

    so that all iterations together need :math:`D` once, and one weighted sum of the updates.

    Where :math:`D` comes from is a choice. *Measured*: the server sees every update, and nobody can
    lie. *Reported*: each client sends 1024 numbers with its summary, a random projection of its
    change (signs and sums, the same for all clients of a round), between which distances are right
    to about 2 %. The server then sees these and one sum, so that this works under a masked sum,
    as RFA does; but a client that reports another change than it sends is not found out, and 1024
    sums over a client's change are known. RFA itself asks for a masked sum in each iteration. As
    many sums of the same updates as there are clients, by other weights each time, are equations
    that give every update, so that a node of fedmer lets its update go into one sum.

    Clients weigh the same to begin with, whatever they claim.

    Args:
        distances: 'measured' or 'reported'.

    Raises:
        InputError: ``distances`` is neither.

    >>> from fedmer.weights import FlatWeights
    >>> sent = [FlatWeights.of({"w": torch.tensor([x, 0.0])}) for x in (1.0, 2.0, 900.0)]
    >>> updates, state = CohortUpdates(dict(enumerate(sent))), ServerState(torch.nn.Module())
    >>> GeometricMedian().combine(updates, {}, state)
    {'w': tensor([2., 0.])}
    """

    streams = False

    def __init__(self, distances: Literal["measured", "reported"] = "measured") -> None:
        if distances not in ("measured", "reported"):
            raise InputError(f"distances is {distances!r}; expected 'measured' or 'reported'.")
        self.distances = distances
        self.sees_updates = distances == "measured"

    @property
    def reads(self) -> tuple[Clear, ...]:
        return () if self.sees_updates else ("sketches",)

    def summarize(self, context: ClientRound, batches: Iterable[Batch]) -> Mapping[str, Tensor]:
        if self.sees_updates:
            return {}
        received, now = context.received.weights, context.client.network.state_dict()
        assert received is not None
        change = [
            (now[name] - value).flatten()
            for name, value in received.items()
            if value.is_floating_point()
        ]
        return {SKETCH: sketch(torch.cat(change), context.received.round)}

    def weigh(self, summaries: Sequence[Summary], state: ServerState) -> dict[int, float]:
        if self.sees_updates:
            return super().weigh(summaries, state)
        sketches = torch.stack([summary.tensors[SKETCH] for summary in summaries]).double()
        shares: list[float] = weiszfeld(squared_distances([sketches])).tolist()
        return {summary.client: share for summary, share in zip(summaries, shares, strict=True)}

    def combine(
        self, updates: CohortUpdates, weights: Mapping[int, float], state: ServerState
    ) -> Weights:
        return updates.sum(weiszfeld(updates.apart()))


def sketch(change: Tensor, round: int) -> Tensor:
    r"""``(1024,)`` sums of ``(n,)`` numbers, whose distances are those of the numbers on average.

    .. math::

        y_k = \sum_{j \in G_k} \pm x_j, \qquad \mathbb{E} \lVert y \rVert^2 = \lVert x \rVert^2

    with random signs, and groups :math:`G_k` of the same size (M. Charikar et al., "Finding
    Frequent Items in Data Streams", 2002). Both are functions of the round, and anybody can know
    them.
    """
    random = torch.Generator().manual_seed(derive(0, "sketch", round))
    count = len(change)
    groups = -(-count // WIDTH)
    order = torch.randperm(count, generator=random).to(change.device)
    signs = torch.randint(0, 2, (count,), generator=random).to(change) * 2 - 1
    spread = change.new_zeros(groups * WIDTH)
    spread[:count] = (change * signs)[order]
    return spread.view(groups, WIDTH).sum(dim=0)


def weiszfeld(apart: Tensor) -> Tensor:
    """``(I,)`` float64 parts, sum 1, of the geometric median in the points that it is made of.

    Args:
        apart: ``(I, I)`` float64 squared distances of the points.

    >>> points = torch.tensor([[0.0], [2.0], [10.0]], dtype=torch.float64)
    >>> weiszfeld(torch.cdist(points, points).square()).round(decimals=3)
    tensor([0., 1., 0.], dtype=torch.float64)
    """
    distances = apart.sqrt()
    middle = distances[distances.sum(dim=1).argmin()]
    scale = middle.quantile(0.5)
    # From the nearer half on, since the mean of all may be as far as one client likes.
    shares = (middle <= scale).double()
    shares /= shares.sum()
    counted = middle <= FARTHEST * scale
    for _ in range(ITERATIONS if scale > 0 else 0):
        towards = apart[:, counted] @ shares[counted]
        squares = towards - shares[counted] @ towards[counted] / 2
        shares = counted / squares.clamp(min=0).sqrt().clamp(min=SMOOTHING * scale)
        shares /= shares.sum()
    return shares
