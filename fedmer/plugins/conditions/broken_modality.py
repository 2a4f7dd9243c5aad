"""BrokenModality, a sensor that is stuck."""

from dataclasses import replace

import torch
from torch import Tensor

from fedmer.contracts.condition import Condition, ConditionContext
from fedmer.data.batch import Excerpt
from fedmer.data.client_data import ClientData
from fedmer.plugins.conditions._training import random_of
from fedmer.plugins.conditions.feature_noise import known_of


class BrokenModality(Condition):
    """A modality shows the client's first row again and again, and nobody has noticed.

    It counts as recorded. Use masks where a modality is known to be missing.

    Args:
        fraction: Share of the clients, in [0, 1].
        severity: The chance that an utterance shows that row, in [0, 1].
        seed: Chooses the clients, together with the run's.
        modality: Which one; by default each client's is drawn.

    Raises:
        InputError: A number is out of range.
    """

    def __init__(
        self,
        fraction: float = 0.2,
        severity: float = 1.0,
        seed: int = 0,
        modality: str | None = None,
    ) -> None:
        super().__init__(fraction, severity, seed)
        self.modality = modality

    def on_data(self, data: ClientData, context: ConditionContext) -> ClientData:
        random, known = random_of(context.seed), list(data.train[0].features)
        if self.modality is None:
            broken = known[int(torch.randint(len(known), (), generator=random))]
        else:
            (broken,) = known_of([self.modality], known, self)
        stuck = data.train[0].features[broken][0]

        def shown(part: Excerpt) -> Tensor:
            hit = torch.rand(len(part), generator=random) < self.severity
            hit &= part.present[broken]
            return torch.where(hit[:, None], stuck, part.features[broken])

        train = [
            replace(part, features={**part.features, broken: shown(part)}) for part in data.train
        ]
        return replace(data, train=train)
