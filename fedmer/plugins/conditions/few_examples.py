"""FewExamples, clients that have hardly anything."""

from dataclasses import replace

import torch

from fedmer.contracts.condition import Condition, ConditionContext
from fedmer.data.client_data import ClientData
from fedmer.plugins.conditions._training import random_of


class FewExamples(Condition):
    """Most dialogues are missing; at least one is left.

    Args:
        fraction: Share of the clients, in [0, 1].
        severity: Share of a client's dialogues that are missing, in [0, 1].
        seed: Chooses the clients, together with the run's.
    """

    def __init__(self, fraction: float = 0.2, severity: float = 0.8, seed: int = 0) -> None:
        super().__init__(fraction, severity, seed)

    def on_data(self, data: ClientData, context: ConditionContext) -> ClientData:
        count = max(1, round((1 - self.severity) * len(data.train)))
        order = torch.randperm(len(data.train), generator=random_of(context.seed))
        kept = sorted(order[:count].tolist())
        return replace(data, train=[data.train[place] for place in kept])
