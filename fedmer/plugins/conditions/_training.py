"""Changes of what a client trains on."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from fedmer.data.batch import Excerpt
from fedmer.data.client_data import ClientData


def random_of(seed: int) -> torch.Generator:
    """Where a condition draws from."""
    return torch.Generator().manual_seed(seed)


def relabelled(data: ClientData, change: Callable[[Tensor], Tensor]) -> ClientData:
    """A client whose labels are others; utterances without a label have none.

    Args:
        data: The client.
        change: ``(n,)`` labels of an excerpt -> as many others.
    """

    def changed(part: Excerpt) -> Excerpt:
        labels = part.labels.clone()
        labels[part.labelled] = change(part.labels[part.labelled])
        return replace(part, labels=labels)

    return replace(data, train=[changed(part) for part in data.train])


def shifted(data: ClientData, share: float, classes: int, seed: int) -> ClientData:
    """A client in which a share of the labels names the next class, and the last one the first."""
    random = random_of(seed)

    def shift(labels: Tensor) -> Tensor:
        wrong = torch.rand(len(labels), generator=random) < share
        return torch.where(wrong, (labels + 1) % classes, labels)

    return relabelled(data, shift)
