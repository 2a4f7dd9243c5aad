"""What rules have in common that average the rows of a class by weights of their own."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fedmer.contracts.network import Network
from fedmer.data.batch import Batch
from fedmer.errors import InputError
from fedmer.messages import Summary

Heads = Literal["joint", "classwise"]
COUNTS = "class_counts"
"""The name of the ``(C,)`` counts in a summary."""


def count_classes(batches: Iterable[Batch], classes: int) -> Mapping[str, Tensor]:
    """How often each class occurs in what a client trained on, as a summary's tensor."""
    total = torch.zeros(classes, dtype=torch.int64)
    for batch in batches:
        seen = batch.labels[batch.labelled]
        total = total.to(seen.device) + torch.bincount(seen, minlength=classes)
    return {COUNTS: total}


def weights_by_counts(summaries: Sequence[Summary]) -> dict[int, Tensor]:
    """Client id -> ``(C,)`` weights: its utterances of each class.

    Raises:
        InputError: A client sent counts below 0.
    """
    found = {}
    for summary in summaries:
        counts = summary.tensors[COUNTS]
        if (counts < 0).any():
            raise InputError(f"Client {summary.client} sent negative class counts; leave it out.")
        found[summary.client] = counts.double()
    return found


def check_rows(network: nn.Module) -> None:
    """See that there are rows to weigh.

    Raises:
        InputError: The network names no parameter with a row a class.
    """
    if isinstance(network, Network) and not network.class_parameters:
        raise InputError(
            f"{type(network).__name__} names no parameter with a row a class (class_parameters), "
            "so that its head cannot be averaged class by class; use --aggregator.heads joint."
        )
