"""Hypothesis strategies for samples that no split would make, but that may be."""

import numpy as np
from hypothesis import strategies as st

from fedmer.data.corpus import UNLABELLED, ConversationCorpus
from fedmer.data.partition import ClientPartition, Sample


@st.composite
def samples(draw: st.DrawFn, corpus: ConversationCorpus, dialogue: int) -> Sample:
    """Any sample of a dialogue: any K and M, any listener, gaps kept or closed."""
    conversation = corpus.conversations[dialogue]
    mask = st.lists(st.booleans(), min_size=len(conversation), max_size=len(conversation)).map(
        np.array
    )
    can = conversation.labels != UNLABELLED
    sure = draw(st.sampled_from(np.flatnonzero(can).tolist()))
    context, labelled = draw(mask), draw(mask)
    context[sure] = labelled[sure] = True
    listener = draw(st.sampled_from([None, *conversation.people]))
    return Sample(dialogue, context, labelled & context & can, listener, draw(st.booleans()))


@st.composite
def clients(draw: st.DrawFn, corpus: ConversationCorpus) -> list[ClientPartition]:
    """One to four clients, each with any samples of some of the training dialogues."""
    train = st.sampled_from(corpus.part("train"))
    return [
        ClientPartition(
            f"client {number}",
            [
                draw(samples(corpus, dialogue))
                for dialogue in draw(st.lists(train, min_size=1, max_size=4, unique=True))
            ],
        )
        for number in range(draw(st.integers(1, 4)))
    ]
