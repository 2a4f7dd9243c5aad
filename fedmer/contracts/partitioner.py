"""The contract of a split."""

from abc import abstractmethod
from collections.abc import Sequence

from fedmer.contracts.part import PartType
from fedmer.data.corpus import ConversationCorpus
from fedmer.data.partition import ClientPartition, Sample, whole


class Partitioner(metaclass=PartType):
    """Splits the training dialogues of a corpus over clients.

    A split is a pure function of the corpus and the seed. Whatever the split, no client ever
    holds an utterance of a validation or test dialogue, label masks of different clients never
    overlap, and every client has at least one labelled utterance.
    """

    @abstractmethod
    def split(
        self, corpus: ConversationCorpus, dialogues: Sequence[int], seed: int
    ) -> list[ClientPartition]:
        """Hand the labelled utterances of ``dialogues`` to clients.

        Args:
            corpus: The whole corpus.
            dialogues: Indices of the training dialogues.
            seed: All randomness comes from it, through :mod:`fedmer.seeds`.

        Returns:
            One entry a client; a client's id is its place in the list.

        Raises:
            InputError: The corpus cannot be split this way; the message says why.
        """

    def views(self, corpus: ConversationCorpus, dialogue: int) -> list[Sample]:
        """How a dialogue that belongs to no client is seen when the global model is judged on it.

        The label masks of the views partition the dialogue's labelled utterances, so every
        utterance is scored once. By default there is one view, of the whole dialogue; a split by
        speaker gives one view a person, since that is what its clients were trained on.
        """
        return [whole(corpus.conversations[dialogue], dialogue)]
