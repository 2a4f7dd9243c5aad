"""FedAvg, federated averaging."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fedmer.contracts.aggregator import Aggregator, Clear, ClientRound, ServerState
from fedmer.data.batch import Batch
from fedmer.errors import InputError
from fedmer.messages import Summary, Weights
from fedmer.plugins.aggregators._heads import Heads, check_rows, count_classes, weights_by_counts
from fedmer.plugins.aggregators._pseudo_gradient import leave_pseudo_gradient


class FedAvg(Aggregator):
    r"""Federated averaging: the mean of the clients' weights, by their number of examples.

    .. math:: w^{t+1} = \sum_i \frac{n_i}{\sum_j n_j} w_i^{t+1}

    B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
    AISTATS 2017. :math:`n_i` counts labelled utterances.

    With ``heads='classwise'`` this holds for all but the head. There the row of class :math:`k` is
    averaged by the utterances of that class alone, and a class of which the cohort has none keeps
    its row, so that nobody who does not know an emotion has a say in how it is named:

    .. math:: w_{(k)}^{t+1} = \sum_i \frac{n_{ik}}{\sum_j n_{jk}} w_{i(k)}^{t+1}

    Args:
        heads: How rows of classes are averaged: 'joint', as everything else, or 'classwise', for
            which the server learns every client's class counts.
        lr: The server's learning rate, above 0: how far the global network goes towards the mean.
            Below 1 rounds swing less. At 1 it is the mean bit for bit.

    Raises:
        InputError: ``lr`` is not above 0.

    >>> import torch
    >>> rule, state = FedAvg(), ServerState(torch.nn.Linear(1, 1, bias=False))
    >>> rule.weigh([Summary(0, examples=30), Summary(1, examples=10)], state)
    {0: 30.0, 1: 10.0}
    >>> rule.step(state, [], {}, {"weight": torch.tensor([[2.0]])})
    >>> state.network.weight.item()
    2.0
    """

    heads: Heads = "joint"
    """Also of a subclass that takes no such argument."""
    lr: float = 1.0
    """Likewise."""

    def __init__(self, heads: Heads = "joint", lr: float = 1.0) -> None:
        if not lr > 0:
            raise InputError(f"lr is {lr}; expected a number above 0.")
        self.heads = heads
        self.lr = lr

    def check(self, network: nn.Module) -> None:
        if self.heads == "classwise":
            check_rows(network)

    @property
    def reads(self) -> tuple[Clear, ...]:
        return ("examples",) if self.heads == "joint" else ("examples", "class counts")

    def summarize(self, context: ClientRound, batches: Iterable[Batch]) -> Mapping[str, Tensor]:
        if self.heads == "joint":
            return {}
        return count_classes(batches, context.client.network.shape.classes)

    def weigh_classes(
        self, summaries: Sequence[Summary], state: ServerState
    ) -> dict[int, Tensor] | None:
        if self.heads == "joint":
            return None
        return weights_by_counts(summaries)

    def server_optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        return torch.optim.SGD(parameters, lr=self.lr)

    def step(
        self,
        state: ServerState,
        summaries: Sequence[Summary],
        weights: Mapping[int, float],
        mean: Weights | None,
    ) -> None:
        assert mean is not None
        if self.lr == 1:
            # In floating point x - (x - mean) is not always the mean.
            state.load(mean)
        else:
            leave_pseudo_gradient(state, mean)
