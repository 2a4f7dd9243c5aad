"""What rules that step by a server optimizer have in common."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fedmer.contracts.aggregator import ServerState
from fedmer.messages import Weights


@torch.no_grad()
def leave_pseudo_gradient(state: ServerState, mean: Weights) -> None:
    """Give every parameter the gradient ``parameter - mean``; buffers take the mean.

    Raises:
        ValueError: A name or a shape differs; the sentence says which.
    """
    start = {name: value.detach().clone() for name, value in state.network.named_parameters()}
    state.load(mean)
    for name, parameter in state.network.named_parameters():
        parameter.grad = start[name] - parameter
        parameter.copy_(start[name])


class Adaptive(Optimizer):
    r"""The adaptive server optimizer of S. Reddi et al., ICLR 2021, algorithm 2.

    With the pseudo-gradient :math:`g_t`, elementwise,

    .. math::

        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        x_{t+1} &= x_t - \eta \frac{m_t}{\sqrt{v_t} + \epsilon}

    from :math:`m_{-1} = 0` and :math:`v_{-1} = \epsilon^2`. A subclass says how :math:`v` moves.
    As in the paper, and unlike torch's Adam, neither moment is corrected for its start.

    Args:
        parameters: What to step.
        lr: The server's learning rate eta.
        beta1: Decay of the first moment, from 0, below 1.
        beta2: Decay of the second moment, from 0, below 1.
        eps: The paper's tau, which keeps small moments from making large steps.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
    ) -> None:
        defaults = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps}
        super().__init__(parameters, defaults)

    @staticmethod
    @abstractmethod
    def second(before: Tensor, square: Tensor, beta2: float) -> Tensor:
        """The second moment after a squared gradient."""

    def step(self, closure: Any = None) -> Any:
        loss = None if closure is None else closure()
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._move(parameter, group)
        return loss

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if not state:
            state["first"] = torch.zeros_like(parameter)
            state["second"] = torch.full_like(parameter, group["eps"] ** 2)
        state["first"] = group["beta1"] * state["first"] + (1 - group["beta1"]) * gradient
        state["second"] = self.second(state["second"], gradient.square(), group["beta2"])
        apart = state["second"].sqrt() + group["eps"]
        parameter.addcdiv_(state["first"], apart, value=-group["lr"])
