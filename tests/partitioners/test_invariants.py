"""What must hold of every split, whatever the corpus (METHOD, section 6)."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedmer.contracts.partitioner import Partitioner
from fedmer.data.corpus import UNLABELLED, ConversationCorpus
from fedmer.data.partition import ClientPartition
from fedmer.errors import InputError
from fedmer.plugins.partitioners.central import Central
from fedmer.plugins.partitioners.dialogue import Dialogue
from fedmer.plugins.partitioners.dirichlet import Dirichlet
from fedmer.plugins.partitioners.n_way import NWay
from fedmer.plugins.partitioners.session import Session
from fedmer.plugins.partitioners.speaker import Speaker
from fedmer.plugins.partitioners.speaker_group import SpeakerGroup
from fedmer.plugins.partitioners.speaker_private import SpeakerPrivate
from fedmer.plugins.partitioners.virtual_speaker import VirtualSpeaker
from fedmer.plugins.registry import plugins
from tests.partitioners.counting import n_way_fits, training_labels
from tests.strategies import corpora, corpus_of, make_conversation, random_corpus

SEEDS = st.integers(0, 1000)
ALPHAS = st.sampled_from([1e-300, 0.05, 0.5, 5.0, 1e300])


def pairs(corpus: ConversationCorpus) -> list[str]:
    """The speaker of every pair of a speaker and a training dialogue with labels of theirs."""
    conversations = [corpus.conversations[d] for d in corpus.part("train")]
    return [
        p for t in conversations for p in sorted(set(t.speakers[t.labels != UNLABELLED].tolist()))
    ]


def central(corpus: ConversationCorpus, data: st.DataObject) -> Partitioner:
    return Central()


def session(corpus: ConversationCorpus, data: st.DataObject) -> Partitioner:
    return Session()


def speaker(corpus: ConversationCorpus, data: st.DataObject) -> Partitioner:
    return Speaker()


def speaker_private(corpus: ConversationCorpus, data: st.DataObject) -> Partitioner:
    return SpeakerPrivate(keep_gaps=data.draw(st.booleans()))


def speaker_group(corpus: ConversationCorpus, data: st.DataObject) -> Partitioner:
    return SpeakerGroup(data.draw(st.integers(1, len(set(pairs(corpus))))))


def virtual_speaker(corpus: ConversationCorpus, data: st.DataObject) -> Partitioner:
    possible = pairs(corpus)
    return VirtualSpeaker(data.draw(st.integers(len(set(possible)), len(possible))))


def dialogue(corpus: ConversationCorpus, data: st.DataObject) -> Partitioner:
    clients = data.draw(st.integers(1, len(corpus.part("train"))))
    return Dialogue(clients, data.draw(st.none() | ALPHAS))


def dirichlet(corpus: ConversationCorpus, data: st.DataObject) -> Partitioner:
    clients = data.draw(st.integers(1, training_labels(corpus).total()))
    return Dirichlet(clients, data.draw(ALPHAS))


def n_way(corpus: ConversationCorpus, data: st.DataObject) -> Partitioner:
    counts = training_labels(corpus)
    ways, spread = data.draw(st.integers(2, 4)), data.draw(st.integers(0, 2))
    possible = [n for n in range(1, counts.total() + 1) if n_way_fits(counts, n, ways, spread)]
    assume(possible)
    return NWay(data.draw(st.sampled_from(possible)), ways, spread)


MAKERS = [
    central,
    session,
    speaker,
    speaker_private,
    speaker_group,
    virtual_speaker,
    dialogue,
    dirichlet,
    n_way,
]
every_split = pytest.mark.parametrize("make", MAKERS)
Maker = Callable[[ConversationCorpus, st.DataObject], Partitioner]


def flat(clients: Sequence[ClientPartition]) -> list[tuple[object, ...]]:
    """A split as plain values, to compare."""
    return [
        (c.name, s.dialogue, s.listener, s.keep_gaps, s.context.tobytes(), s.labelled.tobytes())
        for c in clients
        for s in c.samples
    ]


def test_every_built_in_split_is_tested_here() -> None:
    tested = {make.__name__.replace("_", "") for make in MAKERS}
    assert tested == {p.name.lower() for p in plugins("partitioners") if p.package == "fedmer"}


@every_split
@settings(max_examples=60, deadline=None)
@given(corpus=corpora(), data=st.data(), seed=SEEDS)
def test_every_training_label_is_on_exactly_one_client(
    make: Maker, corpus: ConversationCorpus, data: st.DataObject, seed: int
) -> None:
    clients = make(corpus, data).split(corpus, corpus.part("train"), seed)
    owners = {d: np.zeros(len(corpus.conversations[d]), int) for d in corpus.part("train")}
    for client in clients:
        assert client.examples >= 1
        dialogues = [s.dialogue for s in client.samples]
        assert dialogues == sorted(set(dialogues))
        assert set(dialogues) <= set(owners)
        for sample in client.samples:
            assert not (sample.labelled & ~sample.context).any()
            owners[sample.dialogue] += sample.labelled
    for index, count in owners.items():
        assert (count == (corpus.conversations[index].labels != UNLABELLED)).all()
    assert len({client.name for client in clients}) == len(clients)


@every_split
@settings(max_examples=20, deadline=None)
@given(corpus=corpora(), data=st.data(), seed=SEEDS)
def test_a_split_depends_on_corpus_and_seed_only(
    make: Maker, corpus: ConversationCorpus, data: st.DataObject, seed: int
) -> None:
    split = make(corpus, data)
    dialogues = corpus.part("train")
    expected = flat(split.split(corpus, dialogues, seed))
    assert flat(split.split(corpus, dialogues, seed)) == expected
    assert flat(split.split(corpus, dialogues[::-1], seed)) == expected


@every_split
@settings(max_examples=20, deadline=None)
@given(corpus=corpora(), data=st.data())
def test_views_partition_the_labels_of_a_dialogue(
    make: Maker, corpus: ConversationCorpus, data: st.DataObject
) -> None:
    split = make(corpus, data)
    for index, conversation in enumerate(corpus.conversations):
        views = split.views(corpus, index)
        assert {view.dialogue for view in views} == {index}
        seen = np.sum([view.labelled for view in views], axis=0)
        assert (seen == (conversation.labels != UNLABELLED)).all()


@pytest.mark.parametrize(
    "split",
    [VirtualSpeaker(30), Dialogue(5), Dialogue(5, 0.5), Dirichlet(5), NWay(5)],
    ids=lambda split: type(split).__name__,
)
def test_another_seed_is_another_split(split: Partitioner) -> None:
    corpus = random_corpus(0, dialogues=20, turns=10, modalities={"text": 1})
    made = {str(flat(split.split(corpus, corpus.part("train"), seed))) for seed in range(5)}
    assert len(made) == 5


@every_split
def test_a_corpus_without_training_dialogues_is_refused(make: Maker) -> None:
    corpus = corpus_of([make_conversation("d", [("Ann", 0)], split="test")])
    split: Partitioner = {
        "central": Central(),
        "session": Session(),
        "speaker": Speaker(),
        "speaker_private": SpeakerPrivate(),
        "speaker_group": SpeakerGroup(1),
        "virtual_speaker": VirtualSpeaker(1),
        "dialogue": Dialogue(1),
        "dirichlet": Dirichlet(1),
        "n_way": NWay(1),
    }[make.__name__]
    with pytest.raises(InputError, match="no training dialogues"):
        split.split(corpus, corpus.part("train"), 0)


@pytest.mark.parametrize("split", [SpeakerGroup, VirtualSpeaker, Dialogue, Dirichlet, NWay])
@pytest.mark.parametrize("clients", [0, -3])
def test_no_clients_are_refused(split: Callable[[int], Partitioner], clients: int) -> None:
    with pytest.raises(InputError, match=rf"^clients is {clients}; expected at least 1\.$"):
        split(clients)
