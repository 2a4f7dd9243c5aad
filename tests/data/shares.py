"""Hypothesis strategies for shares that no split would make, but that may be."""

import numpy as np
from hypothesis import strategies as st

from fedmer.data.corpus import UNLABELLED, ConversationCorpus
from fedmer.data.share import ClientShares, Share


@st.composite
def shares(draw: st.DrawFn, corpus: ConversationCorpus, dialogue: int) -> Share:
    """Any share of a dialogue: any K and M, any listener, gaps kept or closed."""
    talk = corpus.conversations[dialogue]
    mask = st.lists(st.booleans(), min_size=len(talk), max_size=len(talk)).map(np.array)
    can = talk.labels != UNLABELLED
    sure = draw(st.sampled_from(np.flatnonzero(can).tolist()))
    context, labelled = draw(mask), draw(mask)
    context[sure] = labelled[sure] = True
    listener = draw(st.sampled_from([None, *talk.people]))
    return Share(dialogue, context, labelled & context & can, listener, draw(st.booleans()))


@st.composite
def clients(draw: st.DrawFn, corpus: ConversationCorpus) -> list[ClientShares]:
    """One to four clients, each with any shares of some of the training dialogues."""
    train = st.sampled_from(corpus.part("train"))
    return [
        ClientShares(
            f"client {number}",
            [
                draw(shares(corpus, dialogue))
                for dialogue in draw(st.lists(train, min_size=1, max_size=4, unique=True))
            ],
        )
        for number in range(draw(st.integers(1, 4)))
    ]
