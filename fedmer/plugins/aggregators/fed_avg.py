"""FedAvg, federated averaging."""

from collections.abc import Mapping, Sequence

from fedmer.contracts.aggregator import Aggregator, ServerState
from fedmer.messages import Summary, Weights


class FedAvg(Aggregator):
    r"""Federated averaging: the mean of the clients' weights, by their number of examples.

    .. math:: w^{t+1} = \sum_i \frac{n_i}{\sum_j n_j} w_i^{t+1}

    B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
    AISTATS 2017. :math:`n_i` counts labelled turns.

    >>> import torch
    >>> rule, state = FedAvg(), ServerState(torch.nn.Linear(1, 1, bias=False))
    >>> rule.weigh([Summary(0, examples=30), Summary(1, examples=10)], state)
    {0: 30.0, 1: 10.0}
    >>> rule.step(state, [], {}, {"weight": torch.tensor([[2.0]])})
    >>> state.network.weight.item()
    2.0
    """

    def step(
        self,
        state: ServerState,
        summaries: Sequence[Summary],
        weights: Mapping[int, float],
        mean: Weights | None,
    ) -> None:
        assert mean is not None
        state.load(mean)
