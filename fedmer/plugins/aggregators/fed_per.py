"""FedPer, averaging with personal heads."""

from collections.abc import Collection

from torch import nn

from fedmer.plugins.aggregators._personal_parts import check_parts, personal_parts
from fedmer.plugins.aggregators.fed_avg import FedAvg


class FedPer(FedAvg):
    r"""FedAvg of the body; the head of every client stays with it.

    With :math:`w = (b, h_i)`, client :math:`i` trains both at once, sends :math:`b_i` and keeps
    :math:`h_i` for the next round in which it takes part:

    .. math:: b^{t+1} = \sum_i \frac{n_i}{\sum_j n_j} b_i^{t+1}

    M. G. Arivazhagan et al., "Federated Learning with Personalization Layers", arXiv:1912.00818,
    2019. A client that has not trained yet has the head of the first day.

    Args:
        personal: Parts of the network that stay, such as ``[head]``: each stands for all parameters
            and buffers that have it between the dots of their names. None is the heads, which the
            network names in ``class_parameters``; an empty list is FedAvg bit for bit.

    >>> from fedmer.contracts import ServerState
    >>> network = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 3)})
    >>> list(FedPer(["head"]).broadcast(ServerState(network)).weights)
    ['body.weight', 'body.bias']
    """

    def __init__(self, personal: list[str] | None = None) -> None:
        super().__init__()
        self.personal = personal

    def check(self, network: nn.Module) -> None:
        check_parts(network, self.personal)

    def personal_names(self, network: nn.Module) -> Collection[str]:
        return personal_parts(network, self.personal)
