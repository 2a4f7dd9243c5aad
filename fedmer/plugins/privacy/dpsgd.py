"""DPSGD, differential privacy for each dialogue of a client."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from fedmer.contracts.privacy import (
    ClientContext,
    Guarantee,
    LocalSteps,
    Plan,
    Privacy,
    ServerContext,
    StepNoise,
)
from fedmer.errors import InputError
from fedmer.messages import Summary, Update, Weights
from fedmer.plugins.privacy._accounting import (
    FEW_ORDERS,
    Rounds,
    and_one,
    epsilon_of,
    least_multiplier,
    pack,
    unpack,
)
from fedmer.plugins.privacy._promise import (
    BUDGET_SLACK,
    check_crossing,
    check_end,
    check_numbers,
    refusal,
)

TOLD = "dpsgd.epsilon"
"""The tensor of a summary with what its client has spent, and what it will have a round later."""
_MULTIPLIER = "multiplier"
_SPENT = "spent"
_WORST = "worst"


class DPSGD(Privacy):
    r"""Clips the gradient of each dialogue in a client's steps, and adds noise to their sum.

    Differential privacy for each dialogue of a client (M. Abadi et al., "Deep Learning with
    Differential Privacy", CCS 2016, arXiv 1607.00133), by the client itself, so that it holds
    towards the server too. A client with :math:`N` dialogues makes :math:`\lceil N / B \rceil`
    steps an epoch, with :math:`B` the smaller of ``local.batch_size`` and :math:`N`. A dialogue has
    a part in a step with probability :math:`q = B / N`, whatever the others do. With
    :math:`L_d` the loss of dialogue :math:`d` alone, a mean over its labelled utterances, and
    :math:`S` those drawn, the optimizer gets

    .. math:: \frac{1}{B} \Big(\sum_{d \in S} \nabla L_d
        \min\Big(1, \frac{C}{\lVert \nabla L_d \rVert}\Big) + \mathcal N(0, z^2 C^2 I)\Big)

    over all parameters that are trained; a step without dialogues is noise alone. What is made of
    these steps tells no more: Adam, momentum, weight decay, FedProx's pull, compression, any rule
    on the server.

    The neighbour of a client is the same one in which one dialogue has nothing to learn from, so
    that its gradient is 0; :math:`N`, the number of steps and the batch size are public. Each
    client accounts for its own steps as draws of probability :math:`q` (dp-accounting, by Renyi
    divergences), over all rounds in which it takes part; epsilon is that of the client that has
    spent most. A dialogue of which several clients hold a part is one for each of them.

    Clients do not say how many utterances they learnt from, in how many steps and with what loss,
    so that they count alike. Rules that read more of a client are refused, and so is what would
    let one dialogue change how another is learnt from: statistics of all dialogues that features
    are standardised by, class counts in the loss, BatchNorm.

    Args:
        norm: :math:`C`, above 0.
        multiplier: :math:`z`, above 0: the noise's deviation over the norm.
        target_epsilon: Instead of a multiplier: what all rounds of a client may spend, above 0.
            Each client takes the least noise that keeps it within for ``trainer.max_epochs`` rounds
            in all of which it takes part, and the run ends before any client passes it.
        delta: With what probability the promise may fail, in (0, 1) and below one over the number
            of dialogues of any client.

    Raises:
        InputError: A value is out of range, or there is not one of multiplier and target.

    >>> from fedmer.messages import Broadcast
    >>> context = ClientContext(0, Broadcast(0), rounds=10)
    >>> DPSGD(norm=0.5, multiplier=2.0).on_steps(LocalSteps(40, 8, 5), context)
    StepNoise(norm=0.5, multiplier=2.0)
    """

    withholds_numbers = True

    def __init__(
        self,
        norm: float = 1.0,
        multiplier: float | None = None,
        target_epsilon: float | None = None,
        delta: float = 1e-5,
    ) -> None:
        if (multiplier is None) == (target_epsilon is None):
            raise InputError(
                "DPSGD adds as much noise as it is told to; give one of privacy.target_epsilon and "
                f"privacy.multiplier, and not {'both' if multiplier else 'neither'}."
            )
        check_numbers(
            delta, {"norm": norm, "multiplier": multiplier, "target_epsilon": target_epsilon}
        )
        self.norm = norm
        self.multiplier = multiplier
        self.target_epsilon = target_epsilon
        self.delta = delta

    def check(self, plan: Plan) -> None:
        rule = plan.rule.name
        for what in plan.rule.reads:
            if what != "examples":
                raise refusal(
                    "DPSGD",
                    f"{rule} has to know the {what} of each client, which no noise covers",
                    "a rule that reads updates alone, such as FedAvg with heads joint",
                )
        if plan.standardise != "none":
            raise refusal(
                "DPSGD",
                "statistics by which features are standardised depend on all dialogues, so that "
                "one changes how the others are learnt from",
                "--data.standardise none",
            )
        check_crossing("DPSGD", plan)
        check_end("DPSGD", plan, self.multiplier)

    def begin(self, plan: Plan, tensors: dict[str, Tensor]) -> None:
        if self.finished(plan, tensors):
            raise InputError(
                f"privacy.target_epsilon is {self.target_epsilon:g}, and one more round would pass "
                "it for a client; begin anew with another target."
            )

    def spent(self, plan: Plan, tensors: Mapping[str, Tensor]) -> Guarantee | None:
        epsilon = float(tensors[_WORST][0]) if _WORST in tensors else 0.0
        reach = (
            "for each dialogue of each client, towards everybody, the server too; not covered: how "
            "many dialogues a client has, what clients say of their data before the first round, "
            "who takes part and who fails, and this record"
        )
        return Guarantee(epsilon, self.delta, reach)

    def finished(self, plan: Plan, tensors: Mapping[str, Tensor]) -> bool:
        if self.target_epsilon is None or _WORST not in tensors:
            return False
        return float(tensors[_WORST][1]) > self.target_epsilon * BUDGET_SLACK

    def on_steps(self, steps: LocalSteps, context: ClientContext) -> StepNoise:
        if self.delta * steps.dialogues >= 1:
            raise InputError(
                f"privacy.delta is {self.delta:g}, which would let one of {steps.dialogues} "
                f"dialogues be published; expected less than {1 / steps.dialogues:g}."
            )
        memory = context.memory
        if self.multiplier is not None:
            multiplier = self.multiplier
        elif _MULTIPLIER in memory:
            multiplier = float(memory[_MULTIPLIER])
        else:
            multiplier = self._solved(steps, context.rounds or 1)
        spent = and_one(unpack(memory.get(_SPENT)), _alike(steps, multiplier))
        if self.target_epsilon is not None:
            memory[_MULTIPLIER] = torch.tensor(multiplier, dtype=torch.float64)
            if epsilon_of(spent, self.delta) > self.target_epsilon * BUDGET_SLACK:
                raise InputError(
                    f"privacy.target_epsilon is {self.target_epsilon:g}, and {steps.count} more "
                    "steps would pass it for a client; leave local.epochs and local.batch_size as "
                    "they were, or begin anew."
                )
        memory[_SPENT] = pack(spent)
        return StepNoise(self.norm, multiplier)

    def on_client(
        self, summary: Summary, update: Update | None, context: ClientContext
    ) -> tuple[Summary, Update | None]:
        odd = list(summary.tensors)
        if update is not None:
            odd += [name for name in update.weights if name not in (context.received.weights or {})]
        if odd:
            raise InputError(
                f"--privacy DPSGD cannot keep its promise: clients send '{odd[0]}', which no noise "
                "covers; use a rule that sends weights alone, such as FedAvg."
            )
        rounds = unpack(context.memory.get(_SPENT))
        # One round more, of as many steps as this one.
        more = (*rounds, replace(rounds[-1], count=summary.steps)) if summary.steps else rounds
        told = [epsilon_of(rounds, self.delta), epsilon_of(more, self.delta)]
        tensors = {TOLD: torch.tensor(told, dtype=torch.float64)}
        return Summary(summary.client, 1, 0.0, 1, tensors), update

    def on_server(self, mean: Weights | None, context: ServerContext) -> Weights | None:
        told = [s.tensors[TOLD] for s in context.summaries if TOLD in s.tensors]
        before = context.tensors.get(_WORST, torch.zeros(2, dtype=torch.float64))
        context.tensors[_WORST] = torch.stack([before, *(t.to(before) for t in told)]).amax(dim=0)
        return mean

    def _solved(self, steps: LocalSteps, rounds: int) -> float:
        assert self.target_epsilon is not None
        every = replace(steps, count=steps.count * rounds)
        return least_multiplier(
            lambda multiplier: (_alike(every, multiplier),),
            self.target_epsilon,
            self.delta,
            FEW_ORDERS,
        )


def _alike(steps: LocalSteps, multiplier: float) -> Rounds:
    """Steps as the accounting has them."""
    kind = "poisson" if steps.batch < steps.dialogues else "all"
    return Rounds(kind, steps.dialogues, steps.batch, multiplier, count=steps.count)
