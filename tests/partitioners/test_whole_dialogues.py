"""Splits that keep dialogues whole: Central, Session, Dialogue."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.contracts.partitioner import Partitioner
from fedmer.data.corpus import UNLABELLED, ConversationCorpus
from fedmer.errors import InputError
from fedmer.plugins.partitioners.central import Central
from fedmer.plugins.partitioners.dialogue import Dialogue
from fedmer.plugins.partitioners.session import Session
from tests.strategies import corpora, corpus_of, make_conversation


@pytest.mark.parametrize("split", [Central(), Session(), Dialogue(1), Dialogue(1, 0.1)])
@settings(max_examples=20, deadline=None)
@given(corpus=corpora())
def test_dialogues_stay_whole(split: Partitioner, corpus: ConversationCorpus) -> None:
    for client in split.split(corpus, corpus.part("train"), 0):
        for sample in client.samples:
            labels = corpus.conversations[sample.dialogue].labels
            assert sample.context.all()
            assert (sample.labelled == (labels != UNLABELLED)).all()
            assert sample.listener is None


@settings(max_examples=20, deadline=None)
@given(corpus=corpora())
def test_central_is_one_client_and_session_one_a_session(corpus: ConversationCorpus) -> None:
    train = corpus.part("train")
    (client,) = Central().split(corpus, train, 0)
    assert [sample.dialogue for sample in client.samples] == train
    sessions = Session().split(corpus, train, 0)
    assert [c.name for c in sessions] == sorted({corpus.conversations[d].session for d in train})
    for site in sessions:
        assert {corpus.conversations[s.dialogue].session for s in site.samples} == {site.name}


def test_session_refuses_a_corpus_without_sessions() -> None:
    corpus = corpus_of(
        [make_conversation("a", [("Ann", 0)], session="s"), make_conversation("b", [("B", 1)])]
    )
    with pytest.raises(InputError, match="dialogue 'b' has no session"):
        Session().split(corpus, [0, 1], 0)


@settings(max_examples=40, deadline=None)
@given(corpus=corpora(max_dialogues=12, max_turns=3), seed=st.integers(0, 99), data=st.data())
def test_dealt_dialogues_are_even_to_within_one(
    corpus: ConversationCorpus, seed: int, data: st.DataObject
) -> None:
    train = corpus.part("train")
    count = data.draw(st.integers(1, len(train)))
    sizes = [len(c.samples) for c in Dialogue(count).split(corpus, train, seed)]
    assert len(sizes) == count
    assert max(sizes) - min(sizes) <= 1


def test_alpha_is_how_alike_clients_are() -> None:
    conversations = [make_conversation(f"d{i}", [("Ann", i % 4)] * 3) for i in range(200)]
    corpus = corpus_of(conversations)

    def purity(alpha: float) -> float:
        """The mean part of a client's commonest emotion: from 1/4 to 1."""
        parts = []
        for client in Dialogue(10, alpha).split(corpus, corpus.part("train"), 0):
            emotions = [corpus.conversations[s.dialogue].labels[0] for s in client.samples]
            parts.append(np.bincount(emotions).max() / len(emotions))
        return float(np.mean(parts))

    assert purity(1000) < 0.35 < 0.45 < purity(0.5) < 0.85 < purity(0.01)


@pytest.mark.parametrize("alpha", [None, 0.5])
def test_more_clients_than_dialogues_are_refused(alpha: float | None) -> None:
    corpus = corpus_of([make_conversation(f"d{i}", [("Ann", 0)]) for i in range(3)])
    assert len(Dialogue(3, alpha).split(corpus, [0, 1, 2], 0)) == 3
    with pytest.raises(InputError, match="clients is 4, but there are only 3 training dialogues"):
        Dialogue(4, alpha).split(corpus, [0, 1, 2], 0)


@pytest.mark.parametrize("alpha", [0, -1, float("nan"), float("inf")])
def test_an_impossible_alpha_is_refused(alpha: float) -> None:
    with pytest.raises(InputError, match=f"alpha is {alpha}; expected a finite number above 0"):
        Dialogue(alpha=alpha)
