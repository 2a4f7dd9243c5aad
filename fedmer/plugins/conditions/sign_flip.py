"""SignFlip, an attack that undoes what others learn."""

from fedmer.contracts.condition import ConditionContext
from fedmer.messages import Broadcast, Update
from fedmer.plugins.conditions._updates import Change, ChangedUpdate


class SignFlip(ChangedUpdate):
    r"""Attackers send the opposite of what they learnt.

    .. math:: w_i \leftarrow w^t - s\,(w_i - w^t)

    Their summaries, prototypes among them, are as they were: nothing in them gives the attack away.

    Args:
        fraction: Share of the clients, in [0, 1].
        severity: The factor :math:`s`, 0 or more.
        seed: Chooses the clients, together with the run's.
    """

    def change(self, update: Update, received: Broadcast, context: ConditionContext) -> Change:
        return lambda name, change: -self.severity * change
