"""What any model has to beat: the majority class, and a linear probe without context."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fedmer.data.corpus import UNLABELLED, ConversationCorpus
from fedmer.data.partition import ClientPartition, Sample
from fedmer.metrics import Scores, confusion_of

_STRENGTHS = (1e-2, 1e-4, 3e-4, 1e-3, 3e-3, 3e-2, 1e-1, 1.0)
"""Values of C, the one without validation first: larger fits more and regularises less."""


@dataclass(frozen=True)
class Baselines:
    """Scores on the test part.

    Args:
        majority: Always the commonest training emotion.
        probe: A multinomial logistic regression on the features of the utterance alone.
    """

    majority: Scores
    probe: Scores


def baselines(
    corpus: ConversationCorpus, clients: Sequence[ClientPartition], validation: Sequence[Sample]
) -> Baselines:
    """Train both on what the clients learn from, pooled, as only a simulation can.

    The probe's C is chosen by weighted F1 on the validation utterances, where there are any.
    """
    pooled = [sample for client in clients for sample in client.samples]
    train = _rows(corpus, [(s.dialogue, s.labelled) for s in pooled])
    val = _rows(corpus, [(s.dialogue, s.labelled) for s in validation])
    test = _rows(
        corpus,
        [(i, corpus.conversations[i].labels != UNLABELLED) for i in corpus.part("test")],
    )
    mean, deviation = train[0].mean(axis=0), train[0].std(axis=0) + 1e-6
    (x, y), (x_val, y_val), (x_test, y_test) = (
        (torch.from_numpy((rows - mean) / deviation), torch.from_numpy(labels))
        for rows, labels in (train, val, test)
    )
    classes = len(corpus.label_names)
    commonest = y.bincount(minlength=classes).argmax()
    best, chosen = -1.0, None
    for strength in _STRENGTHS if len(y_val) else _STRENGTHS[:1]:
        weights = _fit(x, y, classes, strength)
        score = (
            confusion_of(_predicted(weights, x_val), y_val, classes).weighted_f1
            if len(y_val)
            else 0.0
        )
        if score > best:
            best, chosen = score, weights
    assert chosen is not None
    return Baselines(
        majority=confusion_of(commonest.expand(len(y_test)), y_test, classes),
        probe=confusion_of(_predicted(chosen, x_test), y_test, classes),
    )


def _rows(
    corpus: ConversationCorpus, turns: Sequence[tuple[int, NDArray[np.bool_]]]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    dialogues = [(corpus.conversations[i], mask) for i, mask in turns]
    width = sum(corpus.shape.features.values())
    features = [
        np.concatenate([dialogue.features[name][mask] for name in corpus.modalities], axis=1)
        for dialogue, mask in dialogues
    ]
    labels = [dialogue.labels[mask] for dialogue, mask in dialogues]
    if not features:
        return np.zeros((0, width), dtype=np.float32), np.zeros(0, dtype=np.int64)
    return np.concatenate(features), np.concatenate(labels)


def _fit(x: Tensor, y: Tensor, classes: int, strength: float) -> Tensor:
    """Minimise mean cross-entropy plus ``|W|^2 / (2 C n)`` by L-BFGS; the last row is the bias."""
    weights = torch.zeros(x.shape[1] + 1, classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        penalty = weights[:-1].square().sum() / (2 * strength * len(y))
        loss = F.cross_entropy(x @ weights[:-1] + weights[-1], y) + penalty
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weights.detach()


def _predicted(weights: Tensor, x: Tensor) -> Tensor:
    return (x @ weights[:-1] + weights[-1]).argmax(dim=1)
