"""LabelNoise, labels that are wrong by mistake."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedmer.contracts.condition import Condition, ConditionContext
from fedmer.data.client_data import ClientData
from fedmer.errors import InputError
from fedmer.plugins.conditions._training import random_of, relabelled


class LabelNoise(Condition):
    """Some labels are wrong: any other emotion, or one that is easily taken for it.

    Args:
        fraction: Share of the clients, in [0, 1].
        severity: The chance that a label is wrong, in [0, 1].
        seed: Chooses the clients, together with the run's.
        confusion: ``C`` rows of ``C`` numbers, 0 or more: how often an emotion is taken for each
            other one. The diagonal does not count, and an emotion that is taken for none keeps its
            label. Without it all others are equally likely.

    Raises:
        InputError: A number is out of range, or ``confusion`` is no square of such numbers.
    """

    def __init__(
        self,
        fraction: float = 0.2,
        severity: float = 0.5,
        seed: int = 0,
        confusion: list[list[float]] | None = None,
    ) -> None:
        super().__init__(fraction, severity, seed)
        self.confusion = confusion
        if confusion is not None:
            _check(confusion)

    def on_data(self, data: ClientData, context: ConditionContext) -> ClientData:
        chances = torch.ones(context.classes, context.classes)
        if self.confusion is not None:
            if len(self.confusion) != context.classes:
                raise InputError(
                    f"LabelNoise: confusion has {len(self.confusion)} rows, and the corpus has "
                    f"{context.classes} emotions; give a row for each, in the corpus's order."
                )
            chances = torch.tensor(self.confusion)
        chances = chances.fill_diagonal_(0)
        random = random_of(context.seed)

        def mistake(labels: Tensor) -> Tensor:
            rows = chances[labels]
            wrong = torch.rand(len(labels), generator=random) < self.severity
            wrong &= rows.sum(dim=1) > 0
            found = labels.clone()
            if wrong.any():
                found[wrong] = torch.multinomial(rows[wrong], 1, generator=random)[:, 0]
            return found

        return relabelled(data, mistake)


def _check(confusion: Sequence[Sequence[float]]) -> None:
    if any(len(row) != len(confusion) for row in confusion):
        raise InputError("LabelNoise: confusion has rows of other lengths; expected a square.")
    if not all(0 <= number < float("inf") for row in confusion for number in row):
        raise InputError("LabelNoise: confusion has a number below 0, or one that is not finite.")
