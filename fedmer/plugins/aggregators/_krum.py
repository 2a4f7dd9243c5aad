"""Krum's score, which Krum, MultiKrum and Bulyan choose clients by."""

from torch import Tensor


def krum_scores(apart: Tensor, bad: int) -> Tensor:
    r"""How far each client is from those nearest to it, ``(I,)``.

    .. math:: s_i = \sum_{j \in N_i} \lVert w_i - w_j \rVert^2

    with :math:`N_i` the :math:`I - f - 2` clients nearest to client :math:`i`, at least one.

    Args:
        apart: ``(I, I)`` squared distances.
        bad: How many may be bad, :math:`f`.

    >>> import torch
    >>> krum_scores(torch.tensor([[0.0, 1.0, 81.0], [1.0, 0.0, 64.0], [81.0, 64.0, 0.0]]), 0)
    tensor([ 1.,  1., 64.])
    """
    clients = len(apart)
    nearest = max(1, clients - bad - 2)
    # The first is the client itself, at no distance.
    return apart.sort(dim=1).values[:, 1 : nearest + 1].sum(dim=1)


def best(apart: Tensor, bad: int) -> int:
    """The client of the least score, the first of those that have it."""
    return int(krum_scores(apart, bad).argmin())
