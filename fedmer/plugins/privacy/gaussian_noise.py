"""GaussianNoise, differential privacy for whole clients."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from fedmer.contracts.privacy import ClientContext, Guarantee, Plan, ServerContext
from fedmer.errors import InputError
from fedmer.messages import Summary, Update, Weights
from fedmer.plugins.privacy._accounting import (
    Rounds,
    and_one,
    epsilon_of,
    least_multiplier,
    pack,
    unpack,
)
from fedmer.plugins.privacy._changes import changed, changes, clip
from fedmer.plugins.privacy._promise import (
    BUDGET_SLACK,
    check_crossing,
    check_end,
    check_numbers,
    refusal,
)
from fedmer.plugins.privacy.clip_norm import ClipNorm
from fedmer.seeds import derive

_MULTIPLIER = "multiplier"
_SPENT = "spent"


class GaussianNoise(ClipNorm):
    r"""Clips what each client sends, and adds noise, so that no one client can be told from it.

    Differential privacy for whole clients by the Gaussian mechanism (B. McMahan et al., ICLR 2018,
    arXiv 1710.06963). With :math:`\bar\Delta_i` the clipped changes of
    :class:`~fedmer.plugins.privacy.clip_norm.ClipNorm`, :math:`m` the clients of a round in the
    mean, and :math:`z` the multiplier, the rule's step gets

    .. math:: w^t + \frac{1}{m} \Big(\sum_i \bar\Delta_i + \mathcal N(0, z^2 C^2 I)\Big)

    Clients count alike: they do not say how many utterances they learnt from, in how many steps and
    with what loss. The sum is divided by the number of clients in the mean, and not by that of this
    round, which would tell who was there; a round without any is noise alone.

    What else crosses is covered too, or refused. A rule's summary, such as class counts and
    prototypes, is clipped and gets noise on the client, each of its :math:`T` tensors of

    .. math:: \mathcal N(0, z^2 S^2 T), \qquad S = \text{summary\_norm or count\_norm}

    Then weights that follow from it tell nothing more, and the mean of the updates gets noise by
    the largest of them, :math:`z C \max_i a_i`; but neither gains from the draw of the cohort.

    Every round is accounted for (dp-accounting, by Renyi divergences) as the choice of clients
    draws: everybody, a fixed number (S. Wang et al., AISTATS 2019), or each by itself. The run
    ends before it passes ``target_epsilon``, and a checkpoint knows what was spent.

    With ``quantile`` the bound follows the norms, which is paid from the same noise: that on the
    changes grows to :math:`(z^{-2} - (2 \sigma_b)^{-2})^{-1/2}` (G. Andrew et al., NeurIPS 2021).

    Args:
        norm: :math:`C`, above 0.
        multiplier: :math:`z`, above 0: the noise's deviation over what one client can change. By
            default the least that keeps all rounds within ``target_epsilon``.
        target_epsilon: What all rounds may spend, above 0; None is no limit.
        delta: With what probability the promise may fail, in (0, 1) and below one over the number
            of clients.
        where: On the mean at the 'server', which then sees what clients send; or on each 'client',
            towards the server too, for which the same epsilon takes far more noise.
        summary_norm: The largest norm of a tensor of a summary, such as prototypes; None refuses
            rules that need one.
        count_norm: The same for counts.
        quantile: As ClipNorm has it; with 'server' alone.
        rate: As ClipNorm has it.
        count_noise: As ClipNorm has it; more than half the multiplier.

    Raises:
        InputError: A value is out of range, or there is neither a multiplier nor a target.
    """

    withholds_numbers = True

    def __init__(
        self,
        norm: float = 1.0,
        multiplier: float | None = None,
        target_epsilon: float | None = None,
        delta: float = 1e-5,
        where: Literal["server", "client"] = "server",
        summary_norm: float | None = None,
        count_norm: float | None = None,
        quantile: float | None = None,
        rate: float = 0.2,
        count_noise: float | None = None,
    ) -> None:
        super().__init__(norm, quantile, rate, count_noise)
        if multiplier is None and target_epsilon is None:
            raise InputError(
                "GaussianNoise adds as much noise as it is told to; give privacy.target_epsilon, "
                "or privacy.multiplier."
            )
        check_numbers(
            delta,
            {
                "multiplier": multiplier,
                "target_epsilon": target_epsilon,
                "summary_norm": summary_norm,
                "count_norm": count_norm,
            },
        )
        if quantile is not None and where == "client":
            raise InputError(
                "privacy.quantile needs a server that may see whose change was within the bound, "
                "and privacy.where is 'client'; leave one of them out."
            )
        self.multiplier = multiplier
        self.target_epsilon = target_epsilon
        self.delta = delta
        self.where = where
        self.summary_norm = summary_norm
        self.count_norm = count_norm
        self.covers_summaries = summary_norm is not None or count_norm is not None
        self.needs_updates = not self.covers_summaries
        # Whatever is done to an update after its noise tells no more than the update.
        self.bounds_updates = where == "server"

    def check(self, plan: Plan) -> None:
        rule = plan.rule.name
        for what in plan.rule.reads:
            if what in ("steps", "sizes", "sketches"):
                raise refusal(
                    "GaussianNoise",
                    f"{rule} has to know the {what} of each client, which no noise covers",
                    "a rule that can count clients alike, such as FedAvg",
                )
            option = {
                "class counts": "count_norm",
                "prototype counts": "count_norm",
                "held classes": "count_norm",
                "prototypes": "summary_norm",
            }.get(what)
            if option is not None and getattr(self, option) is None:
                raise refusal(
                    "GaussianNoise",
                    f"clients of {rule} send their {what}, which no noise covers",
                    f"--privacy.{option}, their largest norm, or another rule or heads joint",
                )
        if plan.rule.sees_updates and self.where == "server":
            raise refusal(
                "GaussianNoise",
                f"{rule} joins updates one by one, and noise on a mean hides none of them",
                "--privacy.where client",
            )
        check_crossing("GaussianNoise", plan)
        if self.delta * plan.clients >= 1:
            raise InputError(
                f"privacy.delta is {self.delta:g}, which would let one of {plan.clients} clients "
                f"be published; expected less than {1 / plan.clients:g}."
            )
        check_end("GaussianNoise", plan, self.multiplier)
        if self.multiplier is not None:
            self._on_changes(plan, self.multiplier)

    def begin(self, plan: Plan, tensors: dict[str, Tensor]) -> None:
        super().begin(plan, tensors)
        if self.multiplier is not None:
            tensors[_MULTIPLIER] = torch.tensor(self.multiplier, dtype=torch.float64)
        elif _MULTIPLIER not in tensors:
            tensors[_MULTIPLIER] = torch.tensor(self._solved(plan), dtype=torch.float64)
        if self.finished(plan, tensors):
            done = sum(rounds.count for rounds in unpack(tensors.get(_SPENT)))
            raise InputError(
                f"privacy.target_epsilon is {self.target_epsilon:g}, and one more round than the "
                f"{done} so far would pass it; raise it, or raise privacy.multiplier from the "
                "first round on."
            )

    def spent(self, plan: Plan, tensors: Mapping[str, Tensor]) -> Guarantee | None:
        rounds = unpack(tensors.get(_SPENT))
        return Guarantee(epsilon_of(rounds, self.delta), self.delta, self._reach())

    def finished(self, plan: Plan, tensors: Mapping[str, Tensor]) -> bool:
        if self.target_epsilon is None or _MULTIPLIER not in tensors:
            return False
        more = self._round(plan, self.multiplier or float(tensors[_MULTIPLIER]))
        epsilon = epsilon_of(and_one(unpack(tensors.get(_SPENT)), more), self.delta)
        return epsilon > self.target_epsilon * BUDGET_SLACK

    def on_client(
        self, summary: Summary, update: Update | None, context: ClientContext
    ) -> tuple[Summary, Update | None]:
        multiplier = float(context.tensors[_MULTIPLIER])
        random = torch.Generator().manual_seed(context.seed)
        told = self._noisy_summary(summary.tensors, multiplier, random)
        summary, update = super().on_client(
            Summary(summary.client, 1, 0.0, 1, told), update, context
        )
        if update is None:
            return summary, update
        start = context.received.weights or {}
        # Counts of batches tell how many dialogues there are.
        whole = {n: v for n, v in start.items() if not v.is_floating_point()}
        update = replace(update, weights={**update.weights, **whole})
        if self.where == "client":
            found = changes(update, context.received)
            noisy = _with_noise(found, multiplier * self.bound(context), random)
            update = Update(update.client, changed(update, context.received, noisy).weights)
        return summary, update

    def on_server(self, mean: Weights | None, context: ServerContext) -> Weights | None:
        plan = context.plan
        assert plan is not None
        multiplier = float(context.tensors[_MULTIPLIER])
        before = unpack(context.tensors.get(_SPENT))
        context.tensors[_SPENT] = pack(and_one(before, self._round(plan, multiplier)))
        if mean is None or self.where == "client":
            return mean
        assert plan.sampling is not None
        cohort, bound = plan.sampling.cohort, self.bound(context)
        deviation = self._on_changes(plan, multiplier) * bound
        if self.covers_summaries:
            if not context.weights:
                return mean
            rows = [float(row.max()) for row in context.class_weights.values()]
            factor, deviation = 1.0, deviation * max([*context.weights.values(), *rows])
        else:
            _check_alike(context, plan)
            factor, deviation = len(context.weights) / cohort, deviation / cohort
        as_update = Update(-1, mean)
        found = changes(as_update, context.received)
        shrunk = {name: factor * value for name, value in found.items()}
        random = torch.Generator().manual_seed(derive(context.seed, "mean"))
        noisy = _with_noise(shrunk, deviation, random)
        if self.quantile is not None:
            self.follow(self.quantile, context, cohort)
        return changed(as_update, context.received, noisy).weights

    def _noisy_summary(
        self, tensors: Mapping[str, Tensor], multiplier: float, random: torch.Generator
    ) -> dict[str, Tensor]:
        noisy = {}
        for name, value in tensors.items():
            bound = self.summary_norm if value.is_floating_point() else self.count_norm
            if bound is None:
                option = "summary_norm" if value.is_floating_point() else "count_norm"
                raise InputError(
                    f"Clients send '{name}', which no noise covers; give --privacy.{option}, its "
                    "largest norm."
                )
            clipped = clip({name: value.double()}, bound)
            deviation = multiplier * bound * math.sqrt(len(tensors))
            found = _with_noise(clipped, deviation, random)[name]
            if not value.is_floating_point():
                found = found.round().clamp(min=0)
            noisy[name] = found.to(value.dtype)
        return noisy

    def _on_changes(self, plan: Plan, multiplier: float) -> float:
        """The multiplier of the noise on changes, where that on the count of norms pays a part.

        Raises:
            InputError: The count's noise alone is not enough.
        """
        if self.quantile is None:
            return multiplier
        assert plan.sampling is not None
        count = 2 * self.deviation(plan.sampling.cohort)
        if count <= multiplier:
            raise InputError(
                f"privacy.count_noise is {count / 2:g}, too little for a multiplier of "
                f"{multiplier:g}; expected more than {multiplier / 2:g}."
            )
        return float((multiplier**-2 - count**-2) ** -0.5)

    def _round(self, plan: Plan, multiplier: float) -> Rounds:
        drawn = plan.sampling
        assert drawn is not None
        hidden = self.where == "server" and not self.covers_summaries
        messages = int(plan.exchanges) + int(self.covers_summaries)
        kind = drawn.kind if hidden else "all"
        return Rounds(kind, drawn.clients, drawn.cohort, multiplier, messages)

    def _solved(self, plan: Plan) -> float:
        assert self.target_epsilon is not None
        count = plan.rounds or 1

        def rounds(multiplier: float) -> tuple[Rounds, ...]:
            one = self._round(plan, multiplier)
            return (Rounds(one.kind, one.clients, one.cohort, multiplier, one.messages, count),)

        return least_multiplier(rounds, self.target_epsilon, self.delta)

    def _reach(self) -> str:
        whom = "whoever sees the network, and not the server"
        if self.where == "client":
            whom = "everybody, the server too"
        return (
            f"for each client as a whole, towards {whom}; not covered: what clients say of their "
            "data before the first round, who takes part and who fails, and this record"
        )


def _with_noise(tensors: Weights, deviation: float, random: torch.Generator) -> Weights:
    return {
        name: value
        + deviation * torch.randn(value.shape, generator=random, dtype=value.dtype).to(value.device)
        for name, value in tensors.items()
    }


def _check_alike(context: ServerContext, plan: Plan) -> None:
    """See that no client has more weight than the others, as the bound counts on."""
    weights = context.weights.values()
    if context.class_weights or (weights and max(weights) * len(weights) > 1 + 1e-6):
        raise InputError(
            f"--privacy GaussianNoise cannot keep its promise: {plan.rule.name} weighs clients by "
            "what they do not say, such as sizes; use a rule that can count them alike, such as "
            "FedAvg."
        )
