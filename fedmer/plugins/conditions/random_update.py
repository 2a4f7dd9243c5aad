"""RandomUpdate, clients that send noise."""

from fedmer.contracts.condition import Condition, ConditionContext
from fedmer.messages import Broadcast, Summary, Update
from fedmer.plugins.conditions._updates import changed, noise


class RandomUpdate(Condition):
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

    severity_is_a_share = False

    def on_sent(
        self,
        summary: Summary,
        update: Update | None,
        received: Broadcast,
        context: ConditionContext,
    ) -> tuple[Summary, Update | None]:
        drawn = noise(update, received, self.severity, context.seed)
        return summary, changed(update, received, self, lambda name, change: drawn[name])
