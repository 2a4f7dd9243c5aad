"""A client for every person, who hears the others."""

from collections.abc import Sequence

import numpy as np

from fedmer.contracts.partitioner import Partitioner
from fedmer.data.corpus import UNLABELLED, Conversation, ConversationCorpus
from fedmer.data.partition import ClientPartition, Sample
from fedmer.errors import InputError
from fedmer.plugins.partitioners._assign import training


class Speaker(Partitioner):
    """Each speaker is a client that hears whole dialogues and knows its own labels.

    The device of a speaker heard the partners too, so their features are context, but what they
    felt is hidden from it. A dialogue is on as many clients as it has speakers, each of its labels
    on one. Clients are in the order of the speakers' names.

    Args:
        min_utterances: Speakers with fewer labelled training utterances get no client, and those
            utterances are then learnt by nobody.

    Raises:
        InputError: ``min_utterances`` is below 1.
    """

    def __init__(self, min_utterances: int = 1) -> None:
        if min_utterances < 1:
            raise InputError(f"min_utterances is {min_utterances}; expected at least 1.")
        self.min_utterances = min_utterances

    def split(
        self, corpus: ConversationCorpus, dialogues: Sequence[int], seed: int
    ) -> list[ClientPartition]:
        """See :meth:`Partitioner.split`; nothing is random.

        Raises:
            InputError: No speaker has ``min_utterances`` labelled training utterances.
        """
        people = [
            ClientPartition(person, samples)
            for person, samples in sorted(self.by_person(corpus, dialogues).items())
        ]
        clients = [person for person in people if person.examples >= self.min_utterances]
        if not clients:
            raise InputError(
                f"min_utterances is {self.min_utterances}, but no speaker has more than "
                f"{max(person.examples for person in people)} labelled training utterances; "
                "ask for fewer."
            )
        return clients

    def views(self, corpus: ConversationCorpus, dialogue: int) -> list[Sample]:
        """One sample a speaker with labelled utterances, in the order in which they first speak."""
        conversation = corpus.conversations[dialogue]
        labelled = set(conversation.speakers[conversation.labels != UNLABELLED].tolist())
        return [
            self.sample(conversation, dialogue, p) for p in conversation.people if p in labelled
        ]

    def by_person(
        self, corpus: ConversationCorpus, dialogues: Sequence[int]
    ) -> dict[str, list[Sample]]:
        """Speaker -> that speaker's sample of every dialogue with a labelled utterance of
        theirs."""
        people: dict[str, list[Sample]] = {}
        for index in training(dialogues):
            for sample in Speaker.views(self, corpus, index):
                people.setdefault(str(sample.listener), []).append(sample)
        return people

    def sample(self, conversation: Conversation, dialogue: int, person: str) -> Sample:
        """What ``person`` holds of a dialogue of ``N`` turns: all as context, own labels."""
        own = conversation.speakers == person
        context = np.ones(len(conversation), dtype=bool)
        return Sample(dialogue, context, own & (conversation.labels != UNLABELLED), listener=person)
