"""FedNova, averaging by the step."""

from collections.abc import Mapping, Sequence

import torch

from fedmer.contracts.aggregator import Clear, ServerState
from fedmer.messages import Summary, Weights
from fedmer.plugins.aggregators.fed_avg import FedAvg


class FedNova(FedAvg):
    r"""FedAvg in which a client that makes more steps does not count more.

    A client's change is divided by its number of steps :math:`\tau_i`, and the mean is stretched by
    the cohort's effective number of steps:

    .. math:: x^{t+1} = x^t - \tau_\mathrm{eff} \sum_i p_i \frac{x^t - y_i}{\tau_i}, \quad
        p_i = \frac{n_i}{\sum_j n_j}, \quad \tau_\mathrm{eff} = \sum_i p_i \tau_i

    J. Wang et al., "Tackling the Objective Inconsistency Problem in Heterogeneous Federated
    Optimization", NeurIPS 2020. With the mean :math:`\bar y` of the clients' weights by
    :math:`p_i / \tau_i`, which is all that the server sees, this is

    .. math:: x^{t+1} = x^t + s (\bar y - x^t), \quad
        s = \tau_\mathrm{eff} \sum_i \frac{p_i}{\tau_i} \ge 1

    and if all make equally many steps, :math:`s = 1` and it is FedAvg. Buffers take the mean
    :math:`\bar y` and are not stretched.

    The paper derives :math:`\tau_i` for SGD, with or without momentum; here it counts steps
    whatever the local optimizer is. Adam's steps are all about as long as its learning rate, so
    for Adam too the count says how far a client may have gone, but the paper's proof does not
    cover it.

    >>> cohort = [
    ...     Summary(0, examples=30, train_loss=0.5, steps=6),
    ...     Summary(1, examples=10, train_loss=0.5, steps=1),
    ... ]
    >>> FedNova().weigh(cohort, ServerState(torch.nn.Linear(1, 1)))
    {0: 5.0, 1: 10.0}
    """

    def __init__(self) -> None:
        # Rows of classes would need a stretch each.
        super().__init__(heads="joint")

    @property
    def reads(self) -> tuple[Clear, ...]:
        return ("examples", "steps")

    def weigh(self, summaries: Sequence[Summary], state: ServerState) -> dict[int, float]:
        return {s.client: s.examples / s.steps for s in summaries}

    @torch.no_grad()
    def step(
        self,
        state: ServerState,
        summaries: Sequence[Summary],
        weights: Mapping[int, float],
        mean: Weights | None,
    ) -> None:
        assert mean is not None
        total = sum(summary.examples for summary in summaries)
        effective = sum(s.examples * s.steps for s in summaries) / total
        stretch = effective * sum(self.weigh(summaries, state).values()) / total
        start = {name: value.detach().clone() for name, value in state.network.named_parameters()}
        state.load(mean)
        for name, parameter in state.network.named_parameters():
            # At 1 lerp gives its end bit for bit.
            parameter.copy_(start[name].lerp(parameter, stretch))
