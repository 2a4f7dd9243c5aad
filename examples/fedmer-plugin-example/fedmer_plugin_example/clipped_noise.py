"""A bound on what one client can change, and noise on what all have changed."""

import torch

from fedmer.contracts import ClientContext, Privacy, ServerContext
from fedmer.errors import InputError
from fedmer.messages import Summary, Update, Weights


class ClippedNoise(Privacy):
    r"""Clients clip what training changed, and the server adds noise to the mean.

    The Gaussian mechanism for whole clients (McMahan et al., ICLR 2018, arXiv 1710.06963), without
    accounting. With :math:`\Delta_i` what training changed, and weights :math:`a_i` of sum 1,

    .. math::

        \bar\Delta_i = \Delta_i \min\Big(1, \frac{C}{\lVert \Delta_i \rVert}\Big), \qquad
        w^{t+1} = w^t + \sum_i a_i \bar\Delta_i + \mathcal N\big(0, (z C \max_i a_i)^2\big)

    Args:
        norm: :math:`C`, above 0.
        noise: :math:`z`, 0 or more: the noise's deviation, in units of what one client can change.

    Raises:
        InputError: ``norm`` or ``noise`` is out of range.
    """

    def __init__(self, norm: float = 1.0, noise: float = 0.0) -> None:
        if not 0 < norm < float("inf"):
            raise InputError(f"privacy.norm is {norm}; expected a finite number above 0.")
        if not 0 <= noise < float("inf"):
            raise InputError(f"privacy.noise is {noise}; expected a finite number of at least 0.")
        self.norm = norm
        self.noise = noise

    def on_client(
        self, summary: Summary, update: Update | None, context: ClientContext
    ) -> tuple[Summary, Update | None]:
        start, weights = context.received.weights, update.weights
        changes = {n: v - start[n] if n in start else v for n, v in weights.items()}
        length = torch.stack([change.norm() for change in changes.values()]).norm()
        factor = (self.norm / length).clamp(max=1.0)
        clipped = {n: weights[n] + (factor - 1) * change for n, change in changes.items()}
        return summary, Update(update.client, clipped)

    def on_server(self, mean: Weights, context: ServerContext) -> Weights:
        random = torch.Generator().manual_seed(context.seed)
        deviation = self.noise * self.norm * max(context.weights.values())
        return {
            name: value + deviation * torch.randn(value.shape, generator=random)
            for name, value in mean.items()
        }
