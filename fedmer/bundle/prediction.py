"""What a model says of one conversation."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedmer.data.corpus import Conversation


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of one conversation of ``N`` turns.

    Args:
        conversation: As it was given.
        labels: The emotions, in the order of the columns.
        probabilities: ``(N, C)`` float32; a row sums to 1.
        students: Modality -> ``(N, C)`` probabilities from that modality alone, for networks that
            have students. What a missing modality's student says means nothing.
        weights: Modality -> ``(N,)`` weights in [0, 1], how much it counted in what was fused; they
            sum to 1 over the modalities of a turn. Empty for networks that weigh none.
    """

    conversation: Conversation
    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]
    students: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    weights: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def emotions(self) -> list[str]:
        """The likeliest emotion of every turn."""
        return [self.labels[place] for place in self.probabilities.argmax(axis=1)]
