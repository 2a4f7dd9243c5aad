"""A round under a masked sum: what of summaries crosses in it, and what stays out of it."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from fedmer.contracts.aggregator import Aggregator
from fedmer.contracts.masked_sum import MaskedSum
from fedmer.errors import InputError
from fedmer.messages import Broadcast, Summary, Update, Weights
from fedmer.running_mean import ClientWeight
from fedmer.weights import FlatWeights


def into_sum(
    rule: Aggregator,
    masked: MaskedSum,
    summary: Summary,
    update: Update | None,
    received: Broadcast,
) -> tuple[Summary, Update | None]:
    """Move what the rule needs the mean of alone from a summary into the update. Client side.

    Args:
        rule: Says what that is.
        masked: The sum, which has one range for all numbers.
        summary: As mechanisms left it.
        update: The same; None where the rule's clients send none.
        received: This round's broadcast.

    Raises:
        InputError: A number is beyond the range of summaries.
    """
    if not rule.sums:
        return summary, update
    crossing = dict(rule.mask(summary.tensors, received))
    hidden = {name: crossing.pop(name) for name in rule.sums if name in crossing}
    summary = replace(summary, tensors=crossing)
    if not hidden:
        return summary, update
    for name, value in hidden.items():
        largest = float(value.abs().max())
        if largest > masked.summary_clip:
            raise InputError(
                f"its {name} reach {largest:.3g}, beyond privacy.summary_clip "
                f"{masked.summary_clip:g}; raise it"
            )
    scaled = {name: value * masked.factor for name, value in hidden.items()}
    sent = {} if update is None else update.weights
    return summary, Update(summary.client, FlatWeights.of({**sent, **scaled}))


def out_of_sum(
    rule: Aggregator, masked: MaskedSum, mean: Weights | None
) -> tuple[Weights | None, Weights]:
    """The mean of the updates, None if there are none, and that of the summaries. Server side."""
    if mean is None:
        return None, {}
    sums = {name: mean[name] / masked.factor for name in rule.sums if name in mean}
    rest = {name: value for name, value in mean.items() if name not in sums}
    return rest or None, sums


def withhold(masked: MaskedSum, weights: Mapping[int, ClientWeight]) -> dict[int, ClientWeight]:
    """The same, with a weight of 0 in rows that the sum would show to be one client's."""
    heads = {c: {"": w.classes} for c, w in weights.items() if w.classes is not None}
    heads = _withhold(masked, heads)
    sums = _withhold(masked, {c: w.sums for c, w in weights.items() if w.sums})
    return {
        client: replace(weight, classes=heads.get(client, {}).get(""), sums=sums.get(client, {}))
        for client, weight in weights.items()
    }


def _withhold(
    masked: MaskedSum, rows: Mapping[int, Mapping[str, Tensor]]
) -> dict[int, dict[str, Tensor]]:
    """Client -> name -> ``(C,)`` weights."""
    found: dict[int, dict[str, Tensor]] = {client: {} for client in rows}
    for name in next(iter(rows.values()), {}):
        hidden = masked.withheld({client: own[name].tolist() for client, own in rows.items()})
        where = torch.tensor(hidden, dtype=torch.int64)
        for client, own in rows.items():
            found[client][name] = own[name].index_fill(0, where.to(own[name].device), 0)
    return found
