"""What a model says of one conversation."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedmer.data.corpus import Conversation


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of one conversation of ``N`` utterances.

    Args:
        conversation: As it was given.
        labels: The emotions, in the order of the columns.
        logits: ``(N, C)`` float32, what the rule predicts by.
        temperature: What logits are divided by.
        students: Modality -> ``(N, C)`` probabilities from that modality alone, for networks that
            have students. What a missing modality's student says means nothing.
        weights: Modality -> ``(N,)`` weights in [0, 1], how much it counted in what was fused; they
            sum to 1 over the modalities of an utterance. Empty for networks that weigh none.
    """

    conversation: Conversation
    labels: tuple[str, ...]
    logits: NDArray[np.float32]
    temperature: float = 1.0
    students: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    weights: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """``(N, C)``; a row sums to 1."""
        return softmax(self.logits / self.temperature)

    @property
    def emotions(self) -> list[str]:
        """The likeliest emotion of every utterance."""
        return [self.labels[place] for place in self.probabilities.argmax(axis=1)]


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Over the last axis.

    >>> softmax(np.zeros((1, 2), dtype=np.float32)).tolist()
    [[0.5, 0.5]]
    """
    moved = np.exp(logits - logits.max(axis=-1, keepdims=True))
    found: NDArray[np.float32] = moved / moved.sum(axis=-1, keepdims=True)
    return found
