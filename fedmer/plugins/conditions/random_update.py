"""RandomUpdate, clients that send noise."""

from fedmer.contracts.condition import ConditionContext
from fedmer.messages import Broadcast, Update
from fedmer.plugins.conditions._updates import Change, ChangedUpdate, noise


class RandomUpdate(ChangedUpdate):
    r"""Attackers send noise as long as what they learnt.

    .. math::

        w_i \leftarrow w^t + s\, \lVert w_i - w^t \rVert\, \frac{z}{\lVert z \rVert}, \qquad
        z \sim N(0, 1)

    drawn anew by each in every round.

    Args:
        fraction: Share of the clients, in [0, 1].
        severity: The factor :math:`s`, 0 or more.
        seed: Chooses the clients, together with the run's.
    """

    def change(self, update: Update, received: Broadcast, context: ConditionContext) -> Change:
        return noise(update, received, self.severity, context.seed)
