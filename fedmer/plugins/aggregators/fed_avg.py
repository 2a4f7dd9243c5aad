"""FedAvg, federated averaging."""

from collections.abc import Mapping, Sequence

from fedmer.contracts.aggregator import Aggregator, ServerState
from fedmer.messages import Summary, Weights
from fedmer.weights import load_weights


class FedAvg(Aggregator):
    r"""Federated averaging: the mean of the clients' weights, by their number of examples.

    .. math:: w^{t+1} = \sum_i \frac{n_i}{\sum_j n_j} w_i^{t+1}

    B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
    AISTATS 2017. :math:`n_i` counts labelled turns.
    """

    def step(
        self,
        state: ServerState,
        summaries: Sequence[Summary],
        weights: Mapping[int, float],
        mean: Weights | None,
    ) -> None:
        assert mean is not None
        load_weights(state.network, mean)
