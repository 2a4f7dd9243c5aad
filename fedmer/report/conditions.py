"""What conditions do to clients, as a table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from fedmer.conditions import ClientConditions
from fedmer.data.client_data import ClientData
from fedmer.printable import printable

if TYPE_CHECKING:
    from rich.table import Table


def conditions_table(
    conditions: ClientConditions, before: Sequence[ClientData], after: Sequence[ClientData]
) -> "Table":
    """One row a client that a condition holds for: which, and what became of its utterances.

    Args:
        conditions: Of the run.
        before: All clients as they were split.
        after: The same under the conditions.

    Returns:
        A table for :class:`fedmer.console.Console`.
    """
    from rich.table import Table

    bad = [number for number in range(len(before)) if conditions.of(number)]
    clients = f"{len(bad)} of {len(before)} clients"
    title = f"conditions hold for {clients}; of their utterances to learn from"
    table = Table(title=title, title_justify="left")
    table.add_column("", justify="right")
    for name in ("client", "conditions"):
        table.add_column(name)
    for name in ("labels", "other labels", "labels gone", "other features"):
        table.add_column(name, justify="right")
    for number in bad:
        names = ", ".join(conditions.of(number))
        counts = _changes(before[number], after[number])
        table.add_row(str(number), printable(before[number].name), names, *map(str, counts))
    return table


def _changes(before: ClientData, after: ClientData) -> tuple[int, int, int, int]:
    """Labelled utterances, how many of them are labelled otherwise and not at all, and how many
    utterances that are left have other features."""
    left = {part.dialogue: part for part in after.train}
    labels = features = 0
    for part in before.train:
        now = left.get(part.dialogue)
        if now is not None:
            labels += int((part.labelled & now.labelled & (part.labels != now.labels)).sum())
            other = torch.zeros(len(part), dtype=torch.bool)
            for name, rows in part.features.items():
                other |= (rows != now.features[name]).any(dim=1)
            features += int(other.sum())
    return before.examples, labels, before.examples - after.examples, features
