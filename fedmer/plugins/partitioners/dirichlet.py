"""Utterances, in proportions that differ by emotion."""

from collections.abc import Sequence

import numpy as np

from fedmer.contracts.partitioner import Partitioner
from fedmer.data.corpus import ConversationCorpus
from fedmer.data.partition import ClientPartition
from fedmer.plugins.partitioners._assign import (
    check_alpha,
    check_clients,
    check_enough,
    dirichlet_owners,
    fill_empty,
    labelled_turns,
    samples_by_owner,
    training,
)
from fedmer.seeds import generator


class Dirichlet(Partitioner):
    """Each emotion's utterances are split over clients by Dir(alpha): the usual non-IID knob.

    The clients' parts of each emotion are drawn independently from Dir(alpha) (Hsu et al. 2019,
    arXiv 1909.06335; Yurochkin et al. 2019, arXiv 1905.12022), so both what clients hold and how
    much of it differ. A client left without an utterance then takes one from whoever has the most.
    A client has every dialogue that it has an utterance of as context, and its own utterances'
    labels only.

    Args:
        clients: How many there are.
        alpha: Small is skewed (0.1), large is alike (100).

    Raises:
        InputError: ``clients`` is below 1, or ``alpha`` not a finite number above 0.
    """

    def __init__(self, clients: int = 20, alpha: float = 0.5) -> None:
        check_clients(clients)
        check_alpha(alpha)
        self.clients = clients
        self.alpha = alpha

    def split(
        self, corpus: ConversationCorpus, dialogues: Sequence[int], seed: int
    ) -> list[ClientPartition]:
        """See :meth:`Partitioner.split`.

        Raises:
            InputError: There are more clients than labelled training utterances.
        """
        turns = labelled_turns(corpus, training(dialogues))
        check_enough(self.clients, len(turns), "utterances with a label")
        random = generator(seed, "partition")
        owner = np.empty(len(turns), dtype=np.int64)
        for emotion in np.unique(turns.label):
            members = np.flatnonzero(turns.label == emotion)
            owner[members] = dirichlet_owners(random, len(members), self.clients, self.alpha)
        return samples_by_owner(corpus, turns, fill_empty(owner, self.clients), self.clients)
