"""ModelReplacement, an attack that puts its own network in the place of the global one."""

from fedmer.contracts.condition import ConditionContext
from fedmer.data.client_data import ClientData
from fedmer.messages import Broadcast, Update
from fedmer.plugins.conditions._training import shifted
from fedmer.plugins.conditions._updates import Change, ChangedUpdate


class ModelReplacement(ChangedUpdate):
    r"""Attackers learn wrong names of emotions, and send so much of it that the mean is theirs.

    .. math::

        y \leftarrow (y + 1) \bmod C, \qquad
        w_i \leftarrow w^t + s\, \frac{I}{|A|}\,(w_i - w^t)

    with :math:`I` clients, of which :math:`A` attack: where all take part, weigh the same and the
    others hardly move, the mean is the attackers' network. E. Bagdasaryan et al., "How To Backdoor
    Federated Learning", AISTATS 2020.

    Args:
        fraction: Share of the clients, in [0, 1].
        severity: The factor :math:`s`, 0 or more.
        seed: Chooses the clients, together with the run's.
    """

    def on_data(self, data: ClientData, context: ConditionContext) -> ClientData:
        return shifted(data, 1.0, context.classes, context.seed)

    def change(self, update: Update, received: Broadcast, context: ConditionContext) -> Change:
        factor = self.severity * context.clients / len(context.among)
        return lambda name, change: factor * change
