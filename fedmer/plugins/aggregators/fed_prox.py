"""FedProx, averaging with a proximal term."""

from fedmer.contracts.aggregator import ClientRound
from fedmer.errors import InputError
from fedmer.plugins.aggregators._heads import Heads
from fedmer.plugins.aggregators._proximal import pull
from fedmer.plugins.aggregators.fed_avg import FedAvg


class FedProx(FedAvg):
    r"""FedAvg whose clients are pulled towards the weights that they received.

    Client :math:`i` minimises

    .. math:: F_i(w) + \frac{\mu}{2} \lVert w - w^t \rVert^2

    by adding the exact gradient :math:`\mu (w - w^t)` before each optimizer step. T. Li et al.,
    "Federated Optimization in Heterogeneous Networks", MLSys 2020.

    Args:
        mu: Strength of the pull, 0 or more; 0 is FedAvg bit for bit.
        heads: How rows of classes are averaged, 'joint' or 'classwise', as in FedAvg.

    Raises:
        InputError: ``mu`` is negative.

    >>> import torch
    >>> from types import SimpleNamespace
    >>> from fedmer.messages import Broadcast
    >>> network = torch.nn.Linear(1, 1, bias=False)
    >>> network.weight.grad = torch.zeros(1, 1)
    >>> received = Broadcast(0, {"weight": network.weight.detach() - 2})
    >>> context = ClientRound(SimpleNamespace(network=network), received)
    >>> FedProx(mu=0.1).on_before_optimizer_step(context)
    >>> round(network.weight.grad.item(), 4)
    0.2
    """

    def __init__(self, mu: float = 0.01, heads: Heads = "joint") -> None:
        super().__init__(heads)
        if not mu >= 0:
            raise InputError(f"mu is {mu}; expected 0 or more.")
        self.mu = mu

    def on_before_optimizer_step(self, context: ClientRound) -> None:
        pull(context, self.mu)
