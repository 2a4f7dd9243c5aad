"""Median, number by number."""

from collections.abc import Mapping

from torch import Tensor

from fedmer.cohort_updates import CohortUpdates
from fedmer.contracts.aggregator import ServerState
from fedmer.messages import Weights
from fedmer.plugins.aggregators._every_update import EveryUpdate


class Median(EveryUpdate):
    r"""The median of the clients' weights, number by number.

    .. math:: w^{t+1}_j = \operatorname{med}_i w^{t+1}_{ij}

    D. Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML
    2018, algorithm 1. Of an even number of clients it is the mean of the two in the middle. Fewer
    than half of the clients cannot carry a number out of the range of the others. Clients weigh
    the same, whatever they claim; the server sees every update.

    >>> import torch
    >>> from fedmer.weights import FlatWeights
    >>> sent = [FlatWeights.of({"w": torch.tensor([x])}) for x in (1.0, 2.0, 900.0)]
    >>> Median().combine(CohortUpdates(dict(enumerate(sent))), {}, ServerState(torch.nn.Module()))
    {'w': tensor([2.])}
    """

    def __init__(self) -> None:
        # Without FedAvg's options, which mean nothing for a median.
        super().__init__()

    def combine(
        self, updates: CohortUpdates, weights: Mapping[int, float], state: ServerState
    ) -> Weights:
        return updates.combine(median)


def median(block: Tensor) -> Tensor:
    """``(n,)`` medians of the columns of ``(I, n)`` numbers."""
    ordered, count = block.sort(dim=0).values, len(block)
    return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
