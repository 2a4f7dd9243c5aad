"""Class prototypes: the mean embedding of a class."""

from torch import Tensor


def class_sums(
    embeddings: Tensor, labels: Tensor, counted: Tensor, classes: int
) -> tuple[Tensor, Tensor]:
    """Sum of the embeddings of every class, and how many there were.

    Args:
        embeddings: ``(B, L, D)``.
        labels: ``(B, L)`` int64; read only where counted.
        counted: ``(B, L)`` bool.
        classes: ``C``.

    Returns:
        ``(C, D)`` sums and ``(C,)`` int64 counts.
    """
    rows, names = embeddings[counted], labels[counted]
    sums = embeddings.new_zeros(classes, embeddings.shape[-1]).index_add(0, names, rows)
    return sums, names.bincount(minlength=classes)
