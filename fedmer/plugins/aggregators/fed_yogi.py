"""FedYogi, averaging with Yogi on the server."""

from collections.abc import Iterable

from torch import Tensor, nn
from torch.optim import Optimizer

from fedmer.plugins.aggregators._pseudo_gradient import Adaptive
from fedmer.plugins.aggregators.fed_adam import FedAdam


class FedYogi(FedAdam):
    r"""FedAdam whose second moment moves by steps of bounded size.

    It differs from :class:`~fedmer.plugins.aggregators.fed_adam.FedAdam` in one line,

    .. math:: v_t = v_{t-1} - (1 - \beta_2) g_t^2 \operatorname{sign}(v_{t-1} - g_t^2)

    so that after large gradients :math:`v` falls slowly, and steps do not grow all of a sudden.
    S. Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 2.

    With :math:`\beta_1 = 0` and :math:`\eta = 2 \epsilon` it is FedAvg as :math:`\epsilon` grows,
    for :math:`\sqrt{v}` stays at :math:`\epsilon`.

    Args:
        lr: The server's learning rate eta, above 0. A weight moves by about this in a round.
        beta1: Decay of the first moment, from 0, below 1.
        beta2: How slowly the second moment moves, from 0, below 1.
        eps: Above 0; a weight whose gradient is below it moves by less than ``lr``.
        heads: How rows of classes are averaged, 'joint' or 'classwise', as in FedAvg.

    Raises:
        InputError: A value is out of range.

    >>> from fedmer.contracts import ServerState
    >>> state = ServerState(nn.Linear(1, 1, bias=False))
    >>> _ = nn.init.constant_(state.network.weight, 1.0)
    >>> rule = FedYogi(lr=0.1)
    >>> optimizer = rule.server_optimizer(state.network.parameters())
    >>> rule.step(state, [], {}, {"weight": state.network.weight.detach() + 1})
    >>> optimizer.step()
    >>> round(state.network.weight.item(), 4)
    1.099
    """

    def server_optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        return _Yogi(parameters, self.lr, self.beta1, self.beta2, self.eps)


class _Yogi(Adaptive):
    @staticmethod
    def second(before: Tensor, square: Tensor, beta2: float) -> Tensor:
        return before - (1 - beta2) * square * (before - square).sign()
