"""Excerpts in batches of like lengths, made once, and the way back to the data's order."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedmer.data.batch import EVALUATION_BATCH, Batch, Excerpt, collate


class EvaluationBatches(Sequence[Batch]):
    """Batches for a network that does not learn, the shortest dialogues first, to pad little.

    Args:
        excerpts: Of one part of the data.
        size: Dialogues a batch.
    """

    def __init__(self, excerpts: Sequence[Excerpt], size: int = EVALUATION_BATCH) -> None:
        self.order = sorted(range(len(excerpts)), key=lambda place: len(excerpts[place]))
        """Places of the data's excerpts, in the order in which they are evaluated."""
        self._labelled = [int(excerpts[place].labelled.sum()) for place in self.order]
        self._batches = [
            collate([excerpts[place] for place in self.order[start : start + size]])
            for start in range(0, len(self.order), size)
        ]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Batch:  # type: ignore[override]
        return self._batches[index]

    def restore(self, rows: Tensor) -> Tensor:
        """``(N, ...)`` of the labelled utterances, in the data's order instead of the batches'."""
        pieces = dict(zip(self.order, torch.split(rows, self._labelled), strict=True))
        return torch.cat([pieces[place] for place in range(len(pieces))])
