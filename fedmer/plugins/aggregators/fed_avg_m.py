"""FedAvgM, averaging with momentum on the server."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from fedmer.contracts.aggregator import ServerState
from fedmer.errors import InputError
from fedmer.messages import Summary, Weights
from fedmer.plugins.aggregators._heads import Heads
from fedmer.plugins.aggregators._pseudo_gradient import leave_pseudo_gradient
from fedmer.plugins.aggregators.fed_avg import FedAvg


class FedAvgM(FedAvg):
    r"""FedAvg whose server moves by momentum.

    With the pseudo-gradient :math:`g_t = x_t - \sum_i \frac{n_i}{n} y_i`, from :math:`v_{-1} = 0`,

    .. math:: v_t = \beta v_{t-1} + g_t, \quad x_{t+1} = x_t - \eta v_t

    H. Hsu, H. Qi and M. Brown, "Measuring the Effects of Non-Identical Data Distribution for
    Federated Visual Classification", 2019. Buffers take the mean. In the long run a round moves by
    :math:`\eta / (1 - \beta)` times what FedAvg's would.

    Args:
        momentum: The decay beta, from 0, below 1. With 0 and ``lr`` 1 it is FedAvg bit for bit.
        lr: The server's learning rate eta, above 0.
        heads: How rows of classes are averaged, 'joint' or 'classwise', as in FedAvg.

    Raises:
        InputError: ``momentum`` or ``lr`` is out of range.

    >>> state = ServerState(nn.Linear(1, 1, bias=False))
    >>> _ = nn.init.constant_(state.network.weight, 1.0)
    >>> rule = FedAvgM(momentum=0.5)
    >>> optimizer = rule.server_optimizer(state.network.parameters())
    >>> for _ in range(2):
    ...     rule.step(state, [], {}, {"weight": state.network.weight.detach() + 1})
    ...     optimizer.step()
    >>> round(state.network.weight.item(), 4)
    3.5
    """

    def __init__(self, momentum: float = 0.9, lr: float = 1.0, heads: Heads = "joint") -> None:
        super().__init__(heads, lr)
        if not 0 <= momentum < 1:
            raise InputError(f"momentum is {momentum}; expected a number from 0, below 1.")
        self.momentum = momentum

    def server_optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum)

    def step(
        self,
        state: ServerState,
        summaries: Sequence[Summary],
        weights: Mapping[int, float],
        mean: Weights | None,
    ) -> None:
        assert mean is not None
        if self.momentum == 0:
            super().step(state, summaries, weights, mean)
        else:
            leave_pseudo_gradient(state, mean)
