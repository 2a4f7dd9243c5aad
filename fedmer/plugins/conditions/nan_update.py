"""NaNUpdate, clients that send what is no number."""

from math import ceil, nan

import torch
from torch import Tensor

from fedmer.contracts.condition import ConditionContext
from fedmer.messages import Broadcast, Update
from fedmer.plugins.conditions._updates import Change, ChangedUpdate


class NaNUpdate(ChangedUpdate):
    r"""Attackers send NaN.

    A server leaves such a client out, and says so in the record of the run.

    Args:
        fraction: Share of the clients, in [0, 1].
        severity: Share of the numbers that are NaN, in [0, 1]; above 0 at least one of each tensor.
        seed: Chooses the clients, together with the run's.
    """

    severity_is_a_share = True

    def change(self, update: Update, received: Broadcast, context: ConditionContext) -> Change:
        def spoilt(name: str, change: Tensor) -> Tensor:
            count = ceil(self.severity * change.numel())
            return (
                change.flatten()
                .index_fill(0, torch.arange(count, device=change.device), nan)
                .view(change.shape)
            )

        return spoilt
