"""Everything in one place."""

from collections.abc import Sequence

from fedmer.contracts.partitioner import Partitioner
from fedmer.data.corpus import ConversationCorpus
from fedmer.data.partition import ClientPartition, whole
from fedmer.plugins.partitioners._assign import training


class Central(Partitioner):
    """One client holds every training dialogue: no federation, the upper end of a table."""

    def split(
        self, corpus: ConversationCorpus, dialogues: Sequence[int], seed: int
    ) -> list[ClientPartition]:
        """See :meth:`Partitioner.split`; nothing is random."""
        samples = [whole(corpus.conversations[d], d) for d in training(dialogues)]
        return [ClientPartition("central", samples)]
