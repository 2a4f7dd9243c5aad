"""Dialogues that a client keeps back for validation."""

from collections.abc import Sequence

from fedmer.data.share import ClientShares, Share
from fedmer.seeds import generator

FEWEST = 5
"""A client with fewer dialogues than this keeps none back."""


def hold_out(
    clients: Sequence[ClientShares], fraction: float, seed: int
) -> tuple[list[ClientShares], list[list[Share]]]:
    """Split every client's dialogues into those to learn from and those kept back.

    A client of ``n >= 5`` dialogues keeps back ``round(fraction * n)`` of them, but at least one
    and never all. All clients draw from one ranking of the corpus's dialogues, so that clients who
    share a dialogue tend to keep back the same ones.

    Args:
        clients: Everything they hold.
        fraction: In [0, 1); 0 keeps nothing back.
        seed: Where the ranking comes from.

    Returns:
        The clients with what is left, and for each of them what is kept back.
    """
    if fraction == 0:
        return list(clients), [[] for _ in clients]
    last = max((share.dialogue for client in clients for share in client.shares), default=0)
    rank = generator(seed, "holdout").permutation(last + 1)
    kept, held = [], []
    for client in clients:
        size = len(client.shares)
        count = min(max(1, round(fraction * size)), size - 1) if size >= FEWEST else 0
        ranked = sorted(client.shares, key=lambda share: int(rank[share.dialogue]))
        chosen = {share.dialogue for share in ranked[:count]}
        kept.append(
            ClientShares(client.name, [s for s in client.shares if s.dialogue not in chosen])
        )
        held.append([share for share in client.shares if share.dialogue in chosen])
    return kept, held
