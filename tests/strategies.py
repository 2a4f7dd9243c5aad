"""Hypothesis strategies that other tests build on."""

from collections.abc import Mapping, Sequence

import numpy as np
from hypothesis import strategies as st

from fedmer.data.corpus import UNLABELLED, Conversation, ConversationCorpus
from fedmer.seeds import generator

PEOPLE = ("Ann", "Ben", "Cleo", "Dan")
MODALITIES = {"text": 3, "audio": 2}

Turn = tuple[str, int]
"""Who speaks, and the label."""


def make_conversation(
    id: str,
    turns: Sequence[Turn],
    *,
    split: str = "train",
    session: str = "",
    modalities: Mapping[str, int] = MODALITIES,
    seed: int = 0,
) -> Conversation:
    """A dialogue with the given speakers and labels, and random features.

    About every tenth row of every modality is absent, hence zero.
    """
    random = generator(seed, "features", id)
    size = len(turns)
    present = {name: random.random(size) > 0.1 for name in modalities}
    features = {
        name: (random.standard_normal((size, width)) * present[name][:, None]).astype(np.float32)
        for name, width in modalities.items()
    }
    return Conversation(
        id=id,
        features=features,
        present=present,
        speakers=np.array([person for person, _ in turns]),
        labels=np.array([label for _, label in turns], dtype=np.int64),
        split=split,
        session=session,
    )


def corpus_of(conversations: Sequence[Conversation], classes: int = 4) -> ConversationCorpus:
    """A corpus with ``classes`` emotions, called e0, e1, ..."""
    return ConversationCorpus("made up", conversations, [f"e{c}" for c in range(classes)])


def random_corpus(
    seed: int, *, dialogues: int, turns: int, classes: int = 6, modalities: Mapping[str, int]
) -> ConversationCorpus:
    """Equally long training dialogues of two speakers out of twenty, all utterances labelled."""
    random = generator(seed, "corpus")
    conversations = []
    for index in range(dialogues):
        pair = random.choice(20, size=2, replace=False)
        people = [f"person {p:02}" for p in pair[random.integers(0, 2, turns)]]
        labels = random.integers(0, classes, turns).tolist()
        conversations.append(
            make_conversation(
                f"d{index}",
                list(zip(people, labels, strict=True)),
                session=f"s{index % 4}",
                modalities=modalities,
            )
        )
    return corpus_of(conversations, classes)


@st.composite
def corpora(
    draw: st.DrawFn,
    *,
    max_dialogues: int = 6,
    max_turns: int = 8,
    max_classes: int = 4,
    sessions: bool = True,
    modalities: Mapping[str, int] = MODALITIES,
) -> ConversationCorpus:
    """Small corpora with at least one training dialogue, in any order of train, val and test.

    Utterances without a label, speakers without a label, monologues and emotions that training
    lacks all occur.
    """
    classes = draw(st.integers(2, max_classes))
    turn = st.tuples(st.sampled_from(PEOPLE), st.integers(UNLABELLED, classes - 1))
    dialogue = st.lists(turn, min_size=1, max_size=max_turns).filter(
        lambda turns: any(label != UNLABELLED for _, label in turns)
    )
    count = draw(st.integers(1, max_dialogues))
    splits = draw(st.permutations(["train"] * count + draw(st.sampled_from(OTHER_PARTS))))
    conversations = [
        make_conversation(
            f"d{index}",
            draw(dialogue),
            split=split,
            session=draw(st.sampled_from(["s1", "s2", "s3"])) if sessions else "",
            modalities=modalities,
        )
        for index, split in enumerate(splits)
    ]
    return corpus_of(conversations, classes)


OTHER_PARTS: list[list[str]] = [[], ["val"], ["test"], ["val", "test"], ["test", "test"]]
