"""ClipNorm, a bound on what one client can change."""

import math

import torch
from torch import Tensor

from fedmer.contracts.privacy import ClientContext, Plan, Privacy, ServerContext
from fedmer.errors import InputError
from fedmer.messages import Summary, Update, Weights
from fedmer.plugins.privacy._changes import changed, changes, clip, norm

BELOW = "clip.below"
"""The tensor of a summary that says whether an update was within the bound."""
_NORM = "norm"


class ClipNorm(Privacy):
    r"""Bounds the Euclidean norm of what a client's training changed.

    With :math:`\Delta_i` the update less what the client received, and what the rule attached,

    .. math:: \bar\Delta_i = \Delta_i \min\Big(1, \frac{C}{\lVert \Delta_i \rVert}\Big)

    B. McMahan et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018, arXiv
    1710.06963. So no client, honest or not, moves the mean by more than :math:`C` times its weight,
    as long as it runs this half. Integers, such as counts of batches, are left as they are.

    With ``quantile`` the bound follows a quantile :math:`\gamma` of the norms: a client sends
    whether its norm was within :math:`C`, and from the number :math:`b` of those of :math:`m`

    .. math:: C \leftarrow C \exp\Big(-\eta \Big(\frac{b + \mathcal N(0, \sigma_b^2)}{m}
        - \gamma\Big)\Big)

    G. Andrew et al., "Differentially Private Learning with Adaptive Clipping", NeurIPS 2021, arXiv
    1905.03871. The server sees who was within the bound; the noise hides it from all others.

    Args:
        norm: :math:`C`, above 0; of the first round where it follows a quantile.
        quantile: :math:`\gamma`, in [0, 1]; None keeps the bound as it is.
        rate: :math:`\eta`, above 0.
        count_noise: :math:`\sigma_b`, above 0; by default a twentieth of the cohort, as the
            authors' is.

    Raises:
        InputError: A value is out of range.

    >>> from fedmer.messages import Broadcast
    >>> start, after = torch.tensor([1.0, 1.0]), torch.tensor([4.0, 5.0])
    >>> context = ClientContext(0, Broadcast(0, {"w": start}))
    >>> _, sent = ClipNorm(norm=0.5).on_client(Summary(0, 9), Update(0, {"w": after}), context)
    >>> sent.weights["w"]
    tensor([1.3000, 1.4000])
    """

    bounds_updates = True

    def __init__(
        self,
        norm: float = 1.0,
        quantile: float | None = None,
        rate: float = 0.2,
        count_noise: float | None = None,
    ) -> None:
        for name, value in (("norm", norm), ("rate", rate), ("count_noise", count_noise)):
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"privacy.{name} is {value}; expected a finite number above 0.")
        if quantile is not None and not 0 <= quantile <= 1:
            raise InputError(f"privacy.quantile is {quantile}; expected a number in [0, 1].")
        self.norm = norm
        self.quantile = quantile
        self.rate = rate
        self.count_noise = count_noise

    def begin(self, plan: Plan, tensors: dict[str, Tensor]) -> None:
        if self.quantile is not None:
            tensors.setdefault(_NORM, torch.tensor(self.norm, dtype=torch.float64))

    def on_client(
        self, summary: Summary, update: Update | None, context: ClientContext
    ) -> tuple[Summary, Update | None]:
        if update is None:
            return summary, update
        found, bound = changes(update, context.received), self.bound(context)
        if self.quantile is not None:
            below = torch.tensor(norm(found) <= bound)
            told = {**summary.tensors, BELOW: below}
            summary = Summary(
                summary.client, summary.examples, summary.train_loss, summary.steps, told
            )
        return summary, changed(update, context.received, clip(found, bound))

    def on_server(self, mean: Weights | None, context: ServerContext) -> Weights | None:
        if self.quantile is not None and mean is not None:
            self.follow(self.quantile, context, context.cohort)
        return mean

    def bound(self, context: ClientContext | ServerContext) -> float:
        """The largest norm in this round."""
        return float(context.tensors.get(_NORM, self.norm))

    def follow(self, quantile: float, context: ServerContext, cohort: float) -> None:
        """Move the bound towards a quantile of the norms.

        Args:
            quantile: Which.
            context: The end of the round; the new bound is in its tensors.
            cohort: How many clients took part, or do so in the mean.
        """
        below = [float(s.tensors[BELOW]) for s in context.summaries if BELOW in s.tensors]
        random = torch.Generator().manual_seed(context.seed)
        noise = float(torch.randn((), generator=random, dtype=torch.float64))
        # Counted from one half, so that a client changes it by one half and not by one.
        total = sum(value - 0.5 for value in below) + self.deviation(cohort) * noise
        share = min(max(total / max(cohort, 1.0) + 0.5, 0.0), 1.0)
        bound = self.bound(context) * math.exp(-self.rate * (share - quantile))
        context.tensors[_NORM] = torch.tensor(bound, dtype=torch.float64)

    def deviation(self, cohort: float) -> float:
        """Of the noise on the number of clients within the bound."""
        return self.count_noise or max(cohort, 1.0) / 20
