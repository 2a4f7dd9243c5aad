"""NaNUpdate, clients that send what is no number."""

from math import ceil, nan

import torch
from torch import Tensor

from fedmer.contracts.condition import Condition, ConditionContext
from fedmer.messages import Broadcast, Summary, Update
from fedmer.plugins.conditions._updates import changed


class NaNUpdate(Condition):
    r"""Attackers send NaN.

    A server leaves such a client out, and says so in the record of the run.

    Args:
        fraction: Share of the clients, in [0, 1].
        severity: Share of the numbers that are NaN, in [0, 1]; above 0 at least one of each tensor.
        seed: Chooses the clients, together with the run's.
    """

    def on_sent(
        self,
        summary: Summary,
        update: Update | None,
        received: Broadcast,
        context: ConditionContext,
    ) -> tuple[Summary, Update | None]:
        def spoilt(name: str, change: Tensor) -> Tensor:
            count = ceil(self.severity * change.numel())
            return (
                change.flatten()
                .index_fill(0, torch.arange(count, device=change.device), nan)
                .view(change.shape)
            )

        return summary, changed(update, received, self, spoilt)
