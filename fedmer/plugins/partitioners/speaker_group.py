"""A client for every group of people: a clinic, a household."""

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedmer.contracts.partitioner import Partitioner
from fedmer.data.corpus import UNLABELLED, ConversationCorpus
from fedmer.data.partition import ClientPartition
from fedmer.plugins.partitioners._assign import (
    check_clients,
    check_enough,
    labelled_turns,
    samples_by_owner,
    training,
)


class SpeakerGroup(Partitioner):
    """Each client is a group of speakers, a clinic or a household, dealt to be alike in size.

    Speakers are dealt by their labelled training utterances, most first (ties by name), each to the
    group with the fewest utterances so far (ties to the lower id). A group holds every dialogue in
    which
    one of its people has a labelled turn: all of it as context, the labels of its own people only.
    As several people listen, it is seen from the side of whoever speaks first.

    Args:
        clients: How many groups there are.

    Raises:
        InputError: ``clients`` is below 1.
    """

    def __init__(self, clients: int = 4) -> None:
        check_clients(clients)
        self.clients = clients

    def split(
        self, corpus: ConversationCorpus, dialogues: Sequence[int], seed: int
    ) -> list[ClientPartition]:
        """See :meth:`Partitioner.split`; nothing is random.

        Raises:
            InputError: There are more clients than speakers with labelled training utterances.
        """
        indices = training(dialogues)
        conversations = [corpus.conversations[index] for index in indices]
        speakers = np.concatenate(
            [dialogue.speakers[dialogue.labels != UNLABELLED] for dialogue in conversations]
        )
        people, person, counts = np.unique(speakers, return_inverse=True, return_counts=True)
        check_enough(self.clients, len(people), "speakers with labelled utterances")
        owner = _deal(counts, self.clients)[person]
        return samples_by_owner(corpus, labelled_turns(corpus, indices), owner, self.clients)


def _deal(counts: NDArray[np.int64], clients: int) -> NDArray[np.int64]:
    """Give things of some sizes to groups, the largest first, each to the group with the least.

    Args:
        counts: ``(P,)`` sizes, each at least 1; of equally large ones the first goes first.
        clients: Groups, at most ``P``.

    Returns:
        ``(P,)`` int64 in ``[0, clients)``, in which every group occurs.

    >>> _deal(np.array([1, 5, 3, 3]), clients=2).tolist()
    [0, 0, 1, 1]
    """
    owner = np.empty(len(counts), dtype=np.int64)
    groups = [(0, client) for client in range(clients)]
    for thing in np.argsort(-counts, kind="stable").tolist():
        held, client = groups[0]
        owner[thing] = client
        heapq.heapreplace(groups, (held + int(counts[thing]), client))
    return owner
