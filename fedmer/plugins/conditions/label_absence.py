"""LabelAbsence, utterances that nobody has labelled."""

from dataclasses import replace

import torch

from fedmer.contracts.condition import Condition, ConditionContext
from fedmer.data.client_data import ClientData
from fedmer.data.corpus import UNLABELLED
from fedmer.plugins.conditions._training import random_of


class LabelAbsence(Condition):
    """Some utterances have no label: they are context, and nothing is learnt from them.

    Every client keeps at least one label. A dialogue in which none is left is not trained on.

    Args:
        fraction: Share of the clients, in [0, 1].
        severity: The chance that a label is missing, in [0, 1].
        seed: Chooses the clients, together with the run's.
    """

    def __init__(self, fraction: float = 0.2, severity: float = 0.8, seed: int = 0) -> None:
        super().__init__(fraction, severity, seed)

    def on_data(self, data: ClientData, context: ConditionContext) -> ClientData:
        random = random_of(context.seed)
        kept = [
            part.labelled & (torch.rand(len(part), generator=random) >= self.severity)
            for part in data.train
        ]
        if not any(mask.any() for mask in kept):
            first = int(data.train[0].labelled.nonzero()[0])
            kept[0][first] = True
        train = [
            replace(part, labelled=mask, labels=part.labels.masked_fill(~mask, UNLABELLED))
            for part, mask in zip(data.train, kept, strict=True)
            if mask.any()
        ]
        return replace(data, train=train)
