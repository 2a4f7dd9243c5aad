"""TrimmedMean, number by number."""

from collections.abc import Mapping

from fedmer.cohort_updates import CohortUpdates
from fedmer.contracts.aggregator import ServerState
from fedmer.messages import Weights
from fedmer.plugins.aggregators._every_update import SomeBad


class TrimmedMean(SomeBad):
    r"""The mean of the clients' weights without the largest and smallest, number by number.

    .. math::

        w^{t+1}_j = \frac{1}{I - 2f} \sum_{i = f + 1}^{I - f} w^{t+1}_{(i)j}, \qquad
        f = \lfloor \beta I \rfloor

    with the :math:`I` values of a number in ascending order. D. Yin et al., "Byzantine-Robust
    Distributed Learning: Towards Optimal Statistical Rates", ICML 2018, algorithm 1. Clients weigh
    the same, whatever they claim; the server sees every update.

    Args:
        bad: The largest share of a cohort that may be bad, :math:`\beta` in [0, 0.5). At 0 it is
            the plain mean.

    Raises:
        InputError: ``bad`` is out of range.

    >>> import torch
    >>> from fedmer.weights import FlatWeights
    >>> sent = [FlatWeights.of({"w": torch.tensor([x])}) for x in (1.0, 2.0, 3.0, 900.0)]
    >>> updates, state = CohortUpdates(dict(enumerate(sent))), ServerState(torch.nn.Module())
    >>> TrimmedMean(bad=0.25).combine(updates, {}, state)
    {'w': tensor([2.5000])}
    """

    def combine(
        self, updates: CohortUpdates, weights: Mapping[int, float], state: ServerState
    ) -> Weights:
        clients = len(updates.clients)
        cut = self.count_bad(clients)
        return updates.combine(
            lambda block: block.sort(dim=0).values[cut : clients - cut].mean(dim=0)
        )
