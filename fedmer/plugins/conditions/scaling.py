"""Scaling, an attack that shouts."""

from fedmer.contracts.condition import Condition, ConditionContext
from fedmer.messages import Broadcast, Summary, Update
from fedmer.plugins.conditions._updates import changed


class Scaling(Condition):
    r"""Attackers send much more than they learnt.

    .. math:: w_i \leftarrow w^t + s\,(w_i - w^t)

    Args:
        fraction: Share of the clients, in [0, 1].
        severity: The factor :math:`s`, 0 or more.
        seed: Chooses the clients, together with the run's.
    """

    severity_is_a_share = False

    def __init__(self, fraction: float = 0.2, severity: float = 10.0, seed: int = 0) -> None:
        super().__init__(fraction, severity, seed)

    def on_sent(
        self,
        summary: Summary,
        update: Update | None,
        received: Broadcast,
        context: ConditionContext,
    ) -> tuple[Summary, Update | None]:
        return summary, changed(update, received, self, lambda name, change: self.severity * change)
