"""MultiKrum, the mean of the clients that are nearest to others."""

from collections.abc import Mapping

import torch

from fedmer.cohort_updates import CohortUpdates
from fedmer.contracts.aggregator import ServerState
from fedmer.messages import Weights
from fedmer.plugins.aggregators._every_update import SomeBad
from fedmer.plugins.aggregators._krum import krum_scores


class MultiKrum(SomeBad):
    r"""The mean of those clients that lie nearest to their neighbours.

    .. math::

        w^{t+1} = \frac{1}{|S|} \sum_{i \in S} w_i^{t+1}, \qquad
        s_i = \sum_{j \in N_i} \lVert w_i^{t+1} - w_j^{t+1} \rVert^2

    with :math:`N_i` the :math:`I - f - 2` of :math:`I` clients that are nearest to client
    :math:`i`, :math:`f = \lfloor \beta I \rfloor`, and :math:`S` the :math:`I - f` clients of the
    least :math:`s_i`. P. Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant
    Gradient Descent", NeurIPS 2017. Where :math:`f > 0`, a round needs :math:`2f + 3` clients.
    Clients weigh the same, whatever they claim; the server sees every update. A rare honest client
    is left out as a bad one is.

    Args:
        bad: The largest share of a cohort that may be bad, :math:`\beta` in [0, 0.5).

    Raises:
        InputError: ``bad`` is out of range.

    >>> from fedmer.weights import FlatWeights
    >>> sent = [FlatWeights.of({"w": torch.tensor([x])}) for x in (1.0, 2.0, 3.0, 4.0, 900.0)]
    >>> updates, state = CohortUpdates(dict(enumerate(sent))), ServerState(torch.nn.Module())
    >>> MultiKrum(bad=0.2).combine(updates, {}, state)
    {'w': tensor([2.5000])}
    """

    def combine(
        self, updates: CohortUpdates, weights: Mapping[int, float], state: ServerState
    ) -> Weights:
        bad = self.count_bad(len(updates.clients), needed=(2, 3))
        kept = len(updates.clients) - bad
        chosen = krum_scores(updates.apart(), bad).argsort(stable=True)[:kept]
        shares = torch.zeros(len(updates.clients), dtype=torch.float64)
        return updates.sum(shares.index_fill(0, chosen, 1 / kept))
