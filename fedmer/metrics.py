"""How a prediction is scored: always over labelled utterances, never over padding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from fedmer.data.batch import Batch


@dataclass(frozen=True)
class Scores:
    """The scores of one part of the data, as plain numbers in [0, 1].

    Args:
        accuracy: Sample of labelled utterances named rightly.
        weighted_f1: F1 averaged over classes by support.
        macro_f1: F1 averaged over classes.
        uar: Unweighted average recall, over the classes that occur.
        precision: One number a class.
        recall: One number a class.
        f1: One number a class.
        confusion: ``C`` rows (truth) of ``C`` counts (prediction).
    """

    accuracy: float
    weighted_f1: float
    macro_f1: float
    uar: float
    precision: list[float]
    recall: list[float]
    f1: list[float]
    confusion: list[list[int]]

    @property
    def totals(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in TOTALS}


TOTALS = ("accuracy", "weighted_f1", "macro_f1", "uar")


class EmotionMetrics(nn.Module):
    """The field's metrics over the labelled utterances of batches, by torchmetrics.

    Args:
        classes: Number of emotions ``C``.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.collection = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(classes, average="micro"),
                "weighted_f1": MulticlassF1Score(classes, average="weighted"),
                "macro_f1": MulticlassF1Score(classes, average="macro"),
                "precision": MulticlassPrecision(classes, average="none"),
                "recall": MulticlassRecall(classes, average="none"),
                "f1": MulticlassF1Score(classes, average="none"),
                "confusion": MulticlassConfusionMatrix(classes),
            }
        )

    def update(self, logits: Tensor, batch: Batch) -> None:
        """Count a batch.

        Args:
            logits: ``(B, L, C)``.
            batch: Its labels and label mask decide what is scored.
        """
        self.count(named(logits, batch), batch.labels[batch.labelled])

    def count(self, predictions: Tensor, labels: Tensor) -> None:
        """Count turns: the ``(N,)`` classes named, and the ``(N,)`` true ones."""
        if len(predictions):
            self.collection.update(predictions, labels)

    def count_confusion(self, confusion: Tensor) -> None:
        """Count utterances of which only ``(C, C)`` int64 counts are known, a row a true class."""
        names = torch.arange(len(confusion), device=confusion.device)
        pairs = torch.cartesian_prod(names, names).repeat_interleave(confusion.flatten(), dim=0)
        truth, predictions = pairs.unbind(dim=1)
        self.count(predictions, truth)

    @property
    def empty(self) -> bool:
        """Has nothing been counted since the last reset?"""
        confusion: Any = self.collection["confusion"]
        return int(confusion.confmat.sum()) == 0

    def totals(self) -> dict[str, Tensor]:
        """Accuracy, weighted F1, macro F1 and UAR."""
        values = self._compute()
        return {name: values[name] for name in TOTALS}

    def scores(self) -> Scores:
        """Everything, as plain numbers."""
        values = self._compute()
        lists: dict[str, Any] = {name: value.tolist() for name, value in values.items()}
        return Scores(**lists)

    def _compute(self) -> dict[str, Tensor]:
        values: dict[str, Tensor] = self.collection.compute()
        # A class that does not occur has no recall; torchmetrics would count it as 0 once guessed.
        occurs = values["confusion"].sum(dim=1) > 0
        return {**values, "uar": values["recall"][occurs].mean()}

    def reset(self) -> None:
        self.collection.reset()


def named(logits: Tensor, batch: Batch) -> Tensor:
    """The class named for each labelled utterance, dialogue by dialogue: ``(N,)`` int64."""
    return logits[batch.labelled].argmax(dim=-1)


def count_votes(predictions: Sequence[Tensor], classes: int) -> Tensor:
    """How many networks named each class.

    Args:
        predictions: At least one ``(N,)`` int64, one a network.
        classes: Number of emotions ``C``.

    Returns:
        ``(N, C)`` int32; every row adds up to the number of networks.

    >>> count_votes([torch.tensor([0, 1]), torch.tensor([2, 1])], classes=3)
    tensor([[1, 0, 1],
            [0, 2, 0]], dtype=torch.int32)
    """
    votes = torch.zeros(
        len(predictions[0]), classes, dtype=torch.int32, device=predictions[0].device
    )
    one = torch.ones(len(predictions[0]), 1, dtype=torch.int32, device=predictions[0].device)
    for prediction in predictions:
        votes.scatter_add_(1, prediction[:, None], one)
    return votes


def scores_of(confusion: Sequence[Sequence[int]]) -> Scores:
    """Scores of ``C`` rows (truth) of ``C`` counts (prediction).

    >>> scores_of([[3, 1], [0, 0]]).accuracy
    0.75
    """
    counts = torch.tensor(confusion).flatten()
    classes = len(confusion)
    pairs = torch.cartesian_prod(torch.arange(classes), torch.arange(classes))
    truth, prediction = pairs.repeat_interleave(counts, dim=0).unbind(dim=1)
    return confusion_of(prediction, truth, classes)


def confusion_of(predictions: Tensor, labels: Tensor, classes: int) -> Scores:
    """Scores of predictions for labels, ``(N,)`` int64 each."""
    metrics = EmotionMetrics(classes)
    metrics.collection.update(predictions.to(torch.int64), labels)
    return metrics.scores()
