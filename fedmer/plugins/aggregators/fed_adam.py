"""FedAdam, averaging with Adam on the server."""

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn
from torch.optim import Optimizer

from fedmer.contracts.aggregator import ServerState
from fedmer.errors import InputError
from fedmer.messages import Summary, Weights
from fedmer.plugins.aggregators._heads import Heads
from fedmer.plugins.aggregators._pseudo_gradient import Adaptive, leave_pseudo_gradient
from fedmer.plugins.aggregators.fed_avg import FedAvg


class FedAdam(FedAvg):
    r"""FedAvg whose server steps by Adam.

    With the pseudo-gradient :math:`g_t = x_t - \sum_i \frac{n_i}{n} y_i`, elementwise,

    .. math::

        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        x_{t+1} &= x_t - \eta \frac{m_t}{\sqrt{v_t} + \epsilon}

    from :math:`m_{-1} = 0` and :math:`v_{-1} = \epsilon^2`. S. Reddi et al., "Adaptive Federated
    Optimization", ICLR 2021, algorithm 2, whose tau is epsilon here. Buffers take the mean.

    There is no correction for the start of the moments, as in the paper. Torch's Adam has one:
    where :math:`\epsilon` is small beside the gradients, the step here is torch's times
    :math:`(1 - \beta_1^t) / \sqrt{1 - \beta_2^t}` in round :math:`t` counted from 1. By the
    defaults this factor is 1 at first, 2.1 at most, around round 13, and 1 in the end.

    With :math:`\beta_1 = \beta_2 = 0` and :math:`\eta = \epsilon`, a round moves by
    :math:`g_t \epsilon / (|g_t| + \epsilon)`, which is FedAvg as :math:`\epsilon` grows.

    Args:
        lr: The server's learning rate eta, above 0. A weight moves by about this in a round.
        beta1: Decay of the first moment, from 0, below 1.
        beta2: Decay of the second moment, from 0, below 1.
        eps: Above 0; a weight whose gradient is below it moves by less than ``lr``.
        heads: How rows of classes are averaged, 'joint' or 'classwise', as in FedAvg.

    Raises:
        InputError: A value is out of range.

    >>> state = ServerState(nn.Linear(1, 1, bias=False))
    >>> _ = nn.init.constant_(state.network.weight, 1.0)
    >>> rule = FedAdam(lr=0.1)
    >>> optimizer = rule.server_optimizer(state.network.parameters())
    >>> rule.step(state, [], {}, {"weight": state.network.weight.detach() + 1})
    >>> optimizer.step()
    >>> round(state.network.weight.item(), 4)
    1.099
    """

    def __init__(
        self,
        lr: float = 0.03,
        beta1: float = 0.9,
        beta2: float = 0.99,
        eps: float = 1e-3,
        heads: Heads = "joint",
    ) -> None:
        super().__init__(heads)
        for name, value in (("lr", lr), ("eps", eps)):
            if not value > 0:
                raise InputError(f"{name} is {value}; expected a number above 0.")
        for name, value in (("beta1", beta1), ("beta2", beta2)):
            if not 0 <= value < 1:
                raise InputError(f"{name} is {value}; expected a number from 0, below 1.")
        self.lr, self.eps = lr, eps
        self.beta1, self.beta2 = beta1, beta2

    def server_optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        return _Adam(parameters, self.lr, self.beta1, self.beta2, self.eps)

    def step(
        self,
        state: ServerState,
        summaries: Sequence[Summary],
        weights: Mapping[int, float],
        mean: Weights | None,
    ) -> None:
        assert mean is not None
        leave_pseudo_gradient(state, mean)


class _Adam(Adaptive):
    @staticmethod
    def second(before: Tensor, square: Tensor, beta2: float) -> Tensor:
        return beta2 * before + (1 - beta2) * square
