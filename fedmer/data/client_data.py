"""What one client holds, ready to train on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from fedmer.data.batch import Excerpt


@dataclass(frozen=True, eq=False)
class ClientData:
    """What one client holds, cut out and standardised.

    Args:
        name: For tables.
        train: Its excerpts to learn from, at least one.
        holdout: Its excerpts kept back for validation; may be empty.
    """

    name: str
    train: Sequence[Excerpt]
    holdout: Sequence[Excerpt] = field(default_factory=tuple)

    @cached_property
    def examples(self) -> int:
        """Labelled utterances to learn from."""
        return sum(int(part.labelled.sum()) for part in self.train)

    def class_counts(self, classes: int) -> Tensor:
        """``(C,)`` int64: how often each class occurs among the utterances to learn from."""
        labels = torch.cat([part.labels[part.labelled] for part in self.train])
        return labels.bincount(minlength=classes)
