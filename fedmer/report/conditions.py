"""What conditions do to clients and to the test part, as a table."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch

from fedmer.conditions import ClientConditions
from fedmer.data.batch import Excerpt
from fedmer.data.client_data import ClientData
from fedmer.printable import printable

if TYPE_CHECKING:
    from rich.table import Table


def conditions_table(
    conditions: ClientConditions,
    before: Sequence[ClientData],
    after: Sequence[ClientData],
    test: Sequence[Excerpt] = (),
) -> "Table":
    """One row a client that a condition holds for: which, and what became of its utterances.

    A last row is the test part, where a condition changes that.

    Args:
        conditions: Of the run.
        before: All clients as they were split.
        after: The same under the conditions.
        test: The test part as it is without them.

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
    for name in ("labels", "other labels", "labels gone", "other features", "modalities missing"):
        table.add_column(name, justify="right")
    for number in bad:
        names = ", ".join(conditions.of(number))
        left = {part.dialogue: part for part in after[number].train}
        pairs = [(part, left.get(part.dialogue)) for part in before[number].train]
        table.add_row(str(number), printable(before[number].name), names, *_counts(pairs))
    if conditions.at_test and test:
        pairs = list(zip(test, conditions.tested(test), strict=True))
        table.add_row("", "test", ", ".join(conditions.at_test), *_counts(pairs))
    return table


def _counts(pairs: Iterable[tuple[Excerpt, Excerpt | None]]) -> list[str]:
    """Labels, how many of them are others and how many are gone; and utterances that have other
    features, and that have lost a modality, of those that are left."""
    labels = others = gone = features = missing = 0
    for before, after in pairs:
        labels += int(before.labelled.sum())
        if after is None:
            gone += int(before.labelled.sum())
            continue
        gone += int((before.labelled & ~after.labelled).sum())
        others += int((before.labelled & after.labelled & (before.labels != after.labels)).sum())
        changed, lost = torch.zeros(2, len(before), dtype=torch.bool)
        for name, rows in before.features.items():
            there = after.present[name]
            changed |= (rows != after.features[name]).any(dim=1) & there
            lost |= before.present[name] & ~there
        features += int(changed.sum())
        missing += int(lost.sum())
    return [str(count) for count in (labels, others, gone, features, missing)]
