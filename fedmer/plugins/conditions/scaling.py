"""Scaling, an attack that shouts."""

from fedmer.contracts.condition import ConditionContext
from fedmer.messages import Broadcast, Update
from fedmer.plugins.conditions._updates import Change, ChangedUpdate


class Scaling(ChangedUpdate):
    r"""Attackers send much more than they learnt.

    .. math:: w_i \leftarrow w^t + s\,(w_i - w^t)

    Args:
        fraction: Share of the clients, in [0, 1].
        severity: The factor :math:`s`, 0 or more.
        seed: Chooses the clients, together with the run's.
    """

    def __init__(self, fraction: float = 0.2, severity: float = 10.0, seed: int = 0) -> None:
        super().__init__(fraction, severity, seed)

    def change(self, update: Update, received: Broadcast, context: ConditionContext) -> Change:
        return lambda name, change: self.severity * change
