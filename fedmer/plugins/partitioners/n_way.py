"""A few emotions a client, the others never seen."""

from collections import deque
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedmer.contracts.partitioner import Partitioner
from fedmer.data.corpus import ConversationCorpus
from fedmer.data.partition import ClientPartition
from fedmer.errors import InputError
from fedmer.plugins.partitioners._assign import (
    check_clients,
    check_enough,
    labelled_turns,
    samples_by_owner,
    training,
)
from fedmer.seeds import generator


class NWay(Partitioner):
    """Each client knows a few random emotions only: the setting of FedProto and of the paper.

    Client ``i`` has ``n_i`` emotions, a random integer in ``[max(2, ways - spread),
    min(C, ways + spread)]`` for ``C`` emotions that occur in training (Tan et al., AAAI 2022, whose
    code calls the spread ``stdev``). An emotion's utterances are split evenly, at random, over the
    clients that hold it. A client has every dialogue that it has an utterance of as context.

    Draws that the corpus cannot serve are mended, and no others: an emotion has at most as many
    holders as utterances, so surplus holders change to another emotion or, if there is none left,
    go without (``n_i`` shrinks, within its range); an emotion nobody drew replaces the most widely
    held one at one client, or is added to a client.

    Args:
        clients: How many there are.
        ways: Emotions a client, in the middle.
        spread: How many more or fewer it may be.

    Raises:
        InputError: ``clients`` is below 1, ``ways`` below 2 or ``spread`` below 0.
    """

    def __init__(self, clients: int = 20, ways: int = 3, spread: int = 2) -> None:
        check_clients(clients)
        if ways < 2:
            raise InputError(f"ways is {ways}; expected at least 2 emotions a client.")
        if spread < 0:
            raise InputError(f"spread is {spread}; expected 0 or more.")
        self.clients = clients
        self.ways = ways
        self.spread = spread

    def split(
        self, corpus: ConversationCorpus, dialogues: Sequence[int], seed: int
    ) -> list[ClientPartition]:
        """See :meth:`Partitioner.split`.

        Raises:
            InputError: There are more clients than labelled training utterances, too few emotions
                or utterances for the clients, or too few clients for the emotions.
        """
        turns = labelled_turns(corpus, training(dialogues))
        check_enough(self.clients, len(turns), "utterances with a label")
        emotions, label, utterances = np.unique(
            turns.label, return_inverse=True, return_counts=True
        )
        low = max(2, self.ways - self.spread)
        high = min(len(emotions), self.ways + self.spread)
        self._check_possible(utterances, low, high)

        random = generator(seed, "partition")
        ways = random.integers(low, high, size=self.clients, endpoint=True)
        ranks = random.random((self.clients, len(emotions))).argsort(axis=1).argsort(axis=1)
        held = ranks < ways[:, None]
        _relieve_scarce(held, utterances, low, random)
        _adopt_unowned(held, high, random)

        owner = np.empty(len(turns), dtype=np.int64)
        for emotion in range(len(emotions)):
            members = random.permutation(np.flatnonzero(label == emotion))
            holders = random.permutation(np.flatnonzero(held[:, emotion]))
            owner[members] = holders[np.arange(len(members)) % len(holders)]
        return samples_by_owner(corpus, turns, owner, self.clients)

    def _check_possible(self, utterances: NDArray[np.int64], low: int, high: int) -> None:
        """Refuse what no draw could serve; what passes, ``split`` can always do.

        ``clients`` rows of ``low`` ones each fit under column sums of at most ``u`` exactly if
        ``sum(min(u, clients)) >= low * clients`` (Gale and Ryser, 1957, for equal rows).
        """
        emotions = len(utterances)
        if emotions < low:
            raise InputError(
                f"ways is {self.ways} with spread {self.spread}, so a client needs at least {low} "
                f"emotions, but only {emotions} occur(s) in the training dialogues; "
                "use Dirichlet, or fewer ways."
            )
        places = int(np.minimum(utterances, self.clients).sum())
        if places < low * self.clients:
            raise InputError(
                f"clients is {self.clients} and each needs an utterance of at least {low} "
                f"emotions, {low * self.clients} in all, but the training utterances allow "
                f"{places} (the rarest emotion has {utterances.min()}); ask for fewer clients."
            )
        if high * self.clients < emotions:
            raise InputError(
                f"clients is {self.clients} with at most {high} emotions each, but {emotions} "
                "emotions occur in the training dialogues and each needs a client; "
                "ask for more clients or more ways."
            )


def _relieve_scarce(
    held: NDArray[np.bool_],
    utterances: NDArray[np.int64],
    low: int,
    random: np.random.Generator,
) -> None:
    """Change ``held``, ``(clients, C)``, until no emotion has more holders than utterances.

    Where no holder can change straight to an emotion with room, others make room for it: a flow
    through the emotions, many clients a step, so that thousands of clients cost few steps.
    """
    while (surplus := held.sum(axis=0) - utterances).max() > 0:
        start = int(surplus.argmax())
        free = np.maximum(-surplus, 0)
        path = _shortest(held, start, free > 0)
        droppable = held & (held.sum(axis=1) > low)[:, None]
        drops = not path
        if drops:
            free = droppable.sum(axis=0)
            path = _shortest(held, start, free > 0)
        end = path[-1]
        changes = [(a, b, np.flatnonzero(held[:, a] & ~held[:, b])) for a, b in pairwise(path)]
        amount = min(int(surplus[start]), int(free[end]), *(len(able) for _, _, able in changes))
        if drops:
            able = np.flatnonzero(droppable[:, end])
            held[random.choice(able, amount, replace=False), end] = False
        for a, b, able in changes:
            moved = random.choice(able, amount, replace=False)
            held[moved, a] = False
            held[moved, b] = True


def _shortest(held: NDArray[np.bool_], start: int, ends: NDArray[np.bool_]) -> list[int]:
    """Emotions from ``start`` to one of ``ends``, each held by a client without the next, or []."""
    paths = deque([[start]])
    seen = {start}
    while paths:
        path = paths.popleft()
        if ends[path[-1]]:
            return path
        reachable = (held[:, path[-1], None] & ~held).any(axis=0)
        for emotion in np.flatnonzero(reachable).tolist():
            if emotion not in seen:
                seen.add(emotion)
                paths.append([*path, emotion])
    return []


def _adopt_unowned(held: NDArray[np.bool_], high: int, random: np.random.Generator) -> None:
    """Change ``held``, ``(clients, C)``, until every emotion has a holder."""
    for emotion in np.flatnonzero(~held.any(axis=0)):
        holders = held.sum(axis=0)
        common = int(holders.argmax())
        if holders[common] > 1:
            client = random.choice(np.flatnonzero(held[:, common]))
            held[client, common] = False
        else:
            client = random.choice(np.flatnonzero(held.sum(axis=1) < high))
        held[client, emotion] = True
