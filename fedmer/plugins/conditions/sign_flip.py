"""SignFlip, an attack that undoes what others learn."""

from fedmer.contracts.condition import Condition, ConditionContext
from fedmer.messages import Broadcast, Summary, Update
from fedmer.plugins.conditions._updates import changed


class SignFlip(Condition):
    r"""Attackers send the opposite of what they learnt.

    .. math:: w_i \leftarrow w^t - s\,(w_i - w^t)

    Their summaries, prototypes among them, are as they were: nothing in them gives the attack away.

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
        return summary, changed(
            update, received, self, lambda name, change: -self.severity * change
        )
