"""LabelFlip, an attack by labels that name the next emotion."""

from fedmer.contracts.condition import Condition, ConditionContext
from fedmer.data.client_data import ClientData
from fedmer.plugins.conditions._training import shifted


class LabelFlip(Condition):
    r"""Attackers learn every emotion under the name of the next one.

    .. math:: y \leftarrow (y + 1) \bmod C

    They train and send as everybody does, so that nothing but what they learnt gives them away
    (V. Tolpegin et al., "Data Poisoning Attacks Against Federated Learning Systems", ESORICS 2020).

    Args:
        fraction: Share of the clients, in [0, 1].
        severity: Share of their labels that are shifted, in [0, 1].
        seed: Chooses the clients, together with the run's.
    """

    def on_data(self, data: ClientData, context: ConditionContext) -> ClientData:
        return shifted(data, self.severity, context.classes, context.seed)
