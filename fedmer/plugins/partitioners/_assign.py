"""What splits have in common: from "who owns this utterance" to what every client holds."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmer.data.corpus import UNLABELLED, ConversationCorpus
from fedmer.data.partition import ClientPartition, Sample
from fedmer.errors import InputError

ALPHA_RANGE = (1e-6, 1e6)
"""Dir(alpha) is one-hot or uniform, to within rounding, beyond these; a sampler overflows there."""


@dataclass(frozen=True, eq=False)
class LabelledTurns:
    """Every labelled utterance of some dialogues, ``T`` in all, in corpus order.

    Args:
        dialogue: ``(T,)`` int64, index into ``corpus.conversations``.
        turn: ``(T,)`` int64, place in that dialogue.
        label: ``(T,)`` int64 in ``[0, classes)``.
    """

    dialogue: NDArray[np.int64]
    turn: NDArray[np.int64]
    label: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.label)


def training(dialogues: Sequence[int]) -> list[int]:
    """The dialogues to split, ascending, so that the order they came in changes nothing.

    Raises:
        InputError: There are none.
    """
    if not dialogues:
        raise InputError(
            "There are no training dialogues to split; expected at least one dialogue in the "
            "corpus with split 'train'."
        )
    return sorted(dialogues)


def labelled_turns(corpus: ConversationCorpus, dialogues: Sequence[int]) -> LabelledTurns:
    """Look up the labelled utterances of ``dialogues``, which must not be empty."""
    places = [np.flatnonzero(corpus.conversations[d].labels != UNLABELLED) for d in dialogues]
    labels = [corpus.conversations[d].labels[p] for d, p in zip(dialogues, places, strict=True)]
    return LabelledTurns(
        dialogue=np.repeat(np.array(dialogues, dtype=np.int64), [len(p) for p in places]),
        turn=np.concatenate(places),
        label=np.concatenate(labels),
    )


def samples_by_owner(
    corpus: ConversationCorpus, turns: LabelledTurns, owner: NDArray[np.int64], clients: int
) -> list[ClientPartition]:
    """Clients that each hold some utterances' labels, and every dialogue they touch as context.

    Args:
        corpus: The whole corpus.
        turns: The ``T`` utterances that are handed out.
        owner: ``(T,)`` int64 in ``[0, clients)``, each client at least once.
        clients: How many there are.
    """
    order = np.lexsort((turns.turn, turns.dialogue, owner))
    dialogue, holder = turns.dialogue[order], owner[order]
    first = np.concatenate([[True], (np.diff(dialogue) != 0) | (np.diff(holder) != 0)])
    # A sample is a dialogue at a client. Its label mask is a slice of one array, since a split over
    # thousands of clients has a million samples.
    sizes = np.array([len(conversation) for conversation in corpus.conversations])
    ends = np.cumsum(sizes[dialogue[first]])
    starts = ends - sizes[dialogue[first]]
    labelled = np.zeros(ends[-1], dtype=bool)
    labelled[starts[np.cumsum(first) - 1] + turns.turn[order]] = True
    context = [np.ones(size, dtype=bool) for size in sizes]
    samples: list[list[Sample]] = [[] for _ in range(clients)]
    for index, client, start, end in zip(
        dialogue[first].tolist(),
        holder[first].tolist(),
        starts.tolist(),
        ends.tolist(),
        strict=True,
    ):
        samples[client].append(Sample(index, context[index], labelled[start:end]))
    return [ClientPartition(f"client {i}", held) for i, held in enumerate(samples)]


def dirichlet_owners(
    random: np.random.Generator, items: int, clients: int, alpha: float
) -> NDArray[np.int64]:
    """Owners of ``items`` things, in proportions ``p ~ Dir(alpha)`` over the clients.

    The things, in random order, are cut where the running sum of ``p`` says, so that a client
    gets ``p_i * items`` of them to within one, and not a second random number around it.

    Returns:
        ``(items,)`` int64 in ``[0, clients)``. Not every client need own something.

    >>> owners = dirichlet_owners(np.random.default_rng(0), 6, 3, alpha=1e6)
    >>> np.bincount(owners).tolist()
    [2, 2, 2]
    """
    bounded = min(max(alpha, ALPHA_RANGE[0]), ALPHA_RANGE[1])
    ends = np.cumsum(random.dirichlet(np.full(clients, bounded)))
    ends[-1] = 1.0
    slots = np.searchsorted(ends, (np.arange(items) + 0.5) / items)
    owners = np.empty(items, dtype=np.int64)
    owners[random.permutation(items)] = slots
    return owners


def fill_empty(owner: NDArray[np.int64], clients: int) -> NDArray[np.int64]:
    """Give every client that owns nothing one thing of whoever then owns the most.

    Of equally large clients the lower id gives, and it gives its last thing.

    Args:
        owner: ``(items,)`` int64 in ``[0, clients)``, with at least ``clients`` items.
        clients: How many there are.

    Returns:
        A changed copy in which every client occurs.

    >>> fill_empty(np.array([0, 0, 0, 2]), clients=3).tolist()
    [0, 0, 1, 2]
    """
    filled = owner.copy()
    sizes = np.bincount(owner, minlength=clients)
    held = np.split(np.argsort(owner, kind="stable"), np.cumsum(sizes)[:-1])
    heap = [(-int(size), client) for client, size in enumerate(sizes)]
    heapq.heapify(heap)
    for empty in np.flatnonzero(sizes == 0):
        negative_size, giver = heap[0]
        filled[held[giver][-negative_size - 1]] = empty
        heapq.heapreplace(heap, (negative_size + 1, giver))
    return filled


def check_clients(clients: int) -> None:
    """Refuse a number of clients that cannot be.

    >>> check_clients(0)
    Traceback (most recent call last):
    fedmer.errors.InputError: clients is 0; expected at least 1.
    """
    if clients < 1:
        raise InputError(f"clients is {clients}; expected at least 1.")


def check_alpha(alpha: float) -> None:
    """Refuse a concentration that no Dirichlet distribution has.

    >>> check_alpha(0)
    Traceback (most recent call last):
    fedmer.errors.InputError: alpha is 0; expected a finite number above 0, such as 0.5.
    """
    if not (math.isfinite(alpha) and alpha > 0):
        raise InputError(f"alpha is {alpha:.12g}; expected a finite number above 0, such as 0.5.")


def check_enough(clients: int, available: int, what: str) -> None:
    """Refuse more clients than there are things to give each one of.

    >>> check_enough(20, 12, "dialogues")
    Traceback (most recent call last):
    fedmer.errors.InputError: clients is 20, but there are only 12 training dialogues and every \
client needs one; ask for at most 12 clients.
    """
    if clients > available:
        raise InputError(
            f"clients is {clients}, but there are only {available} training {what} and every "
            f"client needs one; ask for at most {available} clients."
        )
