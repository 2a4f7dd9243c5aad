"""Scores from confusion matrices, for many matrices at once and without torch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def class_scores(confusion: NDArray[Any]) -> tuple[Floats, Floats]:
    """Recall and F1 of every class; 0 where a class neither occurs nor is named.

    Args:
        confusion: ``(..., C, C)`` counts, rows are the truth.

    Returns:
        Two ``(..., C)``, in [0, 1]. Published tables call the recall of a class its accuracy.
    """
    right = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    support, named = confusion.sum(axis=-1), confusion.sum(axis=-2)
    recall = right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(support + named, 1)
    return recall, f1


def totals(confusion: NDArray[Any]) -> tuple[Floats, Floats]:
    r"""Accuracy and weighted F1, which is F1 averaged over classes by support.

    .. math:: \frac{\sum_k n_k R_k}{\sum_k n_k} \qquad \frac{\sum_k n_k F_k}{\sum_k n_k}

    Args:
        confusion: ``(..., C, C)`` counts, rows are the truth.

    Returns:
        Two ``(...)``, in [0, 1]; 0 where nothing was counted.

    >>> accuracy, weighted = totals(np.array([[3, 1], [1, 1]]))
    >>> round(float(accuracy), 3), round(float(weighted), 3)
    (0.667, 0.667)
    """
    recall, f1 = class_scores(confusion)
    support = confusion.sum(axis=-1)
    fractions = support / np.maximum(support.sum(axis=-1, keepdims=True), 1)
    return (fractions * recall).sum(axis=-1), (fractions * f1).sum(axis=-1)
