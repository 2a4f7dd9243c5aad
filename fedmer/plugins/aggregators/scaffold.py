"""SCAFFOLD, averaging with control variates."""

from collections.abc import Iterable, Mapping, Sequence

import torch

from fedmer.contracts.aggregator import Clear, ClientRound, ServerState
from fedmer.data.batch import Batch
from fedmer.messages import Summary, Weights
from fedmer.plugins.aggregators.fed_avg import FedAvg

# No parameter's name has a slash.
_CONTROL, _SUM = "control/", "sum/"


class SCAFFOLD(FedAvg):
    r"""FedAvg whose clients correct their gradients by how they differ from everybody's.

    The server keeps a control :math:`c` and every client its own :math:`c_i`, zero at first. A
    client adds :math:`c - c_i` to each gradient :math:`g_i` before the optimizer's step. After
    its :math:`K` steps of the round,

    .. math:: c_i^+ = \frac{1}{K} \sum_{k=1}^{K} g_i(y_{i,k}), \quad
        c^+ = c + \sum_{i \in S} \frac{n_i}{n} (c_i^+ - c_i)

    and weights are averaged as in FedAvg. :math:`S` is the cohort and :math:`n` counts the
    examples of all clients, so that :math:`c = \sum_i \frac{n_i}{n} c_i` after every round.
    S. P. Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning",
    ICML 2020, with weights :math:`n_i / n` where the paper has :math:`1 / N`.

    The paper's option II sets :math:`c_i^+ = c_i - c + (x - y_i) / (K \eta)`. For SGD without
    momentum and weight decay that is the mean of the gradients above, which is defined for any
    local optimizer. The gradients are those that the optimizer would have followed, after
    clipping. The paper's proofs are for SGD; with Adam, the correction passes through its moments.

    Heads are averaged as everything else: controls cancel out over clients by the weights
    :math:`n_i / n` alone. Nothing is corrected in the first round, which is FedAvg bit for bit.

    >>> state = ServerState(torch.nn.Linear(1, 1, bias=False), sizes=[30, 10])
    >>> mean = {"weight": torch.ones(1, 1), "control/weight": torch.full((1, 1), 2.0)}
    >>> SCAFFOLD().step(state, [Summary(0, examples=30)], {0: 1.0}, mean)
    >>> state.tensors["control/weight"].item()
    1.5
    """

    def __init__(self) -> None:
        # Rows of classes by other weights than the controls' would leave a client's drift in them.
        super().__init__(heads="joint")

    @property
    def reads(self) -> tuple[Clear, ...]:
        return ("examples", "sizes")

    def on_before_optimizer_step(self, context: ClientRound) -> None:
        for name, parameter in context.client.network.named_parameters():
            if context.steps == 0:
                context.memory[_SUM + name] = torch.zeros_like(parameter)
            gradient = parameter.grad
            if gradient is None:
                # The loss did not reach it: it counts as zero, and the optimizer passes it by.
                continue
            context.memory[_SUM + name] += gradient
            for controls, sign in ((context.received.tensors, 1), (context.memory, -1)):
                if _CONTROL + name in controls:
                    gradient.add_(controls[_CONTROL + name].to(gradient.device), alpha=sign)

    def attach(self, context: ClientRound, batches: Iterable[Batch]) -> Weights:
        changes = {}
        for name, _ in context.client.network.named_parameters():
            new = context.memory.pop(_SUM + name) / context.steps
            old = context.memory.get(_CONTROL + name, torch.zeros_like(new))
            changes[_CONTROL + name] = new - old
            context.memory[_CONTROL + name] = new
        return changes

    def step(
        self,
        state: ServerState,
        summaries: Sequence[Summary],
        weights: Mapping[int, float],
        mean: Weights | None,
    ) -> None:
        assert mean is not None
        share = sum(summary.examples for summary in summaries) / sum(state.sizes)
        changes = {name: value for name, value in mean.items() if name.startswith(_CONTROL)}
        for name, change in changes.items():
            control = state.tensors.get(name, torch.zeros_like(change))
            state.tensors[name] = control + share * change
        super().step(state, summaries, weights, {n: v for n, v in mean.items() if n not in changes})
