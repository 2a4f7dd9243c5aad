"""Dialogues that a client keeps back for validation."""

from collections.abc import Sequence

from fedmer.data.partition import ClientPartition, Sample
from fedmer.seeds import generator

FEWEST = 5
"""A client with fewer dialogues than this keeps none back."""


def hold_out(
    clients: Sequence[ClientPartition], fraction: float, seed: int
) -> tuple[list[ClientPartition], list[list[Sample]]]:
    """Split every client's dialogues into those to learn from and those kept back.

    A client of ``n >= 5`` dialogues keeps back ``round(fraction * n)`` of them, but at least one
    and never all. All clients draw from one ranking of the corpus's dialogues, so that clients who
    sample a dialogue tend to keep back the same ones.

    Args:
        clients: Everything they hold.
        fraction: In [0, 1); 0 keeps nothing back.
        seed: Where the ranking comes from.

    Returns:
        The clients with what is left, and for each of them what is kept back.
    """
    if fraction == 0:
        return list(clients), [[] for _ in clients]
    last = max((sample.dialogue for client in clients for sample in client.samples), default=0)
    rank = generator(seed, "holdout").permutation(last + 1)
    kept, held = [], []
    for client in clients:
        size = len(client.samples)
        count = min(max(1, round(fraction * size)), size - 1) if size >= FEWEST else 0
        ranked = sorted(client.samples, key=lambda sample: int(rank[sample.dialogue]))
        chosen = {sample.dialogue for sample in ranked[:count]}
        kept.append(
            ClientPartition(client.name, [s for s in client.samples if s.dialogue not in chosen])
        )
        held.append([sample for sample in client.samples if sample.dialogue in chosen])
    return kept, held
