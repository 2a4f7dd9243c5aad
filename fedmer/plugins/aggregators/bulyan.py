"""Bulyan, a trimmed mean of the clients that Krum chooses."""

from collections.abc import Mapping

from torch import Tensor

from fedmer.cohort_updates import CohortUpdates
from fedmer.contracts.aggregator import ServerState
from fedmer.messages import Weights
from fedmer.plugins.aggregators._every_update import SomeBad
from fedmer.plugins.aggregators._krum import best
from fedmer.plugins.aggregators.median import median


class Bulyan(SomeBad):
    r"""Clients chosen by Krum one after the other, then the mean around the median of each number.

    Of :math:`I` clients, of which :math:`f = \lfloor \beta I \rfloor` may be bad,
    :class:`~fedmer.plugins.aggregators.krum.Krum` chooses :math:`I - 2f`, each among those that
    are left. With their median :math:`m_j` of each number, and :math:`B_j` the
    :math:`I - 4f` of them whose number is nearest to it,

    .. math:: w^{t+1}_j = \frac{1}{I - 4f} \sum_{i \in B_j} w_{ij}^{t+1}

    E. El Mhamdi et al., "The Hidden Vulnerability of Distributed Learning in Byzantium", ICML 2018:
    beside Krum's guarantee for the whole, no single number can be carried far. Where :math:`f > 0`,
    a round needs :math:`4f + 3` clients. The server sees every update.

    Args:
        bad: The largest share of a cohort that may be bad, :math:`\beta` in [0, 0.25).

    Raises:
        InputError: ``bad`` is out of range.

    >>> import torch
    >>> from fedmer.weights import FlatWeights
    >>> sent = [FlatWeights.of({"w": torch.tensor([float(x)])}) for x in [*range(1, 10), 99]]
    >>> updates, state = CohortUpdates(dict(enumerate(sent))), ServerState(torch.nn.Module())
    >>> Bulyan(bad=0.1).combine(updates, {}, state)
    {'w': tensor([4.5000])}
    """

    def __init__(self, bad: float = 0.1) -> None:
        super().__init__(bad)

    def combine(
        self, updates: CohortUpdates, weights: Mapping[int, float], state: ServerState
    ) -> Weights:
        clients = len(updates.clients)
        bad = self.count_bad(clients, needed=(4, 3))
        chosen = choose(updates.apart(), bad, clients - 2 * bad)
        return updates.combine(lambda block: around_median(block[chosen], clients - 4 * bad))


def choose(apart: Tensor, bad: int, count: int) -> list[int]:
    """The places of ``count`` clients that Krum chooses one after the other.

    Args:
        apart: ``(I, I)`` squared distances.
        bad: How many clients may be bad.
        count: How many to choose.
    """
    left, chosen = list(range(len(apart))), []
    for _ in range(count):
        among = apart[left][:, left]
        chosen.append(left.pop(best(among, bad)))
    return chosen


def around_median(block: Tensor, count: int) -> Tensor:
    """``(n,)`` means of those ``count`` numbers of each column that are nearest to its median."""
    nearest = (block - median(block)).abs().argsort(dim=0, stable=True)[:count]
    return block.gather(0, nearest).mean(dim=0)
