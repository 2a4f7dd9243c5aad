"""Features to zero mean and unit variance, from what clients may send.

Scale decides: unit-norm text embeddings are drowned by the position and speaker embeddings that a
transformer adds to them. The mean and variance come from training clients only. With ``federated``
every client sends three things a modality, its count, sum and sum of squares, and never a row.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedmer.data.corpus import ConversationCorpus
from fedmer.data.partition import ClientPartition

Standardise = Literal["none", "local", "federated"]

_FLAT = 1e-6
"""A dimension whose deviation is below this fraction of its size counts as constant."""


@dataclass(frozen=True, eq=False)
class Moments:
    """What a client sends of one modality.

    Args:
        count: Utterances in which the modality is present.
        total: ``(D,)`` float64, their sum.
        squares: ``(D,)`` float64, the sum of their squares.
    """

    count: int
    total: NDArray[np.float64]
    squares: NDArray[np.float64]

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.count + other.count, self.total + other.total, self.squares + other.squares
        )


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and deviation of one modality, ``(D,)`` float32 each."""

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    def standardise(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """``(rows - mean) / deviation``, float32."""
        return (rows - self.mean) / self.deviation


def moments(corpus: ConversationCorpus, client: ClientPartition) -> dict[str, Moments]:
    """Count, sum and sum of squares of everything a client holds, a modality each."""
    result = {}
    for name, width in corpus.shape.features.items():
        total, squares, count = np.zeros(width), np.zeros(width), 0
        for sample in client.samples:
            conversation = corpus.conversations[sample.dialogue]
            rows = conversation.features[name][sample.context & conversation.present[name]].astype(
                np.float64
            )
            total += rows.sum(axis=0)
            squares += np.square(rows).sum(axis=0)
            count += len(rows)
        result[name] = Moments(count, total, squares)
    return result


def statistics(clients: Iterable[Mapping[str, Moments]]) -> dict[str, Statistics]:
    """Mean and deviation from the clients' moments, added up in the order given.

    A constant dimension gets deviation 1, and a modality that nobody has gets mean 0.

    >>> two = [{"text": Moments(1, np.array([2.0]), np.array([4.0]))},
    ...        {"text": Moments(1, np.array([4.0]), np.array([16.0]))}]
    >>> statistics(two)["text"].mean, statistics(two)["text"].deviation
    (array([3.], dtype=float32), array([1.], dtype=float32))
    """
    sums: dict[str, Moments] = {}
    for client in clients:
        for name, found in client.items():
            sums[name] = sums[name] + found if name in sums else found
    result = {}
    for name, total in sums.items():
        count = max(total.count, 1)
        mean = total.total / count
        deviation = np.sqrt(np.maximum(total.squares / count - mean**2, 0))
        flat = deviation <= _FLAT * np.maximum(np.abs(mean), 1e-3)
        deviation = np.where(flat, 1.0, deviation)
        result[name] = Statistics(mean.astype(np.float32), deviation.astype(np.float32))
    return result


def federated_statistics(
    corpus: ConversationCorpus, clients: Sequence[ClientPartition]
) -> dict[str, Statistics]:
    """The statistics over all clients, as a server works them out from their moments."""
    return statistics(moments(corpus, client) for client in clients)
