"""Krum, the one client that is nearest to others."""

from collections.abc import Mapping

from fedmer.cohort_updates import CohortUpdates
from fedmer.contracts.aggregator import ServerState
from fedmer.messages import Weights
from fedmer.plugins.aggregators._every_update import SomeBad
from fedmer.plugins.aggregators._krum import best


class Krum(SomeBad):
    r"""The weights of the one client that lies nearest to its neighbours.

    .. math::

        w^{t+1} = w_{i^*}^{t+1}, \qquad
        i^* = \operatorname{argmin}_i \sum_{j \in N_i} \lVert w_i^{t+1} - w_j^{t+1} \rVert^2

    with :math:`N_i` the :math:`I - f - 2` of :math:`I` clients that are nearest to client
    :math:`i`, and :math:`f = \lfloor \beta I \rfloor`. P. Blanchard et al., "Machine Learning with
    Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017. Where :math:`f > 0`, a round
    needs :math:`2f + 3` clients. The server sees every update, and learns from one client a round;
    :class:`~fedmer.plugins.aggregators.multi_krum.MultiKrum` learns from most.

    Args:
        bad: The largest share of a cohort that may be bad, :math:`\beta` in [0, 0.5).

    Raises:
        InputError: ``bad`` is out of range.

    >>> import torch
    >>> from fedmer.weights import FlatWeights
    >>> sent = [FlatWeights.of({"w": torch.tensor([x])}) for x in (1.0, 2.0, 2.5, 9.0, 900.0)]
    >>> updates, state = CohortUpdates(dict(enumerate(sent))), ServerState(torch.nn.Module())
    >>> Krum(bad=0.2).combine(updates, {}, state)
    {'w': tensor([2.])}
    """

    def combine(
        self, updates: CohortUpdates, weights: Mapping[int, float], state: ServerState
    ) -> Weights:
        chosen = best(updates.apart(), self.count_bad(len(updates.clients), needed=(2, 3)))
        return updates.combine(lambda block: block[chosen])
