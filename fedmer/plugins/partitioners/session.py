"""A client for every recording session."""

from collections.abc import Sequence

from fedmer.contracts.partitioner import Partitioner
from fedmer.data.corpus import ConversationCorpus
from fedmer.data.partition import ClientPartition, Sample, whole
from fedmer.errors import InputError
from fedmer.plugins.partitioners._assign import training


class Session(Partitioner):
    """Each recording session is a client that holds its dialogues whole: a few large sites.

    Clients are in the order of the sessions' names. IEMOCAP's training part has four sessions.
    """

    def split(
        self, corpus: ConversationCorpus, dialogues: Sequence[int], seed: int
    ) -> list[ClientPartition]:
        """See :meth:`Partitioner.split`; nothing is random.

        Raises:
            InputError: A training dialogue belongs to no session.
        """
        sessions: dict[str, list[Sample]] = {}
        for index in training(dialogues):
            dialogue = corpus.conversations[index]
            if not dialogue.session:
                raise InputError(
                    f"{corpus.name}: dialogue '{dialogue.id}' has no session; the split "
                    "Session needs a corpus that names one for every dialogue. Use Speaker or "
                    "Dialogue instead."
                )
            sessions.setdefault(dialogue.session, []).append(whole(dialogue, index))
        return [ClientPartition(name, samples) for name, samples in sorted(sessions.items())]
