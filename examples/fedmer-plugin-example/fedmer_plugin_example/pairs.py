"""Two dialogues a client."""

from collections.abc import Sequence

from fedmer.contracts import Partitioner
from fedmer.data.corpus import ConversationCorpus
from fedmer.data.partition import ClientPartition, whole


class Pairs(Partitioner):
    """Every two dialogues in a row are a client; the last one may have one alone."""

    def split(
        self, corpus: ConversationCorpus, dialogues: Sequence[int], seed: int
    ) -> list[ClientPartition]:
        samples = [whole(corpus.conversations[index], index) for index in dialogues]
        pairs = [samples[start : start + 2] for start in range(0, len(samples), 2)]
        return [ClientPartition(f"pair-{place}", pair) for place, pair in enumerate(pairs)]
