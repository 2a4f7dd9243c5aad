"""Class prototypes: mean embeddings of classes, and the term that draws embeddings to them."""

from typing import Literal

import torch
from torch import Tensor

Distance = Literal["euclidean", "squared", "cosine"]


def class_sums(
    embeddings: Tensor, labels: Tensor, counted: Tensor, classes: int
) -> tuple[Tensor, Tensor]:
    """Sum of the embeddings of every class, and how many there were.

    Args:
        embeddings: ``(..., D)``.
        labels: ``(...)`` int64; read only where counted.
        counted: ``(...)`` bool.
        classes: ``C``.

    Returns:
        ``(C, D)`` sums and ``(C,)`` int64 counts.
    """
    # Nothing is picked out by a mask: a GPU would have to say how much that is, and we to wait.
    rows = embeddings.masked_fill(~counted[..., None], 0).flatten(0, -2)
    names, ones = labels.clamp(min=0).flatten(), counted.long().flatten()
    sums = rows.new_zeros(classes, rows.shape[-1]).index_add(0, names, rows)
    return sums, ones.new_zeros(classes).index_add(0, names, ones)


def distances(embeddings: Tensor, prototypes: Tensor, kind: Distance = "euclidean") -> Tensor:
    """How far embeddings lie from prototypes.

    Args:
        embeddings: ``(..., D)``.
        prototypes: ``(C, D)``.
        kind: 'euclidean', 'squared' (its square), or 'cosine' (1 minus the cosine).

    Returns:
        ``(..., C)``, 0 or more. Where both are equal it is 0 with gradient 0, which the square root
        alone would make infinite.

    >>> distances(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2))
    tensor([[5.]])
    """
    if kind == "cosine":
        cosine = torch.cosine_similarity(embeddings[..., None, :], prototypes, dim=-1)
        return 1 - cosine.clamp(max=1)
    # Not by a matrix product: it would lose small distances, and depend on the batch's padding.
    squared = (embeddings[..., None, :] - prototypes).square().sum(dim=-1)
    if kind == "squared":
        return squared
    apart = squared > 0
    return torch.where(apart, squared, 1.0).sqrt() * apart


def margins(
    prototypes: Tensor, known: Tensor, kind: Distance = "euclidean", floor: float = 0.0
) -> Tensor:
    r"""The margin of every class, its distance to the nearest other known prototype.

    .. math:: r_k = \max\bigl(r_{\min},\ \min_{l \neq k,\ l\ \mathrm{known}} d(c^k, c^l)\bigr)

    Args:
        prototypes: ``(C, D)``.
        known: ``(C,)`` bool.
        kind: Of the distance.
        floor: The least margin r_min. With 0 the margin collapses if the prototypes do.

    Returns:
        ``(C,)``; infinite for a class without another known one, and without gradient.
    """
    with torch.no_grad():
        apart = distances(prototypes, prototypes, kind)
        other = known & ~torch.eye(len(known), dtype=torch.bool, device=known.device)
        return apart.masked_fill(~other, torch.inf).amin(dim=1).clamp(min=floor)


def contrastive(
    embeddings: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    known: Tensor,
    kind: Distance = "euclidean",
    floor: float = 0.0,
) -> Tensor:
    r"""How badly embeddings sit among the prototypes: far from their own, or near another.

    .. math:: R_k(z) = d(z, c^k) + \sum_{l \neq k,\ l\ \mathrm{known}} \max(0,\ r_k - d(z, c^l))

    Equation 9 of the paper in our reading. With :math:`r_k` of :func:`margins` and no floor it is
    0 at :math:`z = c^k`, and no larger margin has this property.

    Args:
        embeddings: ``(N, D)``.
        labels: ``(N,)`` int64, the class :math:`k` of each.
        prototypes: ``(C, D)``.
        known: ``(C,)`` bool.
        kind: Of the distance.
        floor: The least margin.

    Returns:
        ``(N,)``; 0 where the utterance's prototype is unknown.
    """
    apart = distances(embeddings, prototypes, kind)
    same_class = torch.nn.functional.one_hot(labels, len(known)).bool()
    reach = margins(prototypes, known, kind, floor)[labels][:, None]
    # An infinite margin is that of a class without rivals, so that nothing of it is left here.
    hinge = (reach - apart).clamp(min=0).masked_fill(same_class | ~known, 0.0).sum(dim=1)
    return ((apart * same_class).sum(dim=1) + hinge) * known[labels]


def nearest(embeddings: Tensor, prototypes: Tensor, known: Tensor) -> Tensor:
    """Logits by which the nearest known prototype wins: minus the Euclidean distance.

    Args:
        embeddings: ``(B, L, D)``.
        prototypes: ``(C, D)``.
        known: ``(C,)`` bool; the others are minus infinity.

    Returns:
        ``(B, L, C)``.
    """
    # Not by a matrix product, whose rounding depends on how many utterances the batch is padded to.
    apart = torch.cdist(embeddings, prototypes[None], compute_mode="donot_use_mm_for_euclid_dist")
    return (-apart).masked_fill(~known, -torch.inf)
