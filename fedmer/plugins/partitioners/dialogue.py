"""Whole dialogues, dealt to clients."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedmer.contracts.partitioner import Partitioner
from fedmer.data.corpus import UNLABELLED, ConversationCorpus
from fedmer.data.partition import ClientPartition, Sample, whole
from fedmer.plugins.partitioners._assign import (
    check_alpha,
    check_clients,
    check_enough,
    dirichlet_owners,
    fill_empty,
    training,
)
from fedmer.seeds import generator


class Dialogue(Partitioner):
    """Each dialogue lies whole on one client, alike for all (IID) or skewed by emotion (alpha).

    Without ``alpha`` shuffled dialogues are dealt in turn, so that clients have equally many to
    within one. With ``alpha``, dialogues are grouped by their most frequent emotion (of equally
    frequent ones, the lower id); the clients' parts of each group are drawn from Dir(alpha), as in
    Hsu et al. (2019, arXiv 1909.06335) for single examples; a client left without a dialogue then
    takes one from whoever has the most.

    Args:
        clients: How many there are.
        alpha: Small is skewed (0.1), large is alike (100); none is IID.

    Raises:
        InputError: ``clients`` is below 1, or ``alpha`` not a finite number above 0.
    """

    def __init__(self, clients: int = 20, alpha: float | None = None) -> None:
        check_clients(clients)
        if alpha is not None:
            check_alpha(alpha)
        self.clients = clients
        self.alpha = alpha

    def split(
        self, corpus: ConversationCorpus, dialogues: Sequence[int], seed: int
    ) -> list[ClientPartition]:
        """See :meth:`Partitioner.split`.

        Raises:
            InputError: There are more clients than training dialogues.
        """
        indices = training(dialogues)
        check_enough(self.clients, len(indices), "dialogues")
        random = generator(seed, "partition")
        if self.alpha is None:
            owner = random.permutation(np.arange(len(indices)) % self.clients)
        else:
            groups = np.array([_dominant(corpus, index) for index in indices])
            owner = np.empty(len(indices), dtype=np.int64)
            for group in np.unique(groups):
                members = np.flatnonzero(groups == group)
                owner[members] = dirichlet_owners(random, len(members), self.clients, self.alpha)
            owner = fill_empty(owner, self.clients)
        return _clients(corpus, indices, owner, self.clients)


def _dominant(corpus: ConversationCorpus, dialogue: int) -> int:
    labels = corpus.conversations[dialogue].labels
    return int(np.bincount(labels[labels != UNLABELLED]).argmax())


def _clients(
    corpus: ConversationCorpus, dialogues: Sequence[int], owner: NDArray[np.int64], clients: int
) -> list[ClientPartition]:
    samples: list[list[Sample]] = [[] for _ in range(clients)]
    for index, client in zip(dialogues, owner.tolist(), strict=True):
        samples[client].append(whole(corpus.conversations[index], index))
    return [ClientPartition(f"client {i}", held) for i, held in enumerate(samples)]
