"""NormBound, averaging in which no client goes further than a bound."""

from collections.abc import Mapping

import torch

from fedmer.cohort_updates import CohortUpdates
from fedmer.contracts.aggregator import ServerState
from fedmer.errors import InputError
from fedmer.messages import Weights
from fedmer.plugins.aggregators.fed_avg import FedAvg


class NormBound(FedAvg):
    r"""FedAvg whose server shortens changes that are longer than a bound.

    .. math::

        w^{t+1} = w^t + \sum_i p_i \min\Bigl(1, \frac{b}{\lVert w_i - w^t \rVert}\Bigr)
        (w_i - w^t), \qquad p_i = n_i \big/ \textstyle\sum_j n_j

    Z. Sun et al., "Can You Really Backdoor Federated Learning?", 2019 (arXiv 1911.07963). It bounds
    how far a client can carry the mean, and not in which direction: against few clients who shout
    it is enough, against many who whisper it is nothing. Unlike clipping on clients, nobody can
    leave it out: the server measures, and so sees every update. :math:`n_i` is what a client says
    of its labelled utterances.

    Args:
        bound: The longest change :math:`b`, above 0; by default the median of the cohort's, which
            a minority cannot raise beyond what honest clients do.

    Raises:
        InputError: ``bound`` is not above 0.

    >>> from fedmer.weights import FlatWeights
    >>> sent = [FlatWeights.of({"weight": torch.tensor([[x]])}) for x in (1.0, 2.0, 900.0)]
    >>> state = ServerState(torch.nn.Linear(1, 1, bias=False))
    >>> state.load({"weight": torch.zeros(1, 1)})
    >>> same = {0: 1.0, 1: 1.0, 2: 1.0}
    >>> NormBound(bound=3).combine(CohortUpdates(dict(enumerate(sent))), same, state)
    {'weight': tensor([[2.]])}
    """

    sees_updates = True

    def __init__(self, bound: float | None = None) -> None:
        if bound is not None and not bound > 0:
            raise InputError(f"bound is {bound}; expected a number above 0, or none.")
        self.bound = bound

    def combine(
        self, updates: CohortUpdates, weights: Mapping[int, float], state: ServerState
    ) -> Weights:
        received = state.network.state_dict()
        sizes = updates.sizes(received)
        bound = sizes.quantile(0.5) if self.bound is None else torch.tensor(self.bound)
        shares = torch.tensor([weights[client] for client in updates.clients]).double()
        shares *= (bound / sizes).nan_to_num(nan=1.0).clamp(max=1) / shares.sum()
        joined, rest = updates.sum(shares), 1 - float(shares.sum())
        for name, value in joined.items():
            if value.is_floating_point():
                value.add_(received[name], alpha=rest)
        return joined
